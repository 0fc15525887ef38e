//! What the loop does when its store fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tidegate_broker::TapResult;
use tidegate_cloud_core::{Actor, Controller, How, Request, Snapshot, VersionRecord, Write};
use tidegate_model::ids::{EdgeId, RuleId};
use tidegate_model::placement::Role;
use tidegate_model::version::RuleVersion;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use crate::auth::Credentials;
use crate::events::Events;
use crate::run::{Clock, CoreLink, CoreLoop, FromEdge, Stopped, core_channel};
use crate::store::{Memory, Pending, Store, StoreError};
use crate::transport::Nowhere;

/// A store that can be told to fail, and counts its writes.
#[derive(Default)]
struct Failing {
    memory: Memory,
    fail: AtomicBool,
    batches: AtomicUsize,
}

impl Store for Failing {
    fn load(&self) -> Pending<'_, Snapshot> {
        self.memory.load()
    }

    fn apply(&self, writes: Vec<Write>) -> Pending<'_, ()> {
        self.batches.fetch_add(1, Ordering::SeqCst);
        if self.fail.load(Ordering::SeqCst) {
            let error = StoreError::Poisoned { why: "disk full".to_owned() };
            return Box::pin(std::future::ready(Err(error)));
        }
        self.memory.apply(writes)
    }

    fn versions(
        &self,
        rule: RuleId,
        before: Option<RuleVersion>,
        limit: usize,
    ) -> Pending<'_, Vec<VersionRecord>> {
        self.memory.versions(rule, before, limit)
    }

    fn version(&self, rule: RuleId, version: RuleVersion) -> Pending<'_, Option<VersionRecord>> {
        self.memory.version(rule, version)
    }

    fn all_versions(
        &self,
        after: Option<(RuleId, RuleVersion)>,
        limit: usize,
    ) -> Pending<'_, Vec<VersionRecord>> {
        self.memory.all_versions(after, limit)
    }

    fn health(&self) -> Pending<'_, ()> {
        self.apply(Vec::new())
    }
}

fn edge(name: &str) -> EdgeId {
    EdgeId::new(name).unwrap()
}

fn parts(store: &Arc<Failing>) -> (CoreLink, CoreLoop) {
    let clock = Clock::start();
    let (controller, _first) =
        Controller::restore(tidegate_cloud_core::Settings::default(), Snapshot::default(), 0, clock.now());
    let (link, inbox) = core_channel();
    let core_loop = CoreLoop {
        controller,
        inbox,
        store: Arc::clone(store) as Arc<dyn Store>,
        transport: Box::new(Nowhere::default()),
        credentials: Arc::new(Credentials::default()),
        events: Arc::new(Events::new(1)),
        changed: Arc::default(),
        clock,
        metrics: crate::metrics::Metrics::default(),
    };
    (link, core_loop)
}

async fn create(link: &CoreLink, name: &str) -> Result<bool, Stopped> {
    let by = Actor { name: "ada".to_owned(), via: "api".to_owned() };
    let request = Request::CreateEdge { edge: edge(name), credential: "x".to_owned() };
    Ok(link.request(by, Role::Administrator, request, How::default()).await?.is_ok())
}

fn message(name: &str) -> (FromEdge, oneshot::Receiver<TapResult>) {
    let (taken, then) = oneshot::channel();
    let bytes = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    (FromEdge { edge: edge(name), presence: false, payload: b"x".to_vec(), taken, _bytes: bytes }, then)
}

#[tokio::test]
async fn a_write_that_fails_answers_nobody_and_ends_the_loop() {
    let store = Arc::new(Failing::default());
    let (link, core_loop) = parts(&store);
    let running = tokio::spawn(core_loop.run(Vec::new(), CancellationToken::new()));
    assert_eq!(create(&link, "gw-1").await, Ok(true));
    store.fail.store(true, Ordering::SeqCst);
    assert_eq!(create(&link, "gw-2").await, Err(Stopped));
    let ended = tokio::time::timeout(Duration::from_secs(10), running).await.unwrap().unwrap();
    assert!(ended.unwrap_err().to_string().contains("disk full"));
    assert_eq!(link.read(|core, _| core.edges(None, 10).1).await, Err(Stopped));
    assert_eq!(store.memory.load().await.unwrap().edges.len(), 1);
}

#[tokio::test]
async fn a_store_that_is_not_well_is_noticed_without_a_write() {
    let store = Arc::new(Failing::default());
    let watched = Arc::clone(&store);
    let watch = tokio::spawn(async move { crate::run::ailing(&*watched, Duration::from_millis(1)).await });
    while store.batches.load(Ordering::SeqCst) < 3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(!watch.is_finished());
    store.fail.store(true, Ordering::SeqCst);
    let error = tokio::time::timeout(Duration::from_secs(30), watch).await.unwrap().unwrap();
    assert!(error.to_string().contains("disk full"), "{error}");
}

#[tokio::test]
async fn what_waits_shares_one_write_and_messages_are_taken_after_it() {
    let store = Arc::new(Failing::default());
    let (link, core_loop) = parts(&store);
    // All of it waits before the loop begins.
    let calls: Vec<_> = (0..20)
        .map(|n| {
            let link = link.clone();
            tokio::spawn(async move { create(&link, &format!("gw-{n}")).await })
        })
        .collect();
    tokio::task::yield_now().await;
    let (from_edge, taken) = message("gw-1");
    assert!(link.offer(from_edge).is_ok());
    let stop = CancellationToken::new();
    let running = tokio::spawn(core_loop.run(Vec::new(), stop.clone()));
    for call in calls {
        assert_eq!(call.await.unwrap(), Ok(true));
    }
    assert_eq!(taken.await, Ok(TapResult::Taken));
    assert_eq!(store.batches.load(Ordering::SeqCst), 1);
    stop.cancel();
    running.await.unwrap().unwrap();
    // A message that comes too late is refused: its edge keeps it and sends it again.
    let (from_edge, taken) = message("gw-1");
    assert!(link.offer(from_edge).is_err());
    assert!(taken.await.is_err());
}

//! Bridges against a remote broker that does exactly what a test says.

mod faults;
mod incoming;
mod local;
mod local_faults;
mod outgoing;
mod peer;
mod real_broker;
mod reconfigure;
mod ways;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use tidegate_edge_core::{BridgeEvent, Order};
use tidegate_edge_queue::{Queue, Record};
use tidegate_model::{
    code::FaultCode,
    ids::{AccountId, EdgeId, RuleId},
    rule::{EdgeRule, Format, Limits, RenderContext, Secrets, parse, render},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Bridge, LocalEnd, LocalMessage, LocalSink, Notice, Parts, SinkError, SinkFuture, Task, Timing,
    queue_config,
};
use peer::Peer;

/// Longest wait for anything.
const DEADLINE: Duration = Duration::from_secs(20);

/// A rule for `peer` with these subscriptions; it forwards `sensors/#`.
fn rule(peer: &Peer, subscriptions: &[&str]) -> (Arc<EdgeRule>, Secrets) {
    rule_at(peer.port(), subscriptions)
}

/// The same for a remote broker at this port of the loopback address.
fn rule_at(port: u16, subscriptions: &[&str]) -> (Arc<EdgeRule>, Secrets) {
    rule_with(port, subscriptions, "")
}

/// The same with more in `[queue]`.
fn rule_with(port: u16, subscriptions: &[&str], queue: &str) -> (Arc<EdgeRule>, Secrets) {
    let mut text = format!(
        "name = \"r\"\nmountpoint = \"plant/\"\n[remote]\nurl = \"mqtt://127.0.0.1:{}\"\nclient_id = \"c\"\n\
         username = \"u\"\npassword = \"p\"\nkeep_alive = \"60s\"\n[queue]\nmax_bytes = \"64KiB\"\n\
         when_full = \"block\"\n{queue}[[forwards]]\ntopic = \"sensors/#\"\n",
        port
    );
    for filter in subscriptions {
        text += &format!("[[subscriptions]]\ntopic = \"{filter}\"\nprefix = \"in/\"\nretain = true\n");
    }
    rule_of(&text)
}

/// The rule of this text, on an edge.
fn rule_of(text: &str) -> (Arc<EdgeRule>, Secrets) {
    let (valid, secrets) = parse(text, Format::Toml).unwrap().validate(&Limits::default()).unwrap();
    let secrets = secrets.apply(Secrets::default());
    let context = RenderContext {
        account: "default".parse::<AccountId>().unwrap(),
        edge: "gateway-1".parse::<EdgeId>().unwrap(),
        vars: BTreeMap::new(),
        secrets: secrets.refs("s", 1),
    };
    (Arc::new(render(&valid, &context).unwrap().rule), secrets)
}

/// A local broker: takes messages, or refuses them.
#[derive(Default)]
struct Local {
    taken: Mutex<Vec<LocalMessage>>,
    refuses: std::sync::atomic::AtomicBool,
    changed: tokio::sync::Notify,
}

impl LocalSink for Local {
    fn publish(&self, message: LocalMessage) -> SinkFuture<'_> {
        Box::pin(async move {
            if self.refuses.load(std::sync::atomic::Ordering::SeqCst) {
                return Err(SinkError::Unavailable("on strike".to_owned()));
            }
            if message.payload == b"poison".as_ref() {
                return Err(SinkError::Refused("it does not like it".to_owned()));
            }
            self.taken.lock().unwrap().push(message);
            self.changed.notify_one();
            Ok(())
        })
    }
}

impl Local {
    fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, std::sync::atomic::Ordering::SeqCst);
    }

    /// Waits until so many messages were taken.
    async fn wait(&self, count: usize) -> Vec<LocalMessage> {
        let enough = async {
            loop {
                let taken = self.taken.lock().unwrap().clone();
                if taken.len() >= count {
                    return taken;
                }
                self.changed.notified().await;
            }
        };
        timeout(DEADLINE, enough).await.expect("the local broker never got the messages")
    }
}

/// A bridge with all around it.
struct Rig {
    bridge: Bridge,
    outgoing: Queue,
    incoming: Queue,
    local: Arc<Local>,
    notices: mpsc::Receiver<Notice>,
    dir: tempfile::TempDir,
}

impl Rig {
    fn start(peer: &Peer, subscriptions: &[&str]) -> Self {
        Self::start_with(peer, subscriptions, Timing::default(), false)
    }

    fn start_with(peer: &Peer, subscriptions: &[&str], timing: Timing, refuses: bool) -> Self {
        Self::start_at(peer.port(), subscriptions, timing, refuses)
    }

    fn start_at(port: u16, subscriptions: &[&str], timing: Timing, refuses: bool) -> Self {
        Self::run(rule_at(port, subscriptions), timing, refuses)
    }

    fn run((rule, secrets): (Arc<EdgeRule>, Secrets), timing: Timing, refuses: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| open_queue(&dir.path().join(name), &rule);
        let (outgoing, incoming) = (open("out"), open("in"));
        let local = Arc::new(Local::default());
        local.refuse(refuses);
        let (events, notices) = mpsc::channel(16);
        let sink: Arc<dyn LocalSink> = Arc::<Local>::clone(&local);
        let parts = Parts {
            rule: RuleId(uuid::Uuid::from_u128(1)),
            outgoing: outgoing.clone(),
            incoming: incoming.clone(),
            local: LocalEnd::Sink(sink),
            events,
            timing,
        };
        let task = Task { order: Order(1), rule, secrets };
        let bridge = Bridge::start(parts, task, &CancellationToken::new());
        Self { bridge, outgoing, incoming, local, notices, dir }
    }

    /// Puts numbered records into the outgoing queue.
    fn put(&self, numbers: std::ops::RangeInclusive<u32>, qos: u8) {
        for number in numbers {
            let record = Record {
                topic: "plant/sensors/a".to_owned(),
                payload: Bytes::from(number.to_string()),
                qos,
                retain: number.is_multiple_of(2),
                at_ms: super::wall_ms(),
                source: None,
            };
            self.outgoing.append(record, |_| {});
        }
    }

    async fn event(&mut self) -> (Order, BridgeEvent) {
        let notice = timeout(DEADLINE, self.notices.recv()).await.expect("no event").unwrap();
        (notice.order, notice.event)
    }

    async fn running(&mut self, order: u64) {
        assert_eq!(self.event().await, (Order(order), BridgeEvent::Running));
    }

    /// Waits for a fault; returns its detail.
    async fn fault(&mut self, code: FaultCode) -> String {
        match self.event().await.1 {
            BridgeEvent::Faulted(fault) => {
                assert_eq!(fault.code, code, "{}", fault.detail);
                assert!(!fault.detail.contains("\"p\""));
                fault.detail
            }
            other @ (BridgeEvent::Running | BridgeEvent::Ended { .. }) => panic!("no fault but {other:?}"),
        }
    }

    /// Waits until the outgoing queue is empty.
    async fn drained(&self) {
        until(|| {
            let stats = self.outgoing.stats();
            stats.queued + stats.waiting == 0
        })
        .await;
    }
}

fn open_queue(dir: &Path, rule: &EdgeRule) -> Queue {
    Queue::open(dir, queue_config(&rule.queue), super::wall_ms()).unwrap().0
}

/// Waits for a condition that nothing tells of.
async fn until(condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(DEADLINE, met).await.expect("the condition was never met");
}

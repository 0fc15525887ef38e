//! The watchdog tells when the broker behind the open port does not answer.
#![allow(clippy::unwrap_used)] // test helpers outside #[test] functions

mod common;
use common::*;
use std::sync::{Arc, Barrier};
use std::time::Duration;
use tidegate_broker::*;

/// A tap that does what no tap may: it blocks.
struct Stuck(Arc<Barrier>);

impl Tap for Stuck {
    fn offer(&self, _message: &Arc<Message>, _source: &Source) -> Offer {
        self.0.wait();
        Offer::Pass
    }
}

#[test]
fn a_stuck_broker_is_told_to_its_owner_and_a_recovered_one_is_healthy_again() {
    let barrier = Arc::new(Barrier::new(2));
    let journal = Arc::new(Journal::default());
    let watcher: Arc<Journal> = Arc::clone(&journal);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut config = config();
    config.limits.watchdog_interval = Duration::from_millis(100);
    let tap = Arc::new(Stuck(Arc::clone(&barrier)));
    // Spawned, so that it runs on the one worker that the tap will block.
    let started =
        runtime.spawn(async { Broker::start(config, Arc::new(AllowAll), tap, watcher).await.unwrap() });
    let broker = Arc::new(runtime.block_on(started).unwrap());
    let mut health = broker.health();
    assert_eq!(*health.borrow(), Health::Healthy);
    let publisher = Arc::clone(&broker);
    let publishing = runtime
        .spawn(async move { publisher.publish(Message::new("t", &b""[..], Qos::AtMostOnce), 0).await });
    let outside = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    outside.block_on(async {
        within("the alarm", health.wait_for(|h| matches!(h, Health::Unhealthy(_)))).await.unwrap();
        until("the event", || {
            let events = journal.0.lock().unwrap();
            events.iter().any(|e| matches!(e, Event::Unhealthy { .. })).then_some(())
        })
        .await;
    });
    barrier.wait();
    outside.block_on(async {
        within("the recovery", health.wait_for(|h| *h == Health::Healthy)).await.unwrap();
    });
    runtime.block_on(publishing).unwrap().unwrap();
}

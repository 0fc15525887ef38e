//! Many clients that do everything at once, badly. Afterwards nothing of them is left, and the broker still serves.

mod common;
use common::*;
use std::sync::Arc;
use std::time::Duration;
use tidegate_broker::*;
use tokio::sync::oneshot;

/// Takes some messages at once, some later, refuses some, and forgets some.
struct Moody;

impl Tap for Moody {
    fn offer(&self, message: &Arc<Message>, _source: &Source) -> Offer {
        if !message.topic.starts_with("t/") {
            return Offer::Pass;
        }
        let mood = message.payload.first().copied().unwrap_or(0);
        let (sender, then) = oneshot::channel();
        match mood % 8 {
            0 => drop(sender.send(TapResult::Refused)),
            1 => drop(sender),
            2 => drop(sender.send(TapResult::Taken)),
            3 => drop(tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(3)).await;
                let _ = sender.send(TapResult::Taken);
            })),
            _ => return Offer::Pass,
        }
        Offer::Hold { then, fan_out: mood % 2 == 0 }
    }
}

/// A small generator, so that a run can be had again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

async fn misbehave(addr: std::net::SocketAddr, seed: u64) {
    let mut dice = Dice(seed);
    for _ in 0..12 {
        let mut raw = Raw::open(addr).await;
        // Few ids, so that they take over from one another.
        let mut hello = connect(&format!("c{}", dice.roll(6))).will(
            "will/x",
            "will",
            dice.roll(3) as u8,
            dice.roll(2) == 0,
        );
        hello.clean = dice.roll(2) == 0;
        raw.send(&hello.bytes()).await;
        for _ in 0..dice.roll(30) {
            let (topic, id) = (format!("t/{}", dice.roll(5)), dice.roll(20) as u16 + 1);
            let bytes = match dice.roll(9) {
                0 => frame(
                    0x82,
                    &[&id.to_be_bytes()[..], &text("t/+"), &[dice.roll(3) as u8], &text("#"), &[1]].concat(),
                ),
                1 => frame(0xa2, &[&id.to_be_bytes()[..], &text("t/+")].concat()),
                2 => frame(0x40, &id.to_be_bytes()),
                3 => frame([0x50, 0x62, 0x70][dice.roll(3) as usize], &id.to_be_bytes()),
                4 if dice.roll(10) == 0 => vec![0xe0, 0],
                5 if dice.roll(10) == 0 => vec![dice.roll(256) as u8, dice.roll(256) as u8],
                _ => publish_bytes(
                    &topic,
                    &[dice.roll(256) as u8; 40],
                    dice.roll(3) as u8,
                    id,
                    dice.roll(4) == 0,
                    false,
                ),
            };
            raw.send(&bytes).await;
        }
        if dice.roll(2) == 0 {
            let _ = tokio::time::timeout(Duration::from_millis(dice.roll(20)), raw.try_packet()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    config.state_dir = Some(dir.path().to_owned());
    config.limits.tap_grace = Duration::from_millis(20);
    config.limits.max_queued_messages = 50;
    config.limits.max_unacked_taps_per_client = 4;
    let journal = Arc::new(Journal::default());
    let watcher: Arc<Journal> = Arc::clone(&journal);
    let broker = Broker::start(config.clone(), Arc::new(AllowAll), Arc::new(Moody), watcher).await.unwrap();
    let addr = broker.local_addr();
    let storm: Vec<_> = (0..16).map(|seed| tokio::spawn(misbehave(addr, seed))).collect();
    for client in storm {
        within("a client of the storm", client).await.unwrap();
    }
    // Its last sockets may still be on their way in; the queue for accepting is in order.
    serves(addr).await;
    until("all to be gone", || (broker.connected().is_empty()).then_some(())).await;
    // Clean sessions clear what is left of the persistent ones.
    for n in 0..6 {
        Raw::client(addr, &format!("c{n}")).await.bye().await;
    }
    until("the last to be gone", || (broker.connected().is_empty()).then_some(())).await;
    let stats = broker.stats();
    assert_eq!((stats.sessions, stats.subscriptions), (0, 0));
    assert!(stats.received > 200, "the storm was none: {stats:?}");
    assert_eq!(stats.state_write_errors, 0);
    let events = journal.0.lock().unwrap().clone();
    let (mut open, mut seen) = (std::collections::HashMap::new(), 0);
    for event in &events {
        match event {
            Event::Connected { client_id, connection, .. } => {
                assert_eq!(open.insert(client_id, connection), None, "two connections of one client at once");
                seen += 1;
            }
            Event::Disconnected { client_id, connection, .. } => {
                assert_eq!(open.remove(client_id), Some(connection))
            }
            Event::Subscribed { .. } | Event::Unhealthy { .. } => {}
        }
    }
    assert!(open.is_empty() && seen > 100, "{seen} connections");
    serves(addr).await;
    let retained = broker.stats().retained_messages;
    broker.stop().await;
    assert_eq!(start_with(config).await.stats().retained_messages, retained);
}

//! Bridges against our own broker, which throws them out now and then.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use tidegate_broker::{AllowAll, Broker, BrokerConfig, Message, Offer, Qos, Quiet, Source, Tap};

use super::{Rig, Timing, until};

/// Notes the numbers that arrive under `plant/`.
#[derive(Default)]
struct Seen(Mutex<Vec<u32>>);

impl Tap for Seen {
    fn offer(&self, message: &Arc<Message>, _source: &Source) -> Offer {
        if message.topic.starts_with("plant/") {
            self.0.lock().unwrap().push(std::str::from_utf8(&message.payload).unwrap().parse().unwrap());
        }
        Offer::Pass
    }
}

async fn broker(tap: Arc<Seen>) -> Broker {
    let config = BrokerConfig::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    Broker::start(config, Arc::new(AllowAll), tap, Arc::new(Quiet)).await.unwrap()
}

#[tokio::test]
async fn a_thousand_out_and_a_hundred_back_over_cut_connections() {
    let seen = Arc::new(Seen::default());
    let broker = broker(Arc::clone(&seen)).await;
    let mut rig = Rig::start_at(broker.local_addr().port(), &["cmd/#"], Timing::default(), false);
    rig.running(1).await;
    for round in 0..10_u32 {
        rig.put(round * 100 + 1..=round * 100 + 100, 1);
        for number in 0..10 {
            let payload = (round * 10 + number).to_string().into_bytes();
            let message = Message::new("cmd/a", payload, Qos::AtLeastOnce);
            broker.publish(message, 1).await.unwrap();
        }
        until(|| seen.0.lock().unwrap().len() as u32 > round * 80).await;
        if round % 3 == 1 {
            assert!(broker.disconnect("c"));
            while rig.event().await.1 != tidegate_edge_core::BridgeEvent::Running {}
        }
    }
    rig.drained().await;
    // Duplicates come in whole runs from an earlier point on; nothing is ever skipped.
    let mut highest = 0;
    for number in seen.0.lock().unwrap().iter() {
        assert!(*number <= highest + 1, "{number} after {highest}");
        highest = highest.max(*number);
    }
    assert_eq!(highest, 1_000);
    // What was not acknowledged when a connection was cut comes twice.
    let numbers = || -> BTreeSet<u32> {
        let taken = rig.local.taken.lock().unwrap();
        taken.iter().map(|message| std::str::from_utf8(&message.payload).unwrap().parse().unwrap()).collect()
    };
    until(|| numbers().len() == 100).await;
    assert_eq!(numbers(), (0..100).collect());
    assert!(rig.local.taken.lock().unwrap().iter().all(|message| message.topic == "in/cmd/a"));
    assert_eq!(rig.bridge.counters(0).reconnects, 3);
    rig.bridge.stop().await;
    broker.stop().await;
}

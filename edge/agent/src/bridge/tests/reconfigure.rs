//! A bridge that gets another task.

use rumqttc::mqttbytes::v4::Packet;
use tidegate_edge_core::Order;
use tidegate_model::code::FaultCode;

use super::{Rig, Task, peer::Peer, rule};

fn task(order: u64, peer: &Peer, subscriptions: &[&str]) -> Task {
    let (rule, secrets) = rule(peer, subscriptions);
    Task { order: Order(order), rule, secrets }
}

#[tokio::test]
async fn other_topics_keep_the_connection() {
    let peer = Peer::new().await;
    let mut rig = Rig::start(&peer, &["a/#", "b/#"]);
    let mut conn = peer.serve().await;
    rig.running(1).await;
    rig.bridge.reconfigure(task(2, &peer, &["b/#", "c/#"]));
    match conn.next().await {
        Some(Packet::Unsubscribe(unsubscribe)) => assert_eq!(unsubscribe.topics, ["a/#"]),
        other => panic!("no UNSUBSCRIBE but {other:?}"),
    }
    let subscribe = conn.subscribe().await;
    // Messages flow while the answer is on its way, and nothing is called running before it.
    rig.put(1..=1, 1);
    let publish = conn.publish().await;
    conn.puback(publish.pkid).await;
    rig.drained().await;
    assert!(rig.notices.try_recv().is_err());
    assert_ne!(subscribe.pkid, publish.pkid);
    let filters: Vec<_> = subscribe.filters.iter().map(|filter| filter.path.as_str()).collect();
    assert_eq!(filters, ["c/#"]);
    let codes = subscribe
        .filters
        .iter()
        .map(|filter| rumqttc::mqttbytes::v4::SubscribeReasonCode::Success(filter.qos))
        .collect();
    conn.suback(&subscribe, codes).await;
    rig.running(2).await;
    conn.give("c/x", b"new", 5, false).await;
    assert_eq!(conn.acknowledged().await, 5);
    assert_eq!(rig.local.wait(1).await[0].topic, "in/c/x");
    assert_eq!(rig.bridge.counters(0).reconnects, 0);
}

#[tokio::test]
async fn the_same_again_is_answered_at_once() {
    let peer = Peer::new().await;
    let mut rig = Rig::start(&peer, &["a/#"]);
    let _conn = peer.serve().await;
    rig.running(1).await;
    rig.bridge.reconfigure(task(2, &peer, &["a/#"]));
    rig.running(2).await;
}

#[tokio::test]
async fn another_address_is_dialled_and_nothing_is_lost() {
    let (old, new) = (Peer::new().await, Peer::new().await);
    let mut rig = Rig::start(&old, &[]);
    let mut conn = old.log_in().await;
    rig.running(1).await;
    rig.put(1..=3, 1);
    conn.publishes(3).await;
    rig.bridge.reconfigure(task(2, &new, &[]));
    assert_eq!(conn.next().await, Some(Packet::Disconnect));
    let mut conn = new.log_in().await;
    rig.running(2).await;
    let sent = conn.publishes(3).await;
    assert_eq!(sent.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2, 3]);
}

#[tokio::test]
async fn a_new_task_ends_the_pause_after_a_fault() {
    let (old, new) = (Peer::new().await, Peer::new().await);
    let mut rig = Rig::start(&old, &[]);
    drop(old);
    rig.fault(FaultCode::Tcp).await;
    rig.bridge.reconfigure(task(2, &new, &[]));
    let _conn = new.log_in().await;
    loop {
        match rig.event().await {
            (Order(1), _) => {}
            (order, event) => {
                assert_eq!((order, event), (Order(2), tidegate_edge_core::BridgeEvent::Running));
                break;
            }
        }
    }
}

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

#[tokio::test]
async fn a_drain_limit_holds_for_a_backlog_and_ends_with_the_wish() {
    let peer = Peer::new().await;
    let mut rig = Rig::start(&peer, &[]);
    rig.put(1..=60, 1);
    // Before there is a connection: everything sent is sent under the limit.
    rig.bridge.reconfigure(limited(&peer, 2, "drain = { messages_per_s = 20 }\n"));
    let mut conn = peer.log_in().await;
    rig.running(2).await;
    let since = std::time::Instant::now();
    let sent = conn.publishes(41).await;
    // A second's worth at once, the others one after the other: however slow the machine is, not sooner.
    assert!(since.elapsed() > std::time::Duration::from_millis(900), "{:?}", since.elapsed());
    for (_, pkid) in sent {
        conn.puback(pkid).await;
    }
    // Without the limit the rest comes on the same connection.
    rig.bridge.reconfigure(limited(&peer, 3, ""));
    let sent = conn.publishes(19).await;
    assert_eq!(sent.iter().map(|(number, _)| *number).collect::<Vec<_>>(), (42..=60).collect::<Vec<_>>());
}

fn limited(peer: &Peer, order: u64, queue: &str) -> Task {
    let (rule, secrets) = super::rule_with(peer.port(), &[], queue);
    Task { order: Order(order), rule, secrets }
}

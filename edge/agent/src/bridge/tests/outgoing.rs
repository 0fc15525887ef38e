//! From the queue to the remote broker.

use std::time::Duration;

use rumqttc::mqttbytes::{QoS, v4::Packet};
use tidegate_model::code::FaultCode;

use super::{Rig, open_queue, peer::Peer};

#[tokio::test]
async fn order_holds_over_lost_connections_and_lost_sessions() {
    let peer = Peer::new().await;
    let mut rig = Rig::start(&peer, &[]);
    rig.put(1..=20, 1);
    let mut conn = peer.log_in().await;
    rig.running(1).await;
    let sent = conn.publishes(20).await;
    assert_eq!(sent.iter().map(|(number, _)| *number).collect::<Vec<_>>(), (1..=20).collect::<Vec<_>>());
    // 1 to 3 are acknowledged, and 6 out of its turn; then the connection is gone.
    for (_, pkid) in sent.iter().filter(|(number, _)| [1, 2, 3, 6].contains(number)) {
        conn.puback(*pkid).await;
    }
    super::until(|| rig.outgoing.stats().released == 3).await;
    drop(conn);
    rig.fault(FaultCode::Tcp).await;
    // The session is not there any more: nothing is lost, nothing overtakes.
    let mut conn = peer.log_in().await;
    rig.running(1).await;
    rig.put(21..=22, 1);
    let sent = conn.publishes(19).await;
    assert_eq!(sent.iter().map(|(number, _)| *number).collect::<Vec<_>>(), (4..=22).collect::<Vec<_>>());
    for (_, pkid) in sent.iter().rev() {
        conn.puback(*pkid).await;
    }
    rig.drained().await;
    let counters = rig.bridge.counters(super::super::wall_ms());
    assert_eq!((counters.forwarded, counters.queued, counters.reconnects), (23, 0, 1));
    assert!(counters.last_error.is_some());
}

#[tokio::test]
async fn a_stopped_bridge_says_goodbye_and_leaves_the_rest_in_the_queue() {
    let peer = Peer::new().await;
    let mut rig = Rig::start(&peer, &[]);
    rig.put(1..=5, 1);
    let mut conn = peer.log_in().await;
    let sent = conn.publishes(5).await;
    conn.puback(sent[0].1).await;
    conn.puback(sent[1].1).await;
    super::until(|| rig.outgoing.stats().released == 2).await;
    rig.running(1).await;
    rig.bridge.stop().await;
    assert_eq!(conn.next().await, Some(Packet::Disconnect));
    assert_eq!(conn.next().await, None);
    rig.outgoing.close();
    let rule = super::rule(&peer, &[]).0;
    assert_eq!(open_queue(&rig.dir.path().join("out"), &rule).stats().queued, 3);
}

#[tokio::test]
async fn qos_0_is_released_once_written_and_retain_is_kept() {
    let peer = Peer::new().await;
    let rig = Rig::start(&peer, &[]);
    rig.put(1..=10, 0);
    let mut conn = peer.log_in().await;
    for number in 1..=10_u32 {
        let publish = conn.publish().await;
        assert_eq!((publish.qos, publish.topic.as_str()), (QoS::AtMostOnce, "plant/sensors/a"));
        assert_eq!((publish.payload, publish.retain), (number.to_string().into(), number % 2 == 0));
    }
    rig.drained().await;
    assert_eq!(rig.bridge.counters(0).forwarded, 10);
}

#[tokio::test]
async fn more_than_a_window_passes_while_acknowledgements_flow() {
    let peer = Peer::new().await;
    let rig = Rig::start(&peer, &[]);
    let mut conn = peer.log_in().await;
    // The queue of 64 KiB blocks in between: room comes with each acknowledgement.
    rig.put(1..=5_000, 1);
    for expected in 1..=5_000 {
        let sent = conn.publishes(1).await;
        assert_eq!(sent[0].0, expected);
        conn.puback(sent[0].1).await;
    }
    rig.drained().await;
    assert_eq!(rig.outgoing.stats().dropped.total(), 0);
}

#[tokio::test]
async fn a_bridge_stops_soon_even_if_nobody_reads() {
    let peer = Peer::new().await;
    let rig = Rig::start(&peer, &[]);
    let _conn = peer.log_in().await;
    rig.put(1..=900, 1);
    tokio::time::timeout(Duration::from_secs(2), rig.bridge.stop()).await.expect("it hangs");
}

#[tokio::test]
async fn a_message_that_the_remote_broker_cannot_stand_is_named() {
    let peer = Peer::new().await;
    let mut rig = Rig::start(&peer, &[]);
    rig.put(1..=5, 1);
    for _ in 0..3 {
        let mut conn = peer.log_in().await;
        rig.running(1).await;
        conn.publishes(5).await;
        drop(conn);
        assert!(!rig.fault(FaultCode::Tcp).await.contains("plant/sensors/a"));
    }
    // From now on messages go one by one.
    let mut conn = peer.log_in().await;
    rig.running(1).await;
    conn.publishes(1).await;
    drop(conn);
    assert!(rig.fault(FaultCode::Tcp).await.contains("1 bytes on 'plant/sensors/a'"));
    // As soon as it is taken, all is as before.
    let mut conn = peer.log_in().await;
    rig.running(1).await;
    let sent = conn.publishes(1).await;
    conn.puback(sent[0].1).await;
    assert_eq!(conn.publishes(4).await.len(), 4);
}

//! From the remote broker to the local one.

use tidegate_model::code::FaultCode;

use super::{Rig, Timing, open_queue, peer::Peer, rule};

#[tokio::test]
async fn messages_arrive_under_their_local_topics_in_order() {
    let peer = Peer::new().await;
    let mut rig = Rig::start(&peer, &["cmd/#"]);
    let mut conn = peer.serve().await;
    rig.running(1).await;
    conn.give("cmd/a", b"1", 7, true).await;
    conn.give("other/a", b"nobody asked for it", 8, false).await;
    conn.give("cmd/b", b"2", 0, false).await;
    conn.give("cmd/c", b"3", 9, false).await;
    for expected in [7, 8, 9] {
        assert_eq!(conn.acknowledged().await, expected);
    }
    let taken = rig.local.wait(3).await;
    let seen: Vec<_> =
        taken.iter().map(|m| (m.topic.as_str(), m.payload.as_ref(), m.qos, m.retain)).collect();
    assert_eq!(
        seen,
        [
            ("in/cmd/a", b"1".as_ref(), 1, true),
            ("in/cmd/b", b"2".as_ref(), 0, false),
            ("in/cmd/c", b"3".as_ref(), 1, false)
        ]
    );
    let counters = rig.bridge.counters(0);
    assert_eq!((counters.received, counters.dropped.0.get("unmapped")), (3, Some(&1)));
}

#[tokio::test]
async fn what_was_acknowledged_is_on_disk() {
    let peer = Peer::new().await;
    let rig = Rig::start_with(&peer, &["cmd/#"], Timing::default(), true);
    let mut conn = peer.serve().await;
    for pkid in 1..=50 {
        conn.give("cmd/a", &pkid.to_string().into_bytes(), pkid, false).await;
    }
    for pkid in 1..=50 {
        assert_eq!(conn.acknowledged().await, pkid);
    }
    rig.bridge.stop().await;
    rig.incoming.close();
    let queue = open_queue(&rig.dir.path().join("in"), &rule(&peer, &["cmd/#"]).0);
    let kept = queue.read_from(1, 100, 1 << 20).unwrap();
    let payloads: Vec<_> = kept.iter().map(|stored| stored.record.payload.clone()).collect();
    assert_eq!(payloads, (1..=50).map(|pkid: u16| pkid.to_string().into()).collect::<Vec<bytes::Bytes>>());
}

#[tokio::test]
async fn without_room_on_disk_nothing_is_acknowledged() {
    let peer = Peer::new().await;
    let rig = Rig::start_with(&peer, &["cmd/#"], Timing::default(), true);
    let mut conn = peer.serve().await;
    // The queue holds 64 KiB and blocks; the local broker takes nothing.
    for pkid in 1..=20 {
        conn.give("cmd/a", &[0; 8_000], pkid, false).await;
    }
    // Four segments of 16 KiB take two each; the rest waits in memory.
    super::until(|| (rig.incoming.stats().tail, rig.incoming.stats().waiting) == (8, 12)).await;
    for pkid in 1..=8 {
        assert_eq!(conn.acknowledged().await, pkid);
    }
    rig.local.refuse(false);
    for pkid in 9..=20 {
        assert_eq!(conn.acknowledged().await, pkid);
    }
    assert_eq!(rig.local.wait(20).await.len(), 20);
}

#[tokio::test]
async fn a_message_that_is_too_large_is_acknowledged_and_counted() {
    let peer = Peer::new().await;
    let rig = Rig::start(&peer, &["cmd/#"]);
    let mut conn = peer.serve().await;
    conn.give("cmd/a", &vec![0; 40_000], 1, false).await; // above half of the queue
    conn.give("cmd/a", &vec![0; 2 << 20], 2, false).await; // above any packet
    conn.give("cmd/a", b"fits", 3, false).await;
    for pkid in 1..=3 {
        assert_eq!(conn.acknowledged().await, pkid);
    }
    assert_eq!(rig.local.wait(1).await[0].payload, b"fits".as_ref());
    assert_eq!(rig.bridge.counters(0).dropped.0.get("too_large"), Some(&2));
}

#[tokio::test]
async fn the_local_broker_may_be_away_for_a_while() {
    let peer = Peer::new().await;
    let mut rig = Rig::start_with(&peer, &["cmd/#"], Timing::default(), true);
    let mut conn = peer.serve().await;
    rig.running(1).await;
    conn.give("cmd/a", b"1", 1, false).await;
    assert!(rig.fault(FaultCode::LocalBroker).await.contains("on strike"));
    rig.local.refuse(false);
    rig.running(1).await;
    assert_eq!(rig.local.wait(1).await.len(), 1);
}

#[tokio::test]
async fn a_message_that_the_local_broker_never_takes_does_not_stop_the_others() {
    let peer = Peer::new().await;
    let rig = Rig::start(&peer, &["cmd/#"]);
    let mut conn = peer.serve().await;
    conn.give("cmd/a", b"poison", 1, false).await;
    conn.give("cmd/a", b"good", 2, false).await;
    assert_eq!(rig.local.wait(1).await[0].payload, b"good".as_ref());
    assert_eq!(rig.bridge.counters(0).dropped.0.get("refused"), Some(&1));
}

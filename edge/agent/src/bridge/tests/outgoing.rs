//! From the queue to the remote broker.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use rumqttc::mqttbytes::{QoS, v4::Packet};
use tidegate_edge_core::Order;
use tidegate_model::{
    code::FaultCode,
    rule::{Secret, Secrets},
};

use super::{Rig, Task, Timing, open_queue, peer::Peer};

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

/// A remote broker that ends the connection at certain messages and takes all others. Runs until the test ends.
fn fussy(peer: Peer, refuses: fn(u32) -> bool, acknowledges: fn(u32) -> bool) -> Arc<Mutex<Vec<u32>>> {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&taken);
    tokio::spawn(async move {
        loop {
            let mut conn = peer.log_in().await;
            while let Some(packet) = conn.next().await {
                let Packet::Publish(publish) = packet else { continue };
                let number = std::str::from_utf8(&publish.payload).unwrap().parse().unwrap();
                if refuses(number) {
                    break;
                }
                assert_ne!(publish.pkid, 0, "in the place of others everything is to be acknowledged");
                if acknowledges(number) {
                    list.lock().unwrap().push(number);
                    conn.puback(publish.pkid).await;
                }
            }
        }
    });
    taken
}

/// Somebody has to listen to a bridge.
fn listen(rig: &mut Rig) {
    let mut notices = std::mem::replace(&mut rig.notices, tokio::sync::mpsc::channel(1).1);
    tokio::spawn(async move { while notices.recv().await.is_some() {} });
}

fn numbers_aside(rig: &Rig) -> Vec<String> {
    let aside = rig.outgoing.view().asides(0, 10, 10_000).unwrap();
    assert!(aside.iter().all(|aside| aside.reason.contains("each time it was sent alone")));
    aside.iter().map(|aside| String::from_utf8(aside.record.payload.to_vec()).unwrap()).collect()
}

#[tokio::test]
async fn messages_that_the_remote_broker_never_takes_are_set_aside_and_hold_up_nothing() {
    let peer = Peer::new().await;
    let mut rig = Rig::start(&peer, &[]);
    listen(&mut rig);
    rig.put(1..=40, 1);
    let taken = fussy(peer, |number| [1, 17, 18, 40].contains(&number), |_| true);
    // 40 is the last: nothing behind it shows that others pass.
    super::until(|| taken.lock().unwrap().len() == 36).await;
    super::until(|| rig.outgoing.stats().queued == 1).await;
    // What comes later does, also where nobody would have to acknowledge it.
    rig.put(41..=41, 0);
    rig.put(42..=42, 1);
    rig.drained().await;
    let all: Vec<u32> = (1..=42).filter(|number| ![1, 17, 18, 40].contains(number)).collect();
    assert_eq!(*taken.lock().unwrap(), all);
    assert_eq!(numbers_aside(&rig), ["1", "17", "18", "40"]);
    let counters = rig.bridge.counters(super::super::wall_ms());
    assert_eq!((counters.set_aside, counters.forwarded, counters.dropped.0.len()), (4, 38, 0));
    assert!(counters.last_error.is_some());
}

#[tokio::test]
async fn a_remote_broker_that_takes_nothing_gets_everything_when_it_comes_to_itself() {
    let peer = Peer::new().await;
    let mut rig = Rig::start(&peer, &[]);
    rig.put(1..=20, 1);
    let mut named = false;
    for _ in 0..5 {
        let mut conn = peer.log_in().await;
        rig.running(1).await;
        conn.publishes(1).await;
        drop(conn);
        named |= rig.fault(FaultCode::Tcp).await.contains("bytes on 'plant/sensors/a'");
    }
    assert!(named, "the fault says which message it ends at");
    listen(&mut rig);
    let taken = fussy(peer, |_| false, |_| true);
    rig.drained().await;
    assert_eq!(*taken.lock().unwrap(), (1..=20).collect::<Vec<_>>());
    assert_eq!(rig.outgoing.stats().aside, 0);
}

#[tokio::test]
async fn one_that_is_never_acknowledged_is_set_aside_as_well() {
    let peer = Peer::new().await;
    let timing = Timing { acknowledge: Duration::from_millis(500), ..Timing::default() };
    let mut rig = Rig::start_with(&peer, &[], timing, false);
    listen(&mut rig);
    rig.put(1..=4, 1);
    fussy(peer, |_| false, |number| number != 2);
    rig.drained().await;
    assert_eq!(numbers_aside(&rig), ["2"]);
}

#[tokio::test]
async fn another_login_is_another_chance() {
    let peer = Peer::new().await;
    let mut rig = Rig::start(&peer, &[]);
    rig.put(1..=3, 1);
    for _ in 0..6 {
        let mut conn = peer.log_in().await;
        rig.running(1).await;
        conn.publishes(1).await;
        drop(conn);
        rig.fault(FaultCode::Tcp).await;
    }
    // The first is left out, and the next one tried in its place; then the password is another.
    let mut conn = peer.log_in().await;
    assert_eq!(conn.publishes(1).await[0].0, 2);
    let (rule, _) = super::rule(&peer, &[]);
    rig.bridge.reconfigure(Task {
        order: Order(2),
        rule,
        secrets: Secrets { password: Some(Secret::new("q")), key: None },
    });
    let mut conn = peer.log_in().await;
    assert_eq!(conn.publishes(3).await.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2, 3]);
}

#[tokio::test]
async fn what_is_on_its_way_is_not_dropped_by_hand_and_what_is_not_is() {
    let peer = Peer::new().await;
    let mut rig = Rig::start(&peer, &[]);
    rig.put(1..=5, 1);
    let mut conn = peer.log_in().await;
    rig.running(1).await;
    let sent = conn.publishes(5).await;
    let drop_all = || {
        let queue = rig.outgoing.clone();
        tokio::task::spawn_blocking(move || queue.drop_where(None).unwrap())
    };
    let removed = drop_all().await.unwrap();
    assert_eq!((removed.dropped, removed.in_hand), (0, 5));
    conn.puback(sent[1].1).await;
    conn.puback(sent[0].1).await;
    super::until(|| rig.outgoing.stats().released == 2).await;
    drop(conn);
    super::until(|| rig.bridge.counters(0).last_error.is_some()).await;
    let removed = drop_all().await.unwrap();
    assert_eq!((removed.dropped, removed.in_hand), (3, 0), "without a connection nothing is on its way");
    rig.put(6..=7, 1);
    let mut conn = peer.log_in().await;
    let sent = conn.publishes(2).await;
    assert_eq!(sent.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [6, 7]);
    for (_, pkid) in sent {
        conn.puback(pkid).await;
    }
    rig.drained().await;
    let counters = rig.bridge.counters(0);
    assert_eq!((counters.forwarded, counters.dropped.0["by_hand"]), (4, 3));
}

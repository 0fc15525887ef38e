//! Messages that wait for those who do not read: what each may hold, what all may hold together, and who loses.
#![allow(clippy::unwrap_used)] // test helpers outside #[test] functions

mod common;
use common::*;
use std::time::Duration;
use tidegate_broker::*;

#[tokio::test]
async fn all_sessions_together_are_bounded_and_who_reads_loses_nothing() {
    let mut config = config();
    config.limits.max_all_queued_bytes = 1 << 20;
    let broker = start_with(config).await;
    let addr = broker.local_addr();
    for n in 0..20 {
        let (mut sleeper, _) = Raw::join(addr, connect(&format!("sleeper-{n}")).persistent()).await;
        sleeper.subscribe(&[(&format!("t/{n}"), 1), ("all", 1)]).await;
        sleeper.bye().await;
    }
    let mut reader = Raw::client(addr, "reader").await;
    reader.subscribe(&[("#", 1)]).await;
    let mut published = 0u64;
    for round in 0..40u32 {
        for n in 0..20 {
            // Number 0 gets far more than the others: it is the first to lose.
            let size = if n == 0 { 20_000 } else { 2_000 };
            let mut payload = round.to_be_bytes().to_vec();
            payload.resize(size, b'x');
            let message = Message::new(format!("t/{n}"), payload, Qos::AtLeastOnce);
            assert_eq!(broker.publish(message, 0).await.unwrap(), Delivery { matched: 2, queued: 2 });
            published += 1;
            assert!(broker.stats().waiting_bytes <= 1 << 20);
            let got = reader.got().await;
            assert_eq!((got.topic, &got.payload[..4]), (format!("t/{n}"), &round.to_be_bytes()[..]));
            reader.ack(0x40, got.id).await;
        }
    }
    let dropped = broker.stats().dropped_all_full;
    assert!(dropped > 0 && broker.stats().dropped_queue_full == 0);
    // What is left is the newest of each, in order, without a hole; and every one that is missing was counted.
    let mut left = 0;
    for n in 0..20 {
        let (mut sleeper, _) = Raw::join(addr, connect(&format!("sleeper-{n}")).persistent()).await;
        let mut rounds = Vec::new();
        while rounds.last() != Some(&39) {
            let got = sleeper.got().await;
            rounds.push(u32::from_be_bytes(got.payload[..4].try_into().unwrap()));
            sleeper.ack(0x40, got.id).await;
        }
        let first = 40 - u32::try_from(rounds.len()).unwrap();
        assert_eq!(rounds, (first..40).collect::<Vec<_>>(), "sleeper {n}");
        left += rounds.len() as u64;
        sleeper.bye().await;
    }
    assert_eq!(left + dropped, published);
    until("all to be given back", || (broker.stats().waiting_bytes == 0).then_some(())).await;
}

#[tokio::test]
async fn a_message_for_many_counts_once() {
    let mut config = config();
    config.limits.max_all_queued_bytes = 1 << 20;
    let broker = start_with(config).await;
    for n in 0..50 {
        let (mut sleeper, _) =
            Raw::join(broker.local_addr(), connect(&format!("sleeper-{n}")).persistent()).await;
        sleeper.subscribe(&[("all", 1)]).await;
        sleeper.bye().await;
    }
    until("all to be gone", || (broker.stats().connected == 0).then_some(())).await;
    for _ in 0..4 {
        broker.publish(Message::new("all", vec![0; 200_000], Qos::AtLeastOnce), 0).await.unwrap();
    }
    let stats = broker.stats();
    assert_eq!((stats.waiting_bytes, stats.dropped_all_full), (4 * (200_003 + 50 * 64), 0));
}

#[tokio::test]
async fn who_stops_reading_is_not_noticed_by_anybody_else() {
    let mut config = config();
    config.limits.max_queued_messages = 1_000;
    config.limits.max_queued_bytes = 1 << 20;
    let broker = start_with(config).await;
    let addr = broker.local_addr();
    let mut deaf = Vec::new();
    for n in 0..5 {
        let mut raw = Raw::client(addr, &format!("deaf-{n}")).await;
        raw.subscribe(&[("t", n % 3)]).await;
        deaf.push(raw);
    }
    let mut from = Raw::client(addr, "from").await;
    let mut to = Raw::client(addr, "to").await;
    to.subscribe(&[("t", 1)]).await;
    // Far more than the sockets and queues of the deaf take: each message reaches who reads, and is acknowledged.
    let payload = vec![b'x'; 50_000];
    for n in 1..=400u16 {
        from.publish("t", &payload, 1, n, false).await;
        assert_eq!(from.packet().await, ack(0x40, n));
        let got = to.got().await;
        assert_eq!(got.payload.len(), payload.len());
        to.ack(0x40, got.id).await;
    }
    let stats = broker.stats();
    assert!(stats.dropped_queue_full > 0 && stats.dropped_qos0 > 0, "the deaf lost nothing: {stats:?}");
    // Five queues and windows of a MiB, which share most of their messages.
    assert!(stats.waiting_bytes < 11 << 20, "{}", stats.waiting_bytes);
    drop(deaf);
    until("the deaf to be gone", || (broker.stats().connected == 2).then_some(())).await;
    until("all to be given back", || (broker.stats().waiting_bytes == 0).then_some(())).await;
}

#[tokio::test]
async fn when_much_is_in_flight_everybody_still_gets_on_by_one_message() {
    let mut config = config();
    config.limits.max_all_queued_bytes = 400_000;
    let broker = start_with(config).await;
    let addr = broker.local_addr();
    // It takes what is sent and acknowledges nothing: more than half of the bound is in flight to it.
    let mut taker = Raw::client(addr, "taker").await;
    taker.subscribe(&[("t", 1)]).await;
    for _ in 0..4 {
        broker.publish(Message::new("t", vec![0; 50_000], Qos::AtLeastOnce), 0).await.unwrap();
        taker.got().await;
    }
    let mut to = Raw::client(addr, "to").await;
    to.subscribe(&[("u", 1)]).await;
    for n in 0..20u8 {
        broker.publish(Message::new("u", vec![n], Qos::AtLeastOnce), 0).await.unwrap();
    }
    for n in 0..20u8 {
        let got = to.got().await;
        assert_eq!(got.payload, [n]);
        if n == 0 {
            to.quiet().await;
        }
        to.ack(0x40, got.id).await;
    }
}

async fn retain(broker: &Broker, count: usize) {
    for n in 0..count {
        let qos = Qos::from_number((n % 3) as u8).unwrap();
        let message = Message::new(format!("r/{n:05}"), n.to_string().into_bytes(), qos).retained();
        broker.publish(message, 0).await.unwrap();
    }
}

#[tokio::test]
async fn twenty_thousand_retained_messages_reach_a_wildcard_at_their_levels_and_again() {
    let mut config = config();
    config.limits.max_retained_messages = 20_000;
    let broker = start_with(config).await;
    retain(&broker, 20_000).await;
    let mut to = Raw::client(broker.local_addr(), "to").await;
    for granted in [1u8, 0] {
        to.subscribe(&[("r/#", granted)]).await;
        for n in 0..20_000usize {
            let got = to.got().await;
            let qos = ((n % 3) as u8).min(granted);
            assert_eq!((got.topic, got.retain, got.qos), (format!("r/{n:05}"), true, qos));
            if qos == 1 {
                to.ack(0x40, got.id).await;
            }
        }
        to.quiet().await;
    }
}

#[tokio::test]
async fn retained_messages_wait_where_they_are_for_who_reads_slowly() {
    let broker = start().await;
    for n in 0..1_000 {
        let message = Message::new(format!("r/{n:04}"), vec![b'x'; 20_000], Qos::AtLeastOnce).retained();
        broker.publish(message, 0).await.unwrap();
    }
    let mut slow = Raw::client(broker.local_addr(), "slow").await;
    slow.subscribe(&[("r/#", 1)]).await;
    // It reads nothing yet: what is under way to it is a window and a small stage, not a thousand messages.
    serves(broker.local_addr()).await;
    tokio::time::sleep(QUIET).await;
    let waiting = broker.connected().iter().find(|c| &*c.client_id == "slow").unwrap().waiting;
    assert!(waiting <= 100 + 64, "{waiting} messages taken out for one that does not read");
    // Meanwhile one of them is cleared: it comes no more. All others do, once.
    broker.publish(Message::new("r/0999", &b""[..], Qos::AtLeastOnce).retained(), 0).await.unwrap();
    for n in 0..999 {
        let got = slow.got().await;
        assert_eq!((got.topic, got.payload.len()), (format!("r/{n:04}"), 20_000));
        slow.ack(0x40, got.id).await;
    }
    let live = slow.got().await;
    assert_eq!((live.topic.as_str(), live.payload.len(), live.retain), ("r/0999", 0, false));
}

#[tokio::test]
async fn qos_2_is_exactly_once_over_a_restart_of_either_client() {
    let broker = start().await;
    let addr = broker.local_addr();
    let join = |id: &'static str| async move { Raw::join(addr, connect(id).persistent()).await.0 };
    let mut to = join("to").await;
    to.subscribe(&[("t", 2)]).await;
    let mut seen = Vec::new();
    for n in 1..=20u16 {
        // The publisher dies before its PUBREC, or before its PUBCOMP, and goes on where it was.
        let mut from = join("from").await;
        from.publish("t", n.to_string(), 2, n, false).await;
        if n % 2 == 0 {
            until("its arrival", || (broker.stats().received >= u64::from(n)).then_some(())).await;
            drop(from);
            from = join("from").await;
            from.send(&publish_bytes("t", n.to_string().as_bytes(), 2, n, false, true)).await;
        }
        assert_eq!(from.packet().await, ack(0x50, n));
        from.ack(0x62, n).await;
        if n % 3 == 0 {
            drop(from);
            from = join("from").await;
            from.ack(0x62, n).await;
        }
        assert_eq!(from.packet().await, ack(0x70, n));
        from.bye().await;
        // The subscriber dies after it has the message, or after PUBREC; it knows what it has by the packet id.
        let mut got = to.got().await;
        let id = got.id;
        if n % 4 == 0 {
            drop(to);
            to = join("to").await;
            got = to.got().await;
            assert!(got.dup && got.id == id);
        }
        seen.push(String::from_utf8(got.payload).unwrap());
        to.ack(0x50, id).await;
        assert_eq!(to.packet().await, ack(0x62, id));
        if n % 5 == 0 {
            drop(to);
            to = join("to").await;
            assert_eq!(to.packet().await, ack(0x62, id), "released again, not sent again");
        }
        to.ack(0x70, id).await;
    }
    to.quiet().await;
    assert_eq!(seen, (1..=20).map(|n: u16| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_peer_that_vanishes_keeps_its_session_and_misses_nothing() {
    let broker = start().await;
    let addr = broker.local_addr();
    let (mut vanished, _) = Raw::join(addr, connect("v").persistent().keep_alive(1)).await;
    vanished.subscribe(&[("t", 1)]).await;
    let mut from = Raw::client(addr, "from").await;
    // It neither reads nor closes: to the broker it looks alive for 1.5 keep-alive times.
    for n in 0..5 {
        from.put("t", n.to_string(), false).await;
    }
    until("the keep-alive to end it", || (broker.stats().keep_alive_timeouts == 1).then_some(())).await;
    from.put("t", "5", false).await;
    let (mut back, present) = Raw::join(addr, connect("v").persistent()).await;
    assert!(present);
    for n in 0..6 {
        let got = back.got().await;
        assert_eq!((got.payload, got.dup), (n.to_string().into_bytes(), n < 5));
        back.ack(0x40, got.id).await;
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    back.quiet().await;
}

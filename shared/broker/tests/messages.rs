//! Messages: the three levels both ways, order, taps, sessions, retained messages, filters, slow clients.
#![allow(clippy::unwrap_used)] // test helpers outside #[test] functions

mod common;
use common::*;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate_broker::*;
use tokio::sync::oneshot;

/// Holds what is published under `hold/` (delivered) and `eat/` (consumed) until the test says how it ends.
#[derive(Default)]
struct Valve {
    held: Mutex<HashMap<String, Vec<oneshot::Sender<TapResult>>>>,
    offered: Mutex<Vec<(String, Source)>>,
}

impl Tap for Valve {
    fn offer(&self, message: &Arc<Message>, source: &Source) -> Offer {
        let payload = String::from_utf8_lossy(&message.payload).into_owned();
        self.offered.lock().unwrap().push((payload.clone(), source.clone()));
        let fan_out = message.topic.starts_with("hold/");
        if !fan_out && !message.topic.starts_with("eat/") {
            return Offer::Pass;
        }
        let (sender, then) = oneshot::channel();
        self.held.lock().unwrap().entry(payload).or_default().push(sender);
        Offer::Hold { then, fan_out }
    }
}

impl Valve {
    async fn end(&self, payload: &str, result: TapResult) {
        let sender =
            until("an offer", || self.held.lock().unwrap().get_mut(payload).and_then(Vec::pop)).await;
        let _ = sender.send(result);
    }

    fn offers(&self, payload: &str) -> usize {
        self.offered.lock().unwrap().iter().filter(|(p, _)| p == payload).count()
    }
}

async fn tapped(config: BrokerConfig) -> (Broker, Arc<Valve>, Arc<Journal>) {
    let (valve, journal) = (Arc::new(Valve::default()), Arc::new(Journal::default()));
    let (tap, watcher): (Arc<Valve>, Arc<Journal>) = (Arc::clone(&valve), Arc::clone(&journal));
    (Broker::start(config, Arc::new(AllowAll), tap, watcher).await.unwrap(), valve, journal)
}

#[tokio::test]
async fn every_level_arrives_at_the_lower_of_both() {
    let broker = start().await;
    let addr = broker.local_addr();
    let mut from = Raw::client(addr, "from").await;
    for granted in 0..3u8 {
        let mut to = Raw::client(addr, "to").await;
        assert_eq!(to.subscribe(&[("t", granted)]).await, [granted]);
        for qos in 0..3u8 {
            from.publish("t", [qos], qos, 10 + u16::from(qos), false).await;
            match qos {
                1 => assert_eq!(from.packet().await, ack(0x40, 11)),
                2 => {
                    assert_eq!(from.packet().await, ack(0x50, 12));
                    from.ack(0x62, 12).await;
                    assert_eq!(from.packet().await, ack(0x70, 12));
                }
                _ => {}
            }
            let got = to.got().await;
            assert_eq!((got.qos, &got.payload[..]), (qos.min(granted), &[qos][..]));
            match got.qos {
                1 => to.ack(0x40, got.id).await,
                2 => {
                    to.ack(0x50, got.id).await;
                    assert_eq!(to.packet().await, ack(0x62, got.id));
                    to.ack(0x70, got.id).await;
                }
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn a_qos_2_publish_sent_again_is_delivered_once() {
    let broker = start().await;
    let addr = broker.local_addr();
    let mut to = Raw::client(addr, "to").await;
    to.subscribe(&[("t", 0)]).await;
    let (mut from, _) = Raw::join(addr, connect("from").persistent()).await;
    from.publish("t", "once", 2, 5, false).await;
    assert_eq!(from.packet().await, ack(0x50, 5));
    drop(from);
    let (mut from, present) = Raw::join(addr, connect("from").persistent()).await;
    assert!(present);
    for _ in 0..3 {
        from.send(&publish_bytes("t", b"once", 2, 5, false, true)).await;
        assert_eq!(from.packet().await, ack(0x50, 5));
    }
    from.ack(0x62, 5).await;
    assert_eq!(from.packet().await, ack(0x70, 5));
    from.ack(0x62, 5).await;
    assert_eq!(from.packet().await, ack(0x70, 5), "PUBREL of an unknown id is answered as well");
    from.publish("t", "twice", 2, 5, false).await;
    assert_eq!(to.got().await.payload, b"once");
    assert_eq!(to.got().await.payload, b"twice");
    to.quiet().await;
}

#[tokio::test]
async fn acknowledgements_wait_for_the_tap_and_keep_their_order() {
    let (broker, valve, _) = tapped(config()).await;
    let addr = broker.local_addr();
    let mut to = Raw::client(addr, "to").await;
    to.subscribe(&[("#", 0)]).await;
    let mut from = Raw::client(addr, "from").await;
    from.publish("hold/1", "a", 1, 1, false).await;
    from.publish("hold/2", "b", 2, 2, false).await;
    from.publish("eat/3", "c", 1, 3, true).await;
    from.publish("free", "d", 1, 4, false).await;
    from.ping().await;
    valve.end("b", TapResult::Taken).await;
    valve.end("c", TapResult::Taken).await;
    from.quiet().await;
    to.quiet().await;
    valve.end("a", TapResult::Taken).await;
    for expected in [ack(0x40, 1), ack(0x50, 2), ack(0x40, 3), ack(0x40, 4)] {
        assert_eq!(from.packet().await, expected);
    }
    for expected in ["a", "b", "d"] {
        assert_eq!(to.got().await.payload, expected.as_bytes());
    }
    assert_eq!(broker.stats().retained_messages, 0, "what is consumed is not retained");
}

#[tokio::test]
async fn a_refused_message_closes_without_acknowledgement_and_is_new_when_sent_again() {
    let (broker, valve, journal) = tapped(config()).await;
    let addr = broker.local_addr();
    for (qos, result) in [(1u8, Some(TapResult::Refused)), (2, None)] {
        let name = format!("from-{qos}");
        let (mut from, _) = Raw::join(addr, connect(&name).persistent()).await;
        from.publish("hold/x", &name, qos, 1, false).await;
        match result {
            Some(result) => valve.end(&name, result).await,
            None => drop(until("an offer", || valve.held.lock().unwrap().remove(&name)).await),
        }
        assert_eq!(from.try_packet().await, None);
        assert_eq!(journal.reason(&name).await, DisconnectReason::TapRefused);
        let (mut from, _) = Raw::join(addr, connect(&name).persistent()).await;
        from.send(&publish_bytes("hold/x", name.as_bytes(), qos, 1, false, true)).await;
        valve.end(&name, TapResult::Taken).await;
        assert_eq!(from.packet().await, ack(if qos == 1 { 0x40 } else { 0x50 }, 1));
        assert_eq!(valve.offers(&name), 2);
    }
}

#[tokio::test]
async fn a_refused_qos_0_message_is_counted_and_the_client_stays() {
    let (broker, valve, _) = tapped(config()).await;
    let mut from = Raw::client(broker.local_addr(), "from").await;
    from.publish("hold/x", "z", 0, 0, false).await;
    valve.end("z", TapResult::Refused).await;
    until("the count", || (broker.stats().dropped_by_tap == 1).then_some(())).await;
    from.ping().await;
}

#[tokio::test]
async fn a_message_taken_after_the_connection_broke_is_not_taken_twice_at_qos_2() {
    let (broker, valve, journal) = tapped(config()).await;
    let addr = broker.local_addr();
    let (mut from, _) = Raw::join(addr, connect("from").persistent()).await;
    from.publish("hold/x", "m", 2, 1, false).await;
    until("the offer", || (valve.offers("m") == 1).then_some(())).await;
    drop(from);
    valve.end("m", TapResult::Taken).await;
    journal.reason("from").await;
    let (mut from, _) = Raw::join(addr, connect("from").persistent()).await;
    from.send(&publish_bytes("hold/x", b"m", 2, 1, false, true)).await;
    assert_eq!(from.packet().await, ack(0x50, 1));
    assert_eq!(valve.offers("m"), 1);
}

#[tokio::test]
async fn a_client_with_too_much_untaken_is_not_read_and_keep_alive_waits() {
    let mut config = config();
    config.limits.max_unacked_taps_per_client = 3;
    let (broker, valve, _) = tapped(config).await;
    let addr = broker.local_addr();
    let (mut from, _) = Raw::join(addr, connect("from").keep_alive(1)).await;
    for n in 1..=5u16 {
        from.publish("hold/x", n.to_string(), 1, n, false).await;
    }
    until("three offers", || (valve.offered.lock().unwrap().len() == 3).then_some(())).await;
    // Longer than 1.5 keep-alive times: the client cannot be heard, so it is not silent.
    tokio::time::sleep(Duration::from_millis(1_800)).await;
    assert_eq!(valve.offered.lock().unwrap().len(), 3);
    serves(addr).await;
    for n in 1..=5u16 {
        valve.end(&n.to_string(), TapResult::Taken).await;
        assert_eq!(from.packet().await, ack(0x40, n));
    }
}

#[tokio::test]
async fn wills_and_local_publishes_pass_the_tap() {
    let (broker, valve, _) = tapped(config()).await;
    let addr = broker.local_addr();
    let mut to = Raw::client(addr, "to").await;
    to.subscribe(&[("#", 1)]).await;
    let (dying, _) = Raw::join(addr, connect("dying").will("hold/w", "will", 1, false)).await;
    drop(dying);
    until("the offer", || (valve.offers("will") == 1).then_some(())).await;
    to.quiet().await;
    valve.end("will", TapResult::Taken).await;
    assert_eq!(to.got().await.payload, b"will");
    let local = broker.publish(Message::new("hold/l", &b"local"[..], Qos::AtLeastOnce), 42);
    let (delivery, ()) = tokio::join!(local, valve.end("local", TapResult::Taken));
    assert_eq!(delivery, Ok(Delivery { matched: 1, queued: 1 }));
    assert_eq!(to.got().await.payload, b"local");
    let refused = broker.publish(Message::new("hold/l", &b"bad"[..], Qos::AtLeastOnce), 42);
    let (delivery, ()) = tokio::join!(refused, valve.end("bad", TapResult::Refused));
    assert_eq!(delivery, Err(PublishError::Refused));
    let sources: Vec<_> = valve.offered.lock().unwrap().iter().map(|(_, source)| source.clone()).collect();
    assert!(matches!(&sources[0], Source::Will { client_id, .. } if &**client_id == "dying"));
    assert_eq!(sources[1], Source::Local { origin: 42 });
    assert!(broker.publish(Message::new("a/+", &b""[..], Qos::AtMostOnce), 0).await.is_err());
}

#[tokio::test]
async fn send_to_reaches_only_a_subscribed_connected_client() {
    let mut config = config();
    config.limits.max_queued_messages = 2;
    config.limits.max_inflight = 1;
    let broker = start_with(config).await;
    let mut edge = Raw::client(broker.local_addr(), "edge").await;
    let down = || Message::new("down/edge", &b"do"[..], Qos::AtLeastOnce);
    assert_eq!(broker.send_to("edge", down()), Err(SendError::NotSubscribed));
    assert_eq!(broker.send_to("other", down()), Err(SendError::NotConnected));
    edge.subscribe(&[("down/edge", 1)]).await;
    assert_eq!(broker.send_to("edge", down()), Ok(()));
    let first = edge.got().await;
    assert_eq!((first.topic.as_str(), first.qos), ("down/edge", 1));
    assert_eq!(broker.send_to("edge", down()), Ok(()));
    assert_eq!(broker.send_to("edge", down()), Ok(()));
    assert_eq!(broker.send_to("edge", down()), Err(SendError::Full));
    edge.ack(0x40, first.id).await;
    assert_eq!(edge.got().await.payload, b"do");
}

#[tokio::test]
async fn a_persistent_session_keeps_its_subscriptions_and_messages_and_sends_again_with_dup() {
    let broker = start().await;
    let addr = broker.local_addr();
    let (mut to, present) = Raw::join(addr, connect("to").persistent()).await;
    assert!(!present);
    to.subscribe(&[("t", 1)]).await;
    let mut from = Raw::client(addr, "from").await;
    from.put("t", "seen", false).await;
    let unacked = to.got().await;
    assert!(!unacked.dup);
    drop(to);
    until("it to be gone", || (broker.connected().len() == 1).then_some(())).await;
    from.put("t", "missed", false).await;
    from.publish("t", "qos 0 is not kept", 0, 0, false).await;
    from.ping().await;
    let (mut to, present) = Raw::join(addr, connect("to").persistent()).await;
    assert!(present);
    let again = to.got().await;
    assert_eq!((again.id, again.dup, &again.payload[..]), (unacked.id, true, &b"seen"[..]));
    let missed = to.got().await;
    assert_eq!((missed.dup, &missed.payload[..]), (false, &b"missed"[..]));
    to.quiet().await;
    to.bye().await;
    let (to, present) = Raw::join(addr, connect("to")).await;
    assert!(!present, "clean session clears");
    to.bye().await;
    let (mut to, present) = Raw::join(addr, connect("to").persistent()).await;
    assert!(!present);
    from.put("t", "for nobody", false).await;
    to.quiet().await;
}

#[tokio::test]
async fn retained_messages_are_set_replaced_deleted_and_sent_at_every_subscribe() {
    let broker = start().await;
    let addr = broker.local_addr();
    let mut from = Raw::client(addr, "from").await;
    let mut to = Raw::client(addr, "to").await;
    from.put("r/a", "1", true).await;
    from.put("r/a", "2", true).await;
    from.put("r/a", "", false).await;
    for _ in 0..2 {
        to.subscribe(&[("r/+", 0)]).await;
        let got = to.got().await;
        assert_eq!(
            (&got.payload[..], got.retain),
            (&b"2"[..], true),
            "an empty publish that is not retained deletes nothing"
        );
    }
    from.put("r/a", "3", true).await;
    let live = to.got().await;
    assert_eq!((&live.payload[..], live.retain), (&b"3"[..], false));
    from.put("r/a", "", true).await;
    assert_eq!(to.got().await.payload, b"");
    to.subscribe(&[("r/a", 0), ("r/#", 1)]).await;
    to.quiet().await;
    assert_eq!(broker.stats().retained_messages, 0);
}

#[tokio::test]
async fn a_wildcard_brings_more_than_a_hundred_retained_messages_whatever_the_queue_holds() {
    let mut config = config();
    config.limits.max_queued_messages = 10;
    let broker = start_with(config).await;
    for n in 0..2_000 {
        let message =
            Message::new(format!("r/{n:04}"), n.to_string().into_bytes(), Qos::AtLeastOnce).retained();
        broker.publish(message, 0).await.unwrap();
    }
    let mut to = Raw::client(broker.local_addr(), "to").await;
    to.subscribe(&[("r/#", 1)]).await;
    for n in 0..2_000 {
        let got = to.got().await;
        assert_eq!((got.topic, got.retain), (format!("r/{n:04}"), true));
        to.ack(0x40, got.id).await;
    }
    to.quiet().await;
}

#[tokio::test]
async fn retained_messages_and_persistent_subscriptions_outlive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    config.state_dir = Some(dir.path().join("state"));
    let broker = start_with(config.clone()).await;
    let (mut client, _) = Raw::join(broker.local_addr(), connect("p").persistent()).await;
    client.subscribe(&[("r/#", 1), ("gone", 1)]).await;
    client.send(&frame(0xa2, &[&[0, 3][..], &text("gone")].concat())).await;
    assert_eq!(client.packet().await, ack(0xb0, 3));
    let mut from = Raw::client(broker.local_addr(), "from").await;
    from.put("r/keep", "kept", true).await;
    from.put("r/del", "x", true).await;
    from.put("r/del", "", true).await;
    broker.stop().await;

    let broker = start_with(config.clone()).await;
    assert_eq!((broker.stats().retained_messages, broker.stats().subscriptions), (1, 1));
    let (mut client, present) = Raw::join(broker.local_addr(), connect("p").persistent()).await;
    assert!(present);
    let mut from = Raw::client(broker.local_addr(), "from").await;
    from.put("r/new", "live", false).await;
    assert_eq!(client.got().await.payload, b"live");
    client.subscribe(&[("r/keep", 1)]).await;
    assert_eq!(client.got().await.payload, b"kept");
    client.bye().await;
    Raw::client(broker.local_addr(), "p").await.bye().await;
    broker.stop().await;

    let broker = start_with(config).await;
    assert_eq!(broker.stats().sessions, 0, "a clean session leaves nothing behind");
}

#[tokio::test]
async fn retained_messages_reach_the_disk_without_a_stop() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    config.state_dir = Some(dir.path().to_owned());
    let broker = start_with(config.clone()).await;
    broker.publish(Message::new("r", &b"x"[..], Qos::AtMostOnce).retained(), 0).await.unwrap();
    let log = dir.path().join("retained.log");
    until("the write", || (std::fs::metadata(&log).unwrap().len() > 0).then_some(())).await;
    drop(broker);
    assert_eq!(start_with(config).await.stats().retained_messages, 1);
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_used_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let mut config = config();
    config.state_dir = Some(file.clone());
    let started = Broker::start(config, Arc::new(AllowAll), Arc::new(PassAll), Arc::new(Quiet)).await;
    let error = started.err().expect("a file is no directory").to_string();
    assert!(error.contains(&file.display().to_string()), "{error}");
}

#[tokio::test]
async fn retained_messages_are_bounded_and_what_has_no_room_is_counted() {
    let mut config = config();
    config.limits.max_retained_messages = 3;
    let broker = start_with(config).await;
    let mut from = Raw::client(broker.local_addr(), "from").await;
    for n in 0..5 {
        from.put(&format!("r/{n}"), "x", true).await;
    }
    let stats = broker.stats();
    assert_eq!((stats.retained_messages, stats.not_retained), (3, 2));
}

#[tokio::test]
async fn filters_are_checked_and_overlaps_deliver_once_at_the_highest_level() {
    let mut config = config();
    config.limits.max_subscriptions_per_client = 4;
    let broker = start_with(config).await;
    let addr = broker.local_addr();
    let mut to = Raw::client(addr, "to").await;
    let asked = [
        ("a/#/b", 0),
        ("a+", 0),
        ("", 0),
        ("$share/g/a", 1),
        ("ü/+", 0),
        ("+/x", 2),
        ("#", 1),
        ("ü/x", 0),
        ("fifth", 0),
    ];
    assert_eq!(to.subscribe(&asked).await, [0x80, 0x80, 0x80, 0x80, 0, 2, 1, 0, 0x80]);
    let mut from = Raw::client(addr, "from").await;
    from.publish("ü/x", "once", 2, 1, false).await;
    let got = to.got().await;
    assert_eq!((got.topic.as_str(), got.qos), ("ü/x", 2));
    to.quiet().await;
    from.publish("$SYS/x", "hidden from wildcards", 0, 0, false).await;
    to.quiet().await;
    to.send(&frame(0xa2, &[&[0, 4][..], &text("#"), &text("+/x"), &text("never")].concat())).await;
    assert_eq!(to.packet().await, ack(0xb0, 4));
    from.publish("ü/x", "lower", 2, 2, false).await;
    assert_eq!(to.got().await.qos, 0);
}

#[tokio::test]
async fn invalid_topics_close() {
    let broker = start().await;
    for topic in ["", "a/+", "#", "a\0b", &"x/".repeat(100), &"x".repeat(5_000)] {
        let mut raw = Raw::client(broker.local_addr(), "c").await;
        raw.publish(topic, "x", 0, 0, false).await;
        assert_eq!(raw.try_packet().await, None, "{topic:?}");
    }
    let mut raw = Raw::client(broker.local_addr(), "c").await;
    raw.send(&frame(0x30, &vec![0; 256 * 1024 + 1])).await;
    assert_eq!(raw.try_packet().await, None);
    serves(broker.local_addr()).await;
}

#[tokio::test]
async fn a_slow_subscriber_loses_counted_messages_and_stalls_nobody() {
    let mut config = config();
    config.limits.max_queued_messages = 50;
    config.limits.write_timeout = Duration::from_secs(2);
    let (broker, _, journal) = tapped(config).await;
    let addr = broker.local_addr();
    let mut slow = Raw::client(addr, "slow").await;
    slow.subscribe(&[("t", 0), ("u", 1)]).await;
    let mut quick = Raw::client(addr, "quick").await;
    quick.subscribe(&[("u", 1)]).await;
    let payload = vec![b'x'; 100_000];
    within("the socket to fill", async {
        while broker.stats().dropped_qos0 == 0 {
            broker.publish(Message::new("t", payload.clone(), Qos::AtMostOnce), 0).await.unwrap();
            tokio::task::yield_now().await;
        }
    })
    .await;
    for n in 0..300u32 {
        let message = Message::new("u", n.to_be_bytes().to_vec(), Qos::AtLeastOnce);
        assert_eq!(broker.publish(message, 0).await.unwrap(), Delivery { matched: 2, queued: 2 });
        let got = quick.got().await;
        assert_eq!(got.payload, n.to_be_bytes());
        quick.ack(0x40, got.id).await;
    }
    let stats = broker.stats();
    assert_eq!(stats.dropped_queue_full, 250, "the oldest of QoS 1 gave way, each counted");
    assert_eq!(journal.reason("slow").await, DisconnectReason::WriteTimeout);
    serves(addr).await;
}

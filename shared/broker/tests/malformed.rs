//! Packets that are wrong, cut, huge, in pieces or in the wrong order: each closes its own connection at the most.
#![allow(clippy::unwrap_used)] // test helpers outside #[test] functions

mod common;
use common::*;
use tidegate_broker::*;

/// Every packet that a client may send, well formed.
fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let subscribe = [&[0, 9][..], &text("a/+"), &[1], &text("b"), &[2]].concat();
    vec![
        ("connect", connect("c").will("w", "will", 1, true).user("u", "p").bytes()),
        ("publish 0", publish_bytes("a/b", b"x", 0, 0, false, false)),
        ("publish 1", publish_bytes("a/b", b"x", 1, 7, true, false)),
        ("publish 2", publish_bytes("a/b", b"x", 2, 8, false, true)),
        ("puback", frame(0x40, &[0, 1])),
        ("pubrec", frame(0x50, &[0, 1])),
        ("pubrel", frame(0x62, &[0, 1])),
        ("pubcomp", frame(0x70, &[0, 1])),
        ("subscribe", frame(0x82, &subscribe)),
        ("unsubscribe", frame(0xa2, &[&[0, 9][..], &text("a/+")].concat())),
        ("pingreq", vec![0xc0, 0]),
        ("disconnect", vec![0xe0, 0]),
    ]
}

/// Sends `bytes`, then nothing more, and waits for the broker to close.
async fn throw(broker: &Broker, introduced: bool, bytes: &[u8]) {
    use tokio::io::AsyncWriteExt;
    let mut raw = match introduced {
        true => Raw::client(broker.local_addr(), "thrower").await,
        false => Raw::open(broker.local_addr()).await,
    };
    raw.send(bytes).await;
    let _ = raw.0.shutdown().await;
    raw.closed().await;
}

#[tokio::test]
async fn every_packet_with_each_byte_changed_and_cut_at_each_length() {
    let broker = start().await;
    for (name, good) in samples() {
        let introduced = name != "connect";
        for at in 0..good.len() {
            for change in [0x01, 0x04, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] ^= change;
                throw(&broker, introduced, &bad).await;
            }
            throw(&broker, introduced, &good[..at]).await;
        }
        throw(&broker, introduced, &good).await;
        assert_eq!(broker.stats().panics, 0, "{name}");
        serves(broker.local_addr()).await;
    }
}

#[tokio::test]
async fn nothing_but_connect_may_come_first_and_it_only_once() {
    let broker = start().await;
    for (name, bytes) in samples() {
        if name != "connect" {
            let mut raw = Raw::open(broker.local_addr()).await;
            raw.send(&bytes).await;
            assert_eq!(raw.try_packet().await, None, "{name} before CONNECT");
        }
    }
    let refused = samples().len() as u64 - 1;
    let stats = broker.stats();
    assert_eq!((stats.refused, stats.refused_malformed), (refused, refused));
    let mut twice = Raw::open(broker.local_addr()).await;
    twice.send(&[connect("c").bytes(), connect("c").bytes()].concat()).await;
    twice.closed().await;
    until("the violation to be counted", || (broker.stats().violations == 1).then_some(())).await;
}

#[tokio::test]
async fn a_length_beyond_the_bound_is_refused_before_its_bytes_come() {
    let broker = start().await;
    let longest = [0xff, 0xff, 0xff, 0x7f];
    let five_bytes = [0xff, 0xff, 0xff, 0xff, 0x01];
    for first in [0x30, 0x32, 0x82, 0x40, 0xc0] {
        for length in [&longest[..], &five_bytes, &[0x81, 0x80, 0x10]] {
            let mut raw = Raw::client(broker.local_addr(), "c").await;
            raw.send(&[&[first], length].concat()).await;
            assert_eq!(raw.try_packet().await, None, "{first:#x} {length:?}");
        }
    }
    // CONNECT has a smaller bound.
    let mut raw = Raw::open(broker.local_addr()).await;
    raw.send(&[0x10, 0x81, 0x80, 0x02]).await;
    assert_eq!(raw.try_packet().await, None);
    let mut raw = Raw::open(broker.local_addr()).await;
    raw.send(&connect("c").will("w", &"x".repeat(32 * 1024), 0, false).bytes()).await;
    raw.closed().await;
    Raw::join(broker.local_addr(), connect("c").will("w", &"x".repeat(31 * 1024), 0, false))
        .await
        .0
        .bye()
        .await;
    serves(broker.local_addr()).await;
}

#[tokio::test]
async fn packets_come_one_byte_at_a_time_or_many_in_one_segment() {
    let broker = start().await;
    let addr = broker.local_addr();
    let mut talk = connect("bytes").bytes();
    talk.extend(frame(0x82, &[&[0, 9][..], &text("t"), &[1]].concat()));
    for n in 1..=50u8 {
        talk.extend(publish_bytes("t", &[n], 1, u16::from(n), false, false));
    }
    talk.extend([0xc0, 0]);
    for piece in [1, 7, talk.len()] {
        let mut raw = Raw::open(addr).await;
        for bytes in talk.chunks(piece) {
            raw.send(bytes).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(raw.packet().await, Packet(0x20, vec![0, 0]));
        assert_eq!(raw.packet().await, Packet(0x90, vec![0, 9, 1]));
        let (mut acks, mut got, mut pongs) = (0, 0, 0);
        while (acks, got, pongs) != (50, 50, 1) {
            let packet = raw.packet().await;
            match packet.0 {
                0x40 => {
                    acks += 1;
                    assert_eq!(packet, ack(0x40, acks), "acknowledged in order");
                }
                0xd0 => pongs += 1,
                _ => {
                    let publish = packet.publish();
                    got += 1;
                    assert_eq!(publish.payload, [got], "delivered in order");
                    raw.ack(0x40, publish.id).await;
                }
            }
        }
        raw.bye().await;
    }
}

#[tokio::test]
async fn a_length_written_with_more_bytes_than_it_needs_is_still_a_length() {
    let broker = start().await;
    let mut raw = Raw::client(broker.local_addr(), "c").await;
    raw.send(&[0xc0, 0x80, 0x80, 0x80, 0x00]).await;
    assert_eq!(raw.packet().await, Packet(0xd0, vec![]));
}

#[tokio::test]
async fn the_same_packet_id_again_is_another_message_at_qos_1() {
    let broker = start().await;
    let mut to = Raw::client(broker.local_addr(), "to").await;
    to.subscribe(&[("t", 0)]).await;
    let mut from = Raw::client(broker.local_addr(), "from").await;
    for payload in ["a", "b"] {
        from.publish("t", payload, 1, 5, false).await;
    }
    assert_eq!((from.packet().await, from.packet().await), (ack(0x40, 5), ack(0x40, 5)));
    assert_eq!((to.got().await.payload, to.got().await.payload), (b"a".to_vec(), b"b".to_vec()));
}

#[tokio::test]
async fn acknowledgements_in_every_wrong_order_change_nothing() {
    let broker = start().await;
    let addr = broker.local_addr();
    let mut to = Raw::client(addr, "to").await;
    to.subscribe(&[("t", 2), ("one", 1)]).await;
    let mut from = Raw::client(addr, "from").await;
    // Acknowledgements of what was never sent: PUBREC and PUBREL are answered, the others are not.
    for (wrong, answer) in [(0x40, None), (0x70, None), (0x50, Some(0x62)), (0x62, Some(0x70))] {
        to.ack(wrong, 99).await;
        if let Some(answer) = answer {
            assert_eq!(to.packet().await, ack(answer, 99));
        }
        to.ping().await;
    }
    // A QoS 2 message: PUBACK and PUBCOMP before PUBREC are nothing.
    from.publish("t", "two", 2, 1, false).await;
    let two = to.got().await;
    to.ack(0x40, two.id).await;
    to.ack(0x70, two.id).await;
    to.ping().await;
    assert_eq!(broker.connected()[1].waiting, 1);
    // PUBREC twice is PUBREL twice; then a PUBACK is nothing and PUBCOMP is the end.
    for _ in 0..2 {
        to.ack(0x50, two.id).await;
        assert_eq!(to.packet().await, ack(0x62, two.id));
    }
    to.ack(0x40, two.id).await;
    to.ping().await;
    assert_eq!(broker.connected()[1].waiting, 1);
    to.ack(0x70, two.id).await;
    to.ping().await;
    assert_eq!(broker.connected()[1].waiting, 0);
    // A QoS 1 message: PUBREC is answered and nothing, PUBCOMP is nothing.
    from.publish("one", "one", 1, 2, false).await;
    let one = to.got().await;
    to.ack(0x50, one.id).await;
    assert_eq!(to.packet().await, ack(0x62, one.id));
    to.ack(0x70, one.id).await;
    to.ping().await;
    assert_eq!(broker.connected()[1].waiting, 1);
    to.ack(0x40, one.id).await;
    to.ping().await;
    assert_eq!(broker.connected()[1].waiting, 0);
    // The publisher's side of QoS 2: PUBREL first, PUBREL twice, and the id is free again.
    from.closed_after_pubrec(1).await;
}

impl Raw {
    /// Ends a QoS 2 publish whose PUBREC is on its way, and the QoS 1 publish behind it.
    async fn closed_after_pubrec(&mut self, id: u16) {
        assert_eq!(self.packet().await, ack(0x50, id));
        assert_eq!(self.packet().await, ack(0x40, 2));
        for _ in 0..2 {
            self.ack(0x62, id).await;
            assert_eq!(self.packet().await, ack(0x70, id));
        }
        self.publish("t", "again", 2, id, false).await;
        assert_eq!(self.packet().await, ack(0x50, id));
    }
}

#[tokio::test]
async fn more_qos_2_publishes_than_may_be_open_close_the_connection() {
    let mut config = config();
    config.limits.max_unreleased = 3;
    let broker = start_with(config).await;
    let mut from = Raw::client(broker.local_addr(), "from").await;
    for id in 1..=3 {
        from.publish("t", "x", 2, id, false).await;
        assert_eq!(from.packet().await, ack(0x50, id));
    }
    from.publish("t", "x", 2, 4, false).await;
    assert_eq!(from.try_packet().await, None);
}

#[tokio::test]
async fn the_longest_topics_go_through_where_they_are_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    config.limits.max_topic_bytes = 65_535;
    config.state_dir = Some(dir.path().to_owned());
    let longest = "ü".repeat(32_767) + "x";
    assert_eq!(longest.len(), 65_535);
    let broker = start_with(config.clone()).await;
    let mut to = Raw::client(broker.local_addr(), "to").await;
    assert_eq!(to.subscribe(&[(&longest, 1)]).await, [1]);
    let mut from = Raw::client(broker.local_addr(), "from").await;
    from.put(&longest, "x", true).await;
    let got = to.got().await;
    assert_eq!(got.topic, longest);
    to.ack(0x40, got.id).await;
    broker.stop().await;
    assert_eq!(start_with(config).await.stats().retained_messages, 1);
}

#[tokio::test]
async fn a_thousand_filters_in_one_subscribe_get_a_thousand_answers() {
    let broker = start().await;
    let mut to = Raw::client(broker.local_addr(), "to").await;
    let filters: Vec<String> = (0..1_000).map(|n| format!("f/{n}/+")).collect();
    let asked: Vec<(&str, u8)> = filters.iter().map(|f| (f.as_str(), 1)).collect();
    let answers = to.subscribe(&asked).await;
    assert_eq!(answers, [vec![1; 256], vec![0x80; 744]].concat());
    let mut from = Raw::client(broker.local_addr(), "from").await;
    from.put("f/255/x", "in", false).await;
    from.put("f/256/x", "out", false).await;
    assert_eq!(to.got().await.payload, b"in");
    to.quiet().await;
}

#[tokio::test]
async fn topics_with_a_dollar_are_ordinary_but_for_leading_wildcards() {
    let broker = start().await;
    let mut to = Raw::client(broker.local_addr(), "to").await;
    to.subscribe(&[("#", 0), ("+/x", 0), ("$own/#", 0)]).await;
    let mut from = Raw::client(broker.local_addr(), "from").await;
    for topic in ["$SYS/x", "$own/x", "$", "plain"] {
        from.put(topic, "x", true).await;
    }
    assert_eq!((to.got().await.topic, to.got().await.topic), ("$own/x".to_owned(), "plain".to_owned()));
    to.quiet().await;
}

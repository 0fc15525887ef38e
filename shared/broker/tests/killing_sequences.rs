//! What kills rumqttd's own server (docs/adr/0003): afterwards this broker still serves everybody. And bytes at random.
#![allow(clippy::unwrap_used)] // test helpers outside #[test] functions

mod common;
use common::*;
use proptest::prelude::*;
use std::time::Duration;

#[tokio::test]
async fn killing_sequence_1_a_topic_or_will_that_begins_with_a_non_ascii_character() {
    let broker = start().await;
    let addr = broker.local_addr();
    let mut to = Raw::client(addr, "to").await;
    to.subscribe(&[("é/#", 1), ("温度", 1)]).await;
    let (mut from, _) = Raw::join(addr, connect("from").will("é/will", "w", 1, false)).await;
    from.put("é", "1", true).await;
    from.put("温度", "2", false).await;
    drop(from);
    for topic in ["é", "温度", "é/will"] {
        assert_eq!(to.got().await.topic, topic);
    }
    serves(addr).await;
}

#[tokio::test]
async fn killing_sequence_2_odd_client_ids_twice_and_connects_above_the_limit() {
    let mut config = config();
    config.limits.max_connections = 4;
    let broker = start_with(config).await;
    let addr = broker.local_addr();
    for id in ["+", "#", "$", "/", "a/+/#$", "$share/x"] {
        let (mut old, _) = Raw::join(addr, connect(id)).await;
        let (mut new, _) = Raw::join(addr, connect(id)).await;
        assert_eq!(old.try_packet().await, None);
        new.ping().await;
        new.bye().await;
    }
    until("all to be gone", || (broker.connected().is_empty()).then_some(())).await;
    let mut crowd = Vec::new();
    for _ in 0..12 {
        let mut raw = Raw::open(addr).await;
        raw.send(&connect("").bytes()).await;
        crowd.push(raw);
    }
    for raw in &mut crowd {
        let answer = raw.try_packet().await;
        assert!(answer.is_none_or(|a| a.0 == 0x20));
    }
    drop(crowd);
    until("all to be gone", || (broker.connected().is_empty()).then_some(())).await;
    within("seats to be free", async {
        loop {
            let mut raw = Raw::open(addr).await;
            raw.send(&connect("probe").bytes()).await;
            if raw.try_packet().await == Some(Packet(0x20, vec![0, 0])) {
                return raw.bye().await;
            }
        }
    })
    .await;
    serves(addr).await;
}

#[tokio::test]
async fn killing_sequence_3_a_shared_subscriber_dies_with_an_unacknowledged_message() {
    let broker = start().await;
    let addr = broker.local_addr();
    let (mut to, _) = Raw::join(addr, connect("to").persistent()).await;
    assert_eq!(to.subscribe(&[("$share/g/t", 1), ("t", 1)]).await, [0x80, 1]);
    let mut from = Raw::client(addr, "from").await;
    from.put("t", "x", false).await;
    assert_eq!(to.got().await.payload, b"x");
    drop(to);
    until("it to be gone", || (broker.connected().len() == 1).then_some(())).await;
    from.put("t", "y", false).await;
    let (mut to, _) = Raw::join(addr, connect("to").persistent()).await;
    assert_eq!((to.got().await.dup, to.got().await.dup), (true, false));
    serves(addr).await;
}

#[tokio::test]
async fn killing_sequence_4_mqtt_5_properties_towards_a_3_1_1_subscriber() {
    let broker = start().await;
    let addr = broker.local_addr();
    let mut to = Raw::client(addr, "to").await;
    to.subscribe(&[("t", 0)]).await;
    let mut from = Raw::open(addr).await;
    from.send(&connect("five").level(5).bytes()).await;
    // A publish with one user property right behind it.
    from.send(&frame(0x30, &[&text("t")[..], &[7, 0x26, 0, 1, b'k', 0, 1, b'v'], b"x"].concat())).await;
    assert_eq!(from.try_packet().await, Some(Packet(0x20, vec![0, 0x84, 0])));
    assert_eq!(from.try_packet().await, None);
    to.ping().await;
    serves(addr).await;
}

#[tokio::test]
async fn killing_sequence_5_packets_that_only_a_server_sends_then_a_reconnect() {
    let broker = start().await;
    let addr = broker.local_addr();
    for packet in
        [&[0xb0u8, 2, 0, 1][..], &[0x20, 2, 0, 0], &[0x90, 3, 0, 1, 0], &[0xd0, 0], &[0xb0, 0], &[0x20, 0]]
    {
        let mut raw = Raw::client(addr, "bad").await;
        raw.send(packet).await;
        assert_eq!(raw.try_packet().await, None);
        Raw::client(addr, "bad").await.ping().await;
    }
    serves(addr).await;
}

#[tokio::test]
async fn killing_sequence_6_silent_connections_while_others_connect() {
    let broker = start().await;
    let addr = broker.local_addr();
    let mut silent = Vec::new();
    for n in 0..50usize {
        let mut raw = Raw::open(addr).await;
        raw.send(&connect("half").bytes()[..n % 10]).await;
        silent.push(raw);
    }
    tokio::time::timeout(Duration::from_secs(2), serves(addr))
        .await
        .expect("silent connections block nobody");
    drop(silent);
    serves(addr).await;
}

/// Packets that are nearly right, cut and joined at will.
fn nearly_mqtt() -> impl Strategy<Value = Vec<u8>> {
    let body = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        prop::collection::vec(
            prop_oneof![Just(0u8), Just(1), Just(b'a'), Just(b'/'), Just(b'+'), Just(b'#')],
            0..20
        ),
    ];
    let packet = (any::<u8>(), body).prop_map(|(first, body)| frame(first, &body));
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..100),
        prop::collection::vec(packet, 1..8).prop_map(|p| p.concat())
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]
    #[test]
    fn no_bytes_kill_the_broker(bytes in nearly_mqtt(), introduced: bool) {
        thread_local! {
            static RIG: (tokio::runtime::Runtime, tidegate_broker::Broker) = {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let broker = runtime.block_on(start());
                (runtime, broker)
            };
        }
        RIG.with(|(runtime, broker)| {
            runtime.block_on(async {
                let mut raw = if introduced {
                    Raw::join(broker.local_addr(), connect("fuzz").persistent()).await.0
                } else {
                    Raw::open(broker.local_addr()).await
                };
                raw.send(&bytes).await;
                serves(broker.local_addr()).await;
            });
        });
    }
}

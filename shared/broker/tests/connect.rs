//! CONNECT: every CONNACK code, what closes without one, limits, take-over, wills, keep-alive, stop.
#![allow(clippy::unwrap_used)] // test helpers outside #[test] functions

mod common;
use common::*;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_broker::*;

struct Doorkeeper;

impl Gate for Doorkeeper {
    fn authenticate<'a>(&'a self, connect: &'a ConnectRequest) -> Decision<'a> {
        Box::pin(async move {
            let password = connect.password.as_ref().map(Password::expose);
            match (connect.username.as_deref(), password) {
                (Some("edge"), Some(b"right")) => Ok(Rights {
                    publish: Permit::Filters(vec!["up/#".into()]),
                    subscribe: Permit::Filters(vec!["down/+".into()]),
                }),
                (Some("root"), _) => Ok(Rights::all()),
                (Some("busy"), _) => Err(Refusal::ServerUnavailable),
                (Some("alien"), _) => Err(Refusal::IdentifierRejected),
                (None, _) => Err(Refusal::NotAuthorized),
                _ => Err(Refusal::BadCredentials),
            }
        })
    }
}

async fn guarded() -> (Broker, Arc<Journal>) {
    let journal = Arc::new(Journal::default());
    let watcher: Arc<Journal> = Arc::clone(&journal);
    (Broker::start(config(), Arc::new(Doorkeeper), Arc::new(PassAll), watcher).await.unwrap(), journal)
}

async fn answer(broker: &Broker, connect: Connect) -> Option<Packet> {
    let mut raw = Raw::open(broker.local_addr()).await;
    raw.send(&connect.bytes()).await;
    let answer = raw.try_packet().await;
    if answer.as_ref().is_some_and(|a| a.1[1] != 0) {
        raw.closed().await;
    }
    answer
}

#[tokio::test]
async fn each_refusal_has_its_code() {
    let (broker, _) = guarded().await;
    let code = |n| Some(Packet(0x20, vec![0, n]));
    assert_eq!(answer(&broker, connect("a").user("edge", "right")).await, code(0));
    assert_eq!(answer(&broker, connect("a").user("edge", "right").level(3)).await, code(1));
    assert_eq!(answer(&broker, connect("a").user("edge", "right").level(6)).await, code(1));
    assert_eq!(answer(&broker, connect("").user("edge", "right").persistent()).await, code(2));
    assert_eq!(answer(&broker, connect(&"x".repeat(257)).user("edge", "right")).await, code(2));
    assert_eq!(answer(&broker, connect("a").user("alien", "")).await, code(2));
    assert_eq!(answer(&broker, connect("a").user("busy", "")).await, code(3));
    assert_eq!(answer(&broker, connect("a").user("edge", "wrong")).await, code(4));
    assert_eq!(answer(&broker, connect("a")).await, code(5));
    assert_eq!(
        answer(&broker, connect("a").user("edge", "right").will("down/x", "", 0, false)).await,
        code(5)
    );
    // MQTT 5 is told so in its own words.
    assert_eq!(answer(&broker, connect("a").level(5)).await, Some(Packet(0x20, vec![0, 0x84, 0])));
    assert_eq!(broker.stats().refused, 10);
}

#[tokio::test]
async fn rights_hold_for_publish_and_subscribe() {
    let (broker, journal) = guarded().await;
    let addr = broker.local_addr();
    let (mut edge, _) = Raw::join(addr, connect("edge-1").user("edge", "right")).await;
    let asked = [("down/+", 1), ("down/a", 2), ("down/#", 1), ("#", 0), ("up/a", 0), ("$SYS/#", 0)];
    assert_eq!(edge.subscribe(&asked).await, [1, 2, 0x80, 0x80, 0x80, 0x80]);
    edge.put("up/x", "", false).await;
    edge.publish("down/a", "forged", 1, 5, false).await;
    assert_eq!(edge.try_packet().await, None);
    assert_eq!(journal.reason("edge-1").await, DisconnectReason::NotPermitted { topic: "down/a".into() });
}

#[tokio::test]
async fn a_persistent_session_loses_subscriptions_that_are_no_longer_permitted() {
    let (broker, _) = guarded().await;
    let addr = broker.local_addr();
    let (mut first, _) = Raw::join(addr, connect("c").user("root", "").persistent()).await;
    assert_eq!(first.subscribe(&[("secret", 1), ("down/a", 1)]).await, [1, 1]);
    first.bye().await;
    let (mut second, present) = Raw::join(addr, connect("c").user("edge", "right").persistent()).await;
    assert!(present);
    let (mut root, _) = Raw::join(addr, connect("r").user("root", "")).await;
    root.put("secret", "x", false).await;
    root.put("down/a", "y", false).await;
    assert_eq!(second.got().await.topic, "down/a");
}

#[tokio::test]
async fn a_clean_client_without_an_id_gets_one_of_its_own() {
    let broker = start().await;
    let (_a, _) = Raw::join(broker.local_addr(), connect("")).await;
    let (_b, _) = Raw::join(broker.local_addr(), connect("")).await;
    assert_eq!(broker.connected().len(), 2);
}

#[tokio::test]
async fn what_is_not_a_connect_closes() {
    let broker = start().await;
    for bytes in
        [&[0xc0u8, 0][..], b"GET / HTTP/1.1\r\n\r\n", &[0x10, 0xff, 0xff, 0xff, 0xff, 0xff], &[0x11, 0]]
    {
        let mut raw = Raw::open(broker.local_addr()).await;
        raw.send(bytes).await;
        assert_eq!(raw.try_packet().await, None, "{bytes:?}");
    }
    let mut twice = Raw::client(broker.local_addr(), "a").await;
    twice.send(&connect("a").bytes()).await;
    assert_eq!(twice.try_packet().await, None);
    serves(broker.local_addr()).await;
}

#[tokio::test]
async fn a_silent_connection_is_closed_and_blocks_nobody() {
    let mut config = config();
    config.limits.connect_timeout = Duration::from_millis(300);
    let broker = start_with(config).await;
    let mut silent = Raw::open(broker.local_addr()).await;
    let mut half = Raw::open(broker.local_addr()).await;
    half.send(&connect("half").bytes()[..9]).await;
    serves(broker.local_addr()).await;
    assert_eq!(silent.try_packet().await, None);
    assert_eq!(half.try_packet().await, None);
}

#[tokio::test]
async fn one_connection_too_many_is_told_to_come_back() {
    let mut config = config();
    config.limits.max_connections = 2;
    let broker = start_with(config).await;
    let addr = broker.local_addr();
    let mut a = Raw::client(addr, "a").await;
    let b = Raw::client(addr, "b").await;
    assert_eq!(answer(&broker, connect("c")).await, Some(Packet(0x20, vec![0, 3])));
    a.ping().await;
    b.bye().await;
    within("a free seat", async {
        while answer(&broker, connect("d")).await != Some(Packet(0x20, vec![0, 0])) {}
    })
    .await;
}

#[tokio::test]
async fn one_persistent_session_too_many_is_refused_and_expiry_makes_room() {
    let mut config = config();
    config.limits.max_sessions = 1;
    config.limits.session_expiry = Duration::from_millis(1);
    let broker = start_with(config).await;
    let (a, _) = Raw::join(broker.local_addr(), connect("a").persistent()).await;
    assert_eq!(answer(&broker, connect("b").persistent()).await, Some(Packet(0x20, vec![0, 3])));
    Raw::client(broker.local_addr(), "c").await.bye().await;
    a.bye().await;
    until("the session to expire", || (broker.stats().sessions == 0).then_some(())).await;
    assert_eq!(answer(&broker, connect("b").persistent()).await, Some(Packet(0x20, vec![0, 0])));
}

#[tokio::test]
async fn keep_alive_ends_a_silent_client_even_while_it_is_sent_to() {
    let (broker, journal) = guarded().await;
    let addr = broker.local_addr();
    let (mut sleeper, _) =
        Raw::join(addr, connect("sleeper").user("root", "").keep_alive(1).will("gone", "sleeper", 1, false))
            .await;
    sleeper.subscribe(&[("tick", 0)]).await;
    let (mut witness, _) = Raw::join(addr, connect("witness").user("root", "")).await;
    witness.subscribe(&[("gone", 1)]).await;
    let from = Instant::now();
    let ticking = async {
        loop {
            broker.publish(Message::new("tick", &b"x"[..], Qos::AtMostOnce), 0).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let got = tokio::select! { got = witness.got() => got, () = ticking => unreachable!() };
    assert_eq!(got.payload, b"sleeper");
    assert!(from.elapsed() >= Duration::from_millis(1_300), "too early: {:?}", from.elapsed());
    assert_eq!(journal.reason("sleeper").await, DisconnectReason::KeepAlive);
}

#[tokio::test]
async fn pings_keep_a_client() {
    let broker = start().await;
    let (mut client, _) = Raw::join(broker.local_addr(), connect("p").keep_alive(1)).await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        client.ping().await;
    }
}

#[tokio::test]
async fn a_will_follows_a_lost_connection_and_a_violation_but_not_a_disconnect() {
    let broker = start().await;
    let addr = broker.local_addr();
    let mut witness = Raw::client(addr, "witness").await;
    witness.subscribe(&[("will/+", 2)]).await;
    let join = |id: &str| Raw::join(addr, connect(id).will(&format!("will/{id}"), "w", 2, true));
    join("polite").await.0.bye().await;
    drop(join("lost").await);
    let got = witness.got().await;
    assert_eq!((got.topic.as_str(), got.qos, got.retain), ("will/lost", 2, false));
    let (mut rude, _) = join("rude").await;
    rude.send(&[0xf0, 0]).await;
    assert_eq!(witness.got().await.topic, "will/rude");
    // Both are retained; the polite one's never was.
    let mut late = Raw::client(addr, "late").await;
    late.subscribe(&[("will/#", 0)]).await;
    let (a, b) = (late.got().await, late.got().await);
    assert_eq!((a.topic.as_str(), b.topic.as_str(), a.retain), ("will/lost", "will/rude", true));
    late.quiet().await;
    assert_eq!(broker.stats().wills, 2);
}

#[tokio::test]
async fn a_take_over_ends_the_old_connection_and_its_will_comes_first() {
    let (broker, journal) = guarded().await;
    let addr = broker.local_addr();
    let (mut witness, _) = Raw::join(addr, connect("witness").user("root", "")).await;
    witness.subscribe(&[("t", 1)]).await;
    let join = || Raw::join(addr, connect("c").user("root", "").persistent().will("t", "will", 1, false));
    let (mut old, present) = join().await;
    assert!(!present);
    old.subscribe(&[("mine", 1)]).await;
    old.put("t", "old", false).await;
    let (mut new, present) = join().await;
    assert!(present, "the session goes on");
    new.put("t", "new", false).await;
    assert_eq!(old.try_packet().await, None);
    for expected in ["old", "will", "new"] {
        let got = witness.got().await;
        assert_eq!(got.payload, expected.as_bytes());
        witness.ack(0x40, got.id).await;
    }
    witness.put("mine", "hello", false).await;
    assert_eq!(new.got().await.payload, b"hello");
    assert_eq!(journal.reason("c").await, DisconnectReason::TakenOver);
    let events = journal.0.lock().unwrap().clone();
    let of_c: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Connected { client_id, resumed, .. } => {
                (&**client_id == "c").then(|| format!("in {resumed}"))
            }
            Event::Disconnected { client_id, .. } => (&**client_id == "c").then(|| "out".to_owned()),
            Event::Subscribed { .. } | Event::Unhealthy { .. } => None,
        })
        .collect();
    assert_eq!(of_c, ["in false", "out", "in true"]);
}

#[tokio::test]
async fn many_take_overs_at_once_leave_one() {
    let broker = start().await;
    let addr = broker.local_addr();
    let joins: Vec<_> = (0..20)
        .map(|_| {
            tokio::spawn(async move {
                let mut raw = Raw::open(addr).await;
                raw.send(&connect("same").bytes()).await;
                raw.closed_or_in().await;
                raw
            })
        })
        .collect();
    let mut held = Vec::new();
    for join in joins {
        held.push(join.await.unwrap());
    }
    until("one to be left", || (broker.connected().len() == 1).then_some(())).await;
    serves(addr).await;
}

#[tokio::test]
async fn the_owner_can_close_a_client() {
    let (broker, journal) = guarded().await;
    let (mut client, _) = Raw::join(broker.local_addr(), connect("c").user("root", "")).await;
    assert!(broker.disconnect("c") && !broker.disconnect("nobody"));
    assert_eq!(client.try_packet().await, None);
    assert_eq!(journal.reason("c").await, DisconnectReason::ByOwner);
}

#[tokio::test]
async fn stop_takes_less_than_a_second_and_frees_the_port() {
    let broker = start().await;
    let addr = broker.local_addr();
    let (mut client, _) = Raw::join(addr, connect("c").will("w", "w", 1, true)).await;
    let _silent = Raw::open(addr).await;
    let from = Instant::now();
    broker.stop().await;
    assert!(from.elapsed() < Duration::from_secs(1), "{:?}", from.elapsed());
    assert_eq!(client.try_packet().await, None);
    let again = start_with(BrokerConfig::new(addr)).await;
    serves(addr).await;
    // The will of a client that the stop closed was not published.
    assert_eq!(again.stats().retained_messages, 0);
    let taken =
        Broker::start(BrokerConfig::new(addr), Arc::new(AllowAll), Arc::new(PassAll), Arc::new(Quiet)).await;
    let error = taken.err().expect("the port is taken").to_string();
    assert!(error.contains(&addr.to_string()) && error.contains("choose another"), "{error}");
}

impl Raw {
    async fn closed_or_in(&mut self) {
        let _ = self.try_packet().await;
    }
}

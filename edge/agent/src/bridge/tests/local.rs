//! The half towards a local broker that is not our own, against one that does exactly what a test says.

use std::{ops::RangeInclusive, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use rumqttc::mqttbytes::{
    QoS,
    v4::{ConnectReturnCode, Packet},
};
use tidegate_edge_core::Order;
use tidegate_edge_queue::{Queue, Record, Stored};
use tidegate_model::{
    ids::{EdgeId, RuleId},
    rule::EdgeRule,
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{LocalLink, LocalParts, LocalState, Sessions},
    DEADLINE, Timing,
    peer::{Conn, Peer},
    queue_config, rule, until,
};
use crate::settings::LocalBroker;

pub(super) const RULE: RuleId = RuleId(uuid::Uuid::from_u128(1));

/// One half with all around it.
pub(super) struct Rig {
    pub link: LocalLink,
    pub outgoing: Queue,
    pub incoming: Queue,
    pub sessions: Arc<Sessions>,
    pub state: watch::Receiver<LocalState>,
    pub dir: tempfile::TempDir,
    pub rule: Arc<EdgeRule>,
    pub cancel: CancellationToken,
}

pub(super) fn sessions(dir: &Path, peer: &Peer, cancel: &CancellationToken) -> Arc<Sessions> {
    let broker = LocalBroker {
        host: "127.0.0.1".to_owned(),
        port: peer.port(),
        username: Some("u".to_owned()),
        password: Some(tidegate_model::rule::Secret::new("p")),
    };
    let edge = EdgeId::new("gw-1").unwrap();
    Sessions::open(dir.join("sessions"), edge, broker, cancel.clone()).unwrap()
}

impl Rig {
    pub fn start(peer: &Peer, timing: Timing) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), peer, timing)
    }

    /// With what an earlier one left in this directory.
    pub fn start_in(dir: tempfile::TempDir, peer: &Peer, timing: Timing) -> Self {
        let rig = Self::start_idle(dir, peer, timing);
        rig.run(1, &rig.rule);
        rig
    }

    /// Nobody says who takes.
    fn start_idle(dir: tempfile::TempDir, peer: &Peer, timing: Timing) -> Self {
        let rule = rule(peer, &[]).0;
        let open = |name: &str| {
            Queue::open(&dir.path().join(name), queue_config(&rule.queue), super::super::wall_ms()).unwrap()
        };
        let ((outgoing, found), (incoming, _)) = (open("out"), open("in"));
        let cancel = CancellationToken::new();
        let sessions = sessions(dir.path(), peer, &cancel);
        let parts = LocalParts {
            rule: RULE,
            outgoing: outgoing.clone(),
            incoming: incoming.clone(),
            held: found.sources.into(),
            sessions: Arc::clone(&sessions),
            events: mpsc::channel(8).0,
            timing,
        };
        let link = LocalLink::start(parts, &cancel);
        let state = link.state();
        Self { link, outgoing, incoming, sessions, state, dir, rule, cancel }
    }

    /// Takes in under this rule, which runs.
    pub fn run(&self, order: u64, rule: &Arc<EdgeRule>) {
        self.link.want(|wishes| {
            wishes.taking = Some(Arc::clone(rule));
            wishes.running = Some((Order(order), Arc::clone(rule)));
        });
    }

    /// Only tries this rule.
    fn try_out(&self, order: u64, rule: &Arc<EdgeRule>) {
        self.link.want(|wishes| wishes.running = Some((Order(order), Arc::clone(rule))));
    }

    pub async fn up(&mut self, order: u64) {
        self.until(|state| *state == LocalState::Up(Order(order))).await;
    }

    pub async fn until(&mut self, wanted: impl Fn(&LocalState) -> bool) -> LocalState {
        let state = timeout(DEADLINE, self.state.wait_for(wanted)).await;
        state.expect("the local side never came to this state").unwrap().clone()
    }

    /// As a process that is killed: nothing is said, and the queues are as they are on disk.
    async fn kill(self) -> tempfile::TempDir {
        self.cancel.cancel();
        drop(self.link);
        // Whoever still holds the queues lets go of them.
        for queue in [self.outgoing, self.incoming] {
            queue.close();
        }
        self.dir
    }

    /// The numbers that are in the outgoing queue.
    fn kept(&self) -> Vec<u32> {
        let (mut numbers, mut next) = (Vec::new(), 1);
        loop {
            let found = self.outgoing.read_from(next, 1_000, 1 << 20).unwrap();
            let Some(last) = found.last() else { return numbers };
            next = last.offset + 1;
            let text = |stored: &Stored| String::from_utf8(stored.record.payload.to_vec()).unwrap();
            numbers.extend(found.iter().map(|stored| text(stored).parse::<u32>().unwrap()));
        }
    }

    pub fn put(&self, numbers: RangeInclusive<u32>) {
        for number in numbers {
            let record = Record {
                topic: "in/cmd".to_owned(),
                payload: Bytes::from(number.to_string()),
                qos: 1,
                retain: number == 1,
                at_ms: super::super::wall_ms(),
                source: None,
            };
            self.incoming.append(record, |_| {});
        }
    }
}

/// The next connection, with the session of the one before.
async fn resumed(peer: &Peer) -> Conn {
    let mut conn = peer.accept().await;
    conn.connect().await;
    conn.resume().await;
    conn
}

/// Gives messages with these numbers as payload and packet id.
async fn give(conn: &mut Conn, numbers: RangeInclusive<u16>) {
    for number in numbers {
        conn.give("sensors/a", &number.to_string().into_bytes(), number, false).await;
    }
}

async fn give_again(conn: &mut Conn, numbers: RangeInclusive<u16>) {
    for number in numbers {
        conn.give_again("sensors/a", &number.to_string().into_bytes(), number).await;
    }
}

async fn acknowledged(conn: &mut Conn, numbers: RangeInclusive<u16>) {
    for number in numbers {
        assert_eq!(conn.acknowledged().await, number);
    }
}

#[tokio::test]
async fn it_has_a_session_of_its_own_and_acknowledges_what_is_on_disk_in_order() {
    let peer = Peer::new().await;
    let mut rig = Rig::start(&peer, Timing::default());
    let mut conn = peer.accept().await;
    let connect = conn.connect().await;
    assert_eq!(connect.client_id, format!("tidegate.gw-1.{RULE}"));
    assert!(!connect.clean_session && conn.as_bridge);
    assert_eq!(connect.login.map(|login| (login.username, login.password)), Some(("u".into(), "p".into())));
    conn.connack(ConnectReturnCode::Success).await;
    assert_eq!(*rig.state.borrow(), LocalState::NotYet, "not before the subscription");
    assert_eq!(conn.grant().await, ["sensors/#"]);
    rig.up(1).await;
    give(&mut conn, 1..=3).await;
    conn.give("machines/a", b"4", 4, false).await; // of an old subscription: nobody takes it
    conn.give("sensors/a", b"5", 0, true).await;
    give(&mut conn, 6..=6).await;
    acknowledged(&mut conn, 1..=4).await;
    acknowledged(&mut conn, 6..=6).await;
    assert_eq!(rig.kept(), [1, 2, 3, 5, 6]);
    let first = &rig.outgoing.read_from(1, 1, 1).unwrap()[0].record;
    assert_eq!((first.topic.as_str(), first.qos, first.retain), ("plant/sensors/a", 1, false));
    rig.link.stop().await;
    assert_eq!(conn.next().await, Some(Packet::Disconnect));
}

#[tokio::test]
async fn a_broker_that_does_not_know_bridges_gets_a_plain_client() {
    let peer = Peer::new().await;
    let mut rig = Rig::start(&peer, Timing::default());
    let mut conn = peer.accept().await;
    conn.connect().await;
    conn.connack(ConnectReturnCode::RefusedProtocolVersion).await;
    let mut conn = peer.accept().await;
    conn.connect().await;
    assert!(!conn.as_bridge);
    conn.connack(ConnectReturnCode::Success).await;
    conn.grant().await;
    rig.up(1).await;
}

#[tokio::test]
async fn what_comes_again_without_a_puback_is_stored_once() {
    let peer = Peer::new().await;
    let mut rig = Rig::start(&peer, Timing::default());
    let mut conn = peer.serve().await;
    rig.up(1).await;
    give(&mut conn, 1..=20).await;
    acknowledged(&mut conn, 1..=20).await;
    // The queue of 64 KiB is full: these wait for room, without a PUBACK.
    let large = vec![b'0'; 15_000];
    for pkid in 21..=30 {
        conn.give("sensors/a", &large, pkid, false).await;
    }
    until(|| rig.outgoing.stats().waiting > 0).await;
    drop(conn);
    let mut conn = resumed(&peer).await;
    conn.grant().await;
    for pkid in 21..=30 {
        conn.give_again("sensors/a", &large, pkid).await;
    }
    conn.give("sensors/a", &large, 31, false).await;
    until(|| {
        rig.outgoing.release(rig.outgoing.stats().tail);
        rig.outgoing.stats().tail == 31
    })
    .await;
    acknowledged(&mut conn, 21..=31).await;
    assert_eq!(rig.outgoing.stats().appended_total, 31);
}

#[tokio::test]
async fn what_an_earlier_process_stored_is_not_stored_again_and_what_is_new_is() {
    let peer = Peer::new().await;
    let rig = Rig::start(&peer, Timing::default());
    let mut conn = peer.serve().await;
    give(&mut conn, 1..=50).await;
    acknowledged(&mut conn, 1..=50).await;
    let rig = Rig::start_in(rig.kill().await, &peer, Timing::default());
    drop(conn);
    // The broker saw the acknowledgements up to 40.
    let mut conn = resumed(&peer).await;
    conn.grant().await;
    give_again(&mut conn, 41..=52).await;
    give(&mut conn, 53..=55).await;
    acknowledged(&mut conn, 41..=55).await;
    assert_eq!(rig.kept(), (1..=55).collect::<Vec<_>>());
    // An id that is used again, for other bytes.
    drop(conn);
    let mut conn = resumed(&peer).await;
    conn.grant().await;
    conn.give_again("sensors/a", b"100", 55).await;
    acknowledged(&mut conn, 55..=55).await;
    assert_eq!(rig.kept().last(), Some(&100));
}

#[tokio::test]
async fn what_only_looks_like_what_is_held_is_asked_for_again_and_stored() {
    let peer = Peer::new().await;
    // The broker lost the newest: it was restored from an older state. Its row breaks off, by another message or by silence.
    for next in [Some(b"7".as_slice()), None] {
        let rig = Rig::start(&peer, Timing { replay: Duration::from_millis(200), ..Timing::default() });
        let mut conn = peer.serve().await;
        give(&mut conn, 1..=50).await;
        acknowledged(&mut conn, 1..=50).await;
        drop(conn);
        let mut conn = resumed(&peer).await;
        conn.grant().await;
        give_again(&mut conn, 41..=42).await;
        if let Some(payload) = next {
            conn.give_again("sensors/a", payload, 43).await;
        }
        assert_eq!(conn.next().await, Some(Packet::Disconnect), "nothing is acknowledged");
        let mut conn = resumed(&peer).await;
        conn.grant().await;
        give_again(&mut conn, 41..=42).await;
        acknowledged(&mut conn, 41..=42).await;
        assert_eq!(rig.kept()[50..], [41, 42]);
        rig.link.stop().await;
    }
}

#[tokio::test]
async fn a_lost_session_makes_everything_new() {
    let peer = Peer::new().await;
    let rig = Rig::start(&peer, Timing::default());
    let mut conn = peer.serve().await;
    give(&mut conn, 1..=10).await;
    acknowledged(&mut conn, 1..=10).await;
    drop(conn);
    let mut conn = peer.serve().await;
    give_again(&mut conn, 5..=10).await;
    acknowledged(&mut conn, 5..=10).await;
    assert_eq!(rig.kept().len(), 16);
}

#[tokio::test]
async fn the_incoming_queue_is_released_when_the_local_broker_acknowledged_it() {
    let peer = Peer::new().await;
    let mut rig = Rig::start(&peer, Timing::default());
    rig.put(1..=4);
    let mut conn = peer.serve().await;
    rig.up(1).await;
    for number in 1..=4_u32 {
        let publish = conn.publish().await;
        assert_eq!((publish.topic.as_str(), publish.qos), ("in/cmd", QoS::AtLeastOnce));
        assert_eq!((publish.payload, publish.retain), (number.to_string().into(), number == 1));
        if number == 1 {
            conn.puback(publish.pkid).await;
        }
    }
    until(|| rig.incoming.stats().released == 1).await;
    drop(conn);
    // The session is there, but the window decides what is sent again.
    let mut conn = resumed(&peer).await;
    conn.grant().await;
    let sent = conn.publishes(3).await;
    assert_eq!(sent.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [2, 3, 4]);
    for (_, pkid) in sent {
        conn.puback(pkid).await;
    }
    until(|| rig.incoming.stats().released == 4).await;
}

/// The same rule with other forwards.
fn forwards(peer: &Peer, filters: &[&str]) -> Arc<EdgeRule> {
    let routes: Vec<_> = rule(peer, filters).0.subscriptions.clone();
    let mut other = EdgeRule::clone(&rule(peer, &[]).0);
    other.forwards = routes;
    Arc::new(other)
}

#[tokio::test]
async fn other_topics_are_subscribed_on_the_living_connection() {
    let peer = Peer::new().await;
    let mut rig = Rig::start(&peer, Timing::default());
    let mut conn = peer.serve().await;
    rig.up(1).await;
    // Of overlapping filters only the widest is asked for.
    rig.run(2, &forwards(&peer, &["machines/#", "machines/press", "machines/+/a"]));
    match conn.next().await {
        Some(Packet::Unsubscribe(packet)) => assert_eq!(packet.topics, ["sensors/#"]),
        other => panic!("no UNSUBSCRIBE but {other:?}"),
    }
    let subscribe = conn.subscribe().await;
    let filters: Vec<_> = subscribe.filters.iter().map(|filter| filter.path.as_str()).collect();
    assert_eq!(filters, ["machines/#"]);
    assert_eq!(*rig.state.borrow(), LocalState::Up(Order(1)), "not before it is granted");
    let codes = vec![rumqttc::mqttbytes::v4::SubscribeReasonCode::Success(QoS::AtLeastOnce)];
    conn.suback(&subscribe, codes).await;
    rig.up(2).await;
}

#[tokio::test]
async fn what_only_a_rule_on_trial_takes_waits_for_its_commit() {
    let peer = Peer::new().await;
    let mut rig = Rig::start(&peer, Timing::default());
    let mut conn = peer.serve().await;
    rig.up(1).await;
    let tried = forwards(&peer, &["sensors/#", "machines/#"]);
    rig.try_out(2, &tried);
    assert_eq!(conn.grant().await, ["machines/#"]);
    rig.up(2).await;
    give(&mut conn, 1..=1).await;
    conn.give("machines/a", b"2", 2, false).await;
    give(&mut conn, 3..=3).await;
    acknowledged(&mut conn, 1..=1).await;
    assert_eq!(rig.kept(), [1]);
    rig.run(2, &tried);
    acknowledged(&mut conn, 2..=3).await;
    assert_eq!(rig.kept(), [1, 2, 3]);
}

/// At a start the session's messages may be faster than the word who takes them.
#[tokio::test]
async fn what_comes_before_it_is_known_who_takes_it_waits() {
    let peer = Peer::new().await;
    let mut rig = Rig::start_idle(tempfile::tempdir().unwrap(), &peer, Timing::default());
    let mut conn = resumed(&peer).await;
    give_again(&mut conn, 1..=20).await;
    // Passed over, they would be acknowledged at once.
    let early = timeout(Duration::from_millis(500), conn.next()).await;
    assert!(early.is_err(), "{early:?}");
    rig.run(1, &rig.rule);
    assert_eq!(conn.grant().await, ["sensors/#"]);
    acknowledged(&mut conn, 1..=20).await;
    assert_eq!(rig.kept(), (1..=20).collect::<Vec<_>>());
    rig.up(1).await;
}

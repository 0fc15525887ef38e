//! What goes wrong at a local broker that is not our own: silence, refusals, no room, sessions that must end.

use std::time::Duration;

use rumqttc::mqttbytes::v4::{ConnectReturnCode, Packet};
use tidegate_edge_core::{BridgeEvent, Order};
use tidegate_edge_queue::Queue;
use tidegate_model::code::FaultCode;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    super::{Bridge, LocalEnd, LocalState, Notice, Parts, Task},
    DEADLINE, Timing,
    local::{Rig, sessions},
    peer::Peer,
    queue_config, rule, until,
};

fn code(state: &LocalState) -> Option<FaultCode> {
    match state {
        LocalState::Trouble(fault) => Some(fault.code),
        LocalState::NotYet | LocalState::Up(_) => None,
    }
}

#[tokio::test]
async fn a_refusal_says_what_and_no_secret_and_it_recovers_by_itself() {
    let peer = Peer::new().await;
    let mut rig = Rig::start(&peer, Timing::default());
    let mut conn = peer.accept().await;
    conn.connect().await;
    conn.connack(ConnectReturnCode::NotAuthorized).await;
    let state = rig.until(|state| code(state).is_some()).await;
    let LocalState::Trouble(fault) = state else { panic!("{state:?}") };
    assert_eq!(fault.code, FaultCode::LocalBroker);
    let address = format!("mqtt://127.0.0.1:{}", peer.port());
    assert!(fault.detail.contains(&address) && fault.detail.contains("not authorized"), "{}", fault.detail);
    let mut conn = peer.serve().await;
    rig.up(1).await;
    conn.give("sensors/a", b"1", 1, false).await;
    assert_eq!(conn.acknowledged().await, 1);
}

#[tokio::test]
async fn a_silent_local_broker_is_noticed_and_so_is_one_that_acknowledges_nothing() {
    let peer = Peer::new().await;
    let quick = Duration::from_millis(300);
    let mut rig = Rig::start(&peer, Timing { silence: quick, ping: quick, ..Timing::default() });
    let mut conn = peer.serve().await;
    rig.up(1).await;
    assert_eq!(conn.next().await, Some(Packet::PingReq));
    rig.until(|state| code(state) == Some(FaultCode::LocalBroker)).await;
    assert_eq!(conn.next().await, None);
    rig.link.stop().await;

    let mut rig = Rig::start(&peer, Timing { acknowledge: quick, ..Timing::default() });
    rig.put(1..=1);
    let mut conn = peer.serve().await;
    conn.publish().await;
    rig.until(|state| code(state) == Some(FaultCode::LocalBroker)).await;
}

#[tokio::test]
async fn without_room_it_stops_reading_and_keeps_the_connection_alive_and_loses_nothing() {
    let peer = Peer::new().await;
    let quick = Duration::from_millis(200);
    let mut rig = Rig::start(&peer, Timing { silence: quick, ping: quick, ..Timing::default() });
    let mut conn = peer.serve().await;
    rig.up(1).await;
    // 64 KiB of queue, 4 MiB that wait for it in memory, 256 KiB read beyond: it reads no more than that.
    let payload = vec![b'x'; 4_000];
    let total = 4_000_u16;
    let (mut writer, mut seen_pings, mut acked) = (conn.take_giver(), 0, 0);
    let (answer, mut asked) = mpsc::unbounded_channel();
    let giving = tokio::spawn(async move {
        for pkid in 1..=total {
            writer.give("sensors/a", &payload, pkid).await;
        }
        while let Some(()) = asked.recv().await {
            writer.pingresp().await;
        }
    });
    // It asks on and on, is not answered, and does not give up.
    while seen_pings < 5 {
        match conn.next().await {
            Some(Packet::PingReq) => seen_pings += 1,
            Some(Packet::PubAck(ack)) => {
                acked += 1;
                assert_eq!(ack.pkid, acked);
            }
            other => panic!("{other:?}"),
        }
    }
    let stats = rig.outgoing.stats();
    assert!(u64::from(acked) <= stats.tail, "{acked} acknowledged, {} on disk", stats.tail);
    assert!(stats.tail + stats.waiting < 1_200, "{stats:?}");
    assert_eq!(code(&rig.state.borrow()), None);
    // Room comes: all of it arrives.
    let queue = rig.outgoing.clone();
    let releasing = tokio::spawn(async move {
        loop {
            queue.release(queue.stats().tail);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    while acked < total {
        match conn.next().await {
            Some(Packet::PubAck(ack)) => {
                acked += 1;
                assert_eq!(ack.pkid, acked);
            }
            Some(Packet::PingReq) => answer.send(()).unwrap(),
            other => panic!("{other:?}"),
        }
    }
    releasing.abort();
    drop(answer);
    giving.await.unwrap();
    let stats = rig.outgoing.stats();
    assert_eq!((stats.appended_total, stats.dropped.total()), (u64::from(total), 0));
}

#[tokio::test]
async fn a_session_is_ended_when_the_broker_is_there_again_also_by_a_later_process() {
    let peer = Peer::new().await;
    let mut rig = Rig::start(&peer, Timing::default());
    let conn = peer.serve().await;
    rig.up(1).await;
    // Stopped while the broker is not there.
    drop(conn);
    let address = peer.address();
    drop(peer);
    rig.cancel.cancel();
    rig.link.stop().await;
    rig.sessions.end(super::local::RULE);

    let peer = Peer::at(address).await;
    let cancel = CancellationToken::new();
    let later = sessions(rig.dir.path(), &peer, &cancel);
    let mut conn = peer.accept().await;
    let connect = conn.connect().await;
    assert!(connect.clean_session);
    assert_eq!(connect.client_id, later.endpoint(super::local::RULE).client_id);
    conn.connack(ConnectReturnCode::Success).await;
    assert_eq!(conn.next().await, Some(Packet::Disconnect));
    let note = rig.dir.path().join("sessions").join(super::local::RULE.to_string());
    until(|| !note.exists()).await;
}

#[tokio::test]
async fn a_rule_that_starts_again_before_its_session_was_ended_ends_it_first() {
    let peer = Peer::new().await;
    let dir = tempfile::tempdir().unwrap();
    let notes = dir.path().join("sessions");
    std::fs::create_dir_all(&notes).unwrap();
    let note = format!(
        "{{\"broker\":\"mqtt://127.0.0.1:{}\",\"client_id\":\"tidegate.gw-1.{}\",\"ended\":true}}",
        peer.port(),
        super::local::RULE
    );
    std::fs::write(notes.join(super::local::RULE.to_string()), note).unwrap();
    let mut rig = Rig::start_in(dir, &peer, Timing::default());
    let mut conn = peer.accept().await;
    assert!(conn.connect().await.clean_session);
    conn.connack(ConnectReturnCode::Success).await;
    let mut conn = peer.accept().await;
    assert!(!conn.connect().await.clean_session);
    conn.connack(ConnectReturnCode::Success).await;
    conn.grant().await;
    rig.up(1).await;
}

/// A bridge whose local side is as a test says.
async fn remote_half(
    peer: &Peer,
) -> (Bridge, watch::Sender<LocalState>, mpsc::Receiver<Notice>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let (rule, secrets) = rule(peer, &[]);
    let open = |name: &str| Queue::open(&dir.path().join(name), queue_config(&rule.queue), 0).unwrap().0;
    let (local, state) = watch::channel(LocalState::NotYet);
    let (events, notices) = mpsc::channel(16);
    let parts = Parts {
        rule: super::local::RULE,
        outgoing: open("out"),
        incoming: open("in"),
        local: LocalEnd::Link(state),
        events,
        timing: Timing::default(),
    };
    let task = Task { order: Order(3), rule, secrets };
    (Bridge::start(parts, task, &CancellationToken::new()), local, notices, dir)
}

async fn event(notices: &mut mpsc::Receiver<Notice>) -> BridgeEvent {
    tokio::time::timeout(DEADLINE, notices.recv()).await.expect("no event").unwrap().event
}

fn trouble() -> LocalState {
    LocalState::Trouble(tidegate_model::wire::Fault {
        code: FaultCode::LocalBroker,
        detail: "it is away".to_owned(),
    })
}

fn is_fault(event: &BridgeEvent, code: FaultCode) -> bool {
    matches!(event, BridgeEvent::Faulted(fault) if fault.code == code)
}

#[tokio::test]
async fn a_rule_runs_when_both_halves_do_and_the_remote_broker_has_the_first_word() {
    let peer = Peer::new().await;
    let (_bridge, local, mut notices, _dir) = remote_half(&peer).await;
    local.send_replace(trouble());
    // A wrong password is a wrong password, whatever the local broker does.
    let mut conn = peer.accept().await;
    conn.connect().await;
    conn.connack(ConnectReturnCode::BadUserNamePassword).await;
    assert!(is_fault(&event(&mut notices).await, FaultCode::Auth));
    let _conn = peer.log_in().await;
    assert!(is_fault(&event(&mut notices).await, FaultCode::LocalBroker));
    // What is up for an earlier order is not up for this one.
    local.send_replace(LocalState::Up(Order(2)));
    local.send_replace(LocalState::NotYet);
    assert!(notices.try_recv().is_err());
    local.send_replace(LocalState::Up(Order(3)));
    assert_eq!(event(&mut notices).await, BridgeEvent::Running);
    local.send_replace(trouble());
    assert!(is_fault(&event(&mut notices).await, FaultCode::LocalBroker));
}

//! One golden file per message kind. Every later version of the software reads these files, for ever: they may be
//! added to and never changed. `UPDATE_GOLDEN=1 cargo test -p tidegate-model --test golden` writes missing files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use tidegate_model::code::{Code, FaultCode};
use tidegate_model::digest::Digest;
use tidegate_model::ids::{EdgeId, MessageId, RuleId, RuleName, SessionId, StoreId};
use tidegate_model::placement::{Action, IssueState, Link, RunState, VersionDigest};
use tidegate_model::time::Wall;
use tidegate_model::version::{Generation, RuleVersion};
use tidegate_model::wire::{
    Ack, Ask, Attempt, Birth, By, Bye, Command, Config, ControllerPresence, Counters, DesiredRun, Down,
    Dropped, Envelope, Fault, Header, Heartbeat, Hello, HelloLimits, Inventory, InventoryItem, Origin, Ping,
    PlacementState, QueueFull, Received, Report, RunReport, SecretValue, Set, SetResult, StateQueueFull,
    StateReason, Up, Want, Welcome, Will,
};
use uuid::Uuid;

const AT: i64 = 1_767_225_600_123;

fn header(sq: u64) -> Header {
    Header {
        id: MessageId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001)),
        re: (sq == 3).then(|| MessageId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000))),
        sid: SessionId { store: StoreId(0x9f3c), epoch: 42 },
        sq,
        ce: 17,
        ts: AT,
    }
}

fn rule() -> RuleId {
    RuleId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_00aa))
}

fn target() -> VersionDigest {
    VersionDigest { version: RuleVersion(7), digest: Digest::of(b"{}") }
}

fn run() -> RunReport {
    RunReport {
        sequence: 9,
        state: RunState::PausedFault,
        fault: Some(Fault { code: FaultCode::Tcp, detail: "connection refused".into() }),
        by: By::Agent,
        since: Wall(AT),
        flapping: None,
        queue_full: None,
    }
}

fn set() -> Set {
    let mut set = Set {
        rule: rule(),
        name: RuleName::new("camera-up").unwrap(),
        generation: Generation(12),
        want: Digest::of(b""),
        target: target(),
        present: true,
        run: DesiredRun::Running,
        restart: 11,
        config: Config::Bytes("{}".into()),
        secrets: vec![SecretValue { id: rule().to_string(), version: 2, value: "example".into() }],
    };
    set.want = set.compute_want();
    set
}

fn ups() -> Vec<Up> {
    let root = Digest::of(b"root");
    vec![
        Up::Birth(Birth { boot: 5 }),
        Up::Will(Will {}),
        Up::Bye(Bye { reason: "stopped by a signal".into() }),
        Up::Hello(Hello {
            agent: "0.1.0".parse().unwrap(),
            protocols: BTreeSet::from([1]),
            features: BTreeSet::from(["bridge.v1".into()]),
            limits: HelloLimits { max_envelope_bytes: 524_288, max_rules: 200 },
            boot: 5,
            root,
            rules: 1,
            highest_ce: 17,
            clock: Wall(AT),
        }),
        Up::Inventory(Inventory {
            page: 1,
            pages: 1,
            root,
            rules: vec![InventoryItem {
                rule: rule(),
                name: Some(RuleName::new("camera-up").unwrap()),
                generation: Generation(12),
                want: set().want,
                present: true,
                running: Some(target()),
                attempted: Some(Attempt {
                    generation: Generation(12),
                    target: Some(target()),
                    code: Code::Ok,
                    detail: String::new(),
                }),
                run: run(),
                origin: Origin::Cloud,
            }],
        }),
        Up::Received(Received { rule: rule(), generation: Generation(12) }),
        Up::Result(SetResult {
            rule: rule(),
            generation: Generation(12),
            answers: Generation(12),
            code: Code::RemoteAuth,
            attempted: Some(target()),
            running: None,
            want: set().want,
            run: RunReport::never_ran(),
            duration_ms: 120,
            detail: "bad user name or password".into(),
        }),
        Up::Report(Report {
            rule: rule(),
            run: run(),
            counters: Counters {
                forwarded: 1_000,
                received: 100,
                queued: 3,
                queued_bytes: 768,
                oldest_age_ms: 1_500,
                set_aside: 0,
                dropped: Dropped(BTreeMap::from([("age".into(), 2)])),
                reconnects: 1,
                last_error: Some("connection refused".into()),
            },
            skipped: 1,
        }),
        Up::Heartbeat(Heartbeat { root, runs: BTreeMap::from([(RunState::Running, 1)]), queued: 3 }),
        Up::Pong(Ping { nonce: 99 }),
    ]
}

fn downs() -> Vec<Down> {
    vec![
        Down::Welcome(Welcome { want: Want::Inventory, heartbeat_s: 60, time: Wall(AT), epoch: 42 }),
        Down::Set(Box::new(set())),
        Down::Ping(Ping { nonce: 99 }),
    ]
}

fn golden(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{name}.v1.json"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() && !path.exists() {
        std::fs::write(&path, bytes).unwrap();
    }
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_message_is_read_from_its_golden_file() {
    for (number, message) in ups().into_iter().enumerate() {
        let presence = matches!(message, Up::Birth(_) | Up::Will(_) | Up::Bye(_));
        let header = header(if presence { 0 } else { number as u64 });
        let bytes = golden(message.kind(), &Envelope::up(header, &message).to_bytes());
        assert_eq!(Envelope::read_up(&bytes).unwrap(), (header, message));
    }
    for (number, message) in downs().into_iter().enumerate() {
        let header = header(number as u64 + 1);
        let bytes = golden(message.kind(), &Envelope::down(header, &message).to_bytes());
        assert_eq!(Envelope::read_down(&bytes).unwrap(), (header, message));
    }
    let counters = Counters { set_aside: 2, ..Counters::default() };
    let report = Up::Report(Report { rule: rule(), run: run(), counters, skipped: 0 });
    let bytes = golden("report-set-aside", &Envelope::up(header(9), &report).to_bytes());
    assert_eq!(Envelope::read_up(&bytes).unwrap(), (header(9), report));
    let full = QueueFull { since: Wall(AT - 1_000), forwards: true, subscriptions: false };
    let run = RunReport { state: RunState::Running, fault: None, queue_full: Some(full), ..run() };
    let report = Up::Report(Report { rule: rule(), run, counters: Counters::default(), skipped: 0 });
    let bytes = golden("report-queue-full", &Envelope::up(header(9), &report).to_bytes());
    assert_eq!(Envelope::read_up(&bytes).unwrap(), (header(9), report));
    for (name, alive) in [("controller", true), ("controller-gone", false)] {
        let presence = ControllerPresence { epoch: 17, version: "0.1.0".parse().unwrap(), alive };
        let bytes = golden(name, &serde_json::to_vec(&presence).unwrap());
        assert_eq!(serde_json::from_slice::<ControllerPresence>(&bytes).unwrap(), presence);
    }
}

fn state() -> PlacementState {
    PlacementState {
        rule: RuleName::new("camera-up").unwrap(),
        edge: EdgeId::new("gw-7").unwrap(),
        issue_state: IssueState::Issued,
        run_state: RunState::PausedFault,
        desired_run: DesiredRun::Running,
        version: RuleVersion(7),
        edge_version: Some(RuleVersion(7)),
        since: Some("2026-01-01T00:00:00.123Z".into()),
        link: Link::Online,
        last_known: false,
        in_flight: None,
        queued: false,
        removing: false,
        drift: false,
        reason: Some(StateReason { code: "TCP".into(), detail: "connection refused".into() }),
        queue_full: None,
    }
}

#[test]
fn what_other_systems_say_and_hear_is_read_from_golden_files() {
    let command =
        br#"{"tid":"42","type":"datasync","action":"start","payload":{"id":"camera-up","edge":"gw-7"}}"#;
    let command = Command::read(&golden("command", command)).unwrap();
    let (rule, edge) = (RuleName::new("camera-up").unwrap(), EdgeId::new("gw-7").unwrap());
    assert_eq!(command.ask, Ask::Act { action: Action::Start, rule, edge, queue: false });

    let mut acted = Ack::new(command.tid, "start", Code::Accepted, "start is under way");
    acted.payload.generation = Some(Generation(12));
    acted.payload.operation = Some(header(1).id);
    acted.payload.state = Some(state());
    let mut list = Ack::new(acted.tid.clone(), "list", Code::Ok, "");
    list.payload.items = Some(vec![state()]);
    list.payload.next = Some("camera-up/gw-7".into());
    let refused = Ack::new(acted.tid.clone(), "start", Code::EdgeOffline, "the edge is offline");
    for (name, ack) in [("ack", acted), ("ack-list", list), ("ack-refused", refused)] {
        let bytes = golden(name, &serde_json::to_vec(&ack).unwrap());
        assert_eq!(serde_json::from_slice::<Ack>(&bytes).unwrap(), ack);
    }
    let bytes = golden("state", &serde_json::to_vec(&state()).unwrap());
    assert_eq!(serde_json::from_slice::<PlacementState>(&bytes).unwrap(), state());
    let since = Some("2026-01-01T00:00:07.000Z".into());
    let full = Some(StateQueueFull { since, forwards: true, subscriptions: false });
    let full = PlacementState { queue_full: full, ..state() };
    let bytes = golden("state-queue-full", &serde_json::to_vec(&full).unwrap());
    assert_eq!(serde_json::from_slice::<PlacementState>(&bytes).unwrap(), full);
}

#[test]
fn fields_of_a_newer_peer_are_ignored_at_every_depth() {
    fn widen(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(map) => {
                map.values_mut().for_each(widen);
                map.insert("from_the_future".into(), serde_json::json!({"a": [1]}));
            }
            serde_json::Value::Array(list) => list.iter_mut().for_each(widen),
            serde_json::Value::Null
            | serde_json::Value::Bool(_)
            | serde_json::Value::Number(_)
            | serde_json::Value::String(_) => {}
        }
    }
    for message in ups() {
        // These maps hold numbers by name; a name more is a value of the wrong type there.
        if matches!(message, Up::Heartbeat(_) | Up::Report(_)) {
            continue;
        }
        let mut envelope = serde_json::to_value(Envelope::up(header(1), &message)).unwrap();
        let mut body: serde_json::Value = serde_json::from_str(envelope["body"].as_str().unwrap()).unwrap();
        widen(&mut body);
        envelope["body"] = body.to_string().into();
        envelope["from_the_future"] = true.into();
        let (_, read) = Envelope::read_up(envelope.to_string().as_bytes()).unwrap();
        assert_eq!(read, message);
    }
}

#[test]
fn no_debug_output_shows_a_secret() {
    assert!(!format!("{:?}", Down::Set(Box::new(set()))).contains("example"));
}

#[test]
fn a_desired_state_is_another_one_when_any_of_its_parts_is() {
    let base = set();
    let others = [
        Set { generation: Generation(13), ..base.clone() },
        Set { target: VersionDigest { version: RuleVersion(8), ..target() }, ..base.clone() },
        Set { target: VersionDigest { digest: Digest::of(b"x"), ..target() }, ..base.clone() },
        Set { present: false, ..base.clone() },
        Set { run: DesiredRun::Stopped, ..base.clone() },
        Set { restart: 12, ..base.clone() },
    ];
    for other in others {
        assert_ne!(other.compute_want(), base.want);
    }
    assert_eq!(Set { config: Config::Keep, secrets: vec![], ..base.clone() }.compute_want(), base.want);
}

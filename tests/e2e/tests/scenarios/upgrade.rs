//! Data directories that earlier versions left, stopped in order and killed, are opened by this one and work.
//!
//! The fixtures are in `tests/e2e/fixtures`, written by `make.sh` there with the binaries of the version in their name. With
//! `TIDEGATE_E2E_FIXTURES` another folder of fixtures is tried: `tests/upgrade.sh` makes one of any commit.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tidegate_e2e::mqtt::{Conn, Packet};
use tidegate_e2e::wait::until;
use tidegate_e2e::world::EDGE;
use tidegate_e2e::{Agent, Controller, Device, Login, Mosquitto, PATIENCE, Sink};

/// Where the rules of the fixtures expect their remote broker.
const REMOTE: &str = "127.83.0.2:21883";

fn fixtures(kind: &str) -> Vec<PathBuf> {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let folder = std::env::var_os("TIDEGATE_E2E_FIXTURES").map_or(committed, PathBuf::from);
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> =
        files.filter(|path| path.to_string_lossy().ends_with(&format!("-{kind}.tar.gz"))).collect();
    assert!(!found.is_empty(), "no fixture of the kind {kind} in {}", folder.display());
    found.sort();
    found
}

/// All in one test: the rules' remote broker has one fixed address.
#[test]
fn what_an_earlier_version_left_works_on() {
    for (kind, waiting) in [("stopped", 200), ("killed", 300)] {
        for fixture in fixtures(kind) {
            eprintln!("--- {}", fixture.display());
            works_on(&fixture, waiting);
        }
    }
}

fn works_on(fixture: &Path, waiting: u64) {
    let dir = tempfile::tempdir().unwrap();
    let unpacked = Command::new("tar").arg("-xzf").arg(fixture).arg("-C").arg(dir.path()).status().unwrap();
    assert!(unpacked.success());
    let remote = Mosquitto::at(dir.path(), REMOTE.parse().unwrap());
    let sink = Sink::start(remote.address, Login::anonymous("sink"), "plant/gw-1/#");
    let controller = Controller::start(dir.path());
    let generation = |rule: &str| placement(&controller, rule)["generation"].as_u64().unwrap();
    let before = generation("camera-up");
    assert_eq!(placement(&controller, "camera-up")["issue_state"], "issued");
    let agent = Agent::existing(dir.path(), EDGE, controller.mqtt);
    controller.wait_link(PATIENCE, EDGE, "online");

    // What waited arrives, in order.
    let numbers: Vec<u64> = (1..=waiting).collect();
    sink.expect_all_in_order(&numbers);
    // Every state is what it was.
    controller.wait_states("camera-up", EDGE, "issued", "running");
    controller.wait_states("press-up", EDGE, "issued", "paused_manual");
    let line =
        controller.wait("line-up", EDGE, "known", |p| p["last_known"] == false && p["in_flight"].is_null());
    assert_eq!(line["issue_state"], "updates_not_issued", "{line:#}");
    assert_eq!(placement(&controller, "later-up")["issue_state"], "not_issued");
    assert_eq!(agent.committed().len(), 3);
    retained_and_session(&agent);

    // And it works on: data, a newer version, a start, a first issue; generations go up.
    let device =
        Device::start(agent.local, "device-1", Duration::from_millis(1), |_| "sensors/line-2".to_owned());
    device.publish_up_to(50);
    device.wait_acked(50);
    until("the device's messages arrive", || {
        (sink.arrived().iter().filter(|a| a.topic.ends_with("line-2")).count() >= 50).then_some(())
    });
    controller.ok(&["sync", "line-up", "--edge", EDGE, "--wait", "--timeout", "80s"]);
    controller.ok(&["start", "press-up", "--edge", EDGE, "--wait", "--timeout", "80s"]);
    controller.ok(&["issue", "later-up", "--edge", EDGE, "--wait", "--timeout", "80s"]);
    for rule in ["camera-up", "press-up", "line-up", "later-up"] {
        controller.wait_states(rule, EDGE, "issued", "running");
    }
    assert!(generation("camera-up") >= before && generation("line-up") > 1);
    let log = controller.process.text() + &agent.process.text();
    assert!(!log.contains("fixture-secret"), "a password is in a log");
}

fn placement(controller: &Controller, rule: &str) -> Value {
    controller.placement(rule, EDGE).unwrap()
}

/// The retained message and the persistent session of the local broker.
fn retained_and_session(agent: &Agent) {
    let mut reader = Conn::open(agent.local, &Login::anonymous("reader")).unwrap().unwrap();
    reader.ask("plant/setpoint", 1).unwrap();
    let retained =
        until("the retained message comes", || match reader.next(Duration::from_secs(1)).unwrap() {
            Some(Packet::Publish { payload, retain: true, .. }) => Some(payload),
            Some(_) | None => None,
        });
    assert_eq!(retained, b"retained-21.5");
    // The session knows its subscription: it does not subscribe again.
    let mut keeper = Conn::open(agent.local, &Login::anonymous("keeper").keeping_session()).unwrap().unwrap();
    let sender = Device::start(agent.local, "sender", Duration::ZERO, |_| "keep/1".to_owned());
    sender.publish_up_to(1);
    until("the kept session gets its message", || match keeper.next(Duration::from_secs(1)).unwrap() {
        Some(Packet::Publish { topic, .. }) => (topic == "keep/1").then_some(()),
        Some(_) | None => None,
    });
}

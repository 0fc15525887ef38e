//! Disks that are full, damaged, not ours, or in use: one sentence that says what to do, and nothing lost.

use std::path::Path;
use std::time::Duration;

use tidegate_e2e::wait::until;
use tidegate_e2e::world::EDGE;
use tidegate_e2e::{Answer, PATIENCE, Rule, World};
use tidegate_faults::Fault;

/// What the process said last: why it ended.
fn last_words(text: &str) -> &str {
    text.lines().rev().find(|line| !line.starts_with("---") && !line.is_empty()).unwrap_or_default()
}

#[test]
fn a_full_disk_ends_the_controller_with_a_sentence_and_it_starts_again_when_there_is_space() {
    let mut world = World::new();
    let flag = world.dir().join("full");
    let data = world.controller.data_dir();
    world.controller.faults.set(Some(Fault::full_while(&data, &flag)));
    world.controller.process.kill9();
    world.controller.start_again();
    world.controller.wait_link(PATIENCE, EDGE, "online");
    world.run_rule(&Rule::new("camera-up", world.remote.address));
    std::fs::write(&flag, "").unwrap();
    // What was acknowledged before the end is there afterwards.
    let mut saved = Vec::new();
    for number in 0..10_000 {
        let rule = Rule::new(&format!("rule-{number}"), world.remote.address);
        let file = rule.write(&world.dir());
        if world.controller.cli(&["rule", "apply", "-f", &file.display().to_string()]).code != 0 {
            break;
        }
        saved.push(rule.name);
    }
    let status = world.controller.process.wait_end(PATIENCE);
    assert_eq!(status.code(), Some(1), "{}", world.controller.process.text());
    let said = world.controller.process.text();
    let why = last_words(&said);
    assert!(why.contains("o space left on device") && why.contains("free space on that disk"), "{why}");
    assert!(!said.contains("panicked"), "{said}");
    // While it is full, starting says so too, if it needs space; never a panic.
    world.controller.process.start();
    std::thread::sleep(Duration::from_millis(500));
    std::fs::remove_file(&flag).unwrap();
    // It may have ended because the disk was full; then its supervisor starts it again.
    let _ = world.controller.process.ended();
    world.controller.start_again();
    for name in &saved {
        assert_eq!(world.controller.rule(name)["name"], name.as_str());
    }
    let placement = world.controller.wait_states("camera-up", EDGE, "issued", "running");
    world.hold_to_truth("camera-up", &placement);
    assert!(!world.controller.process.text().contains("panicked"));
}

#[test]
fn a_full_disk_of_the_gateway_holds_messages_back_and_its_store_goes_on() {
    let mut world = World::new();
    let flag = world.dir().join("full");
    world.agent.faults.set(Some(Fault::full_while(&world.agent.data, &flag)));
    world.agent.process.kill9();
    world.agent.start_again();
    world.controller.wait_link(PATIENCE, EDGE, "online");
    let mut rule = Rule::new("camera-up", world.remote.address);
    rule.more = "[queue]\nmax_bytes = \"64MiB\"\nwhen_full = \"block\"\n".to_owned();
    world.run_rule(&rule);
    let remote = world.remote_sink();
    let device = world.device(Duration::ZERO);
    device.publish_up_to(100);
    device.wait_acked(100);
    std::fs::write(&flag, "").unwrap();
    device.publish_on();
    // The queue's preallocated segment takes some more; then nothing is acknowledged, and the cloud is told.
    let told = world.controller.wait("camera-up", EDGE, "paused by its disk", |p| {
        p["run_state"] == "paused_fault" && p["run_reason"]["code"] == "DISK"
    });
    assert_eq!(told["issue_state"], "issued");
    // What is wrong besides does not hide it.
    world.remote.process.kill9();
    world.controller.wait("camera-up", EDGE, "paused by its disk, and without its remote broker", |p| {
        p["run_reason"]["code"] == "DISK"
            && p["run_reason"]["detail"].as_str().is_some_and(|detail| detail.contains("besides: TCP"))
    });
    let remote = world.remote_returns(Some(remote));
    // The store still takes what has to be remembered. It is another rule: while one is stopped, what devices publish for it
    // is nobody's, and would be missed below.
    let mut other = Rule::new("other", world.remote.address);
    (other.start, other.forwards) = (Some("manual".to_owned()), vec!["other/#".to_owned()]);
    world.controller.apply_and_place(&other, EDGE);
    world.controller.ok(&["issue", "other", "--edge", EDGE, "--wait", "--timeout", "80s"]);
    assert!(world.agent.process.ended().is_none(), "{}", world.agent.process.text());
    std::fs::remove_file(&flag).unwrap();
    world.controller.wait_states("camera-up", EDGE, "issued", "running");
    device.wait_flow(50);
    remote.expect_all_in_order(&device.finish());
    assert!(!world.agent.process.text().contains("panicked"));
}

/// Overwrites the middle of what was written to a file.
fn damage(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end / 3..end / 2].fill(0xa5);
    std::fs::write(file, bytes).unwrap();
}

/// A command on the data directory of the controller, without its API.
fn offline(world: &World, args: &[&str]) -> Answer {
    let mut command = tidegate_e2e::controller::tidegate(&world.dir().join("config"));
    tidegate_e2e::controller::run(command.args(args).arg("--data-dir").arg(world.controller.data_dir()))
}

#[test]
fn a_damaged_store_of_the_controller_is_restored_as_its_error_says() {
    let mut world = World::new();
    world.run_rule(&Rule::new("camera-up", world.remote.address));
    let device = world.device(Duration::from_millis(5));
    device.publish_on();
    world.controller.process.kill9();
    let backup = world.dir().join("backup.jsonl").display().to_string();
    assert_eq!(offline(&world, &["export", "--out", &backup]).code, 0);
    let store = world.controller.data_dir().join("store");
    damage(&store.join("db"));
    world.controller.process.start();
    assert_eq!(world.controller.process.wait_end(PATIENCE).code(), Some(1));
    let said = world.controller.process.text();
    let why = last_words(&said);
    for part in [
        store.join("db").display().to_string().as_str(),
        "is damaged",
        "move the directory",
        "import the last export",
    ] {
        assert!(why.contains(part), "{why}");
    }
    std::fs::rename(&store, world.dir().join("store.damaged")).unwrap();
    let restored = offline(&world, &["import", &backup]);
    assert_eq!(restored.code, 0, "{restored:?}");
    world.controller.start_again();
    let placement = world.controller.wait_states("camera-up", EDGE, "issued", "running");
    world.hold_to_truth("camera-up", &placement);
    device.wait_flow(20);
}

#[test]
fn an_old_backup_of_the_controller_holds_a_gateway_that_is_ahead_until_an_operator_confirms() {
    let mut world = World::new();
    world.run_rule(&Rule::new("camera-up", world.remote.address));
    let backup = world.dir().join("backup.jsonl").display().to_string();
    world.controller.ok(&["export", "--out", &backup]);
    let refused = world.controller.fails(5, &["edge", "confirm", EDGE]);
    assert!(refused.stderr.contains("nothing to confirm"), "{refused:?}");
    world.controller.ok(&["stop", "camera-up", "--edge", EDGE, "--wait"]);
    let mut late = Rule::new("late", world.remote.address);
    late.forwards = vec!["late/#".to_owned()];
    world.run_rule(&late);

    world.controller.process.kill9();
    std::fs::rename(world.controller.data_dir().join("store"), world.dir().join("store.lost")).unwrap();
    assert_eq!(offline(&world, &["import", &backup]).code, 0);
    world.controller.start_again();
    let held = until("the gateway is held", || {
        let edge = world.controller.ok(&["edge", "get", EDGE]).json();
        (edge["held"]["code"] == "CLOUD_BEHIND").then_some(edge)
    });
    assert!(held["held"]["next"].as_str().unwrap().contains("confirm"), "{held:#}");
    // What the gateway said is shown; nothing is done to it.
    world.controller.wait_states("camera-up", EDGE, "issued", "paused_manual");
    let refused = world.controller.fails(5, &["start", "camera-up", "--edge", EDGE]);
    assert!(refused.stderr.contains("tidegate edge confirm"), "{refused:?}");

    let confirmed = world.controller.ok(&["edge", "confirm", EDGE]);
    assert!(confirmed.json()["held"].is_null(), "{confirmed:?}");
    let placement = world.controller.wait_states("camera-up", EDGE, "issued", "paused_manual");
    world.hold_to_truth("camera-up", &placement);
    world.controller.ok(&["start", "camera-up", "--edge", EDGE, "--wait"]);
    world.controller.wait_states("camera-up", EDGE, "issued", "running");
    let remote = world.remote_sink();
    let device = world.device(Duration::from_millis(1));
    device.publish_up_to(50);
    remote.expect_all_in_order(&device.wait_acked(50));
    // A rule that was made after the backup runs on; it is taken off before one of its name takes its place.
    assert_eq!(world.agent.committed().len(), 2);
    world.controller.apply_and_place(&late, EDGE);
    let twin = world.controller.fails(5, &["issue", "late", "--edge", EDGE]);
    assert!(twin.stderr.contains("tidegate edge remove-rule"), "{twin:?}");
    world.controller.fails(3, &["edge", "remove-rule", EDGE, "camera-up"]);
    world.controller.ok(&["edge", "remove-rule", EDGE, "late"]);
    until("the forgotten rule is gone", || (world.agent.committed().len() == 1).then_some(()));
    world.controller.ok(&["issue", "late", "--edge", EDGE, "--wait"]);
    world.controller.wait_states("late", EDGE, "issued", "running");
    // The gateway's log names the rule, and what was done to it.
    let log = world.agent.process.text();
    let lines = |words: &str| log.lines().any(|line| line.contains(words) && line.contains("camera-up"));
    assert!(lines("the rule is stopped") && lines("the rule is started") && lines("the rule runs"), "{log}");
}

#[test]
fn a_damaged_store_of_the_agent_is_set_aside_and_its_rules_are_issued_again() {
    let mut world = World::new();
    world.run_rule(&Rule::new("camera-up", world.remote.address));
    world.agent.process.kill9();
    damage(&world.agent.data.join("store/db"));
    world.agent.start_again();
    world.controller.wait_states("camera-up", EDGE, "issued", "running");
    assert_eq!(world.agent.committed().len(), 1);
    let aside = std::fs::read_dir(&world.agent.data).unwrap().flatten();
    let aside = aside.filter(|e| e.file_name().to_string_lossy().starts_with("store.damaged-")).count();
    assert_eq!(aside, 1);
    assert!(world.agent.process.text().contains("set aside"));
    let remote = world.remote_sink();
    let device = world.device(Duration::from_millis(1));
    device.publish_up_to(50);
    remote.expect_all_in_order(&device.wait_acked(50));
}

#[test]
fn a_second_process_is_told_who_holds_the_directory() {
    let world = World::new();
    let controller = offline(&world, &["export", "--out", "never.jsonl"]);
    let pid = world.controller.process.pid().unwrap().to_string();
    assert!(controller.code != 0 && controller.stderr.contains(&format!("process {pid}")), "{controller:?}");
    let mut second = std::process::Command::new(tidegate_e2e::controller::binary("tidegate-edge"));
    second.args(["run", "--name", EDGE, "--controller-url", "mqtt://127.0.0.1:1", "--listen", "127.0.0.1:0"]);
    let answer = tidegate_e2e::controller::run(second.arg("--data-dir").arg(&world.agent.data));
    let pid = world.agent.process.pid().unwrap().to_string();
    assert!(answer.code != 0 && answer.stderr.contains(&pid), "{answer:?}");
    until("both go on", || (world.controller.cli(&["status"]).code == 0).then_some(()));
}

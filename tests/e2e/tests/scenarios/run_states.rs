//! Offline edges, remote brokers that are away, and stops that last.

use std::time::Duration;

use serde_json::Value;
use tidegate_e2e::world::EDGE;
use tidegate_e2e::{PATIENCE, Rule, World, until};

#[test]
fn c05_an_offline_edge_is_refused_and_nothing_changes_until_queueing_is_asked_for() {
    offline_and_queued(World::new());
}

pub fn offline_and_queued(mut world: World) {
    let rule = Rule::new("camera-up", world.remote.address);
    world.controller.apply_and_place(&rule, EDGE);
    world.agent.process.kill9();
    world.controller.wait_link(PATIENCE, EDGE, "offline");

    let before = world.controller.rule("camera-up");
    let refused = world.controller.fails(5, &["issue", "camera-up", "--edge", EDGE]);
    assert!(refused.stderr.contains("EDGE_OFFLINE"), "{refused:?}");
    assert_eq!(world.controller.rule("camera-up"), before, "nothing changed");

    world.controller.ok(&["issue", "camera-up", "--edge", EDGE, "--when-offline", "queue"]);
    let queued = world.controller.placement("camera-up", EDGE).unwrap();
    assert_eq!(
        (&queued["in_flight"]["queued"], &queued["issue_state"]),
        (&true.into(), &"not_issued".into())
    );

    // A queued action outlives the controller.
    world.controller.process.kill9();
    world.controller.start_again();
    let queued = world.controller.placement("camera-up", EDGE).unwrap();
    assert_eq!(
        (&queued["in_flight"]["queued"], &queued["issue_state"]),
        (&true.into(), &"not_issued".into())
    );

    world.agent.start_again();
    let issued = world.controller.wait_states("camera-up", EDGE, "issued", "running");
    assert_eq!(issued["edge_digest"], issued["digest"]);
}

#[test]
fn c10_c14_with_the_remote_broker_down_it_is_issued_and_paused_and_runs_by_itself_when_it_is_back() {
    remote_down_and_back(World::new());
}

pub fn remote_down_and_back(mut world: World) {
    world.remote.process.kill9();
    let rule = Rule::new("camera-up", world.remote.address);
    world.controller.apply_and_place(&rule, EDGE);
    world.controller.ok(&["issue", "camera-up", "--edge", EDGE, "--wait"]);
    let paused = world.controller.wait_states("camera-up", EDGE, "issued", "paused_fault");
    assert_eq!(paused["run_reason"]["code"], "TCP", "{paused:#}");
    assert!(!paused["run_reason"]["next"].as_str().unwrap().is_empty());

    // Twice: at the recovery after the issue, and after an outage of a running rule.
    world.remote.start_again();
    for outage in 0..2 {
        let connects = if outage == 0 { 0 } else { world.remote.connects(&rule.client_id(EDGE)).len() };
        if outage > 0 {
            world.remote.process.kill9();
            world.controller.wait_states("camera-up", EDGE, "issued", "paused_fault");
            world.remote.start_again();
        }
        let (connected, told) = until("the bridge connects and the cloud says so", || {
            let placement = world.controller.placement("camera-up", EDGE)?;
            let now = std::time::Instant::now();
            let line = world.remote.connects(&rule.client_id(EDGE)).into_iter().nth(connects)?;
            (placement["run_state"] == "running").then_some((line.at, now))
        });
        let late = told.saturating_duration_since(connected);
        assert!(late < Duration::from_secs(2), "the cloud knew {late:?} after the bridge was connected");
    }
}

#[test]
fn c13_c21_c22_a_stop_survives_a_reboot_of_the_gateway_and_keeps_the_queue() {
    stop_and_start(World::new());
}

pub fn stop_and_start(mut world: World) {
    let rule = Rule::new("camera-up", world.remote.address);
    world.run_rule(&rule);

    // 300 messages wait because the remote broker is away; the operator's stop wins over the fault.
    world.remote.process.kill9();
    world.controller.wait_states("camera-up", EDGE, "issued", "paused_fault");
    let device = world.device(Duration::ZERO);
    device.publish_up_to(300);
    let acked = device.wait_acked(300);
    until("they wait on the gateway", || (queued(&world.agent.rule("camera-up")) == 300).then_some(()));
    world.controller.ok(&["stop", "camera-up", "--edge", EDGE, "--wait"]);
    world.controller.wait_states("camera-up", EDGE, "issued", "paused_manual");

    world.agent.process.kill9();
    world.controller.wait_link(PATIENCE, EDGE, "offline");
    let away = world.controller.placement("camera-up", EDGE).unwrap();
    assert_eq!((&away["run_state"], &away["last_known"]), (&"paused_manual".into(), &true.into()));
    world.remote.start_again();
    let remote = world.remote_sink();
    world.agent.start_again();
    let stopped = world.controller.wait_states("camera-up", EDGE, "issued", "paused_manual");
    assert_eq!(stopped["desired_run"], "stopped");
    assert_eq!(queued(&world.agent.rule("camera-up")), 300);
    assert_eq!(world.remote.connects(&rule.client_id(EDGE)).len(), 1, "a stopped rule does not connect");

    world.controller.ok(&["start", "camera-up", "--edge", EDGE, "--wait"]);
    world.controller.wait_states("camera-up", EDGE, "issued", "running");
    remote.expect_all_in_order(&acked);
    until("the queue is empty", || (queued(&world.agent.rule("camera-up")) == 0).then_some(()));

    // Starting what runs changes nothing.
    let connects = world.remote.connects(&rule.client_id(EDGE)).len();
    let _ = world.controller.cli(&["start", "camera-up", "--edge", EDGE]);
    world.controller.wait_states("camera-up", EDGE, "issued", "running");
    assert_eq!(world.remote.connects(&rule.client_id(EDGE)).len(), connects);
}

#[test]
fn c11_a_rule_that_never_ran_is_not_running_after_a_stop() {
    let world = World::new();
    let mut rule = Rule::new("camera-up", world.remote.address);
    rule.start = Some("manual".to_owned());
    world.controller.apply_and_place(&rule, EDGE);
    world.controller.ok(&["issue", "camera-up", "--edge", EDGE, "--wait"]);
    world.controller.wait_states("camera-up", EDGE, "issued", "not_running");
    let _ = world.controller.cli(&["stop", "camera-up", "--edge", EDGE, "--wait"]);
    world.controller.wait_states("camera-up", EDGE, "issued", "not_running");
    world.controller.ok(&["start", "camera-up", "--edge", EDGE, "--wait"]);
    world.controller.wait_states("camera-up", EDGE, "issued", "running");
}

#[test]
fn c13_a_stop_on_site_is_shown_by_the_cloud_as_paused_by_hand() {
    let world = World::new();
    let rule = Rule::new("camera-up", world.remote.address);
    world.run_rule(&rule);
    let stopped = world.agent.cli(&["stop", "camera-up"]);
    assert_eq!(stopped.code, 0, "{stopped:?}");
    let shown = world.controller.wait_states("camera-up", EDGE, "issued", "paused_manual");
    assert_eq!(shown["run_by"], "local", "{shown:#}");
    let started = world.agent.cli(&["start", "camera-up"]);
    assert_eq!(started.code, 0, "{started:?}");
    let shown = world.controller.wait_states("camera-up", EDGE, "issued", "running");
    assert_ne!(shown["run_by"], "cloud", "{shown:#}");
    let status = world.agent.cli(&["status"]);
    assert_eq!(status.code, 0, "{status:?}");
}

#[test]
fn a_rule_that_is_unplaced_while_its_edge_is_away_is_gone_when_it_returns() {
    let mut world = World::new();
    let rule = Rule::new("camera-up", world.remote.address);
    world.run_rule(&rule);
    world.agent.process.kill9();
    world.controller.wait_link(PATIENCE, EDGE, "offline");
    world.controller.ok(&["rule", "unplace", "camera-up", "--edge", EDGE]);
    world.agent.start_again();
    until("the rule is gone from the cloud", || {
        let placements = world.controller.rule("camera-up")["placements"].as_array().map(Vec::len);
        (placements == Some(0)).then_some(())
    });
    assert!(world.agent.committed().is_empty(), "and from the gateway");

    // Placed again it is issued for the first time once more.
    world.run_rule(&rule);
    assert_eq!(world.agent.committed().len(), 1);
}

fn queued(rule: &Value) -> u64 {
    rule["counters"]["queued"].as_u64().unwrap_or_else(|| panic!("no queue in {rule:#}"))
}

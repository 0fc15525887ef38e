//! `kill -9` of the agent, of the controller and of both, while messages flow and while issuing: nothing that a device
//! saw acknowledged is lost, order is kept, and the cloud never says *issued* where it is not so.

use std::io::Read as _;
use std::thread::sleep;
use std::time::Duration;

use tidegate_e2e::process::Process;
use tidegate_e2e::proxy::Cable;
use tidegate_e2e::world::EDGE;
use tidegate_e2e::{Device, PATIENCE, Rule, World, until};

/// A moment to kill at: spread over `span`, and the same in each run of the tests.
fn moment(round: u64, span: Duration) -> Duration {
    // The golden ratio spreads any number of rounds evenly.
    let share = (round as f64 * 0.618_033_988_75).fract();
    span.mul_f64(share)
}

#[test]
fn kill_9_of_the_agent_loses_no_acknowledged_message_and_no_order() {
    kill_the_agent(World::new());
}

pub fn kill_the_agent(mut world: World) {
    world.run_rule(&Rule::new("camera-up", world.remote.address));
    let remote = world.remote_sink();
    let device = world.device(Duration::from_millis(1));
    device.publish_on();
    for round in 0..8 {
        device.wait_flow(50);
        sleep(moment(round, Duration::from_millis(300)));
        world.agent.process.kill9();
        world.agent.start_again();
    }
    device.wait_flow(50);
    let acked = device.finish();
    match world.agent.broker {
        None => assert!(device.connections() >= 9),
        Some(_) => assert_eq!(device.connections(), 1, "its broker lives on"),
    }
    let copies = remote.expect_all_in_order(&acked);
    world.agent.process.note(&format!("--- {} messages, {copies} copies", acked.len()));
    world.controller.wait_states("camera-up", EDGE, "issued", "running");
}

/// What the remote broker sent is on disk until the local broker took it, and with it the queue of the next rule.
#[test]
fn kill_9_of_the_agent_loses_nothing_between_a_subscription_and_the_rule_that_forwards_it() {
    kill_the_agent_between_two_rules(World::new());
}

pub fn kill_the_agent_between_two_rules(mut world: World) {
    let mut down = Rule::new("orders-down", world.remote.address);
    down.forwards.clear();
    down.subscriptions = vec!["orders/{edge}/#".to_owned()];
    let mut up = Rule::new("orders-up", world.remote.address);
    up.forwards = vec!["orders/#".to_owned()];
    world.run_rule(&down);
    world.run_rule(&up);
    let remote = world.remote_sink();
    let operator = Device::start(world.remote.address, "operator", Duration::from_millis(1), |_| {
        format!("orders/{EDGE}/go")
    });
    operator.publish_on();
    for round in 0..6 {
        remote.wait_flow(50);
        sleep(moment(round, Duration::from_millis(300)));
        world.agent.process.kill9();
        world.agent.start_again();
    }
    remote.wait_flow(50);
    remote.expect_all_in_order(&operator.finish());
    assert!(!world.agent.process.text().contains("LOCAL_BROKER"), "a boot is no fault of the local broker");
}

#[test]
fn kill_9_of_the_controller_stops_no_message_and_its_states_are_true_afterwards() {
    kill_the_controller(World::new());
}

pub fn kill_the_controller(mut world: World) {
    let rule = Rule::new("camera-up", world.remote.address);
    world.run_rule(&rule);
    let remote = world.remote_sink();
    let device = world.device(Duration::from_millis(1));
    device.publish_on();
    for _ in 0..3 {
        device.wait_flow(100);
        world.controller.process.kill9();
        device.wait_flow(200);
        remote.wait_flow(200);
        world.controller.start_again();
        let placement = world.controller.wait_states("camera-up", EDGE, "issued", "running");
        world.hold_to_truth("camera-up", &placement);
    }
    assert_eq!(remote.expect_all_in_order(&device.finish()), 0);
    assert_eq!(device.connections(), 1);
    assert_eq!(world.remote.connects(&rule.client_id(EDGE)).len(), 1, "the bridge never noticed");
}

/// From the request to the gateway's answer it takes a few milliseconds; kills fall within this span after it.
const ISSUING: Duration = Duration::from_millis(25);

#[test]
fn c07_kill_9_of_the_controller_while_issuing_never_yields_a_false_issued() {
    kill_the_controller_while_issuing(World::new());
}

pub fn kill_the_controller_while_issuing(mut world: World) {
    let mut rule = Rule::new("camera-up", world.remote.address);
    world.run_rule(&rule);
    let remote = world.remote_sink();
    let device = world.device(Duration::from_millis(2));
    device.publish_on();
    // The gateway's pause before it connects again doubles with each round.
    for round in 0..6 {
        change(&world, &mut rule, round);
        let _request = world.controller.send_action("camera-up", EDGE, "sync", None);
        sleep(moment(round, ISSUING));
        world.controller.process.kill9();
        world.controller.start_again();
        synced_in_the_end(&world);
    }
    remote.expect_all_in_order(&device.finish());
}

#[test]
fn kill_9_of_the_controller_during_a_request_with_a_key_never_has_it_done_twice() {
    let mut world = World::new();
    world.run_rule(&Rule::new("camera-up", world.remote.address));
    let generation = |world: &World| world.settled("camera-up")["generation"].as_u64().unwrap();
    for round in 0..8 {
        let before = generation(&world);
        let key = format!("order-{round}");
        let request = world.controller.send_action("camera-up", EDGE, "issue-again", Some(&key));
        sleep(moment(round, ISSUING));
        world.controller.process.kill9();
        drop(request);
        world.controller.start_again();
        world.controller.wait_link(PATIENCE, EDGE, "online");
        // Whoever got no answer sends the same again, as often as it likes.
        let answer = || {
            let mut request = world.controller.send_action("camera-up", EDGE, "issue-again", Some(&key));
            let mut answer = String::new();
            request.read_to_string(&mut answer).unwrap();
            answer
        };
        let first =
            until("the request is taken", || Some(answer()).filter(|a| a.starts_with("HTTP/1.1 202")));
        let again = answer();
        assert!(again.contains("idempotency-replayed: true"), "{again}");
        let body = |answer: &str| answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        assert_eq!(body(&first), body(&again));
        assert_eq!(generation(&world), before + 1, "it was done once");
    }
}

#[test]
fn c07_kill_9_of_the_agent_while_issuing_never_yields_a_false_issued() {
    kill_the_agent_while_issuing(World::new());
}

pub fn kill_the_agent_while_issuing(mut world: World) {
    let mut rule = Rule::new("camera-up", world.remote.address);
    world.run_rule(&rule);
    let remote = world.remote_sink();
    let device = world.device(Duration::from_millis(2));
    device.publish_on();
    for round in 0..10 {
        change(&world, &mut rule, round);
        let _request = world.controller.send_action("camera-up", EDGE, "sync", None);
        sleep(moment(round, ISSUING));
        world.agent.process.kill9();
        world.agent.start_again();
        synced_in_the_end(&world);
        device.wait_flow(20);
    }
    remote.expect_all_in_order(&device.finish());
}

#[test]
fn c07_kill_9_of_the_agent_during_the_first_issue_never_yields_a_false_issued() {
    let mut world = World::new();
    for round in 0..8 {
        let name = format!("rule-{round}");
        world.controller.apply_and_place(&Rule::new(&name, world.remote.address), EDGE);
        let _request = world.controller.send_action(&name, EDGE, "issue", None);
        sleep(moment(round, ISSUING));
        world.agent.process.kill9();
        world.agent.start_again();
        let placement = world.settled(&name);
        if placement["issue_state"] != "issued" {
            assert_eq!(placement["issue_state"], "not_issued", "{placement:#}");
            world.controller.ok(&["issue", &name, "--edge", EDGE, "--wait"]);
        }
        world.controller.wait_states(&name, EDGE, "issued", "running");
    }
    assert_eq!(world.agent.committed().len(), 8);
}

#[test]
fn c07_kill_9_of_both_while_messages_flow_and_while_issuing() {
    let mut world = World::new();
    let mut rule = Rule::new("camera-up", world.remote.address);
    world.run_rule(&rule);
    let remote = world.remote_sink();
    let device = world.device(Duration::from_millis(1));
    device.publish_on();
    for round in 0..8 {
        device.wait_flow(50);
        change(&world, &mut rule, round);
        let _request = world.controller.send_action("camera-up", EDGE, "sync", None);
        sleep(moment(round, ISSUING));
        world.controller.process.kill9();
        world.agent.process.kill9();
        // The gateway runs from its own disk, without the cloud.
        world.agent.start_again();
        remote.wait_flow(100);
        world.controller.start_again();
        synced_in_the_end(&world);
    }
    world.controller.wait_states("camera-up", EDGE, "issued", "running");
    remote.expect_all_in_order(&device.finish());
}

#[test]
fn a_command_that_waits_outlives_a_restart_of_the_controller() {
    let mut world = World::new();
    let mut rule = Rule::new("camera-up", world.remote.address);
    world.run_rule(&rule);
    change(&world, &mut rule, 1);
    world.cable.set(Cable::BlackHole);
    let sync = ["sync", "camera-up", "--edge", EDGE, "--wait", "--timeout", "80s"];
    let mut sync = Process::new("sync", world.controller.repeatable(&sync));
    world.controller.wait("camera-up", EDGE, "sync is under way", |p| p["in_flight"]["action"] == "sync");
    world.controller.process.kill9();
    world.controller.start_again();
    let placement = world.controller.placement("camera-up", EDGE).unwrap();
    assert_eq!(placement["in_flight"]["action"], "sync", "it is not forgotten: {placement:#}");
    assert_eq!(placement["issue_state"], "updates_not_issued", "nor believed to be done: {placement:#}");
    world.cable.set(Cable::Whole);
    assert!(sync.wait_end(PATIENCE).success(), "{}", sync.text());
    assert_eq!(world.settled("camera-up")["issue_state"], "issued");
}

/// Another version: of the topics only in even rounds, of the connection too in odd ones.
fn change(world: &World, rule: &mut Rule, round: u64) {
    rule.forwards = vec!["sensors/#".to_owned(), format!("round-{round}/#")];
    if round % 2 == 1 {
        rule.keep_alive = format!("{}s", 10 + round);
    }
    world.controller.apply(rule);
}

/// Whatever was under way comes to its end, the cloud claims nothing that is not so, and a sync brings it up to date
/// if the first one was never begun.
fn synced_in_the_end(world: &World) {
    let placement = world.settled("camera-up");
    if placement["issue_state"] != "issued" {
        assert_eq!(placement["issue_state"], "updates_not_issued", "{placement:#}");
        world.controller.ok(&["sync", "camera-up", "--edge", EDGE, "--wait"]);
        assert_eq!(world.settled("camera-up")["issue_state"], "issued");
    }
}

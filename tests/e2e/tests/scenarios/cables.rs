//! Cables that are cut, go silent, and come back: everything recovers by itself.

use std::time::Duration;

use tidegate_e2e::proxy::Cable;
use tidegate_e2e::world::EDGE;
use tidegate_e2e::{PATIENCE, Proxy, Rule, World};

#[test]
fn c14_a_cut_and_silent_cable_to_the_remote_broker_loses_nothing_and_heals_by_itself() {
    let world = World::new();
    let cable = Proxy::to(world.remote.address);
    world.run_rule(&Rule::new("camera-up", cable.address));
    let remote = world.remote_sink();
    let device = world.device(Duration::from_millis(2));
    device.publish_on();
    for state in [Cable::Cut, Cable::BlackHole, Cable::Cut] {
        remote.wait_flow(100);
        cable.set(state);
        let paused = world.controller.wait_states("camera-up", EDGE, "issued", "paused_fault");
        let code = if state == Cable::BlackHole { "KEEP_ALIVE" } else { "TCP" };
        assert_eq!(paused["run_reason"]["code"], code, "{paused:#}");
        // Devices are served all the while.
        device.wait_flow(100);
        cable.set(Cable::Whole);
        world.controller.wait_states("camera-up", EDGE, "issued", "running");
    }
    remote.wait_flow(100);
    remote.expect_all_in_order(&device.finish());
    assert_eq!(device.connections(), 1);
}

#[test]
fn c14_a_cut_and_silent_cable_to_the_controller_stops_no_message_and_the_truth_comes_back_by_itself() {
    cut_the_cable_to_the_controller(World::new());
}

pub fn cut_the_cable_to_the_controller(world: World) {
    let rule = Rule::new("camera-up", world.remote.address);
    world.run_rule(&rule);
    let remote = world.remote_sink();
    let device = world.device(Duration::from_millis(2));
    device.publish_on();
    for state in [Cable::Cut, Cable::BlackHole] {
        world.cable.set(state);
        world.controller.wait_link(PATIENCE, EDGE, "offline");
        let shown = world.controller.placement("camera-up", EDGE).unwrap();
        assert_eq!(shown["last_known"], true, "never green while offline: {shown:#}");
        remote.wait_flow(200);
        // What happens on site meanwhile is told afterwards.
        assert_eq!(world.agent.cli(&["stop", "camera-up"]).code, 0);
        world.cable.set(Cable::Whole);
        world.controller.wait_states("camera-up", EDGE, "issued", "paused_manual");
        world.controller.ok(&["start", "camera-up", "--edge", EDGE, "--wait"]);
        world.controller.wait_states("camera-up", EDGE, "issued", "running");
    }
    remote.wait_flow(100);
    let acked = device.finish();
    // Between stop and start nothing is forwarded, so only what arrived can be judged: in order, each once.
    let order = remote.first_arrivals();
    assert!(order.is_sorted(), "the order is lost");
    assert!(order.len() <= acked.len());
}

#[test]
fn an_action_during_silence_is_settled_when_the_cable_is_back() {
    let world = World::new();
    world.run_rule(&Rule::new("camera-up", world.remote.address));
    world.cable.set(Cable::BlackHole);
    world.controller.ok(&["stop", "camera-up", "--edge", EDGE]);
    let under_way = world.controller.placement("camera-up", EDGE).unwrap();
    assert_eq!(under_way["in_flight"]["action"], "stop", "{under_way:#}");
    assert_eq!(under_way["run_state"], "running", "the edge has not said otherwise: {under_way:#}");
    world.cable.set(Cable::Whole);
    world.controller.wait_states("camera-up", EDGE, "issued", "paused_manual");
}

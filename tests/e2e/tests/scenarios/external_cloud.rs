//! The stories with a mosquitto between the controller and its gateways, set up as docs/examples say; and what only such
//! a broker can do: be away, forget everything, and bring two controllers together.

use std::time::Duration;

use tidegate_e2e::cloud_broker::PASSWORD;
use tidegate_e2e::world::EDGE;
use tidegate_e2e::{Agent, CloudBroker, Controller, Local, PATIENCE, Rule, World, until};

use crate::{cables, crashes, flow, run_states};

#[test]
fn an_issued_rule_runs_and_its_messages_arrive() {
    flow::issue_and_run(World::external());
}

#[test]
fn an_edit_is_synced() {
    flow::edit_and_sync(World::external());
}

#[test]
fn an_offline_edge_is_refused_and_a_queued_action_is_sent_when_it_is_back() {
    run_states::offline_and_queued(World::external());
}

#[test]
fn a_stop_survives_a_reboot_of_the_gateway() {
    run_states::stop_and_start(World::external());
}

#[test]
fn kill_9_of_the_agent_loses_nothing() {
    crashes::kill_the_agent(World::external());
}

#[test]
fn kill_9_of_the_controller_stops_no_message_and_its_states_are_true_afterwards() {
    crashes::kill_the_controller(World::external());
}

#[test]
fn kill_9_of_the_controller_while_issuing_never_yields_a_false_issued() {
    crashes::kill_the_controller_while_issuing(World::external());
}

#[test]
fn a_cut_and_silent_cable_heals_by_itself() {
    cables::cut_the_cable_to_the_controller(World::external());
}

#[test]
fn kill_9_of_the_broker_stops_neither_messages_nor_the_api_and_everything_heals_when_it_is_back() {
    let mut world = World::external();
    let mut rule = Rule::new("camera-up", world.remote.address);
    world.run_rule(&rule);
    assert_eq!(world.controller.get_open("/readyz").0, 200);
    let remote = world.remote_sink();
    let device = world.device(Duration::from_millis(2));
    device.publish_on();
    for round in 0..3 {
        device.wait_flow(50);
        broker(&mut world).mosquitto.process.kill9();
        until("readyz says that the broker is away", || {
            let (status, text) = world.controller.get_open("/readyz");
            (status == 503 && text.contains("the broker at mqtt://")).then_some(())
        });
        let status = world.controller.ok(&["status"]).json();
        assert_eq!((&status["broker"]["kind"], &status["broker"]["up"]), (&"external".into(), &false.into()));
        // The API works on: what is saved now is synced when the broker is back.
        rule.forwards = vec!["sensors/#".to_owned(), format!("round-{round}/#")];
        world.controller.apply(&rule);
        remote.wait_flow(100);
        let _ = broker(&mut world).mosquitto.start_again();
        until("readyz says that all is well", || {
            (world.controller.get_open("/readyz").0 == 200).then_some(())
        });
        let placement = world.settled("camera-up");
        assert_eq!(placement["issue_state"], "updates_not_issued", "{placement:#}");
        world.controller.ok(&["sync", "camera-up", "--edge", EDGE, "--wait", "--timeout", "90s"]);
        world.controller.wait_states("camera-up", EDGE, "issued", "running");
    }
    assert_eq!(remote.expect_all_in_order(&device.finish()), 0, "the bridge never noticed");
    let logs = [world.agent.process.text(), world.controller.process.text()].concat();
    assert!(!logs.contains(PASSWORD), "no log holds the password of the broker");
}

fn broker(world: &mut World) -> &mut CloudBroker {
    world.cloud_broker.as_mut().expect("the world has a broker between controller and gateway")
}

#[test]
fn a_command_that_was_sent_into_an_outage_of_the_broker_is_settled_when_it_is_back() {
    let mut world = World::external();
    world.run_rule(&Rule::new("camera-up", world.remote.address));
    broker(&mut world).mosquitto.process.kill9();
    // The edge counts as online until its silence is noticed, so that the action is taken; nobody can hear it.
    world.controller.ok(&["stop", "camera-up", "--edge", EDGE]);
    let _ = broker(&mut world).mosquitto.start_again();
    world.controller.wait_states("camera-up", EDGE, "issued", "paused_manual");
}

#[test]
fn of_two_controllers_on_one_broker_the_older_one_stands_back_and_says_so() {
    let mut world = World::external();
    world.run_rule(&Rule::new("camera-up", world.remote.address));
    let second_dir = tempfile::tempdir().unwrap();
    let second = Controller::on(second_dir.path(), world.cloud_broker.as_ref());
    until("the first one stands back", || {
        let status = world.controller.ok(&["status"]).json();
        status["superseded_by"].as_u64()
    });
    let refused = world.controller.cli(&["stop", "camera-up", "--edge", EDGE]);
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(refused.stderr.contains("STALE_CONTROLLER"), "{refused:?}");
    assert!(world.controller.process.text().contains("another controller"), "it is in the log");
    assert_eq!(second.ok(&["status"]).json()["superseded_by"], serde_json::Value::Null);

    // The second one ends; the first one leads again once it is started again, and nothing was lost.
    drop(second);
    world.controller.process.kill9();
    world.controller.start_again();
    world.controller.wait_states("camera-up", EDGE, "issued", "running");
    world.controller.ok(&["stop", "camera-up", "--edge", EDGE, "--wait", "--timeout", "90s"]);
    world.controller.wait_states("camera-up", EDGE, "issued", "paused_manual");
}

#[test]
fn edge_create_writes_the_brokers_address_and_says_which_account_to_make() {
    let world = World::external();
    let file = world.dir().join("gw-2.toml");
    let made = world.controller.ok(&["edge", "create", "gw-2", "--out", &file.display().to_string()]);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(&format!("url = \"mqtt://{}\"", world.controller.mqtt)), "{text}");
    for part in ["make an account", "gw-2", "tidegate/1/default/gw-2/up", "tidegate/1/default/gw-2/down"] {
        assert!(made.stderr.contains(part), "{part} in {made:?}");
    }
    let credential =
        text.lines().find_map(|line| line.strip_prefix("password = ")).unwrap().trim_matches('"');
    assert!(!made.stderr.contains(credential), "the credential is in the file alone");
}

#[test]
fn a_gateway_whose_account_may_not_speak_for_another_cannot() {
    let world = World::external();
    let broker = world.cloud_broker.as_ref().unwrap();
    let second =
        Agent::on(&world.dir(), &world.controller, "gw-2", broker.address(), Some(broker), Local::Embedded);
    world.controller.wait_link(PATIENCE, "gw-2", "online");
    broker.add_account("gw-3", "forger");
    let login = tidegate_e2e::Login::anonymous("forger").with_password("gw-3", "forger");
    let will = tidegate_e2e::mqtt::publish("tidegate/1/default/gw-2/presence", b"forged", Some(1), false);
    let mut forger =
        until("the forger is let in", || tidegate_e2e::mqtt::Conn::open(broker.address(), &login).ok()?.ok());
    forger.send(&will).unwrap();
    let _ = forger.next(PATIENCE);
    // What the gateway says from now on comes after the forged message.
    world.controller.apply_and_place(&Rule::new("camera-up", world.remote.address), "gw-2");
    world.controller.ok(&["issue", "camera-up", "--edge", "gw-2", "--wait", "--timeout", "90s"]);
    let shown = world.controller.ok(&["edge", "get", "gw-2"]).json();
    assert_eq!((&shown["link"], &shown["dropped_messages"]), (&"online".into(), &0.into()), "{shown:#}");
    drop(second);
}

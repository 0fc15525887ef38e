//! Issue, edit, sync, issue again: the operator's everyday, with data flowing.

use std::time::{Duration, Instant};

use tidegate_e2e::mqtt::{Conn, publish};
use tidegate_e2e::world::{EDGE, sensor_topic};
use tidegate_e2e::{Device, Login, Mosquitto, Rule, Sink, World, until};

#[test]
fn c06_c10_c12_an_issued_rule_runs_and_1000_messages_arrive_in_order_and_100_come_back() {
    issue_and_run(World::new());
}

pub fn issue_and_run(world: World) {
    let mut rule = Rule::new("camera-up", world.remote.address);
    rule.subscriptions = vec!["commands/{edge}/#".to_owned()];
    let remote = world.remote_sink();
    let local = Sink::start(world.agent.local, Login::anonymous("local-sink"), "commands/#");

    world.controller.apply_and_place(&rule, EDGE);
    let placed = world.controller.placement("camera-up", EDGE).unwrap();
    assert_eq!((&placed["issue_state"], &placed["run_state"]), (&"not_issued".into(), &"not_running".into()));
    assert_eq!((&placed["version"], &placed["edge_version"]), (&1.into(), &serde_json::Value::Null));

    let issued = Instant::now();
    world.controller.ok(&["issue", "camera-up", "--edge", EDGE, "--wait"]);
    let runs = world.controller.wait_states("camera-up", EDGE, "issued", "running");
    assert!(issued.elapsed() < Duration::from_secs(5), "running after {:?}", issued.elapsed());
    assert_eq!((&runs["edge_version"], &runs["edge_digest"]), (&1.into(), &runs["digest"]));

    let device = world.device(Duration::ZERO);
    device.publish_up_to(1_000);
    let acked = device.wait_acked(1_000);
    assert_eq!(remote.expect_all_in_order(&acked), 0, "without a fault nothing comes twice");
    for arrived in remote.arrived() {
        assert_eq!(arrived.topic, format!("plant/{EDGE}/{}", sensor_topic(arrived.number())));
    }

    let operator =
        Device::start(world.remote.address, "operator", Duration::ZERO, |_| format!("commands/{EDGE}/go"));
    operator.publish_up_to(100);
    assert_eq!(local.expect_all_in_order(&operator.wait_acked(100)), 0);
    assert!(local.arrived().iter().all(|a| a.topic == format!("commands/{EDGE}/go")));
}

#[test]
fn c07_c08_c20_an_edit_is_synced_without_a_reconnect_where_only_topics_changed() {
    edit_and_sync(World::new());
}

pub fn edit_and_sync(world: World) {
    let mut rule = Rule::new("camera-up", world.remote.address);
    let remote = world.remote_sink();
    world.run_rule(&rule);
    let device = world.device(Duration::from_millis(1));
    device.publish_on();
    device.wait_flow(200);
    let bridge = rule.client_id(EDGE);
    assert_eq!(world.remote.connects(&bridge).len(), 1);

    rule.forwards.push("machines/#".to_owned());
    rule.subscriptions.push("commands/{edge}/#".to_owned());
    world.controller.apply(&rule);
    let edited = world.controller.placement("camera-up", EDGE).unwrap();
    assert_eq!(edited["issue_state"], "updates_not_issued", "{edited}");
    assert_eq!((&edited["version"], &edited["edge_version"]), (&2.into(), &1.into()));
    device.wait_flow(200);

    world.controller.ok(&["sync", "camera-up", "--edge", EDGE, "--wait"]);
    let synced = world.controller.wait_states("camera-up", EDGE, "issued", "running");
    assert_eq!((&synced["edge_version"], &synced["edge_digest"]), (&2.into(), &synced["digest"]));

    // The new topics work …
    let local = Sink::start(world.agent.local, Login::anonymous("local-sink"), "commands/#");
    let mut machine = Conn::open(world.agent.local, &Login::anonymous("machine")).unwrap().unwrap();
    machine.send(&publish("machines/press", b"pressed", Some(1), false)).unwrap();
    until("what the new forward takes arrives", || {
        let wanted = format!("plant/{EDGE}/machines/press");
        remote.arrived().into_iter().find(|a| a.topic == wanted && a.payload == b"pressed")
    });
    let mut operator = Conn::open(world.remote.address, &Login::anonymous("operator")).unwrap().unwrap();
    operator.send(&publish(&format!("commands/{EDGE}/go"), b"7", Some(1), false)).unwrap();
    local.wait_number(7);

    // … the old ones never paused, and the bridge is the same connection as before.
    device.wait_flow(200);
    let numbers = device.finish();
    until("the last number arrives", || remote.first_arrivals().contains(numbers.last()?).then_some(()));
    let arrived: Vec<u64> = remote.arrived().iter().map(|a| a.number()).filter(|n| *n > 0).collect();
    assert_eq!(arrived, numbers, "each message once, in order");
    assert_eq!(device.connections(), 1);
    assert_eq!(world.remote.connects(&bridge).len(), 1, "the bridge did not connect again");
    assert_eq!(world.agent.rule("camera-up")["counters"]["reconnects"], 0);
}

#[test]
fn c17_c19_issue_again_restarts_even_if_nothing_changed_and_makes_no_second_rule() {
    issue_again(World::new());
}

pub fn issue_again(world: World) {
    let rule = Rule::new("camera-up", world.remote.address);
    let remote = world.remote_sink();
    world.run_rule(&rule);
    let device = world.device(Duration::from_millis(1));
    device.publish_on();

    // Saving the same again keeps the version.
    world.controller.apply(&rule);
    let before = world.controller.wait_states("camera-up", EDGE, "issued", "running");
    assert_eq!(before["version"], 1);

    for again in 1..=3_u64 {
        device.wait_flow(100);
        let connects = world.remote.connects(&rule.client_id(EDGE)).len();
        world.controller.ok(&["issue", "camera-up", "--edge", EDGE, "--again", "--wait"]);
        let _ = world.remote.wait_connect(&rule.client_id(EDGE), connects);
        let after = world.controller.wait_states("camera-up", EDGE, "issued", "running");
        assert_eq!(after["generation"].as_u64(), before["generation"].as_u64().map(|g| g + again));
        assert_eq!((&after["version"], &after["digest"]), (&before["version"], &before["digest"]));
        assert_eq!(world.agent.committed().len(), 1);
    }
    device.wait_flow(100);
    remote.expect_all_in_order(&device.finish());
}

#[test]
fn c09_a_wrong_password_fails_to_issue_and_the_old_version_keeps_running() {
    let world = World::with_remote(|dir| Mosquitto::with_users(dir, &[("lyon", "right"), ("sink", "sink")]));
    let login = Login::anonymous("remote-sink").with_password("sink", "sink");
    let remote = Sink::start(world.remote.address, login, &format!("plant/{EDGE}/#"));
    let mut rule = Rule::new("camera-up", world.remote.address);
    let with_password = |password: &str| Some(("lyon".to_owned(), password.to_owned()));
    // mosquitto answers a wrong password with CONNACK 5, not 4.
    let refused = |placement: &serde_json::Value| {
        assert_eq!(placement["issue_reason"]["code"], "REMOTE_NOT_AUTHORIZED", "{placement:#}");
        assert_eq!(placement["issue_reason"]["class"], "parameter");
        assert!(!placement["issue_reason"]["detail"].as_str().unwrap().contains("wrong-1"));
    };

    // The first issue fails: nothing is on the edge.
    rule.login = with_password("wrong-1");
    world.controller.apply_and_place(&rule, EDGE);
    let answer = world.controller.fails(1, &["issue", "camera-up", "--edge", EDGE, "--wait"]);
    assert!(answer.stderr.contains("REMOTE_NOT_AUTHORIZED"), "{answer:?}");
    let failed = world.controller.wait_states("camera-up", EDGE, "failed", "not_running");
    refused(&failed);
    assert_eq!(failed["edge_version"], serde_json::Value::Null);
    assert!(world.agent.committed().is_empty(), "nothing is on the edge");

    // Mended, it is issued and runs.
    rule.login = with_password("right");
    world.controller.apply(&rule);
    let edited = world.controller.placement("camera-up", EDGE).unwrap();
    assert_eq!(edited["issue_state"], "not_issued", "an edit ends the failure: {edited:#}");
    world.controller.ok(&["issue", "camera-up", "--edge", EDGE, "--wait"]);
    world.controller.wait_states("camera-up", EDGE, "issued", "running");
    let device = world.device(Duration::from_millis(1));
    device.publish_on();
    device.wait_flow(200);

    // A sync with a wrong password fails; the version before it keeps running.
    rule.login = with_password("wrong-1");
    world.controller.apply(&rule);
    world.controller.fails(1, &["sync", "camera-up", "--edge", EDGE, "--wait"]);
    let failed = world.controller.wait_states("camera-up", EDGE, "failed", "running");
    refused(&failed);
    assert_eq!((&failed["version"], &failed["edge_version"]), (&3.into(), &2.into()));
    device.wait_flow(200);
    remote.wait_flow(200);
    remote.expect_all_in_order(&device.finish());
    let secrets = [world.agent.process.text(), world.controller.process.text()].concat();
    assert!(!secrets.contains("wrong-1"), "no log holds a password");
}

#[test]
fn c09_a_remote_broker_that_says_bad_password_fails_the_issue_with_remote_auth() {
    let world = World::new();
    // The controller's own broker answers with CONNACK 4.
    let mut rule = Rule::new("camera-up", world.controller.mqtt);
    rule.login = Some(("admin".to_owned(), "not the token".to_owned()));
    world.controller.apply_and_place(&rule, EDGE);
    world.controller.fails(1, &["issue", "camera-up", "--edge", EDGE, "--wait"]);
    let failed = world.controller.wait_states("camera-up", EDGE, "failed", "not_running");
    assert_eq!(failed["issue_reason"]["code"], "REMOTE_AUTH", "{failed:#}");
}

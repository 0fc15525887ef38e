//! From mosquitto to Tidegate and back: a rule runs as a bridge of a real mosquitto, and a bridge becomes a rule; a backup of
//! a controller that runs.

use std::time::Duration;

use tidegate_e2e::world::{EDGE, sensor_topic};
use tidegate_e2e::{Device, Login, Mosquitto, Rule, Sink, World, until};

#[test]
fn an_exported_rule_runs_as_a_bridge_of_mosquitto_and_is_imported_back() {
    let world = World::new();
    let mut rule = Rule::new("camera-up", world.remote.address);
    rule.subscriptions = vec!["commands/{edge}/#".to_owned()];
    world.controller.apply_and_place(&rule, EDGE);
    let remote = world.remote_sink();

    let exported =
        world.controller.ok(&["rule", "export", "camera-up", "--format", "mosquitto", "--edge", EDGE]).json();
    let exported = exported["text"].as_str().unwrap().to_owned();
    let site_dir = world.dir().join("site");
    std::fs::create_dir(&site_dir).unwrap();
    let mut site = Mosquitto::with_bridge(&site_dir, &exported);
    until("the bridge has subscribed at the remote broker", || {
        let log = world.remote.process.text();
        (log.contains(&format!("{EDGE}-camera-up 1 commands/{EDGE}/#"))).then_some(())
    });
    let site_sink = Sink::start(site.address, Login::anonymous("site-sink"), "commands/#");

    let device = Device::start(site.address, "device", Duration::ZERO, sensor_topic);
    device.publish_up_to(50);
    assert_eq!(remote.expect_all_in_order(&device.wait_acked(50)), 0);
    assert!(remote.arrived().iter().all(|a| a.topic == format!("plant/{EDGE}/{}", sensor_topic(a.number()))));
    let operator =
        Device::start(world.remote.address, "operator", Duration::ZERO, |_| format!("commands/{EDGE}/go"));
    operator.publish_up_to(20);
    assert_eq!(site_sink.expect_all_in_order(&operator.wait_acked(20)), 0);
    site.process.kill9();
    drop(remote);

    // The same file, as somebody would bring it along; the agent takes over from the bridge.
    let file = world.dir().join("bridge.conf");
    std::fs::write(&file, exported.replace("connection camera-up", "connection Camera_Back")).unwrap();
    let told = world.controller.ok(&["rule", "import", "mosquitto", file.to_str().unwrap()]);
    let created = told.json()["items"][0]["saved"] == "created";
    assert!(told.stderr.contains(" 0 refused") && created, "{told:?}");
    // Two rules with one client id at one broker are refused on an edge.
    world.controller.ok(&["rule", "delete", "camera-up"]);
    world.controller.ok(&["rule", "place", "camera-back", "--edge", EDGE]);
    world.controller.ok(&["issue", "camera-back", "--edge", EDGE, "--wait", "--timeout", "90s"]);
    world.controller.wait_states("camera-back", EDGE, "issued", "running");
    let remote =
        Sink::start(world.remote.address, Login::anonymous("second-sink"), &format!("plant/{EDGE}/#"));
    let device = world.device(Duration::ZERO);
    device.publish_up_to(50);
    assert_eq!(remote.expect_all_in_order(&device.wait_acked(50)), 0);
    assert!(remote.arrived().iter().all(|a| a.topic == format!("plant/{EDGE}/{}", sensor_topic(a.number()))));
}

#[test]
fn a_running_controller_is_backed_up_and_moves_to_another_directory() {
    let world = World::new();
    let rule = Rule::new("camera-up", world.remote.address);
    world.run_rule(&rule);
    let file = world.dir().join("backup.jsonl");
    let (backup, moved) = (file.to_str().unwrap().to_owned(), world.dir().join("moved"));
    let told = world.controller.ok(&["export", "--out", &backup]);
    assert!(told.stderr.contains("1 rule, 1 version, 1 edge, 1 placement"), "{told:?}");
    // The gateway still runs, and so does the controller.
    assert_eq!(world.settled("camera-up")["run_state"], "running");
    let held = world.dir().join("cloud");
    let refused = world.controller.fails(1, &["import", &backup, "--data-dir", held.to_str().unwrap()]);
    assert!(refused.stderr.contains("in use by another tidegate"), "{refused:?}");
    world.controller.ok(&["import", &backup, "--data-dir", moved.to_str().unwrap()]);
    let again = world.dir().join("again.jsonl");
    world.controller.ok(&["export", "--out", again.to_str().unwrap(), "--data-dir", moved.to_str().unwrap()]);
    assert_eq!(std::fs::read(&file).unwrap(), std::fs::read(&again).unwrap());
}

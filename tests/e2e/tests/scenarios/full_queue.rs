//! A rule that blocks when its queue is full: devices wait for their PUBACK, and everybody can see why.

use std::time::Duration;

use tidegate_e2e::controller::{run, tidegate};
use tidegate_e2e::world::EDGE;
use tidegate_e2e::{Rule, World, until, within};

/// Room is told when the queue was not full for half a minute.
const ROOM: Duration = Duration::from_secs(120);

#[test]
fn a_full_queue_is_shown_everywhere_and_nothing_is_lost() {
    let mut world = World::new();
    let mut rule = Rule::new("camera-up", world.remote.address);
    rule.more = "[queue]\nmax_bytes = \"64KiB\"\nwhen_full = \"block\"\n".to_owned();
    world.run_rule(&rule);
    let sink = world.remote_sink();
    let device = world.device(Duration::ZERO);
    device.publish_up_to(100);
    device.wait_acked(100);
    assert!(world.settled("camera-up")["queue_full"].is_null());

    world.remote.process.kill9();
    // Far more than fits: some 64 bytes each.
    device.publish_up_to(5_000);
    let full = world.controller.wait("camera-up", EDGE, "a full queue", |p| !p["queue_full"].is_null());
    let shown = &full["queue_full"];
    assert_eq!((&shown["forwards"], &shown["subscriptions"]), (&true.into(), &false.into()), "{full:#}");
    assert_eq!(shown["reason"]["code"], "QUEUE_FULL", "{full:#}");
    let acked = device.acked_count();
    assert!(acked < 5_000, "the device waits");
    for (command, words) in [
        (vec!["rule", "get", "camera-up"], "queue full"),
        (vec!["edge", "get", EDGE], "QUEUE_FULL"),
        (vec!["status"], "camera-up/"),
        (vec!["status"], "1 queue full"),
        (vec!["rule", "list"], "1 queue full"),
        (vec!["edge", "list"], "1 queue full"),
    ] {
        let server = format!("http://{}", world.controller.http);
        let mut asking = tidegate(&world.dir());
        asking.args(&command).args(["--server", &server, "--token", world.controller.token()]);
        let told = run(&mut asking);
        assert!(told.stdout.contains(words), "{command:?}: {told:?}");
    }
    assert_eq!(world.controller.ok(&["status"]).json()["tally"]["queue_full"], 1);
    let here = world.agent.cli(&["rules"]);
    assert!(here.stdout.contains("QUEUE_FULL: the queue is full, devices wait"), "{here:?}");
    let here = world.agent.cli(&["status"]);
    assert!(here.stdout.contains("queue full  camera-up: whoever sends waits"), "{here:?}");

    // A restart of the gateway in the middle of it changes nothing.
    world.agent.process.kill9();
    world.agent.start_again();
    world.controller.wait("camera-up", EDGE, "a full queue again", |p| {
        !p["queue_full"].is_null() && p["last_known"] == false
    });

    let sink = world.remote_returns(Some(sink));
    let acked = device.wait_acked(5_000);
    until("everything arrived", || (sink.first_arrivals().len() >= 5_000).then_some(()));
    sink.expect_all_in_order(&acked);
    within(ROOM, "room again is told", || {
        let placement = world.controller.placement("camera-up", EDGE)?;
        (placement["queue_full"].is_null() && placement["run_state"] == "running").then_some(())
    });
}

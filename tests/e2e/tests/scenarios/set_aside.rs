//! Messages that are larger than the remote broker takes: they are set aside, everybody can see it, the others flow.

use std::time::Duration;

use tidegate_e2e::mqtt::{Conn, Login, Packet, publish};
use tidegate_e2e::world::EDGE;
use tidegate_e2e::{Mosquitto, Rule, World, until};

/// The remote broker's limit.
const MAX_PACKET_BYTES: usize = 20_000;

#[test]
fn messages_that_are_too_large_for_the_remote_broker_hold_up_nothing() {
    let mut world = World::with_remote(|dir| Mosquitto::narrow(dir, MAX_PACKET_BYTES));
    world.run_rule(&Rule::new("camera-up", world.remote.address));
    let sink = world.remote_sink();
    let mut device = Conn::open(world.agent.local, &Login::anonymous("camera")).unwrap().unwrap();
    let large = vec![b'.'; MAX_PACKET_BYTES + 1];
    for number in 1..=60_u16 {
        let payload = match number {
            20 | 21 | 40 => large.clone(),
            _ => number.to_string().into_bytes(),
        };
        device.send(&publish("sensors/a", &payload, Some(number), false)).unwrap();
        while !matches!(device.next(Duration::from_secs(30)).unwrap(), Some(Packet::PubAck(_))) {}
    }
    until("all others arrive", || (sink.first_arrivals().len() == 57).then_some(()));
    let others: Vec<u64> = (1..=60).filter(|number| ![20, 21, 40].contains(number)).collect();
    assert_eq!(sink.first_arrivals(), others, "in order");
    let shown = |p: &serde_json::Value| p["counters"]["set_aside"] == 3 && p["run_state"] == "running";
    world.controller.wait("camera-up", EDGE, "three messages aside", shown);
    let told = world.controller.ok(&["rule", "get", "camera-up"]).stdout;
    assert!(told.contains("set_aside"), "{told}");

    // They are on disk: a gateway that dies still has them, and nothing waits.
    world.agent.process.kill9();
    world.agent.start_again();
    world
        .controller
        .wait("camera-up", EDGE, "three messages aside again", |p| shown(p) && p["last_known"] == false);
    let here = world.agent.rule("camera-up");
    assert_eq!(
        (&here["counters"]["set_aside"], &here["counters"]["queued"]),
        (&3.into(), &0.into()),
        "{here:#}"
    );
    let words = world.agent.cli(&["rules"]).stdout;
    assert!(words.contains("3 messages set aside"), "{words}");

    // Somebody looks at them, and drops them.
    let shown = world.agent.cli(&["queue", "show", "camera-up"]).stdout;
    assert!(shown.contains("3 set aside") && shown.contains("each time it was sent alone"), "{shown}");
    let exported = world.agent.cli(&["queue", "export", "camera-up"]).stdout;
    assert_eq!(exported.lines().count(), 3);
    let dropped = world.agent.cli(&["queue", "drop", "camera-up", "--aside", "--yes"]).stdout;
    assert!(dropped.contains('3'), "{dropped}");
    world.controller.wait("camera-up", EDGE, "nothing aside", |p| {
        p["counters"]["set_aside"].is_null() && p["counters"]["dropped"]["by_hand"] == 3
    });
}

//! A gateway that has a broker already: the agent is one of its clients. mosquitto on both sides.

use std::time::Duration;

use tidegate_e2e::agent::resident_bytes;
use tidegate_e2e::mqtt::{Conn, Packet, publish};
use tidegate_e2e::world::EDGE;
use tidegate_e2e::{Device, Local, Login, Mosquitto, Rule, Sink, World, until};

use crate::{crashes, flow, run_states};

fn world() -> World {
    World::with_local(Local::External)
}

/// The client id of a rule's session at the local broker.
fn session(world: &World, rule: &str) -> String {
    let id = world.agent.rule(rule)["rule"].as_str().unwrap().to_owned();
    format!("tidegate.{EDGE}.{id}")
}

fn local(world: &World) -> &Mosquitto {
    world.agent.broker.as_ref().unwrap()
}

fn queued(world: &World, rule: &str) -> u64 {
    world.agent.rule(rule)["counters"]["queued"].as_u64().unwrap()
}

#[test]
fn an_issued_rule_runs_and_messages_arrive_both_ways() {
    flow::issue_and_run(world());
}

#[test]
fn an_edit_is_synced_without_a_reconnect() {
    flow::edit_and_sync(world());
}

#[test]
fn issue_again_restarts_and_makes_no_second_rule() {
    flow::issue_again(world());
}

#[test]
fn with_the_remote_broker_down_it_is_issued_and_paused_and_runs_by_itself_when_it_is_back() {
    run_states::remote_down_and_back(world());
}

#[test]
fn a_stop_survives_a_reboot_of_the_gateway_and_keeps_the_queue() {
    run_states::stop_and_start(world());
}

#[test]
fn kill_9_of_the_agent_loses_no_message_and_no_order() {
    crashes::kill_the_agent(world());
}

#[test]
fn kill_9_of_the_agent_loses_nothing_between_a_subscription_and_the_rule_that_forwards_it() {
    crashes::kill_the_agent_between_two_rules(world());
}

#[test]
fn kill_9_of_the_agent_while_issuing_never_yields_a_false_issued() {
    crashes::kill_the_agent_while_issuing(world());
}

#[test]
fn a_remote_outage_leaves_a_backlog_that_arrives_whole_and_in_order() {
    let mut world = world();
    let rule = Rule::new("camera-up", world.remote.address);
    world.run_rule(&rule);
    let device = world.device(Duration::ZERO);
    world.remote.process.kill9();
    world.controller.wait_states("camera-up", EDGE, "issued", "paused_fault");
    device.publish_up_to(2_000);
    let acked = device.wait_acked(2_000);
    until("a rule that is paused by a fault takes in", || {
        (queued(&world, "camera-up") == 2_000).then_some(())
    });
    let remote = world.remote_returns(None);
    remote.expect_all_in_order(&acked);
    let password_is_nowhere = [world.agent.process.text(), world.controller.process.text()].concat();
    assert!(!password_is_nowhere.contains("local-hunter"), "no log holds a password");
}

#[test]
fn what_a_rule_publishes_locally_does_not_go_out_again_by_the_same_rule() {
    let world = world();
    let mut rule = Rule::new("camera-up", world.remote.address);
    rule.more = "[[subscriptions]]\ntopic = \"commands/{edge}/#\"\nprefix = \"sensors/\"\n".to_owned();
    world.run_rule(&rule);
    let remote = world.remote_sink();
    let sink = Sink::start(world.agent.local, Login::anonymous("local-sink"), "sensors/#");
    let operator =
        Device::start(world.remote.address, "operator", Duration::ZERO, |_| format!("commands/{EDGE}/go"));
    operator.publish_up_to(50);
    sink.expect_all_in_order(&operator.wait_acked(50));
    // What a device publishes on the very same topics goes out.
    let device = Device::start(world.agent.local, "device-1", Duration::ZERO, |_| {
        format!("sensors/commands/{EDGE}/go")
    });
    device.publish_up_to(60);
    remote.expect_all_in_order(&device.wait_acked(60));
    assert_eq!(remote.count(), 60, "only what the device said, once");
}

/// The remote broker is away all the time, so that each copy is one that the agent stored.
#[test]
fn kill_9_of_the_agent_in_the_midst_of_20000_messages_loses_none_and_stores_hardly_one_twice() {
    const TOTAL: u64 = 20_000;
    const KILLS: u64 = 6;
    let mut world = world();
    let rule = Rule::new("camera-up", world.remote.address);
    world.run_rule(&rule);
    world.remote.process.kill9();
    world.controller.wait_states("camera-up", EDGE, "issued", "paused_fault");
    let device = world.device(Duration::ZERO);
    device.publish_up_to(TOTAL);
    for kill in 1..=KILLS {
        let reached = kill * TOTAL / (KILLS + 2);
        until("the next part is stored", || {
            let rules = world.agent.rules()?;
            (rules[0]["counters"]["queued"].as_u64()? >= reached).then_some(())
        });
        world.agent.process.kill9();
        world.agent.start_again();
    }
    let acked = device.wait_acked(TOTAL);
    let all = until("all of it is stored", || Some(queued(&world, "camera-up")).filter(|all| *all >= TOTAL));
    world.agent.process.note(&format!("--- {} copies after {KILLS} kills", all - TOTAL));
    assert!(all - TOTAL <= KILLS, "{} copies: at most one for each kill", all - TOTAL);
    world.remote_returns(None).expect_all_in_order(&acked);
}

#[test]
fn kill_9_of_the_local_broker_pauses_the_rule_and_the_flow_goes_on_by_itself() {
    let mut world = world();
    let rule = Rule::new("camera-up", world.remote.address);
    world.run_rule(&rule);
    let remote = world.remote_sink();
    let device = world.device(Duration::from_millis(1));
    device.publish_on();
    for _ in 0..2 {
        remote.wait_flow(200);
        let broker = world.agent.broker.as_mut().unwrap();
        broker.process.kill9();
        let paused = world.controller.wait_states("camera-up", EDGE, "issued", "paused_fault");
        assert_eq!(paused["run_reason"]["code"], "LOCAL_BROKER", "{paused:#}");
        assert!(!paused["run_reason"]["next"].as_str().unwrap().is_empty(), "{paused:#}");
        let broker = world.agent.broker.as_mut().unwrap();
        broker.start_again();
        world.controller.wait_states("camera-up", EDGE, "issued", "running");
        remote.wait_flow(200);
    }
    assert_eq!(world.remote.connects(&rule.client_id(EDGE)).len(), 1, "the remote half never noticed");
}

#[test]
fn with_the_local_broker_down_a_rule_is_issued_and_paused_and_a_wrong_password_still_fails() {
    let mut world = World::with(
        |dir| Mosquitto::with_users(dir, &[("lyon", "right"), ("sink", "sink")]),
        Local::External,
    );
    world.agent.broker.as_mut().unwrap().process.kill9();
    let mut rule = Rule::new("camera-up", world.remote.address);
    rule.login = Some(("lyon".to_owned(), "wrong".to_owned()));
    world.controller.apply_and_place(&rule, EDGE);
    world.controller.fails(1, &["issue", "camera-up", "--edge", EDGE, "--wait"]);
    let failed = world.controller.wait_states("camera-up", EDGE, "failed", "not_running");
    assert_eq!(failed["issue_reason"]["code"], "REMOTE_NOT_AUTHORIZED", "{failed:#}");
    rule.login = Some(("lyon".to_owned(), "right".to_owned()));
    world.controller.apply(&rule);
    world.controller.ok(&["issue", "camera-up", "--edge", EDGE, "--wait"]);
    let paused = world.controller.wait_states("camera-up", EDGE, "issued", "paused_fault");
    assert_eq!(paused["run_reason"]["code"], "LOCAL_BROKER", "{paused:#}");
    world.agent.broker.as_mut().unwrap().start_again();
    world.controller.wait_states("camera-up", EDGE, "issued", "running");
}

#[test]
fn a_full_queue_holds_back_25000_messages_in_bounded_memory_and_all_of_them_arrive() {
    const TOTAL: u64 = 25_000;
    let mut world = World::with_local(Local::Hasty);
    let mut rule = Rule::new("camera-up", world.remote.address);
    rule.more = "[queue]\nmax_bytes = \"1MiB\"\nwhen_full = \"block\"\n".to_owned();
    world.run_rule(&rule);
    world.remote.process.kill9();
    world.controller.wait_states("camera-up", EDGE, "issued", "paused_fault");
    let before = resident_bytes(world.agent.process.pid().unwrap());
    // 50 MB of numbers with many zeros before them.
    let mut device = Conn::open(world.agent.local, &Login::anonymous("device-1")).unwrap().unwrap();
    let (mut acked, mut sent) = (0, 0);
    while acked < TOTAL {
        while sent < TOTAL && sent < acked + 200 {
            sent += 1;
            let pkid = u16::try_from(sent % 60_000).unwrap() + 1;
            let payload = format!("{sent:02000}");
            device.send(&publish("sensors/a", payload.as_bytes(), Some(pkid), false)).unwrap();
        }
        if let Some(Packet::PubAck(_)) = device.next(Duration::from_secs(30)).unwrap() {
            acked += 1;
        }
    }
    until("the queue is full", || (queued(&world, "camera-up") > 300).then_some(()));
    // Longer than the keep-alive: the broker must not throw out a client that does not read.
    let connects = local(&world).connects(&session(&world, "camera-up")).len();
    std::thread::sleep(Duration::from_secs(50));
    let growth = resident_bytes(world.agent.process.pid().unwrap()).saturating_sub(before);
    world.agent.process.note(&format!("--- grew by {growth} bytes"));
    assert!(growth < 24 << 20, "the agent grew by {growth} bytes");
    assert!(queued(&world, "camera-up") < 1_000, "the queue keeps its bound");
    assert_eq!(local(&world).connects(&session(&world, "camera-up")).len(), connects, "it stayed connected");
    let all: Vec<u64> = (1..=TOTAL).collect();
    world.remote_returns(None).expect_all_in_order(&all);
}

#[test]
fn other_topics_are_subscribed_without_a_reconnect_on_either_side() {
    let world = world();
    let mut rule = Rule::new("camera-up", world.remote.address);
    let remote = world.remote_sink();
    world.run_rule(&rule);
    rule.forwards = vec!["machines/#".to_owned()];
    world.controller.apply(&rule);
    world.controller.ok(&["sync", "camera-up", "--edge", EDGE, "--wait"]);
    world.controller.wait_states("camera-up", EDGE, "issued", "running");
    // The subscription stands when the sync says so: the first message arrives.
    let mut machine = Conn::open(world.agent.local, &Login::anonymous("machine")).unwrap().unwrap();
    machine.send(&publish("sensors/a", b"1", Some(1), false)).unwrap();
    machine.send(&publish("machines/a", b"2", Some(2), false)).unwrap();
    remote.wait_number(2);
    assert_eq!(remote.first_arrivals(), [2]);
    assert_eq!(local(&world).connects(&session(&world, "camera-up")).len(), 1);
    assert_eq!(world.remote.connects(&rule.client_id(EDGE)).len(), 1);
}

#[test]
fn what_is_published_while_a_rule_is_stopped_is_not_forwarded_later() {
    let world = world();
    let rule = Rule::new("camera-up", world.remote.address);
    world.run_rule(&rule);
    let remote = world.remote_sink();
    let device = world.device(Duration::ZERO);
    device.publish_up_to(100);
    device.wait_acked(100);
    remote.expect_all_in_order(&(1..=100).collect::<Vec<u64>>());
    let connects = local(&world).connects(&session(&world, "camera-up")).len();
    world.controller.ok(&["stop", "camera-up", "--edge", EDGE, "--wait"]);
    world.controller.wait_states("camera-up", EDGE, "issued", "paused_manual");
    let ended = local(&world).wait_connect(&session(&world, "camera-up"), connects);
    assert!(ended.text.contains(", c1,"), "a clean session ends the one before: {}", ended.text);
    device.publish_up_to(200);
    device.wait_acked(200);
    world.controller.ok(&["start", "camera-up", "--edge", EDGE, "--wait"]);
    world.controller.wait_states("camera-up", EDGE, "issued", "running");
    device.publish_up_to(300);
    device.wait_acked(300);
    remote.wait_number(300);
    let expected: Vec<u64> = (1..=100).chain(201..=300).collect();
    remote.expect_all_in_order(&expected);
    assert_eq!(remote.first_arrivals(), expected);
}

#[test]
fn the_session_of_a_rule_that_was_removed_while_the_local_broker_was_down_is_ended_later() {
    let mut world = world();
    let rule = Rule::new("camera-up", world.remote.address);
    world.run_rule(&rule);
    let session = session(&world, "camera-up");
    // The broker has the session on disk.
    until("mosquitto saved it", || {
        let saved = std::fs::read(world.dir().join(format!("{EDGE}-broker/mosquitto.db"))).ok()?;
        saved.windows(session.len()).any(|bytes| bytes == session.as_bytes()).then_some(())
    });
    world.agent.broker.as_mut().unwrap().process.kill9();
    world.controller.ok(&["rule", "unplace", "camera-up", "--edge", EDGE]);
    until("the rule is gone", || world.agent.committed().is_empty().then_some(()));
    // Nor does a restart forget it.
    world.agent.process.kill9();
    world.agent.start_again();
    let connects = local(&world).connects(&session).len();
    world.agent.broker.as_mut().unwrap().start_again();
    let ended = local(&world).wait_connect(&session, connects);
    assert!(ended.text.contains(", c1,"), "a clean session ends the one before: {}", ended.text);
    let notes = world.dir().join(EDGE).join("local-sessions");
    until("its note is gone", || std::fs::read_dir(&notes).unwrap().next().is_none().then_some(()));
}

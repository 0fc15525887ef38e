//! Other systems drive the controller over MQTT, with mosquitto's clients and with what the examples in docs publish:
//! on the controller's own broker and on a broker of somebody else.

use std::process::Command;

use serde_json::Value;
use tidegate_e2e::cloud_broker::{API, PASSWORD, example};
use tidegate_e2e::controller::run;
use tidegate_e2e::mqtt::{Conn, publish, try_login};
use tidegate_e2e::process::Process;
use tidegate_e2e::world::EDGE;
use tidegate_e2e::{Login, PATIENCE, Rule, Sink, World, until};

const COMMAND: &str = "tidegate/1/default/controller/command";
const ACK: &str = "tidegate/1/default/controller/ack";
const RULE: &str = "camera-up";

/// The account of another system at the broker of this world.
fn login(world: &World) -> (String, String) {
    let password = match world.cloud_broker {
        Some(_) => PASSWORD.to_owned(),
        None => world.controller.token().to_owned(),
    };
    (API.to_owned(), password)
}

fn client(world: &World, program: &str, args: &[&str]) -> Command {
    let at = world.controller.mqtt;
    let (user, password) = login(world);
    // Without line buffering what a subscriber prints would come when it ends.
    let mut command = Command::new("stdbuf");
    command.args(["-oL", program, "-h", &at.ip().to_string(), "-p", &at.port().to_string()]);
    command.args(["-u", &user, "-P", &password, "-q", "1"]).args(args);
    command
}

fn say(world: &World, payload: &str) {
    let said = run(&mut client(world, "mosquitto_pub", &["-t", COMMAND, "-m", payload]));
    assert_eq!(said.code, 0, "{said:?}");
}

fn command(tid: &str, action: &str) -> String {
    format!(
        r#"{{"tid":"{tid}","type":"datasync","action":"{action}","payload":{{"id":"{RULE}","edge":"{EDGE}"}}}}"#
    )
}

/// What another system sees, as mosquitto_sub prints it: topic, retain flag, payload.
struct Watcher(Process);

impl Watcher {
    fn start(world: &World, filter: &str) -> Self {
        let args = ["-d", "-F", "%t %r %p", "-t", filter];
        let (at, (user, password)) = (world.controller.mqtt, login(world));
        let filter = args.map(str::to_owned);
        let mut process = Process::new("mosquitto_sub", move || {
            let mut command = Command::new("stdbuf");
            command.args(["-oL", "mosquitto_sub", "-h", &at.ip().to_string(), "-p", &at.port().to_string()]);
            command.args(["-u", &user, "-P", &password, "-q", "1"]).args(&filter);
            command
        });
        process.wait_line("that it is subscribed", 0, |line| line.starts_with("Subscribed"));
        Self(process)
    }

    /// All acknowledgements of a command.
    fn acks(&self, tid: &str) -> Vec<Value> {
        let lines = self.0.lines().into_iter();
        let payloads = lines.filter_map(|line| Some(line.text.strip_prefix(ACK)?.get(3..)?.to_owned()));
        let acks = payloads.filter_map(|payload| serde_json::from_str::<Value>(&payload).ok());
        acks.filter(|ack| ack["tid"] == tid).collect()
    }

    fn ack(&self, tid: &str) -> Value {
        until(&format!("{tid} is acknowledged"), || self.acks(tid).into_iter().next())
    }

    /// The last word on a state topic; `None`: nothing was said, or it was cleared.
    fn state(&self, edge: &str, rule: &str) -> Option<Value> {
        let topic = format!("tidegate/1/default/state/{edge}/{rule} ");
        let lines = self.0.lines();
        let last = lines.iter().rev().find_map(|line| line.text.strip_prefix(topic.as_str()))?;
        serde_json::from_str(last.get(2..)?).ok()
    }

    fn wait_state(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        until(what, || self.state(EDGE, RULE).filter(|state| wanted(state)))
    }
}

#[test]
fn a_rule_is_issued_stopped_and_started_over_mqtt_on_the_controllers_own_broker() {
    drive(&World::new());
}

#[test]
fn a_rule_is_issued_stopped_and_started_over_mqtt_on_a_broker_of_somebody_else() {
    drive(&World::external());
}

fn drive(world: &World) {
    let (acks, states) = (Watcher::start(world, ACK), Watcher::start(world, "tidegate/1/default/state/#"));
    world.controller.apply_and_place(&Rule::new(RULE, world.remote.address), EDGE);
    states.wait_state("its state is told", |s| s["issue_state"] == "not_issued");

    say(world, &command("issue-1", "issue"));
    let ack = acks.ack("issue-1");
    assert_eq!(
        (&ack["type"], &ack["action"], &ack["code"]),
        (&"datasync".into(), &"issue".into(), &202.into()),
        "{ack}"
    );
    assert_eq!(ack["payload"]["generation"], 1, "{ack}");
    states
        .wait_state("it is issued and runs", |s| s["issue_state"] == "issued" && s["run_state"] == "running");

    say(world, &command("stop-1", "stop"));
    assert_eq!(acks.ack("stop-1")["code"], 202);
    states.wait_state("it is stopped", |s| s["run_state"] == "paused_manual" && s["in_flight"].is_null());
    say(world, &command("stop-2", "stop"));
    assert_eq!(acks.ack("stop-2")["payload"]["status"], "ALREADY");

    // A copy is answered again and does nothing: the generation stays.
    let again = command("again-1", "issue_again");
    say(world, &again);
    let first = acks.ack("again-1");
    states.wait_state("it runs again", |s| s["run_state"] == "running" && s["in_flight"].is_null());
    say(world, &again);
    until("the copy is answered", || (acks.acks("again-1").len() == 2).then_some(()));
    assert_eq!(acks.acks("again-1"), [first.clone(), first.clone()]);
    let placement = world.controller.wait_states(RULE, EDGE, "issued", "running");
    assert_eq!(placement["generation"], first["payload"]["generation"], "a copy does nothing");

    say(world, &command("status-1", "status"));
    assert_eq!(acks.ack("status-1")["payload"]["state"]["run_state"], "running");
    say(world, r#"{"tid":"list-1","type":"datasync","action":"list"}"#);
    assert_eq!(acks.ack("list-1")["payload"]["items"][0]["rule"], RULE);
    say(
        world,
        &format!(r#"{{"tid":"lookup-1","type":"datasync","action":"lookup","payload":{{"id":"{RULE}"}}}}"#),
    );
    assert_eq!(acks.ack("lookup-1")["payload"]["rule"]["content"]["name"], RULE);

    // Refusals.
    say(world, &command("start-1", "start"));
    assert_eq!(acks.ack("start-1")["payload"]["status"], "ALREADY");
    say(
        world,
        r#"{"tid":"bad-1","type":"datasync","action":"start","payload":{"id":"no-such","edge":"gw-1"}}"#,
    );
    assert_eq!(acks.ack("bad-1")["code"], 404);
    say(world, r#"{"tid":"bad-2","type":"datasync","action":"explode"}"#);
    assert_eq!(acks.ack("bad-2")["payload"]["status"], "BAD_MESSAGE");
    say(world, "no JSON at all");

    // Gone with its placement, for who comes later too.
    world.controller.ok(&["rule", "unplace", RULE, "--edge", EDGE]);
    until("its state is cleared", || states.state(EDGE, RULE).is_none().then_some(()));
    let late = Watcher::start(world, "tidegate/1/default/state/#");
    say(world, &command("status-2", "status"));
    assert_eq!(acks.ack("status-2")["code"], 404);
    assert_eq!(late.state(EDGE, RULE), None);
    assert!(world.controller.process.text().contains("by api via MQTT"), "the history says who it was");
}

#[test]
fn a_retained_command_is_refused_and_taken_off_the_broker() {
    for mut world in [World::new(), World::external()] {
        let acks = Watcher::start(&world, ACK);
        world.run_rule(&Rule::new(RULE, world.remote.address));
        let stop = command("retained-1", "stop");
        if world.cloud_broker.is_some() {
            // To who is subscribed already a broker does not show the flag: it is seen at the next connection.
            world.controller.process.kill9();
        }
        let said = run(&mut client(&world, "mosquitto_pub", &["-r", "-t", COMMAND, "-m", &stop]));
        assert_eq!(said.code, 0, "{said:?}");
        if world.cloud_broker.is_some() {
            world.controller.start_again();
        }
        let ack = acks.ack("retained-1");
        assert_eq!((&ack["code"], &ack["payload"]["status"]), (&400.into(), &"BAD_MESSAGE".into()), "{ack}");
        world.controller.wait_states(RULE, EDGE, "issued", "running");

        // It is not there any more.
        world.controller.process.kill9();
        world.controller.start_again();
        world.controller.wait_states(RULE, EDGE, "issued", "running");
        let acks = Watcher::start(&world, ACK);
        say(&world, &command("after-1", "status"));
        acks.ack("after-1");
        assert!(acks.acks("retained-1").is_empty());
    }
}

#[test]
fn states_heal_after_a_crash_also_those_of_placements_that_went_meanwhile() {
    let mut world = World::external();
    let states = Watcher::start(&world, "tidegate/1/default/state/#");
    world.run_rule(&Rule::new(RULE, world.remote.address));
    states.wait_state("it runs", |s| s["run_state"] == "running");
    // Retained by an earlier life: of a placement that nobody knows, and a lie about one that is there.
    world.controller.process.kill9();
    let broker = world.cloud_broker.as_ref().unwrap();
    let past = "tidegate/1/default/state/gw-9/long-gone".to_owned();
    let here = format!("tidegate/1/default/state/{EDGE}/{RULE}");
    let controller = Login::anonymous("past").with_password(tidegate_e2e::cloud_broker::CONTROLLER, PASSWORD);
    let mut conn = Conn::open(broker.address(), &controller).unwrap().unwrap();
    for (pkid, topic) in [(1, &past), (2, &here)] {
        let mut packet = publish(topic, br#"{"run_state":"a lie"}"#, Some(pkid), false);
        packet[0] |= 1;
        conn.send(&packet).unwrap();
        assert!(conn.next(PATIENCE).unwrap().is_some());
    }
    states.wait_state("the lie is there", |s| s["run_state"] == "a lie");
    world.controller.start_again();
    states.wait_state("the truth is back", |s| s["run_state"] == "running" && s["last_known"] == false);
    until("what is gone is cleared", || states.state("gw-9", "long-gone").is_none().then_some(()));

    // And after the broker lost everything.
    world.cloud_broker.as_mut().unwrap().mosquitto.process.kill9();
    let _ = world.cloud_broker.as_mut().unwrap().mosquitto.start_again();
    let fresh = until("somebody new is let in", || {
        (try_login(world.controller.mqtt, &controller) == Ok(()))
            .then(|| Watcher::start(&world, "tidegate/1/default/state/#"))
    });
    fresh.wait_state("the states are told again", |s| s["run_state"] == "running");
}

#[test]
fn the_account_of_other_systems_reaches_commands_answers_and_states_and_edges_do_not() {
    let world = World::new();
    let at = world.controller.mqtt;
    let token = world.controller.token();
    let api = |id: &str| Login::anonymous(id).with_password(API, token);
    assert_eq!(try_login(at, &api("node-red")), Ok(()));
    assert_eq!(try_login(at, &Login::anonymous("node-red").with_password(API, "wrong")), Err(4));
    for id in ["tidegate.default.gw-1", "tidegate.default.controller.writer.1", "tidegate.x"] {
        assert_eq!(try_login(at, &api(id)), Err(2), "{id}");
    }
    let mut conn = Conn::open(at, &api("node-red")).unwrap().unwrap();
    for (filter, granted) in [
        (ACK, true),
        ("tidegate/1/default/controller", true),
        ("tidegate/1/default/state/#", true),
        ("tidegate/1/default/state/gw-1/camera-up", true),
        (COMMAND, false),
        ("tidegate/1/default/gw-1/down", false),
        ("tidegate/1/default/gw-1/up", false),
        ("tidegate/1/default/+/presence", false),
        ("tidegate/1/default/#", false),
        ("#", false),
    ] {
        let code = conn.subscribe(filter, 1).unwrap();
        assert_eq!(code != 0x80, granted, "{filter}: SUBACK {code:#x}");
    }
    conn.bye();

    // What may not be published reaches nobody.
    let watcher =
        Sink::start(at, Login::anonymous("watcher").with_password("admin", token), "tidegate/1/default/#");
    let forged = [
        ACK,
        "tidegate/1/default/controller",
        "tidegate/1/default/state/gw-1/camera-up",
        "tidegate/1/default/gw-1/up",
        "tidegate/1/default/gw-1/down",
        "tidegate/1/default/gw-1/presence",
        "elsewhere",
    ];
    for topic in forged {
        let mut forger = Conn::open(at, &api("forger")).unwrap().unwrap();
        forger.send(&publish(topic, b"forged", Some(1), false)).unwrap();
        let ended = until("the connection ends", || match forger.next(PATIENCE) {
            Ok(Some(tidegate_e2e::mqtt::Packet::PubAck(_))) => panic!("{topic} was acknowledged"),
            Ok(_) => None,
            Err(error) => Some(error),
        });
        drop(ended);
    }

    // Edges: neither commands, nor answers, nor states.
    let made = world.controller.ok(&["edge", "create", "gw-2"]).json();
    let edge =
        Login::anonymous("tidegate.default.gw-2").with_password("gw-2", made["credential"].as_str().unwrap());
    let mut conn = Conn::open(at, &edge).unwrap().unwrap();
    for filter in [ACK, COMMAND, "tidegate/1/default/state/#", "tidegate/1/default/state/gw-2/camera-up"] {
        assert_eq!(conn.subscribe(filter, 1).unwrap(), 0x80, "{filter}");
    }
    conn.send(&publish(COMMAND, command("edge-1", "stop").as_bytes(), Some(1), false)).unwrap();
    until("the edge's connection ends", || conn.next(PATIENCE).err());

    let mut last = Conn::open(at, &api("last")).unwrap().unwrap();
    last.send(&publish(COMMAND, br#"{"tid":"end","type":"datasync","action":"list"}"#, Some(1), false))
        .unwrap();
    until("the last answer is seen", || watcher.arrived().into_iter().find(|a| a.topic == ACK));
    let seen = watcher.arrived();
    assert!(seen.iter().all(|a| a.payload != b"forged"), "{seen:?}");
    assert!(seen.iter().all(|a| !String::from_utf8_lossy(&a.payload).contains("edge-1")), "{seen:?}");
}

#[test]
fn what_the_examples_publish_works() {
    let world = World::new();
    let acks = Watcher::start(&world, ACK);
    world.run_rule(&Rule::new(RULE, world.remote.address));
    let to_this_world = |text: &str| text.replace("gw-lyon", EDGE);

    // Home Assistant: the command template with what its payloads put in.
    let yaml = example("home-assistant.yaml");
    let value = |key: &str| {
        let line = yaml.lines().find_map(|line| line.trim().strip_prefix(&format!("{key}: "))).unwrap();
        line.trim_matches(['\'', '"']).to_owned()
    };
    assert_eq!(
        (value("command_topic").as_str(), value("qos").as_str(), value("retain").as_str()),
        (COMMAND, "1", "false")
    );
    for (key, run) in [("payload_off", "paused_manual"), ("payload_on", "running")] {
        let tid = format!("ha-{key}");
        let template = value("command_template").replace("{{ value }}", &value(key));
        say(&world, &to_this_world(&template.replace("ha-{{ now().timestamp() }}", &tid)));
        assert_eq!(acks.ack(&tid)["code"], 202);
        world.controller.wait_states(RULE, EDGE, "issued", run);
    }
    let state = Watcher::start(&world, &to_this_world(&value("state_topic")));
    let shown = state.wait_state("the state that the switch shows", |s| s["run_state"] == "running");
    for field in ["run_state", "last_known"] {
        assert!(yaml.contains(&format!("value_json.{field}")) && !shown[field].is_null(), "{field}");
    }

    // Node-RED: each button's payload, and the topics of its nodes.
    let flow: Value = serde_json::from_str(&example("node-red-flow.json")).unwrap();
    let nodes = flow.as_array().unwrap();
    let of = |kind: &'static str| nodes.iter().filter(move |node| node["type"] == kind);
    let ids: Vec<&Value> = nodes.iter().map(|node| &node["id"]).collect();
    for wire in
        nodes.iter().filter_map(|n| n["wires"].as_array()).flatten().filter_map(Value::as_array).flatten()
    {
        assert!(ids.contains(&wire), "{wire} leads nowhere");
    }
    assert!(of("mqtt out").all(|node| node["topic"] == COMMAND && node["retain"] == "false"));
    assert_eq!(
        of("mqtt in").map(|node| node["topic"].clone()).collect::<Vec<_>>(),
        [ACK, "tidegate/1/default/state/#"]
    );
    // Stopped first, so that both do something.
    let buttons: Vec<&Value> = of("inject").collect();
    assert_eq!(buttons.len(), 2);
    for (button, run) in buttons.into_iter().rev().zip(["paused_manual", "running"]) {
        let jsonata = button["payload"].as_str().unwrap();
        let payload = jsonata.replace("\"node-red-\" & $string($millis())", &format!("\"{run}\""));
        say(&world, &to_this_world(&payload));
        assert_eq!(acks.ack(run)["code"], 202, "{payload}");
        world.controller.wait_states(RULE, EDGE, "issued", run);
    }
}

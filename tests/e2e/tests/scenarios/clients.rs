//! Clients that are not ours: mosquitto_pub and mosquitto_sub against the gateway's local broker, a bridge in between.

use std::net::SocketAddr;
use std::process::Command;

use tidegate_e2e::controller::{Answer, run};
use tidegate_e2e::process::Process;
use tidegate_e2e::world::EDGE;
use tidegate_e2e::{Agent, PATIENCE, Rule, World, until};

fn client(program: &str, broker: SocketAddr, args: &[&str]) -> Command {
    // Without line buffering what a subscriber prints would come when it ends.
    let mut command = Command::new("stdbuf");
    command
        .args(["-oL", program, "-h", &broker.ip().to_string(), "-p", &broker.port().to_string()])
        .args(args);
    command
}

fn publish(broker: SocketAddr, args: &[&str]) -> Answer {
    run(&mut client("mosquitto_pub", broker, args))
}

/// A subscriber that prints `topic qos retain payload` per message, once its subscription stands.
fn subscriber(broker: SocketAddr, args: &[&str]) -> Process {
    let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
    let mut process = Process::new("mosquitto_sub", move || {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = client("mosquitto_sub", broker, &["-d", "-F", "%t %q %r %p"]);
        command.args(args);
        command
    });
    process.wait_line("that it is subscribed", 0, |line| line.starts_with("Subscribed"));
    process
}

#[test]
fn mosquittos_clients_work_against_the_local_broker_and_through_a_bridge() {
    let world = World::new();
    world.run_rule(&Rule::new("camera-up", world.remote.address));
    let local = world.agent.local;
    let mut all = subscriber(local, &["-i", "sub-all", "-q", "2", "-t", "#"]);
    let mut one = subscriber(local, &["-i", "sub-one", "-q", "1", "-t", "sensors/+/temperature"]);
    let mut remote =
        subscriber(world.remote.address, &["-i", "sub-remote", "-q", "1", "-t", &format!("plant/{EDGE}/#")]);

    for qos in ["0", "1", "2"] {
        let topic = format!("sensors/room-{qos}/temperature");
        let sent = publish(local, &["-q", qos, "-t", &topic, "-m", &format!("21.{qos}")]);
        assert_eq!(sent.code, 0, "QoS {qos}: {sent:?}");
        all.wait_line("the message", 0, |line| line == format!("{topic} {qos} 0 21.{qos}"));
        let most = if qos == "2" { "1" } else { qos };
        one.wait_line("the message", 0, |line| line == format!("{topic} {most} 0 21.{qos}"));
        remote.wait_line("the message", 0, |line| {
            line.starts_with(&format!("plant/{EDGE}/{topic} ")) && line.ends_with(&format!(" 0 21.{qos}"))
        });
    }

    // Retained: told to who comes later, until it is taken back.
    assert_eq!(publish(local, &["-q", "1", "-r", "-t", "status/door", "-m", "open"]).code, 0);
    let mut later = subscriber(local, &["-i", "later", "-q", "1", "-t", "status/#"]);
    later.wait_line("the retained message", 0, |line| line == "status/door 1 1 open");
    assert_eq!(publish(local, &["-q", "1", "-r", "-t", "status/door", "-n"]).code, 0);
    assert_eq!(publish(local, &["-q", "1", "-t", "status/window", "-m", "shut"]).code, 0);
    let mut last = subscriber(local, &["-i", "last", "-q", "1", "-t", "status/#"]);
    assert_eq!(publish(local, &["-q", "1", "-t", "status/end", "-m", "end"]).code, 0);
    last.wait_line("the end", 0, |line| line == "status/end 1 0 end");
    assert!(!last.text().contains("status/door"), "{}", last.text());

    // A will, when its client dies.
    let will = [
        "-i",
        "mortal",
        "-t",
        "nothing",
        "--will-topic",
        "sensors/mortal",
        "--will-payload",
        "gone",
        "--will-qos",
        "1",
    ];
    let mut mortal = subscriber(local, &will);
    mortal.kill9();
    all.wait_line("the will", 0, |line| line == "sensors/mortal 1 0 gone");
    remote.wait_line("the will", 0, |line| line == format!("plant/{EDGE}/sensors/mortal 1 0 gone"));

    // Big, and many in one connection.
    let big = "x".repeat(200_000);
    let file = world.dir().join("big");
    std::fs::write(&file, &big).unwrap();
    let sent = publish(local, &["-q", "1", "-t", "sensors/big", "-f", &file.display().to_string()]);
    assert_eq!(sent.code, 0, "{sent:?}");
    remote.wait_line("the big message", 0, |line| line.ends_with(&format!(" {big}")));
    let lines: String = (0..500).map(|n| format!("{n}\n")).collect();
    std::fs::write(&file, lines).unwrap();
    let mut many = client("mosquitto_pub", local, &["-q", "2", "-t", "sensors/many", "-l"]);
    let sent = many.stdin(std::fs::File::open(&file).unwrap()).output().unwrap();
    assert!(sent.status.success(), "{sent:?}");
    let prefix = format!("plant/{EDGE}/sensors/many ");
    until("all lines arrive in order", || {
        let text = remote.text();
        let got: Vec<&str> = text.lines().filter(|l| l.starts_with(&prefix)).collect();
        let numbers: Vec<String> =
            got.iter().map(|l| l.rsplit(' ').next().unwrap_or("").to_owned()).collect();
        (numbers.len() >= 500)
            .then(|| assert!(numbers.iter().enumerate().all(|(i, n)| *n == i.to_string()), "{numbers:?}"))
    });
}

#[test]
fn mosquittos_clients_are_told_when_a_password_is_wrong() {
    let world = World::new();
    let users = Some(&[("lyon", "right")][..]);
    let agent = Agent::with_users(&world.dir(), &world.controller, "gw-2", world.controller.mqtt, users);
    world.controller.wait_link(PATIENCE, "gw-2", "online");
    let message = ["-q", "1", "-t", "sensors/x", "-m", "1"];
    let right = publish(agent.local, &[&message[..], &["-u", "lyon", "-P", "right"]].concat());
    assert_eq!(right.code, 0, "{right:?}");
    let wrong = publish(agent.local, &[&message[..], &["-u", "lyon", "-P", "wrong"]].concat());
    assert_ne!(wrong.code, 0, "{wrong:?}");
    assert!(wrong.stderr.contains("Connection Refused: bad user name or password"), "{wrong:?}");
    let anonymous = publish(agent.local, &message);
    assert_ne!(anonymous.code, 0, "{anonymous:?}");
    assert!(anonymous.stderr.contains("Connection Refused: not authorised"), "{anonymous:?}");
}

//! `tidegate-edge doctor` on a gateway that is well, and on one that lacks one thing after the other.

use std::process::Command;

use serde_json::Value;
use tidegate_e2e::agent::Local;
use tidegate_e2e::controller::{Answer, binary, run};
use tidegate_e2e::proxy::Cable;
use tidegate_e2e::world::EDGE;
use tidegate_e2e::{Rule, World, until};

/// Asks the doctor as the service is set up; `credential` in place of the one in its settings.
fn doctor(world: &World, credential: Option<&str>) -> Answer {
    let mut command = Command::new(binary("tidegate-edge"));
    command.args(["doctor", "-o", "json", "--config"]).arg(world.dir().join(format!("{EDGE}.toml")));
    command.arg("--data-dir").arg(&world.agent.data);
    command.args(["--controller-url", &format!("mqtt://{}", world.cable.address)]);
    let local = world.agent.local;
    match world.agent.broker {
        Some(_) => command.args(["--local-broker", &format!("mqtt://tidegate:local-hunter@{local}")]),
        None => command.args(["--listen", &local.to_string()]),
    };
    command.envs(credential.map(|credential| ("TIDEGATE_EDGE_CONTROLLER_PASSWORD", credential)));
    let answer = run(&mut command);
    assert!(!answer.stdout.contains("hunter"), "no secret is told: {answer:?}");
    answer
}

/// The result of each line, by its check; of several of one check the worst.
fn results(answer: &Answer) -> Vec<(String, String)> {
    let told = answer.json();
    let items = told["items"].as_array().unwrap_or_else(|| panic!("no list: {answer:?}"));
    let text = |line: &Value, field: &str| line[field].as_str().unwrap_or_default().to_owned();
    let lines = items.iter().map(|line| {
        let is_trouble = ["warn", "bad"].contains(&line["result"].as_str().unwrap_or_default());
        assert_eq!(is_trouble, !text(line, "fix").is_empty(), "who complains says what to do: {line}");
        (text(line, "check"), text(line, "result"))
    });
    lines.collect()
}

fn is(answer: &Answer, check: &str, result: &str) -> bool {
    results(answer).iter().any(|(name, how)| name == check && how == result)
}

fn well(answer: &Answer) -> bool {
    // The disk of the machine that tests run on is what it is.
    answer.code == 0 && results(answer).iter().all(|(name, how)| how == "ok" || name == "disk")
}

fn session(world: &World) -> Value {
    world.agent.cli(&["status", "-o", "json"]).json()["session"].clone()
}

#[test]
fn the_doctor_of_a_gateway_says_what_is_wrong_and_disturbs_nobody() {
    let mut world = World::new();
    world.run_rule(&Rule::new("camera-up", world.remote.address));
    let before = session(&world);
    let answer = doctor(&world, None);
    assert!(well(&answer), "{answer:?}");
    assert_eq!(session(&world), before, "the agent's session is not taken over");

    world.remote.process.kill9();
    until("the fault is told", || {
        let answer = doctor(&world, None);
        (answer.code == 1 && is(&answer, "rules", "bad")).then_some(())
    });
    world.remote.start_again();

    world.cable.set(Cable::Cut);
    until("the lost controller is told", || {
        let answer = doctor(&world, None);
        (answer.code == 1 && is(&answer, "controller", "bad")).then_some(())
    });
    world.cable.set(Cable::Whole);
    until("all is well again", || well(&doctor(&world, None)).then_some(()));

    // Without an agent the doctor goes all the way itself.
    world.agent.process.kill9();
    let answer = doctor(&world, None);
    assert!(answer.code == 0 && is(&answer, "agent", "warn"), "{answer:?}");
    for check in ["controller name", "controller connection", "controller login", "local broker", "queues"] {
        assert!(is(&answer, check, "ok"), "{check}: {answer:?}");
    }
    let answer = doctor(&world, Some("tge_hunter2"));
    assert!(answer.code == 1 && is(&answer, "controller login", "bad"), "{answer:?}");
    let taken = std::net::TcpListener::bind(world.agent.local).unwrap();
    let answer = doctor(&world, None);
    assert!(answer.code == 1 && is(&answer, "local broker", "bad"), "{answer:?}");
    drop(taken);
    world.agent.start_again();
    until("the agent is well after all that", || well(&doctor(&world, None)).then_some(()));
}

#[test]
fn the_doctor_tries_the_login_at_an_external_local_broker() {
    let mut world = World::with_local(Local::External);
    world.run_rule(&Rule::new("camera-up", world.remote.address));
    assert!(well(&doctor(&world, None)), "{:?}", doctor(&world, None));
    let broker = world.agent.broker.as_mut().expect("it has one beside it");
    broker.process.kill9();
    let answer = doctor(&world, None);
    assert!(answer.code == 1 && is(&answer, "local broker", "bad"), "{answer:?}");
}

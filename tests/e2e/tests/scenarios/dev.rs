//! `tidegate dev`: everything on one machine, with one command.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tidegate_e2e::controller::{Answer, run, tidegate};
use tidegate_e2e::process::Process;
use tidegate_e2e::{Login, PATIENCE, Sink, ports, until, within};

struct Addresses {
    http: SocketAddr,
    mqtt: SocketAddr,
    edge: SocketAddr,
    remote: SocketAddr,
}

impl Addresses {
    fn free() -> Self {
        Self { http: ports::free(), mqtt: ports::free(), edge: ports::free(), remote: ports::free() }
    }

    fn args(&self) -> Vec<String> {
        let flags = [
            ("--http", self.http),
            ("--mqtt", self.mqtt),
            ("--edge-mqtt", self.edge),
            ("--remote-mqtt", self.remote),
        ];
        flags.iter().flat_map(|(flag, address)| [(*flag).to_owned(), address.to_string()]).collect()
    }
}

fn dev(name: &str, home: &Path, addresses: &Addresses, data: &Path) -> Process {
    let (home, data, args) = (home.to_owned(), data.to_owned(), addresses.args());
    Process::new(name, move || {
        let mut command = tidegate(&home);
        command.arg("dev").args(&args).arg("--data-dir").arg(&data);
        command
    })
}

fn cli(home: &Path, args: &[&str]) -> Answer {
    run(tidegate(home).args(args))
}

fn running_rule(home: &Path) -> Value {
    until("the sample rule runs", || {
        let list = cli(home, &["rule", "list", "-o", "json"]);
        if list.code != 0 {
            return None;
        }
        let name = list.json()["items"][0]["name"].as_str()?.to_owned();
        let rule = cli(home, &["rule", "get", &name, "-o", "json"]);
        let placement = rule.json()["placements"][0].clone();
        (placement["issue_state"] == "issued" && placement["run_state"] == "running").then_some(placement)
    })
}

#[test]
fn dev_starts_everything_stops_within_two_seconds_and_goes_on_with_the_same_data() {
    let dir = tempfile::tempdir().unwrap();
    let (data, addresses) = (dir.path().join("data"), Addresses::free());
    let mut dev = dev("dev", dir.path(), &addresses, &data);

    // Another terminal needs no flags: the context was written.
    until("status answers", || {
        assert!(dev.ended().is_none(), "dev ended:\n{}", dev.text());
        (cli(dir.path(), &["status"]).code == 0).then_some(())
    });
    let first = running_rule(dir.path());
    assert_eq!((&first["edge"], &first["version"]), (&"gateway-1".into(), &1.into()));

    // Sample readings arrive at the remote side, which takes anonymous clients.
    let sink = Sink::start(addresses.remote, Login::anonymous("watcher"), "#");
    sink.wait_flow(3);
    let reading = sink.arrived().into_iter().find(|a| !a.topic.starts_with('$')).unwrap();
    dev.wait_line("what arrives", 0, |line| line.contains(&reading.topic));
    drop(sink);

    // A second one on the same data is told so, on other ports.
    let mut second = self::dev("second", dir.path(), &Addresses::free(), &data);
    let status = second.wait_end(PATIENCE);
    let said = sentence(&second);
    assert!(!status.success() && said.contains("in use"), "{said}");
    assert!(said.contains(&data.display().to_string()), "it names the directory: {said}");

    // Ctrl-C.
    dev.signal("INT");
    dev.wait_end(Duration::from_secs(2));

    // It goes on with the same data: the same rule, the same version, nothing issued again.
    dev.start();
    let again = running_rule(dir.path());
    for field in ["rule_id", "version", "generation", "digest"] {
        assert_eq!(again[field], first[field], "{field}");
    }
    let sink = Sink::start(addresses.remote, Login::anonymous("watcher-2"), "#");
    sink.wait_flow(2);
    dev.signal("INT");
    dev.wait_end(Duration::from_secs(2));
}

#[test]
fn dev_says_in_one_sentence_which_port_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    for which in 0..4 {
        let mut addresses = Addresses::free();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let slot = [&mut addresses.http, &mut addresses.mqtt, &mut addresses.edge, &mut addresses.remote];
        *slot.into_iter().nth(which).unwrap() = address;
        let mut dev = dev("dev", dir.path(), &addresses, &dir.path().join(format!("data-{which}")));
        let status = dev.wait_end(PATIENCE);
        assert!(!status.success());
        let said = sentence(&dev);
        assert!(said.contains(&address.to_string()), "{said}");
        let flag = ["--http", "--mqtt", "--edge-mqtt", "--remote-mqtt"][which];
        assert!(said.contains(flag), "it says which flag: {said}");
    }
}

#[test]
fn dev_takes_port_0_and_a_wrong_flag_is_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let addresses = Addresses { http: any, mqtt: any, edge: any, remote: any };
    let mut dev = dev("dev", dir.path(), &addresses, &dir.path().join("data"));
    within(PATIENCE, "status answers", || {
        assert!(dev.ended().is_none(), "dev ended:\n{}", dev.text());
        (cli(dir.path(), &["status"]).code == 0).then_some(())
    });
    running_rule(dir.path());
    dev.signal("INT");
    dev.wait_end(Duration::from_secs(2));

    let wrong = cli(dir.path(), &["dev", "--http", "nonsense"]);
    assert_eq!(wrong.code, 2, "{wrong:?}");
    assert!(wrong.stderr.contains("--http"), "{wrong:?}");
}

/// The one line that a process said about its failure.
fn sentence(process: &Process) -> String {
    let lines: Vec<String> = process
        .lines()
        .into_iter()
        .map(|l| l.text)
        .filter(|l| !l.starts_with("---") && !l.is_empty())
        .collect();
    assert_eq!(lines.len(), 1, "one sentence: {lines:#?}");
    lines.join("")
}

//! A bridge between two brokers, beside no bridge at all and beside mosquitto's own: the same generator, the same counter,
//! the same remote mosquitto, 256 bytes, QoS 1.
//!
//! `cargo build --release --bins && cargo bench -p tidegate-bench --bench bridge [-- MESSAGES]`; needs Debian's mosquitto.
#![allow(clippy::print_stdout, reason = "a measurement is printed")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tidegate_bench::{Measured, PAYLOAD_BYTES, measure};
use tidegate_e2e::ports;
use tidegate_e2e::process::Process;
use tidegate_e2e::rule::Rule;
use tidegate_e2e::wait::until;
use tidegate_e2e::world::{EDGE, World};

const MESSAGES: u64 = 50_000;
const ROUNDS: usize = 3;

fn main() {
    let messages = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(MESSAGES);
    let world = World::new();
    let mut rule = Rule::new("bench", world.remote.address);
    rule.forwards = vec!["sensors/#".to_owned()];
    world.run_rule(&rule);
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let peer = MosquittoBridge::start(dir.path(), world.remote.address);

    println!("{messages} messages of {PAYLOAD_BYTES} bytes, QoS 1, median of {ROUNDS} rounds");
    let (mut none, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let remote = world.remote.address;
        none.push(measure(remote, "direct/a", remote, "direct/#", messages));
        ours.push(measure(
            world.agent.local,
            "sensors/a",
            remote,
            &format!("plant/{EDGE}/sensors/#"),
            messages,
        ));
        theirs.push(measure(peer.local, "sensors/a", remote, "peer/sensors/#", messages));
        println!("round {} of {ROUNDS} done", round + 1);
    }
    let base = median(&none);
    println!("{:<28}{:>12}{:>8}{:>14}{:>8}", "", "through /s", "ratio", "accepted /s", "ratio");
    for (name, measured) in [
        ("no bridge", base),
        ("tidegate (on disk first)", median(&ours)),
        ("mosquitto bridge", median(&theirs)),
    ] {
        println!(
            "{name:<28}{:>12.0}{:>8.2}{:>14.0}{:>8.2}",
            measured.through,
            measured.through / base.through,
            measured.accepted,
            measured.accepted / base.accepted
        );
    }
}

fn median(all: &[Measured]) -> Measured {
    let middle = |of: fn(&Measured) -> f64| {
        let mut values: Vec<f64> = all.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Measured { through: middle(|m| m.through), accepted: middle(|m| m.accepted) }
}

/// A local mosquitto with a bridge to the remote one.
struct MosquittoBridge {
    local: SocketAddr,
    _process: Process,
}

impl MosquittoBridge {
    fn start(dir: &Path, remote: SocketAddr) -> Self {
        let local = ports::free();
        let config = dir.join("bridge.conf");
        let text = format!(
            "user root\nlistener {} {}\nallow_anonymous true\npersistence false\nmax_queued_messages 0\nconnection peer\naddress {remote}\ntopic sensors/# out 1 \"\" peer/\ncleansession false\nnotifications false\ntry_private false\n",
            local.port(),
            local.ip()
        );
        std::fs::write(&config, text).expect("the temporary directory can be written");
        let make = move || {
            let mut command = Command::new("mosquitto");
            command.arg("-c").arg(&config);
            command
        };
        let mut process = Process::new("mosquitto-bridge", make);
        process.wait_line("the bridge connects", 0, |line| line.contains("Connecting bridge"));
        until("mosquitto listens", || std::net::TcpStream::connect(local).ok());
        Self { local, _process: process }
    }
}

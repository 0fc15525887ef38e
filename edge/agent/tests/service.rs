//! The real binary under a service manager that this test plays: a datagram socket in NOTIFY_SOCKET.

#[allow(dead_code)] // each test file uses a part of it
mod common;

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use common::{Running, rule, tidegate_edge, until, write};

/// Plays systemd.
struct Manager(UnixDatagram);

impl Manager {
    /// The next message, if one comes within this time.
    fn next(&self, within: Duration) -> Option<String> {
        self.0.set_read_timeout(Some(within)).expect("a time above zero");
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    /// Waits for a message that says this; those before it are gone.
    fn hears(&self, what: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            if let Some(message) = self.next(Duration::from_secs(1))
                && message.lines().any(|line| line.starts_with(what))
            {
                return message;
            }
        }
        panic!("{what} was not said in time");
    }
}

/// Time-out of the watchdog: pings come three times as often.
const WATCHDOG: Duration = Duration::from_secs(3);

#[test]
fn the_service_manager_hears_ready_reload_stop_and_no_ping_from_a_stuck_loop() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let socket = dir.path().join("notify");
    let manager = Manager(UnixDatagram::bind(&socket).expect("a short path"));
    std::fs::create_dir(dir.path().join("rules")).expect("the test's directory can be written");
    let rules = dir.path().join("rules").display().to_string();
    write(&dir.path().join("rules"), "pump.toml", &rule("pump", "127.0.0.1:1", "start = \"manual\"\n"));
    let data = dir.path().join("data").display().to_string();
    let timeout = WATCHDOG.as_micros().to_string();
    let notify = socket.display().to_string();
    let environment = [("NOTIFY_SOCKET", notify.as_str()), ("WATCHDOG_USEC", timeout.as_str())];
    let args = ["--name", "gw-7", "--rules", &rules, "--data-dir", &data, "--listen", "127.0.0.1:0"];
    let start = || Running::start(&args, &environment);

    let agent = start();
    assert!(manager.hears("READY=1").contains("STATUS=devices connect to 127.0.0.1:"));
    assert_eq!(tidegate_edge(&["status", "--data-dir", &data]).0, 0, "it answers as soon as it says so");
    for _ in 0..3 {
        manager.hears("WATCHDOG=1");
    }
    agent.signal("-HUP");
    assert!(manager.hears("RELOADING=1").contains("MONOTONIC_USEC="));
    manager.hears("READY=1");
    agent.signal("-TERM");
    manager.hears("STOPPING=1");
    agent.ends();

    // The loop waits for the disk: a FIFO stands where the queue of the rule begins, and nobody writes into it.
    let agent = start();
    manager.hears("WATCHDOG=1");
    let (_, out, _) = tidegate_edge(&["rules", "--data-dir", &data, "-o", "json"]);
    let told: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let id = told["items"][0]["rule"].as_str().expect("the rule is there");
    let queue = dir.path().join("data/queues").join(id).join("out");
    std::fs::create_dir_all(&queue).expect("the test's directory can be written");
    let made = std::process::Command::new("mkfifo").arg(queue.join("lock")).status();
    assert!(made.is_ok_and(|status| status.success()));
    let starting = std::thread::spawn({
        let data = data.clone();
        move || tidegate_edge(&["start", "pump", "--data-dir", &data]).0
    });
    // The pings end: what was on its way comes, then nothing for longer than the time-out.
    until("silence", || manager.next(2 * WATCHDOG).is_none().then_some(()));
    assert_eq!(starting.join().expect("the call ends"), 1, "nobody answers, and it says so");
    drop(agent);
}

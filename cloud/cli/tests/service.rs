//! `tidegate serve` under a service manager that this test plays: a datagram socket in NOTIFY_SOCKET.

use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for a message.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for a message of which a line begins so; those before it are gone.
fn hears(manager: &UnixDatagram, what: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = [0; 4096];
    while Instant::now() < deadline {
        if let Ok(length) = manager.recv(&mut buffer) {
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if message.lines().any(|line| line.starts_with(what)) {
                return message;
            }
        }
    }
    panic!("{what} was not said in time");
}

#[test]
fn the_service_manager_hears_ready_alive_and_stopping_and_each_line_of_the_log_is_an_object() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let socket = dir.path().join("notify");
    let manager = UnixDatagram::bind(&socket).expect("the path is short");
    manager.set_read_timeout(Some(Duration::from_secs(1))).expect("the time is above zero");
    let mut serve = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args([
            "serve",
            "--http",
            "127.0.0.1:0",
            "--mqtt",
            "127.0.0.1:0",
            "--log-format",
            "json",
            "--data-dir",
        ])
        .arg(dir.path().join("data"))
        .env("NOTIFY_SOCKET", &socket)
        .env("WATCHDOG_USEC", "3000000")
        .env("HOME", dir.path())
        .env_remove("TIDEGATE_CONFIG")
        .env_remove("TIDEGATE_LOG")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary is built with the test");
    let log = serve.stderr.take().expect("it is piped");
    let log = std::thread::spawn(move || {
        BufReader::new(log).lines().map(|line| line.expect("the log is text")).collect::<Vec<_>>()
    });

    assert!(hears(&manager, "READY=1").contains("STATUS="), "people see where it listens");
    for _ in 0..3 {
        hears(&manager, "WATCHDOG=1");
    }
    let told = Command::new("kill").args(["-TERM", &serve.id().to_string()]).status();
    assert!(told.expect("kill can be run").success());
    hears(&manager, "STOPPING=1");
    assert!(serve.wait().expect("it ends").success());

    let lines = log.join().expect("the log is read");
    let objects: Vec<serde_json::Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect();
    assert!(objects.iter().any(|object| object["message"] == "the controller serves"), "{lines:?}");
}

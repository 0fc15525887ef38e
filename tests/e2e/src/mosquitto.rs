//! Debian's mosquitto, as the remote broker, between the controller and its gateways, or as a gateway's local broker.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::ports;
use crate::process::{Line, Process};
use crate::wait::until;

/// A sink that is slow for a moment loses nothing.
const ENDLESS_QUEUE: &str = "max_queued_messages 0\n";

/// A mosquitto. It keeps its address over restarts, and forgets everything else unless it is told to keep it.
pub struct Mosquitto {
    /// Where it listens.
    pub address: SocketAddr,
    /// The process.
    pub process: Process,
}

impl Mosquitto {
    /// One that takes everybody.
    #[must_use]
    pub fn open(dir: &Path) -> Self {
        Self::start(dir, &format!("allow_anonymous true\n{ENDLESS_QUEUE}"))
    }

    /// One that takes everybody, and ends the connection of whoever sends a larger packet than this.
    #[must_use]
    pub fn narrow(dir: &Path, max_packet_bytes: usize) -> Self {
        Self::start(
            dir,
            &format!("allow_anonymous true\n{ENDLESS_QUEUE}max_packet_size {max_packet_bytes}\n"),
        )
    }

    /// One that takes only these users.
    ///
    /// # Panics
    /// When `mosquitto_passwd` does not work.
    #[must_use]
    pub fn with_users(dir: &Path, users: &[(&str, &str)]) -> Self {
        let file = passwords(dir, users);
        Self::start(dir, &format!("allow_anonymous false\npassword_file {}\n{ENDLESS_QUEUE}", file.display()))
    }

    /// One that takes everybody, at this address.
    #[must_use]
    pub fn at(dir: &Path, address: SocketAddr) -> Self {
        Self::start_at(dir, address, &format!("allow_anonymous true\n{ENDLESS_QUEUE}"))
    }

    /// One that takes everybody and runs these bridges; `dir` is its own.
    #[must_use]
    pub fn with_bridge(dir: &Path, bridges: &str) -> Self {
        Self::start(dir, &format!("allow_anonymous true\n{ENDLESS_QUEUE}{bridges}"))
    }

    /// One in `dir` that knows this user beside everybody, and keeps sessions and messages over restarts: on disk each
    /// second.
    ///
    /// # Panics
    /// When `dir` cannot be written.
    #[must_use]
    pub fn lasting(dir: &Path, user: (&str, &str)) -> Self {
        let access = everybody_and(dir, user);
        let keep =
            format!("persistence true\npersistence_location {}/\nautosave_interval 1\n", dir.display());
        Self::start_with(dir, ports::free(), &keep, &access)
    }

    /// One in `dir` that knows this user beside everybody, keeps nothing over restarts, and sends a subscriber any number of
    /// messages before it waits for an acknowledgement.
    ///
    /// # Panics
    /// When `dir` cannot be written.
    #[must_use]
    pub fn hasty(dir: &Path, user: (&str, &str)) -> Self {
        let access = everybody_and(dir, user) + "max_inflight_messages 0\n";
        Self::start(dir, &access)
    }

    /// One with these lines in its settings.
    pub(crate) fn start(dir: &Path, access: &str) -> Self {
        Self::start_at(dir, ports::free(), access)
    }

    fn start_at(dir: &Path, address: SocketAddr, access: &str) -> Self {
        Self::start_with(dir, address, "persistence false\n", access)
    }

    fn start_with(dir: &Path, address: SocketAddr, keep: &str, access: &str) -> Self {
        let config: PathBuf = dir.join("mosquitto.conf");
        let logs = ["error", "warning", "notice", "information", "subscribe", "unsubscribe"];
        let logs: String = logs.iter().map(|kind| format!("log_type {kind}\n")).collect();
        // It may read its files as the user who runs the tests.
        let text = format!(
            "user root\nlistener {} {}\n{keep}set_tcp_nodelay true\nlog_dest stderr\n{logs}{access}",
            address.port(),
            address.ip()
        );
        std::fs::write(&config, text).expect("the test's directory can be written");
        let make = move || {
            let mut command = Command::new("mosquitto");
            command.arg("-c").arg(&config);
            command
        };
        let mut mosquitto = Self { address, process: Process::new("mosquitto", make) };
        mosquitto.wait_up();
        mosquitto
    }

    /// Starts it again after [`Process::kill9`]; returns when it listens, with the time at which that was seen.
    pub fn start_again(&mut self) -> Instant {
        self.process.start();
        self.wait_up()
    }

    fn wait_up(&mut self) -> Instant {
        until("mosquitto listens", || {
            assert!(self.process.ended().is_none(), "mosquitto ended: {}", self.process.text());
            std::net::TcpStream::connect(self.address).ok().map(|_| Instant::now())
        })
    }

    /// How often this client subscribed, by the broker's log.
    #[must_use]
    pub fn subscriptions(&self, client_id: &str) -> usize {
        let wanted = format!(": {client_id} 1 ");
        self.process.lines().iter().filter(|line| line.text.contains(&wanted)).count()
    }

    /// The lines of its log that say that this client connected, the newest last.
    #[must_use]
    pub fn connects(&self, client_id: &str) -> Vec<Line> {
        let wanted = format!(" as {client_id} (");
        let lines = self.process.lines().into_iter();
        lines.filter(|l| is_connect(&l.text) && l.text.contains(&wanted)).collect()
    }

    /// Waits until this client connected more often than `before` times; when it did.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn wait_connect(&self, client_id: &str, before: usize) -> Line {
        until(&format!("{client_id} connects to mosquitto"), || {
            self.connects(client_id).into_iter().nth(before)
        })
    }
}

fn everybody_and(dir: &Path, user: (&str, &str)) -> String {
    std::fs::create_dir_all(dir).expect("the test's directory can be written");
    format!("allow_anonymous true\npassword_file {}\n{ENDLESS_QUEUE}", passwords(dir, &[user]).display())
}

/// A client, or one that says that it is a bridge.
fn is_connect(line: &str) -> bool {
    line.contains("New client connected") || line.contains("New bridge connected")
}

fn passwords(dir: &Path, users: &[(&str, &str)]) -> PathBuf {
    let file = dir.join("mosquitto.passwd");
    std::fs::write(&file, "").expect("the test's directory can be written");
    for (name, password) in users {
        let made = Command::new("mosquitto_passwd").arg("-b").arg(&file).args([name, password]).output();
        let made = made.expect("mosquitto_passwd is installed");
        assert!(made.status.success(), "mosquitto_passwd: {}", String::from_utf8_lossy(&made.stderr));
    }
    file
}

//! A mosquitto between the controller and its gateways, set up as docs/examples say.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::mosquitto::Mosquitto;

/// The controller's user name.
pub const CONTROLLER: &str = "tidegate";
/// User name of another system that drives the controller over MQTT.
pub const API: &str = "api";
/// Passwords of both; their logs must not hold it.
pub const PASSWORD: &str = "cloud-broker-s3cret";

/// The broker, its accounts and its access rules. It keeps its address over restarts and forgets everything else.
pub struct CloudBroker {
    /// The process.
    pub mosquitto: Mosquitto,
    dir: PathBuf,
}

/// A file that the documentation gives to operators.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

impl CloudBroker {
    /// Starts it with the accounts of the controller and of another system.
    ///
    /// # Panics
    /// When mosquitto does not take the documented files.
    #[must_use]
    pub fn start(dir: &Path) -> Self {
        let dir = dir.join("cloud-broker");
        std::fs::create_dir_all(&dir).expect("the test's directory can be written");
        std::fs::write(dir.join("passwd"), "").expect("the test's directory can be written");
        std::fs::write(dir.join("acl"), example("mosquitto.acl"))
            .expect("the test's directory can be written");
        for user in [CONTROLLER, API] {
            account(&dir, user, PASSWORD);
        }
        let own = ["listener", "password_file", "acl_file"];
        let text: String = example("mosquitto.conf")
            .lines()
            .filter(|line| !own.iter().any(|key| line.starts_with(key)))
            .map(|line| format!("{line}\n"))
            .collect();
        let passwd = dir.join("passwd").display().to_string();
        let access = format!("{text}password_file {passwd}\nacl_file {}\n", dir.join("acl").display());
        std::fs::write(dir.join("password"), format!("{PASSWORD}\n"))
            .expect("the test's directory can be written");
        Self { mosquitto: Mosquitto::start(&dir, &access), dir }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.mosquitto.address
    }

    /// The flags with which a controller uses it.
    #[must_use]
    pub fn flags(&self) -> Vec<String> {
        let file = self.dir.join("password").display().to_string();
        let url = format!("mqtt://{CONTROLLER}@{}", self.address());
        vec!["--broker".to_owned(), url, "--broker-password-file".to_owned(), file]
    }

    /// Makes an account, as an operator does after `tidegate edge create`.
    ///
    /// # Panics
    /// When `mosquitto_passwd` does not work.
    pub fn add_account(&self, user: &str, password: &str) {
        account(&self.dir, user, password);
        self.mosquitto.process.signal("HUP");
    }
}

fn account(dir: &Path, user: &str, password: &str) {
    let made =
        Command::new("mosquitto_passwd").arg("-b").arg(dir.join("passwd")).args([user, password]).output();
    let made = made.expect("mosquitto_passwd is installed");
    assert!(made.status.success(), "mosquitto_passwd: {}", String::from_utf8_lossy(&made.stderr));
}

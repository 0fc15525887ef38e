//! The agent on a gateway, and its command line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::cloud_broker::CloudBroker;
use crate::controller::{Answer, Controller, binary, run};
use crate::faults::Faults;
use crate::mosquitto::Mosquitto;
use crate::ports;
use crate::process::Process;
use crate::wait::until;

/// Name and password of the agent at an external local broker.
const LOCAL_LOGIN: (&str, &str) = ("tidegate", "local-hunter");

/// What devices connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Local {
    /// The agent's own broker.
    Embedded,
    /// A mosquitto that is there already, and keeps sessions and messages on disk.
    External,
    /// A mosquitto without a bound on messages in flight.
    Hasty,
}

impl Local {
    /// The broker beside the agent, started in `dir`; `None` where there is none.
    fn start(self, dir: &Path) -> Option<Mosquitto> {
        match self {
            Self::Embedded => None,
            Self::External => Some(Mosquitto::lasting(dir, LOCAL_LOGIN)),
            Self::Hasty => Some(Mosquitto::hasty(dir, LOCAL_LOGIN)),
        }
    }
}

/// An agent with a data directory and a local broker whose address it keeps over restarts.
pub struct Agent {
    /// The edge that it is.
    pub edge: String,
    /// Where its local broker listens.
    pub local: SocketAddr,
    /// The local broker, where it is not the agent's own.
    pub broker: Option<Mosquitto>,
    /// The process.
    pub process: Process,
    /// What its disk suffers from its next start on.
    pub faults: Faults,
    /// Where it keeps its data.
    pub data: PathBuf,
}

/// The credential in the settings that `edge create` wrote.
fn credential(config: &Path) -> String {
    let text = std::fs::read_to_string(config).expect("edge create wrote the settings");
    let line = text.lines().find_map(|line| line.strip_prefix("password = "));
    line.unwrap_or_else(|| panic!("no password in {text}")).trim_matches('"').to_owned()
}

impl Agent {
    /// Makes an edge known with `tidegate edge create`, and starts its agent, which reaches the controller at `cloud`.
    ///
    /// # Panics
    /// When the local broker does not listen.
    #[must_use]
    pub fn start(dir: &Path, controller: &Controller, edge: &str, cloud: SocketAddr) -> Self {
        Self::make(dir, controller, edge, cloud, None, None, Local::Embedded)
    }

    /// The same over a broker of somebody else, if there is one, where an account is made for it; and with this kind of
    /// local broker.
    ///
    /// # Panics
    /// When the local broker does not listen.
    #[must_use]
    pub fn on(
        dir: &Path,
        controller: &Controller,
        edge: &str,
        cloud: SocketAddr,
        broker: Option<&CloudBroker>,
        local: Local,
    ) -> Self {
        Self::make(dir, controller, edge, cloud, None, broker, local)
    }

    /// The same, with a local broker that takes only these users.
    ///
    /// # Panics
    /// When the local broker does not listen.
    #[must_use]
    pub fn with_users(
        dir: &Path,
        controller: &Controller,
        edge: &str,
        cloud: SocketAddr,
        users: Option<&[(&str, &str)]>,
    ) -> Self {
        Self::make(dir, controller, edge, cloud, users, None, Local::Embedded)
    }

    fn make(
        dir: &Path,
        controller: &Controller,
        edge: &str,
        cloud: SocketAddr,
        users: Option<&[(&str, &str)]>,
        broker: Option<&CloudBroker>,
        local: Local,
    ) -> Self {
        let config = dir.join(format!("{edge}.toml"));
        let shown = config.display().to_string();
        controller.ok(&["edge", "create", edge, "--mqtt", &cloud.to_string(), "--out", &shown]);
        if let Some(broker) = broker {
            broker.add_account(edge, &credential(&config));
        }
        let beside = local.start(&dir.join(format!("{edge}-broker")));
        if beside.is_some() {
            // An agent beside a broker opens none of its own.
            let text = std::fs::read_to_string(&config).expect("edge create wrote the settings");
            let kept = text.split("[local]").next().unwrap_or_default();
            std::fs::write(&config, kept).expect("the test's directory can be written");
        }
        Self::with_settings(dir, edge, cloud, users, beside)
    }

    /// Starts an agent on settings and data that are there already: `dir/EDGE.toml` and `dir/EDGE`.
    ///
    /// # Panics
    /// When the local broker does not listen.
    #[must_use]
    pub fn existing(dir: &Path, edge: &str, cloud: SocketAddr) -> Self {
        Self::with_settings(dir, edge, cloud, None, None)
    }

    fn with_settings(
        dir: &Path,
        edge: &str,
        cloud: SocketAddr,
        users: Option<&[(&str, &str)]>,
        broker: Option<Mosquitto>,
    ) -> Self {
        let local = broker.as_ref().map_or_else(ports::free, |broker| broker.address);
        let (user, password) = LOCAL_LOGIN;
        let side = match broker {
            Some(_) => ["--local-broker".to_owned(), format!("mqtt://{user}:{password}@{local}")],
            None => ["--listen".to_owned(), local.to_string()],
        };
        let config = dir.join(format!("{edge}.toml"));
        let data = dir.join(edge);
        let users_file = users.map(|users| {
            let file = dir.join(format!("{edge}.users"));
            let text: String = users.iter().map(|(user, password)| format!("{user}:{password}\n")).collect();
            std::fs::write(&file, text).expect("the test's directory can be written");
            file
        });
        let kept = data.clone();
        let faults = Faults::default();
        let suffers = faults.clone();
        let make = move || {
            let mut command = Command::new(binary("tidegate-edge"));
            command.arg("run").arg("--config").arg(&config).arg("--data-dir").arg(&kept);
            command.args(&side).args(["--controller-url", &format!("mqtt://{cloud}")]);
            if let Some(file) = &users_file {
                // The settings that `edge create` writes let everybody in on loopback.
                command
                    .env("TIDEGATE_EDGE_LOCAL_ANONYMOUS", "false")
                    .env("TIDEGATE_EDGE_LOCAL_USERS_FILE", file);
            }
            suffers.apply(&mut command);
            command
        };
        let process = Process::new(edge, make);
        let mut agent = Self { edge: edge.to_owned(), local, broker, process, faults, data };
        agent.wait_up();
        agent
    }

    /// Waits until its local broker listens, or, beside another one, until it answers on its control socket.
    pub fn wait_up(&mut self) {
        until(&format!("{} is up", self.edge), || {
            assert!(self.process.ended().is_none(), "{} ended:\n{}", self.edge, self.process.text());
            match self.broker {
                None => std::net::TcpStream::connect(self.local).is_ok().then_some(()),
                Some(_) => self.rules().map(|_| ()),
            }
        });
    }

    /// Starts it again after it was killed, and waits until it is up.
    pub fn start_again(&mut self) {
        self.process.start();
        self.wait_up();
    }

    /// A command of `tidegate-edge` on this gateway, over the control socket.
    #[must_use]
    pub fn cli(&self, args: &[&str]) -> Answer {
        run(Command::new(binary("tidegate-edge")).args(args).arg("--data-dir").arg(&self.data))
    }

    /// The rules on this gateway, as the agent says them; `None` while it cannot be asked.
    ///
    /// # Panics
    /// When the answer is no list.
    #[must_use]
    pub fn rules(&self) -> Option<Vec<Value>> {
        let answer = self.cli(&["rules", "-o", "json"]);
        let list = || answer.json()["items"].as_array().cloned();
        (answer.code == 0).then(|| list().unwrap_or_else(|| panic!("no list of rules: {answer:?}")))
    }

    /// The rules that are committed on this gateway.
    ///
    /// # Panics
    /// When the agent cannot be asked.
    #[must_use]
    pub fn committed(&self) -> Vec<Value> {
        let mut rules = until(&format!("{} tells its rules", self.edge), || self.rules());
        rules.retain(|rule| !rule["running"].is_null());
        rules
    }

    /// One rule by its name, once it is there.
    ///
    /// # Panics
    /// When it does not come.
    #[must_use]
    pub fn rule(&self, name: &str) -> Value {
        until(&format!("{} has the rule {name}", self.edge), || {
            self.rules()?.into_iter().find(|rule| rule["name"] == name)
        })
    }
}

/// The memory of a process that is in use now, in bytes.
///
/// # Panics
/// When it does not run.
#[must_use]
pub fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has memory");
    let kib = line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok());
    kib.expect("a number of KiB") * 1024
}

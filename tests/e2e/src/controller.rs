//! The controller, and the command line that talks to it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::cloud_broker::CloudBroker;
use crate::faults::Faults;
use crate::ports;
use crate::process::Process;
use crate::rule::Rule;
use crate::wait::{PATIENCE, until, within};

/// The folder of the binaries that `cargo build --workspace --bins` makes.
///
/// # Panics
/// When they are not there.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it is");
    let folder = test.ancestors().nth(2).expect("tests are in target/PROFILE/deps");
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: cargo build --workspace --bins", path.display());
    path
}

/// What a command of the command line gave.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Answer {
    /// Standard output, read as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("no JSON ({e}): {self:?}"))
    }
}

/// A command of `tidegate` that sees nothing of the environment but what tests give it.
#[must_use]
pub fn tidegate(config_home: &Path) -> Command {
    let mut command = Command::new(binary("tidegate"));
    for name in [
        "TIDEGATE_SERVER",
        "TIDEGATE_TOKEN",
        "TIDEGATE_CONTEXT",
        "TIDEGATE_CONFIG",
        "TIDEGATE_LOG",
        "TIDEGATE_BROKER",
    ] {
        command.env_remove(name);
    }
    command.env("XDG_CONFIG_HOME", config_home).env("HOME", config_home).env("NO_COLOR", "1");
    command
}

/// Runs a command to its end.
///
/// # Panics
/// When it cannot be started.
pub fn run(command: &mut Command) -> Answer {
    let output = command.stdin(std::process::Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("{command:?}: {e}"));
    Answer {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A controller on disk, with addresses that it keeps over restarts.
pub struct Controller {
    /// Where its API listens.
    pub http: SocketAddr,
    /// Where its broker listens, its own or that of somebody else.
    pub mqtt: SocketAddr,
    /// The process.
    pub process: Process,
    /// What its disk suffers from its next start on.
    pub faults: Faults,
    dir: PathBuf,
    token: String,
}

impl Controller {
    /// Starts one with its data in `dir/cloud`.
    ///
    /// # Panics
    /// When it does not serve.
    #[must_use]
    pub fn start(dir: &Path) -> Self {
        Self::on(dir, None)
    }

    /// The same over a broker of somebody else, if there is one.
    ///
    /// # Panics
    /// When it does not serve.
    #[must_use]
    pub fn on(dir: &Path, broker: Option<&CloudBroker>) -> Self {
        Self::with(dir, broker, &[])
    }

    /// The same with settings of the environment, name and value.
    ///
    /// # Panics
    /// When it does not serve.
    #[must_use]
    pub fn with(
        dir: &Path,
        broker: Option<&CloudBroker>,
        settings: &'static [(&'static str, &'static str)],
    ) -> Self {
        let http = ports::free();
        let mqtt = broker.map_or_else(ports::free, CloudBroker::address);
        let over = broker.map_or_else(|| vec!["--mqtt".to_owned(), mqtt.to_string()], CloudBroker::flags);
        let (data, config_home) = (dir.join("cloud"), dir.join("config"));
        let token_file = data.join("admin.token");
        let faults = Faults::default();
        let suffers = faults.clone();
        let make = move || {
            let mut command = tidegate(&config_home);
            command.args(["serve", "--http", &http.to_string()]).args(&over);
            command.arg("--data-dir").arg(&data).env("TIDEGATE_LOG", "info");
            command.envs(settings.iter().copied());
            suffers.apply(&mut command);
            command
        };
        let process = Process::new("controller", make);
        let mut controller = Self { http, mqtt, process, faults, dir: dir.to_owned(), token: String::new() };
        until("the controller writes its token", || {
            controller.still_runs();
            controller.token = std::fs::read_to_string(&token_file).ok()?.trim().to_owned();
            (!controller.token.is_empty()).then_some(())
        });
        controller.wait_up();
        controller
    }

    /// Where it keeps its data.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("cloud")
    }

    /// Status and body of a `GET` without a token.
    ///
    /// # Panics
    /// When the API cannot be reached or does not answer in HTTP.
    #[must_use]
    pub fn get_open(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.http).expect("the API listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.http);
        stream.write_all(request.as_bytes()).expect("the API takes a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the API answers");
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or_else(|| panic!("no HTTP: {answer}")), answer)
    }

    /// The API's token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    fn still_runs(&mut self) {
        assert!(self.process.ended().is_none(), "the controller ended:\n{}", self.process.text());
    }

    /// Starts it again after it was killed, and waits until it serves.
    pub fn start_again(&mut self) {
        self.process.start();
        self.wait_up();
    }

    /// Waits until it serves.
    pub fn wait_up(&mut self) {
        until("the controller serves", || {
            self.still_runs();
            (self.cli(&["status"]).code == 0).then_some(())
        });
    }

    /// Makes a command of the command line, with server and token, as often as it is asked.
    pub fn repeatable(&self, args: &[&str]) -> impl Fn() -> Command + Send + use<> {
        let config_home = self.dir.join("config");
        let mut all: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
        all.extend(["-o", "json", "--yes", "--no-input", "--server"].map(str::to_owned));
        all.extend([format!("http://{}", self.http), "--token".to_owned(), self.token.clone()]);
        move || {
            let mut command = tidegate(&config_home);
            command.args(&all);
            command
        }
    }

    /// Runs a command to its end, however it ends.
    #[must_use]
    pub fn cli(&self, args: &[&str]) -> Answer {
        run(&mut self.repeatable(args)())
    }

    /// Runs a command that has to succeed.
    ///
    /// # Panics
    /// When it does not.
    pub fn ok(&self, args: &[&str]) -> Answer {
        let answer = self.cli(args);
        assert_eq!(answer.code, 0, "tidegate {args:?}: {answer:#?}");
        answer
    }

    /// Runs a command and expects this exit code.
    ///
    /// # Panics
    /// When there is another.
    pub fn fails(&self, code: i32, args: &[&str]) -> Answer {
        let answer = self.cli(args);
        assert_eq!(answer.code, code, "tidegate {args:?}: {answer:#?}");
        answer
    }

    /// Saves a rule.
    ///
    /// # Panics
    /// When it is refused.
    pub fn apply(&self, rule: &Rule) {
        let file = rule.write(&self.dir);
        self.ok(&["rule", "apply", "-f", &file.display().to_string(), "-m", "end to end"]);
    }

    /// Saves a rule and places it.
    ///
    /// # Panics
    /// When it is refused.
    pub fn apply_and_place(&self, rule: &Rule, edge: &str) {
        self.apply(rule);
        self.ok(&["rule", "place", &rule.name, "--edge", edge]);
    }

    /// A rule as the API shows it.
    #[must_use]
    pub fn rule(&self, rule: &str) -> Value {
        self.ok(&["rule", "get", rule]).json()
    }

    /// A placement as the API shows it; `None` also while the controller cannot be reached.
    #[must_use]
    pub fn placement(&self, rule: &str, edge: &str) -> Option<Value> {
        let answer = self.cli(&["rule", "get", rule]);
        if answer.code != 0 {
            return None;
        }
        let rule = answer.json();
        rule["placements"].as_array()?.iter().find(|p| p["edge"] == edge).cloned()
    }

    /// Sends an action, with an `Idempotency-Key` if there is one, and does not wait for the answer: what is killed next is
    /// killed in the midst of it. The connection ends when what is returned is dropped.
    ///
    /// # Panics
    /// When the API cannot be reached.
    #[must_use]
    pub fn send_action(&self, rule: &str, edge: &str, action: &str, key: Option<&str>) -> TcpStream {
        let mut stream = TcpStream::connect(self.http).expect("the API listens");
        let key = key.map(|key| format!("Idempotency-Key: {key}\r\n")).unwrap_or_default();
        let request = format!(
            "POST /api/v1/placements/{rule}/{edge}/{action} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\
             {key}Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}",
            self.http, self.token
        );
        stream.write_all(request.as_bytes()).expect("the API takes a request");
        stream
    }

    /// Waits until a placement is as wanted.
    ///
    /// # Panics
    /// When it is not in time.
    pub fn wait(&self, rule: &str, edge: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.wait_within(PATIENCE, rule, edge, what, wanted)
    }

    /// Waits until a placement is as wanted.
    ///
    /// # Panics
    /// When it is not within `deadline`; says how it was last.
    pub fn wait_within(
        &self,
        deadline: Duration,
        rule: &str,
        edge: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let mut last = None;
        let end = std::time::Instant::now() + deadline;
        loop {
            if let Some(placement) = self.placement(rule, edge) {
                if wanted(&placement) {
                    return placement;
                }
                last = Some(placement);
            }
            assert!(std::time::Instant::now() < end, "not within {deadline:?}: {what}; last: {last:#?}");
        }
    }

    /// Waits until a placement has these two states and nothing is in flight.
    ///
    /// # Panics
    /// When it has not in time.
    pub fn wait_states(&self, rule: &str, edge: &str, issue: &str, run: &str) -> Value {
        self.wait(rule, edge, &format!("{issue}, {run}"), |p| {
            p["issue_state"] == issue
                && p["run_state"] == run
                && p["in_flight"].is_null()
                && p["last_known"] == false
        })
    }

    /// Waits until an edge has this link.
    ///
    /// # Panics
    /// When it has not within `deadline`.
    pub fn wait_link(&self, deadline: Duration, edge: &str, link: &str) {
        within(deadline, &format!("{edge} is {link}"), || {
            let answer = self.cli(&["edge", "get", edge]);
            (answer.code == 0 && answer.json()["link"] == link).then_some(())
        });
    }
}

//! What a transcript is made in: a directory, a controller, an agent, a remote broker; and what is replaced in it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_broker::{AllowAll, Broker, BrokerConfig, Quiet};
use tidegate_edge::settings::{self, ControllerAddress, LocalAccess, LocalSide, LogFormat};
use tidegate_edge::{AgentConfig, Gateway};
use tidegate_model::ids::{AccountId, EdgeId};
use tidegate_model::rule::Secret;
use tokio_util::sync::CancellationToken;

/// How long anything may take on a machine that is busy with others.
const PATIENCE: Duration = Duration::from_secs(120);

/// Everything that a transcript needs.
pub struct World {
    /// Where commands run; files are named relative to it.
    pub dir: tempfile::TempDir,
    controller: Option<Controller>,
    remote: Option<SocketAddr>,
    runtime: tokio::runtime::Runtime,
    agent: Option<(CancellationToken, tokio::task::JoinHandle<()>)>,
    _broker: Option<Broker>,
}

struct Controller {
    child: Child,
    http: String,
    mqtt: String,
    token: String,
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(controller) = &mut self.controller {
            // It ended already, or ends now.
            let _ = controller.child.kill();
            let _ = controller.child.wait();
        }
    }
}

impl World {
    /// Only a directory.
    pub fn alone() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Self {
            dir: tempfile::tempdir().unwrap(),
            controller: None,
            remote: None,
            runtime,
            agent: None,
            _broker: None,
        }
    }

    /// A controller without anything, and a remote broker.
    pub fn start() -> Self {
        let mut world = Self::alone();
        let config = BrokerConfig::new("127.0.0.1:0".parse().unwrap());
        let starting =
            Broker::start(config, Arc::new(AllowAll), Arc::new(tidegate_broker::PassAll), Arc::new(Quiet));
        let broker = world.runtime.block_on(starting).unwrap();
        world.remote = Some(broker.local_addr());
        world._broker = Some(broker);
        let serve = [
            "serve",
            "--http",
            "127.0.0.1:0",
            "--mqtt",
            "127.0.0.1:0",
            "--store",
            "memory",
            "--data-dir",
            "controller",
        ];
        let mut child = world.command(&serve).stderr(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("tidegate serves: API ") {
            line.clear();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "the controller ended");
        }
        // Nobody reads on, and a full pipe would hold the controller.
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        let word = |after: &str| {
            let rest = &line[line.find(after).unwrap() + after.len()..];
            rest.split([',', ' ']).next().unwrap().trim_end_matches('.').to_owned()
        };
        let token = std::fs::read_to_string(world.dir.path().join("controller/admin.token")).unwrap();
        let (http, mqtt) = (word("API "), word("gateways "));
        world.controller = Some(Controller { child, http, mqtt, token: token.trim().to_owned() });
        world.write("first.toml", &world.rule("machines/#"));
        world.write("wrong.toml", &world.rule("machines/#/x").replace("qos", "quos"));
        world.write(
            "bridges.conf",
            "# bridges of a site\nlistener 1883\n\nconnection Cloud.Up\naddress broker.example one.example:1884\nremote_username lyon\n\
             remote_password hunter2\ncleansession false\nrestart_timeout 5 30\nstart_type lazy\nnotifications true\n\
             topic sensors/# out 2 \"\" plant/lyon/\ntopic orders/# in 1\n\nconnection secure\naddress broker.example:8883\n\
             bridge_cafile /etc/ca.pem\ntopic # both 0\n",
        );
        world
    }

    /// A rule to the remote broker.
    pub fn rule(&self, topic: &str) -> String {
        self.rule_named("first", topic)
    }

    /// The same by another name.
    pub fn rule_named(&self, name: &str, topic: &str) -> String {
        let remote = self.remote.unwrap();
        format!(
            "name = \"{name}\"\nmountpoint = \"plant/{{edge}}/\"\n\n[remote]\nurl = \"mqtt://{remote}\"\n\n[[forwards]]\n\
             topic = \"{topic}\"\nqos = 1\n\n[policy]\nverify_s = 5\n"
        )
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: &str) {
        let file = self.dir.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    /// A command that sees nothing of the environment but what tests give it.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command
            .env_clear()
            .env("HOME", self.dir.path())
            .current_dir(self.dir.path())
            .args(args)
            .stdin(Stdio::null());
        if let Some(controller) = &self.controller {
            command.env("TIDEGATE_SERVER", &controller.http).env("TIDEGATE_TOKEN", &controller.token);
        }
        command
    }

    /// Runs a command that has to work; its standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let done = self.command(args).output().unwrap();
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    /// Runs a command; what it printed and how it ended.
    pub fn shown(&self, args: &[&str]) -> String {
        let done = self.command(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let quoted: Vec<String> =
            args.iter().map(|a| if a.contains(' ') { format!("'{a}'") } else { (*a).to_owned() }).collect();
        let mut shown = format!("$ tidegate {}\n", quoted.join(" "));
        let (stdout, stderr) = (text(&done.stdout), text(&done.stderr));
        shown.push_str(&stdout);
        shown.extend(stderr.lines().map(|line| format!("! {line}\n")));
        shown.push_str(&format!("[exit {}]\n\n", done.status.code().unwrap()));
        shown
    }

    /// Starts the agent of `gateway-1`, and waits until the controller hears it.
    pub fn agent(&mut self) {
        // A new credential: that of the transcript was shown, and is not known here.
        self.ok(&["edge", "remove", "gateway-1", "--leave-running", "--confirm", "gateway-1"]);
        let settings = self.ok(&["edge", "create", "gateway-1"]);
        let credential =
            settings.split("password = \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        self.ok(&["rule", "place", "first", "--edge", "gateway-1"]);
        std::fs::create_dir_all(self.dir.path().join("site-rules")).unwrap();
        let mqtt: SocketAddr = self.controller.as_ref().unwrap().mqtt.parse().unwrap();
        let config = AgentConfig {
            name: EdgeId::new("gateway-1").unwrap(),
            account: AccountId::default_account(),
            controller: Some(settings::Controller {
                address: ControllerAddress { host: mqtt.ip().to_string(), port: mqtt.port() },
                username: "gateway-1".to_owned(),
                password: Some(Secret::new(credential)),
            }),
            rules_dir: Some(self.dir.path().join("site-rules")),
            data_dir: self.dir.path().join("gateway"),
            local: LocalSide::Embedded {
                listen: "127.0.0.1:0".parse().unwrap(),
                access: LocalAccess::Anonymous,
            },
            policy: Default::default(),
            metrics: None,
            log: "info".to_owned(),
            log_format: LogFormat::Text,
        };
        let gateway = self.runtime.block_on(Box::pin(Gateway::open(config))).unwrap();
        let stop = CancellationToken::new();
        let run = gateway.run(stop.clone());
        let running = self.runtime.spawn(async move {
            // It ends with the test, or because it was asked to.
            let _ = Box::pin(run).await;
        });
        self.agent = Some((stop, running));
        self.until("the agent is online", || self.ok(&["edge", "list", "-o", "json"]).contains("\"online\""));
    }

    /// Tries to log in at the controller's broker as a gateway, with a credential that is wrong.
    pub fn knock(&self, name: &str) {
        let mqtt: SocketAddr = self.controller.as_ref().unwrap().mqtt.parse().unwrap();
        let text = |text: &str| {
            let length = u16::try_from(text.len()).unwrap().to_be_bytes();
            [&length, text.as_bytes()].concat()
        };
        // MQTT 3.1.1, section 3.1: user name, password, clean session; keep-alive of a minute.
        let head = [text("MQTT"), vec![4, 0xc2, 0, 60]].concat();
        let id = format!("tidegate.default.{name}");
        let body = [head, text(&id), text(name), text("tge_hunter2")].concat();
        let packet = [vec![0x10, u8::try_from(body.len()).unwrap()], body].concat();
        let mut stream = std::net::TcpStream::connect(mqtt).unwrap();
        stream.write_all(&packet).unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [0x20, 2, 0, 4], "bad user name or password");
    }

    /// Stops the agent, and waits until the controller knows.
    pub fn agent_stops(&mut self) {
        let (stop, running) = self.agent.take().unwrap();
        stop.cancel();
        self.runtime.block_on(running).unwrap();
        self.until("the agent is offline", || {
            self.ok(&["edge", "list", "-o", "json"]).contains("\"offline\"")
        });
    }

    /// Waits for a condition.
    pub fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until so many watch events.
    pub fn until_watched(&self, watchers: u32) {
        let metric = format!("tidegate_sse_clients {watchers}");
        let controller = self.controller.as_ref().unwrap();
        self.until("somebody watches", || {
            let (http, token) = (controller.http.clone(), controller.token.clone());
            let asked = async move {
                let request = reqwest::Client::new().get(format!("{http}/metrics")).bearer_auth(token);
                request.send().await.unwrap().text().await.unwrap()
            };
            self.runtime.block_on(asked).contains(&metric)
        });
    }

    /// Ctrl-C for a process.
    pub fn interrupt(&self, child: &Child) {
        let pid = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    }

    /// Starts a command, interrupts it once it has said something, and gives how it ended.
    pub fn interrupted(&self, args: &[&str], once: &str) -> (Option<i32>, String) {
        let mut child = self.command(args).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains(once) {
            assert!(stderr.read_line(&mut said).unwrap() > 0, "it ended: {said}");
        }
        self.interrupt(&child);
        stderr.read_to_string(&mut said).unwrap();
        (child.wait().unwrap().code(), said)
    }

    /// Compares a transcript with the one that is kept, but for what differs from run to run.
    pub fn snapshot(&self, name: &str, log: &str) {
        let dir = std::fs::canonicalize(self.dir.path()).unwrap();
        let paths: Vec<String> =
            [dir.as_path(), self.dir.path()].map(|path: &Path| path.display().to_string()).to_vec();
        let mut log = log.to_owned();
        for path in paths {
            log = log.replace(&path, "[DIR]");
        }
        let mut settings = insta::Settings::clone_current();
        for (what, instead) in FILTERS {
            settings.add_filter(what, instead);
        }
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(name, log));
    }
}

/// What differs from run to run. Where a value is wider, its column is: blanks in a line are as many as they are.
const FILTERS: [(&str, &str); 17] = [
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "[TIME]"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "[UUID]"),
    (r"\b[0-9a-f]{64}\b", "[SHA-256]"),
    (r#""(\d+)-[0-9a-f]{8}""#, "\"$1-[DIGEST]\""),
    (r"(etag: '?\d+)-[0-9a-f]{8}", "$1-[DIGEST]"),
    (r"\b\d+ (s|min) ago\b", "[AGO]"),
    (r"\(now,", "([AGO],"),
    (r"(seen|last) now\b", "$1 [AGO]"),
    (r"(?m)  now( {2,}|$)", "  [AGO]$1"),
    (r"127\.0\.0\.1:\d{4,5}", "127.0.0.1:[PORT]"),
    (r"port \d+ is open", "port [PORT] is open"),
    (r"tge_[A-Za-z0-9_-]+", "tge_[CREDENTIAL]"),
    (r"\(\d+ ms", "([N] ms"),
    (r"process \d+", "process [PID]"),
    (r"\d+ MiB are free", "[N] MiB are free"),
    (r"(clock_skew_ms[^\d-]+|Clock +)(-?\d+|in step|[+-]\d+\.\d s)", "$1[SKEW]"),
    (r"(\S) {2,}", "$1  "),
];

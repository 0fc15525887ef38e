//! `tidegate-edge queue` with the real binary: of an agent that runs, of one that does not, and back again.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Kills the agent when a test fails before it has ended.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended where the test went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come in time");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A site of its own with one rule, whose remote broker is not there.
struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let rules = dir.path().join("rules");
        std::fs::create_dir(&rules).expect("it can be written");
        let rule = "name = \"pump\"\n[remote]\nurl = \"mqtt://127.0.0.1:1\"\n[[forwards]]\ntopic = \"#\"\n";
        std::fs::write(rules.join("pump.toml"), rule).expect("it can be written");
        Self { dir }
    }

    fn data(&self) -> String {
        self.dir.path().join("data").display().to_string()
    }

    /// Starts the agent; it runs when it knows its rule. Also where devices connect.
    fn start(&self) -> (Running, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-edge"));
        let rules = self.dir.path().join("rules").display().to_string();
        command.args(["run", "--name", "gw-7", "--rules", &rules, "--data-dir", &self.data()]);
        command.args(["--listen", "127.0.0.1:0"]).stderr(Stdio::null());
        let running = Running(command.spawn().expect("the binary runs"));
        until("the rule", || {
            let (code, out, _) = self.cli(&["rules", "-o", "json"]);
            (code == 0 && out.contains("paused_fault")).then_some(())
        });
        let status: Value = serde_json::from_str(&self.cli(&["status", "-o", "json"]).1).expect("JSON");
        let local = status["local"].as_str().expect("an address").to_owned();
        (running, local)
    }

    fn cli(&self, args: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-edge"));
        let output = command.args(args).args(["--data-dir", &self.data()]).output().expect("the binary runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    fn json(&self, args: &[&str]) -> Value {
        let (code, out, err) = self.cli(&[args, &["-o", "json"]].concat());
        assert_eq!(code, 0, "{args:?}: {err}");
        serde_json::from_str(&out).expect("JSON")
    }

    /// Of the forwards: how many wait, and the topics of the first.
    fn waiting(&self) -> (u64, Vec<String>) {
        let shown = self.json(&["queue", "show", "pump"]);
        let forwards = &shown["directions"][0];
        assert_eq!((&shown["rule"], &forwards["direction"]), (&json!("pump"), &json!("forwards")));
        let topics = forwards["next"].as_array().expect("a list").iter();
        let topics = topics.map(|message| message["topic"].as_str().expect("a topic").to_owned()).collect();
        (forwards["messages"].as_u64().expect("a number"), topics)
    }
}

/// Publishes these topics with QoS 1, each with its number as the payload, and waits for every PUBACK.
fn publish(local: &str, topics: &[&str]) {
    let mut stream = TcpStream::connect(local).expect("the local broker listens");
    stream.write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01d").expect("it reads");
    stream.read_exact(&mut [0; 4]).expect("CONNACK");
    for (number, topic) in (1_u8..).zip(topics) {
        let length = u8::try_from(topic.len()).expect("short topics");
        let mut packet = vec![0x32, length + 5, 0, length];
        packet.extend_from_slice(topic.as_bytes());
        packet.extend_from_slice(&[0, number, b'0' + number]);
        stream.write_all(&packet).expect("it reads");
        stream.read_exact(&mut [0; 4]).expect("PUBACK");
    }
}

#[test]
fn a_queue_is_shown_exported_and_dropped_while_the_agent_runs_and_while_it_does_not() {
    let site = Site::new();
    let (code, _, err) = site.cli(&["queue", "show", "pump"]);
    assert_eq!(code, 1, "there is nothing at all yet: {err}");
    let (agent, local) = site.start();
    publish(&local, &["a/1", "b/1", "a/2", "b/2", "a/3"]);
    assert_eq!(site.waiting(), (5, ["a/1", "b/1", "a/2", "b/2", "a/3"].map(String::from).to_vec()));
    let (_, words, _) = site.cli(&["queue", "show", "pump", "--payload"]);
    assert!(words.starts_with("forwards: 5 messages") && words.contains("PAYLOAD"), "{words}");
    assert_eq!(site.cli(&["queue", "show", "nobody"]).0, 3);

    let (code, out, _) = site.cli(&["queue", "export", "pump"]);
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((code, lines.len()), (0, 5));
    assert_eq!(
        (&lines[1]["topic"], &lines[1]["payload"], &lines[1]["qos"]),
        (&json!("b/1"), &json!("Mg=="), &json!(1))
    );
    assert!(lines[1]["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{out}");

    let (code, _, err) = site.cli(&["queue", "drop", "pump", "--topic", "b/#"]);
    assert!(code == 2 && err.contains("--yes"), "{err}");
    let none = site.json(&["queue", "drop", "pump", "--older-than", "1h", "--yes"]);
    assert_eq!(none, json!({ "dropped": 0, "on_their_way": 0, "has_more": false }));
    assert_eq!(site.json(&["queue", "drop", "pump", "--topic", "b/#", "--yes"])["dropped"], 2);
    assert_eq!(site.waiting(), (3, ["a/1", "a/2", "a/3"].map(String::from).to_vec()));
    let rules = site.json(&["rules"]);
    assert_eq!(rules["items"][0]["counters"]["dropped"]["by_hand"], 2, "{rules:#}");

    drop(agent);
    at_rest(&site);

    let (_agent, _) = site.start();
    assert_eq!(site.waiting(), (2, ["a/1", "a/3"].map(String::from).to_vec()));
    assert_eq!(site.json(&["queue", "drop", "pump", "--yes"])["dropped"], 2);
    assert_eq!(site.waiting(), (0, Vec::new()));
}

/// The same of an agent that was killed.
fn at_rest(site: &Site) {
    assert_eq!(site.waiting().0, 3);
    let file = site.dir.path().join("out.jsonl");
    let told = site.json(&["queue", "export", "pump", "--out", &file.display().to_string()]);
    assert_eq!(told["messages"], 3);
    assert_eq!(mode(&file), 0o600);
    assert_eq!(std::fs::read_to_string(&file).expect("it is there").lines().count(), 3);
    assert_eq!(site.cli(&["queue", "show", "nobody"]).0, 3);
    let dropped = site.json(&["queue", "drop", "pump", "--topic", "a/2", "--direction", "forwards", "--yes"]);
    assert_eq!(dropped["dropped"], 1);
    let aside = site.json(&["queue", "drop", "pump", "--aside", "--yes"]);
    assert_eq!(aside["dropped"], 0, "nothing lies aside");
    assert_eq!(site.waiting().0, 2);
}

fn mode(file: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(file).expect("it is there").permissions().mode() & 0o777
}

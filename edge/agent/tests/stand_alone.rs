//! The real binary without a controller (features.md M1): rule files, changes of them, rules by hand, restarts.

#[allow(dead_code)] // each test file uses a part of it
mod common;

use std::path::Path;

use common::{Running, rule, tidegate_edge, until, write};
use serde_json::Value;

/// Nobody listens on port 1: the rules are paused by a fault, which is all that these tests need of a remote broker.
const NOBODY: &str = "127.0.0.1:1";

struct Alone {
    dir: tempfile::TempDir,
    running: Option<Running>,
}

impl Alone {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(dir.path().join("rules")).expect("the test's directory can be written");
        Self { dir, running: None }
    }

    fn rules_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("rules")
    }

    fn data(&self) -> String {
        self.dir.path().join("data").display().to_string()
    }

    fn start(&mut self) {
        let (rules, data) = (self.rules_dir().display().to_string(), self.data());
        let args = ["--name", "gw-7", "--rules", &rules, "--data-dir", &data, "--listen", "127.0.0.1:0"];
        self.running = Some(Running::start(&args, &[]));
        until("an answer", || (tidegate_edge(&["status", "--data-dir", &data]).0 == 0).then_some(()));
    }

    fn stop(&mut self) {
        self.running.take().expect("it runs").stop();
    }

    fn ask(&self, args: &[&str]) -> (i32, String, String) {
        let data = self.data();
        tidegate_edge(&[args, &["--data-dir", &data, "-o", "json"]].concat())
    }

    fn rules(&self) -> Value {
        serde_json::from_str(&self.ask(&["rules"]).1).unwrap_or_default()
    }

    fn until_rule(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        until(what, || self.rules()["items"].as_array().into_iter().flatten().find(|r| is(r)).cloned())
    }

    fn write(&self, name: &str, text: &str) {
        write(&self.rules_dir(), name, text);
    }
}

fn version(rule: &Value) -> u64 {
    rule["running"]["version"].as_u64().unwrap_or(0)
}

#[test]
fn m1_rule_files_run_without_a_controller_and_their_changes_are_taken_up() {
    let mut alone = Alone::new();
    alone.write("pump.toml", &rule("pump", NOBODY, ""));
    alone.start();
    let status: Value = serde_json::from_str(&alone.ask(&["status"]).1).expect("JSON");
    assert_eq!((&status["controller"], &status["edge"]), (&Value::Null, &"gw-7".into()));
    let pump = alone.until_rule("a fault", |rule| rule["run"]["state"] == "paused_fault");
    assert_eq!(
        (&pump["name"], &pump["file"], &pump["origin"]),
        (&"pump".into(), &"pump.toml".into(), &"local".into())
    );

    // A changed file is taken up by itself; a broken one keeps what it held, and is told.
    alone.write("pump.toml", &rule("pump", NOBODY, "start = \"manual\"\n"));
    let changed = alone.until_rule("the change", |rule| version(rule) > version(&pump));
    alone.write("pump.toml", "name = \"pump\"\n[remote\n");
    let trouble = until("the trouble", || alone.rules()["file_troubles"].get(0).cloned());
    assert_eq!((&trouble["file"], &trouble["keeps"]), (&"pump.toml".into(), &"pump".into()));
    assert!(trouble["detail"].as_str().is_some_and(|detail| detail.contains("pump.toml:")), "{trouble}");
    assert_eq!(version(&alone.rules()["items"][0]), version(&changed));
    let (_, words, _) = tidegate_edge(&["rules", "--data-dir", &alone.data()]);
    assert!(
        words.contains("INVALID_CONFIG: pump.toml:2:") && words.contains("'pump' stays as it was"),
        "{words}"
    );
    let (_, words, _) = tidegate_edge(&["status", "--data-dir", &alone.data()]);
    assert!(words.contains("1 of its files in trouble"), "{words}");

    // SIGHUP does not wait for a look: the file is read at once.
    alone.write("pump.toml", &rule("pump", NOBODY, "start = \"manual\"\n# mended\n"));
    alone.running.as_ref().expect("it runs").signal("-HUP");
    until("the mended file", || {
        alone.rules()["file_troubles"].as_array().is_some_and(Vec::is_empty).then_some(())
    });

    std::fs::remove_file(alone.rules_dir().join("pump.toml")).expect("it is there");
    until("the removal", || alone.rules()["items"].as_array().is_some_and(Vec::is_empty).then_some(()));
    alone.stop();
}

#[test]
fn m1_stops_and_rules_by_hand_outlive_restarts() {
    let mut alone = Alone::new();
    alone.write("pump.toml", &rule("pump", NOBODY, ""));
    alone.start();
    let by_hand = write(
        alone.dir.path(),
        "tank.yaml",
        "name: tank\nremote:\n  url: mqtt://127.0.0.1:1\nforwards:\n  - topic: tanks/#\n",
    );
    assert_eq!(alone.ask(&["rule", "apply", &by_hand]).0, 0);
    assert_eq!(alone.ask(&["stop", "pump"]).0, 0);
    let (code, _, err) = alone.ask(&["rule", "remove", "pump"]);
    assert!(code == 5 && err.contains("pump.toml"), "{code} {err}");
    let (code, _, err) = alone.ask(&["rule", "apply", &write(alone.dir.path(), "bad.toml", "name = 1\n")]);
    assert!(code == 2 && err.contains("bad.toml"), "{code} {err}");
    alone.stop();
    alone.start();
    let tank = alone.until_rule("the rule by hand", |rule| rule["name"] == "tank");
    assert_eq!((&tank["file"], &tank["run_desired"]), (&Value::Null, &"running".into()));
    let pump = alone.until_rule("the stopped rule", |rule| rule["name"] == "pump");
    assert_eq!((&pump["run_desired"], &pump["run"]["state"]), (&"stopped".into(), &"paused_manual".into()));
    assert_eq!(alone.ask(&["rule", "remove", "tank"]).0, 0);
    assert_eq!(alone.rules()["items"].as_array().map(Vec::len), Some(1));
    alone.stop();
}

#[test]
fn m1_the_check_tells_all_problems_of_all_files() {
    let alone = Alone::new();
    let rules = alone.rules_dir().display().to_string();
    let check = || tidegate_edge(&["run", "--check", "--name", "gw-7", "--rules", &rules]);
    alone.write("a.toml", &rule("pump", NOBODY, ""));
    assert_eq!(check().0, 0);
    alone.write("b.toml", &rule("pump", NOBODY, ""));
    alone.write("c.yaml", "name: [\n");
    alone.write("d.json", r#"{"name":"D","remote":{"url":"x"},"forwards":[{"topic":"a/#/b"}]}"#);
    let twin = |name: &str| rule(name, NOBODY, "").replace("[[forwards]]", "client_id = \"x\"\n[[forwards]]");
    alone.write("e.toml", &twin("twin-1"));
    alone.write("f.toml", &twin("twin-2"));
    let (code, _, err) = check();
    assert_eq!(code, 2);
    for told in [
        "f.toml: the rule 'twin-2' uses the client id 'x'",
        "of the file e.toml",
        "b.toml: ",
        "already",
        "c.yaml:1:7",
        "d.json:1:9",
        "rule name 'D'",
        "no scheme",
        "must be the last level",
    ] {
        assert!(err.contains(told), "{told} in {err}");
    }
    assert!(!Path::new(&alone.data()).exists(), "a check leaves nothing behind");
}

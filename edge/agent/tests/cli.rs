//! The command line of the real binary: exit codes, both output forms, a signal.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn tidegate_edge(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-edge"));
    command.args(args).env_remove("TIDEGATE_EDGE_DATA_DIR").output().expect("the binary runs")
}

fn code_and_words(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// Kills the agent when a test fails before it has ended.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended where the test went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("the test's directory can be written");
    path.display().to_string()
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come in time");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn settings_are_checked_and_printed_without_the_password() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let good = "name = \"gw-7\"\n[controller]\nurl = \"mqtt://127.0.0.1:1\"\npassword = \"hunter2\"\n";
    let file = write(dir.path(), "good.toml", good);
    assert_eq!(code_and_words(&tidegate_edge(&["run", "--config", &file, "--check"])).0, 0);
    let (code, out, _) =
        code_and_words(&tidegate_edge(&["run", "--config", &file, "--print", "--name", "gw-8"]));
    assert_eq!(code, 0);
    assert!(out.contains("gw-8") && out.contains("******") && !out.contains("hunter2"), "{out}");
    let file = write(dir.path(), "bad.toml", "nane = \"x\"\n");
    let (code, _, err) = code_and_words(&tidegate_edge(&["run", "--config", &file, "--check"]));
    assert_eq!(code, 2);
    assert!(err.contains("nane") && err.contains("controller.url"), "{err}");
}

#[test]
fn completion_and_manual_are_generated() {
    for (args, word) in [(vec!["completion", "bash"], "COMPREPLY"), (vec!["man"], ".TH tidegate-edge")] {
        let (code, out, err) = code_and_words(&tidegate_edge(&args));
        assert!(code == 0 && out.contains(word), "{args:?}: {err}");
    }
}

#[test]
fn a_running_agent_answers_and_stops_on_a_signal() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data").display().to_string();
    let (code, _, err) = code_and_words(&tidegate_edge(&["status", "--data-dir", &data]));
    assert_eq!(code, 8, "{err}");

    let text = format!(
        "name = \"gw-7\"\ndata_dir = \"{data}\"\n[controller]\nurl = \"mqtt://127.0.0.1:1\"\n[local]\nlisten = \"127.0.0.1:0\"\n"
    );
    let file = write(dir.path(), "agent.toml", &text);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-edge"));
    let child =
        command.args(["run", "--config", &file]).stderr(Stdio::null()).spawn().expect("the binary runs");
    let mut running = Running(child);
    let (_, out, _) = until("an answer", || {
        Some(code_and_words(&tidegate_edge(&["status", "--data-dir", &data, "-o", "json"])))
            .filter(|a| a.0 == 0)
    });
    let status: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&status["edge"], &status["rules"]), (&"gw-7".into(), &0.into()));
    let (code, out, _) = code_and_words(&tidegate_edge(&["rules", "--data-dir", &data, "-o", "json"]));
    let rules: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &rules["items"]), (0, &serde_json::json!([])));
    let (code, out, _) = code_and_words(&tidegate_edge(&["rules", "--data-dir", &data]));
    assert!(code == 0 && out.starts_with("no rules"), "{out}");
    let (code, _, err) = code_and_words(&tidegate_edge(&["stop", "nobody", "--data-dir", &data]));
    assert_eq!(code, 3, "{err}");
    let (code, _, err) = code_and_words(&tidegate_edge(&["run", "--config", &file]));
    assert_eq!(code, 1);
    assert!(err.contains(&running.0.id().to_string()), "who holds the directory: {err}");

    let kill = Command::new("kill").args(["-TERM", &running.0.id().to_string()]).status();
    assert!(kill.is_ok_and(|status| status.success()));
    let since = Instant::now();
    let status = until("the end", || running.0.try_wait().expect("a child of ours"));
    assert!(status.success());
    assert!(since.elapsed() < Duration::from_secs(3), "it ends within 2 s, and the test looks for a moment");
}

#[test]
fn the_doctor_tells_each_check_and_ends_with_1_if_something_is_bad() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data").display().to_string();
    let rules = dir.path().join("rules");
    std::fs::create_dir(&rules).expect("the test's directory can be written");
    let rules_dir = rules.display().to_string();
    let given = ["--name", "gw-7", "--rules", &rules_dir, "--data-dir", &data, "--listen", "127.0.0.1:0"];
    let doctor = |more: &[&str]| code_and_words(&tidegate_edge(&[&["doctor"], &given[..], more].concat()));

    let (code, out, err) = doctor(&[]);
    assert_eq!(code, 0, "nothing is bad before the first start: {out}{err}");
    assert!(out.starts_with("CHECK") && out.contains("WHAT TO DO"), "{out}");
    for line in ["data directory  warn", "none runs with", "this agent runs its own rules", "can be used"] {
        assert!(out.contains(line), "{line} in {out}");
    }
    assert!(!Path::new(&data).exists(), "nothing is changed");

    write(&rules, "a.toml", "name = ");
    let (code, out, _) = doctor(&["-o", "json"]);
    let told: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let bad: Vec<&serde_json::Value> =
        told["items"].as_array().expect("a list").iter().filter(|line| line["result"] == "bad").collect();
    assert_eq!((code, bad.len()), (1, 1), "{out}");
    assert_eq!(bad[0]["check"], "rule files");
    assert!(bad[0]["why"].as_str().is_some_and(|why| why.contains("a.toml")), "{out}");
    assert!(bad[0]["fix"].as_str().is_some_and(|fix| fix.contains("run --check")), "{out}");

    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-edge"));
    let child = command.arg("run").args(given).stderr(Stdio::null()).spawn().expect("the binary runs");
    let _running = Running(child);
    let (code, out, _) = until("the agent answers the doctor", || {
        Some(doctor(&[])).filter(|(_, out, _)| out.contains("runs as the gateway gw-7 and answers"))
    });
    assert!(code == 1 && out.contains("the agent listens on 127.0.0.1:"), "{out}");
    write(
        &rules,
        "a.toml",
        &format!(
            "name = \"pump\"\nstart = \"manual\"\n[remote]\nurl = \"mqtt://127.0.0.1:1\"\n[[forwards]]\ntopic = \"{}\"\n",
            "pumps/#"
        ),
    );
    until("the file is taken up", || Some(doctor(&[])).filter(|(code, _, _)| *code == 0));

    let (code, out, _) = code_and_words(&tidegate_edge(&["doctor"]));
    assert!(code == 1 && out.contains("controller.url") && out.contains("--config FILE"), "{out}");
    assert!(out.contains("everything else"), "{out}");
}

//! The example settings and rules of deploy/ pass the check of the real binary.

#[allow(dead_code)] // each test file uses a part of it
mod common;

use std::path::{Path, PathBuf};

use common::{tidegate_edge, write};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(example(name)).expect("the example is there")
}

#[test]
fn every_example_of_an_agent_passes_its_check() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let rules = example("rules").display().to_string();
    // What lies elsewhere on a gateway lies here in the repository.
    let alone = text("stand-alone.toml").replace("/etc/tidegate/rules", &rules);
    let policy = example("policy.toml").display().to_string();
    let all = text("edge.toml")
        .replace("# policy_file = \"/etc/tidegate/policy.toml\"", &format!("policy_file = \"{policy}\""))
        .replace("# rules_dir = \"/etc/tidegate/rules\"", &format!("rules_dir = \"{rules}\""))
        .replace("# metrics", "metrics")
        .replace("# log", "log");
    assert!(
        all.contains("\npolicy_file") && all.contains("\nrules_dir") && all.contains("\nlog_format"),
        "{all}"
    );
    for (name, settings) in [("edge.toml", text("edge.toml")), ("all.toml", all), ("alone.toml", alone)] {
        let file = write(dir.path(), name, &settings);
        let (code, out, err) = tidegate_edge(&["run", "--check", "--config", &file]);
        assert!(code == 0 && out.contains("can be used"), "{name}: {err}");
    }
}

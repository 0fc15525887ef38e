//! The invariants of ARCHITECTURE.md that a test can hold: which crate may depend on what, what the cores may not
//! touch, and what only one module may do.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Direct dependencies of each crate of the workspace, those for tests left out.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            let kept = package["dependencies"].as_array().unwrap().iter().filter(|d| d["kind"].is_null());
            (text(&package["name"]), kept.map(|d| text(&d["name"])).collect())
        })
        .collect()
}

/// The Rust files of a crate's `src`, as (path, text without line comments and test modules).
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, into: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            // Modules of tests: `tests.rs`, `tests/`, `codec_tests.rs`.
            if name.ends_with("tests") {
                continue;
            }
            if path.is_dir() {
                walk(&path, into);
            } else if path.extension().is_some_and(|e| e == "rs") {
                into.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    walk(&root().join(folder).join("src"), &mut paths);
    assert!(!paths.is_empty(), "{folder} has sources");
    let code = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let text = lines.collect::<Vec<_>>().join("\n");
        (path, text)
    };
    paths.into_iter().map(code).collect()
}

const CORES: [&str; 3] = ["shared/model", "cloud/core", "edge/core"];
const CORE_CRATES: [&str; 3] = ["tidegate-model", "tidegate-cloud-core", "tidegate-edge-core"];

#[test]
fn invariant_1_the_cores_depend_on_nothing_that_acts() {
    let dependencies = dependencies();
    for core in CORE_CRATES {
        for acting in ["tokio", "rumqttc", "rumqttd", "axum", "sled", "reqwest", "rand", "getrandom", "sqlx"]
        {
            assert!(!dependencies[core].contains(acting), "{core} depends on {acting}");
        }
    }
}

#[test]
fn invariant_1_the_cores_read_no_clock_no_environment_no_randomness_and_no_file() {
    let forbidden = [
        "SystemTime",
        "Instant::now",
        "Timestamp::now",
        "Zoned::now",
        "std::env::",
        "now_v7",
        "new_v4",
        "thread_rng",
        "std::fs",
        "TcpStream",
        "ToSocketAddrs",
        "std::thread",
        "RandomState",
        "HashMap",
        "HashSet",
    ];
    for core in CORES {
        for (path, text) in sources(core) {
            for word in forbidden {
                assert!(!text.contains(word), "{} uses {word}", path.display());
            }
        }
    }
}

#[test]
fn invariant_2_cloud_and_edge_do_not_know_each_other_and_dependencies_point_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("tidegate-model", &[][..]),
        ("tidegate-broker", &[]),
        ("tidegate-logs", &[]),
        ("tidegate-records", &[]),
        ("tidegate-edge-queue", &[]),
        ("tidegate-cloud-core", &["tidegate-model"]),
        ("tidegate-edge-core", &["tidegate-model"]),
        ("tidegate-cloud", &["tidegate-model", "tidegate-cloud-core", "tidegate-broker", "tidegate-records"]),
        (
            "tidegate-edge",
            &[
                "tidegate-model",
                "tidegate-edge-core",
                "tidegate-edge-queue",
                "tidegate-broker",
                "tidegate-logs",
                "tidegate-records",
            ],
        ),
        // `tidegate dev` starts an agent beside the controller: the one place where both meet.
        (
            "tidegate-cli",
            &[
                "tidegate-model",
                "tidegate-cloud-core",
                "tidegate-cloud",
                "tidegate-edge",
                "tidegate-broker",
                "tidegate-logs",
            ],
        ),
        ("tidegate-sim", &["tidegate-model", "tidegate-cloud-core", "tidegate-edge-core"]),
        ("tidegate-bench", &["tidegate-e2e", "tidegate-edge-core", "tidegate-model"]),
        ("tidegate-e2e", &["tidegate-faults"]),
        ("tidegate-fuzz", &["tidegate-broker", "tidegate-edge-queue", "tidegate-model"]),
        // Only tests know of it: no_program_knows_of_the_faults_that_tests_give_it.
        ("tidegate-faults", &[]),
    ]);
    for (name, depends_on) in dependencies() {
        let allowed =
            allowed.get(name.as_str()).unwrap_or_else(|| panic!("{name} has no place in the architecture"));
        for other in depends_on.iter().filter(|d| d.starts_with("tidegate")) {
            assert!(allowed.contains(&other.as_str()), "{name} may not depend on {other}");
        }
    }
}

/// Disks that fail are for tests: neither a program nor anything that it is made of depends on them.
#[test]
fn no_program_knows_of_the_faults_that_tests_give_it() {
    for (name, depends_on) in dependencies() {
        if name != "tidegate-e2e" {
            assert!(!depends_on.contains("tidegate-faults"), "{name} depends on tidegate-faults");
        }
    }
    for folder in [
        "shared/model",
        "shared/broker",
        "shared/logs",
        "shared/records",
        "cloud/core",
        "cloud/server",
        "cloud/cli",
        "edge/core",
        "edge/queue",
        "edge/agent",
    ] {
        for (path, text) in sources(folder) {
            let text = text.to_lowercase();
            for word in ["failpoint", "fail_point", "tidegate_faults"] {
                assert!(!text.contains(word), "{} speaks of {word}", path.display());
            }
        }
    }
}

#[test]
fn invariant_8_one_module_spells_topics_and_one_reads_the_environment() {
    let shells = [
        "shared/broker",
        "shared/logs",
        "shared/records",
        "cloud/core",
        "cloud/server",
        "cloud/cli",
        "edge/core",
        "edge/queue",
        "edge/agent",
    ];
    for folder in shells {
        for (path, text) in sources(folder) {
            assert!(
                !text.contains("tidegate/1"),
                "{} spells a topic; shared/model/src/wire/topics.rs does",
                path.display()
            );
        }
    }
    for folder in shells {
        let readers: Vec<PathBuf> = sources(folder)
            .into_iter()
            .filter(|(_, text)| text.contains("env::var"))
            .map(|(path, _)| path)
            .collect();
        assert!(readers.len() <= 1, "more than one module of {folder} reads the environment: {readers:?}");
    }
}

/// A line that a peer can cause bears its kind, and is bounded by it (shared/logs). Those here are the program's own.
#[test]
fn where_peers_are_talked_to_each_line_of_the_log_bears_its_kind() {
    let own = [
        "the embedded broker listens",
        "the embedded broker stopped",
        "the embedded broker is not healthy",
        "the accept loop of the broker ended badly",
        "saved state is beyond the limits and was left out",
        "the limit on open files could not be raised",
        "this process may open too few files",
        "the end of the retained log is torn or damaged",
        // Each is asked for by an operator with a token.
        "a credential could not be made",
        "the edge was removed here; remove its account at the broker too",
        // Once at most: the process ends, or one task of it.
        "the controller's presence cannot be written",
        "the controller's presence was not published",
        "the broker is closed while something is still being published",
        "the controller's broker does not answer",
        "the process is stuck and ends without order",
        "no thread could be started to end a stuck process",
        "metrics are not served any more",
        "the local broker does not answer any more",
    ];
    let mut found = 0;
    for folder in ["shared/broker", "cloud/server", "edge/agent"] {
        for (path, text) in sources(folder) {
            let talks = folder == "shared/broker"
                || ["/transport", "/http", "/systems", "intake.rs", "local.rs", "cloud.rs", "metrics.rs"]
                    .iter()
                    .any(|part| path.to_string_lossy().contains(part));
            for call in ["tracing::info!(", "tracing::warn!(", "tracing::error!("] {
                for line in text.split(call).skip(1).filter(|_| talks) {
                    let ends = ["\")", "\"\n"].iter().filter_map(|end| line.find(end));
                    let line = &line[..ends.min().unwrap_or(line.len())];
                    let bounded = line.contains("line.kind = \"") || own.iter().any(|own| line.contains(own));
                    assert!(bounded, "{}: {call}{line}", path.display());
                    found += 1;
                }
            }
        }
    }
    assert!(found > 30, "the search finds lines: {found}");
}

#[test]
fn no_queue_is_without_a_bound() {
    for folder in ["shared/broker", "shared/logs", "cloud/server", "cloud/cli", "edge/queue", "edge/agent"] {
        for (path, text) in sources(folder) {
            for word in ["unbounded_channel", "flume::unbounded", "mpsc::channel()"] {
                assert!(!text.contains(word), "{} uses {word}", path.display());
            }
        }
    }
}

//! The program as people run it: `tidegate` against `tidegate serve`, an agent and a remote broker, all on loopback. What
//! each command prints, and how it ends, is kept as a snapshot; what differs from run to run is replaced.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use world::World;

/// Runs a command and adds what it printed to the transcript.
macro_rules! run {
    ($world:expr, $log:expr, $($args:expr),+ $(,)?) => {
        $log.push_str(&$world.shown(&[$($args),+]))
    };
}

#[test]
fn a_rule_from_its_file_to_a_running_bridge() {
    let mut world = World::start();
    let mut log = String::new();
    run!(world, log, "status");
    run!(world, log, "rule", "list");
    run!(world, log, "edge", "list");
    run!(world, log, "edge", "create", "Gateway 1");
    run!(world, log, "edge", "create", "gateway-1", "--mqtt", "127.0.0.1:7183");
    run!(world, log, "edge", "create", "gateway-1");
    run!(world, log, "rule", "check", "-f", "first.toml");
    run!(world, log, "rule", "apply", "-f", "first.toml", "-m", "the first one");
    run!(world, log, "rule", "apply", "-f", "first.toml");
    run!(world, log, "rule", "apply", "-f", "first.toml", "-o", "name");
    run!(world, log, "rule", "apply", "-f", "wrong.toml");
    run!(world, log, "rule", "apply", "-f", "none.toml");
    run!(world, log, "rule", "place", "first", "--edge", "gateway-1");
    run!(world, log, "issue", "first", "--edge", "gateway-1");
    run!(world, log, "issue", "first", "--edge", "gateway-1", "-o", "json");
    run!(world, log, "doctor");
    world.agent();
    run!(world, log, "issue", "first", "--edge", "gateway-1", "--wait", "-q");
    run!(world, log, "wait", "first", "--for", "running", "-q");
    run!(world, log, "issue", "first", "--edge", "gateway-1");
    run!(world, log, "status");
    run!(world, log, "status", "-o", "name");
    run!(world, log, "rule", "get", "first");
    run!(world, log, "rule", "list", "-o", "wide");
    run!(world, log, "rule", "list", "-o", "name");
    run!(world, log, "edge", "list", "-o", "name");
    run!(world, log, "edge", "get", "gateway-1");
    run!(world, log, "doctor", "-o", "name");
    run!(world, log, "rule", "explain", "first", "--edge", "gateway-1", "--topic", "sensors/t1");
    run!(world, log, "rule", "explain", "first", "--edge", "gateway-1", "--topic", "a/#");
    run!(world, log, "rule", "explain", "first", "--edge", "gateway-1");
    run!(world, log, "rule", "explain", "first", "--edge", "gateway-9");
    run!(world, log, "rule", "versions", "first");
    run!(world, log, "rule", "versions", "first", "-o", "name");
    run!(world, log, "rule", "get", "first", "--version", "1", "-o", "yaml");
    world.write("first.toml", &world.rule("devices/#"));
    run!(world, log, "rule", "diff", "-f", "first.toml");
    run!(world, log, "rule", "apply", "-f", "first.toml");
    run!(world, log, "rule", "diff", "first", "--from", "1");
    run!(world, log, "rule", "diff", "gone", "--from", "1");
    run!(world, log, "sync", "--all", "--yes", "--wait", "-q");
    run!(world, log, "sync", "--all");
    run!(world, log, "stop", "first");
    run!(world, log, "stop", "first", "--yes", "--wait", "-q", "-o", "name");
    run!(world, log, "rule", "restore", "first", "--to", "1", "-m", "as it was");
    run!(world, log, "edge", "remove", "gateway-1", "--confirm", "gateway-1");
    run!(world, log, "rule", "delete", "first", "--confirm", "second");
    run!(world, log, "rule", "delete", "first", "--confirm", "first");
    world.snapshot("a_rule", &log);
}

#[test]
fn m3_rules_of_the_site_are_shown_beside_those_of_the_cloud() {
    let mut world = World::start();
    let mut log = String::new();
    world.ok(&["rule", "apply", "-f", "first.toml"]);
    world.ok(&["edge", "create", "gateway-1"]);
    world.write("site-rules/pumps.toml", &world.rule_named("pumps", "pumps/#"));
    let nowhere = world.rule_named("valves", "valves/#");
    let (before, rest) = nowhere.split_once("mqtt://").unwrap();
    let (_, after) = rest.split_once('"').unwrap();
    world.write("site-rules/valves.toml", &format!("{before}mqtt://127.0.0.1:1\"{after}"));
    world.agent();
    world.until("the cloud knows how the site's rules are", || {
        let shown = world.ok(&["edge", "get", "gateway-1", "-o", "json"]);
        shown.contains("\"running\"") && shown.contains("\"paused_fault\"")
    });
    run!(world, log, "edge", "get", "gateway-1");
    run!(world, log, "edge", "get", "gateway-1", "-o", "wide");
    run!(world, log, "edge", "get", "gateway-1", "-o", "json");
    world.snapshot("of_the_site", &log);
    let list = world.ok(&["edge", "list", "-o", "json"]);
    assert!(
        list.contains("\"unmanaged_rules\": 2") && !list.contains("pumps"),
        "lists only count them: {list}"
    );
    let list = world.ok(&["edge", "list", "-o", "wide"]);
    assert!(list.contains("UNMANAGED"), "{list}");
}

#[test]
fn formats_and_files() {
    let world = World::start();
    let mut log = String::new();
    world.ok(&["rule", "apply", "-f", "first.toml"]);
    world.ok(&["edge", "create", "gateway-1"]);
    world.ok(&["rule", "place", "first", "--edge", "gateway-1"]);
    for format in ["table", "wide", "json", "yaml", "name"] {
        run!(world, log, "rule", "get", "first", "-o", format);
        run!(world, log, "edge", "get", "gateway-1", "-o", format);
    }
    run!(world, log, "status", "-o", "json");
    run!(world, log, "rule", "export", "first");
    run!(world, log, "rule", "export", "first", "--format", "yaml");
    run!(world, log, "rule", "export", "first", "--format", "json");
    run!(world, log, "rule", "export", "first", "--format", "mosquitto");
    run!(world, log, "rule", "export", "first", "--format", "mosquitto", "--edge", "gateway-1");
    run!(world, log, "rule", "export", "--all", "--out", "rules");
    run!(world, log, "rule", "export");
    run!(world, log, "rule", "import", "mosquitto", "bridges.conf", "--dry-run");
    run!(world, log, "rule", "import", "mosquitto", "bridges.conf", "--dry-run", "-o", "name");
    run!(world, log, "rule", "import", "mosquitto", "bridges.conf", "--connection", "other");
    run!(world, log, "rule", "import", "mosquitto", "bridges.conf");
    run!(world, log, "export", "--out", "backup.jsonl");
    run!(world, log, "export", "--out", "backup.jsonl");
    run!(world, log, "export", "--data-dir", "nowhere", "--out", "other.jsonl");
    run!(world, log, "import", "backup.jsonl", "--data-dir", "controller");
    run!(world, log, "import", "backup.jsonl", "--data-dir", "moved");
    run!(world, log, "import", "backup.jsonl", "--data-dir", "moved");
    run!(world, log, "import", "first.toml", "--data-dir", "another");
    world.snapshot("formats", &log);
    let mode = std::os::unix::fs::MetadataExt::mode(
        &std::fs::metadata(world.dir.path().join("backup.jsonl")).unwrap(),
    );
    assert_eq!(mode & 0o777, 0o600);
    assert!(!world.dir.path().join("other.jsonl").exists() && !world.dir.path().join("another").exists());
    let left: Vec<_> = std::fs::read_dir(world.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".tidegate-export")), "{left:?}");
}

#[test]
fn errors_and_their_exit_codes() {
    let world = World::start();
    let mut log = String::new();
    run!(world, log, "context", "list");
    run!(world, log, "context", "show");
    run!(world, log, "context", "use", "gone");
    run!(world, log, "context", "set", "lab", "--server", "https://lab");
    run!(world, log, "rule", "get", "gone");
    run!(world, log, "edge", "get", "gone");
    run!(world, log, "issue", "gone");
    run!(world, log, "status", "--token", "tga_wrong");
    run!(world, log, "status", "--server", "http://127.0.0.1:1");
    run!(world, log, "status", "--server", "ftp://x");
    run!(world, log, "doctor", "--server", "http://127.0.0.1:1");
    run!(world, log, "status", "--request-id", "a b");
    run!(world, log, "status", "-q", "-v");
    run!(world, log, "status", "--output", "xml");
    run!(world, log, "status", "--request-id", "mine-7", "-v", "-o", "name");
    run!(world, log, "frobnicate");
    world.ok(&["rule", "apply", "-f", "first.toml"]);
    world.ok(&["edge", "create", "gateway-1"]);
    world.ok(&["rule", "place", "first", "--edge", "gateway-1"]);
    run!(world, log, "issue", "first", "--edge", "gateway-1", "--when-offline", "queue");
    run!(world, log, "wait", "first", "--for", "running", "--timeout", "100ms", "-q");
    run!(world, log, "serve", "--check", "--http", "0.0.0.0:1");
    run!(world, log, "serve", "--data-dir", "controller", "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0");
    world.snapshot("errors", &log);
}

#[test]
fn a_removal_that_waits_is_told_and_taken_back() {
    let mut world = World::start();
    let mut log = String::new();
    world.ok(&["rule", "apply", "-f", "first.toml"]);
    world.ok(&["edge", "create", "gateway-1"]);
    world.agent();
    world.ok(&["issue", "first", "--edge", "gateway-1", "--wait", "-q"]);
    world.agent_stops();
    let unplace = ["rule", "unplace", "first", "--edge", "gateway-1", "--yes"];
    run!(world, log, "rule", "unplace", "first", "--edge", "gateway-1", "--yes");
    run!(world, log, "rule", "unplace", "first", "--edge", "gateway-1", "--yes");
    run!(world, log, "rule", "unplace", "first", "--edge", "gateway-1", "-o", "json");
    run!(world, log, "rule", "place", "first", "--edge", "gateway-1");
    run!(world, log, "rule", "get", "first");
    run!(world, log, "edge", "get", "gateway-1");
    world.ok(&unplace);
    run!(world, log, "rule", "place", "first", "--edge", "gateway-1", "-o", "name");
    world.snapshot("removal", &log);
}

#[test]
fn for_programs_there_is_one_document_and_a_failure_is_a_problem() {
    let world = World::start();
    let document = |args: &[&str]| -> serde_json::Value {
        let done = world.command(args).args(["-o", "json"]).output().unwrap();
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{args:?}: {told}");
        serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}"))
    };
    world.write("rules/a.toml", &world.rule_named("a", "a/#"));
    world.write("rules/b.toml", &world.rule_named("b", "b/#"));
    assert_eq!(document(&["sync", "--all"])["items"], serde_json::json!([]));
    assert_eq!(document(&["rule", "check", "-f", "rules"])["items"].as_array().unwrap().len(), 2);
    assert_eq!(document(&["rule", "apply", "-f", "rules"])["items"].as_array().unwrap().len(), 2);
    assert_eq!(document(&["edge", "create", "gw-1", "--out", "gw-1.toml"])["file"], "gw-1.toml");
    assert!(document(&["edge", "create", "gw-2"])["credential"].is_string());
    let applied = document(&["rule", "apply", "-f", "rules/a.toml", "--place", "gw-1"]);
    assert_eq!((&applied["saved"], &applied["placed"][0]["edge"]), (&"unchanged".into(), &"gw-1".into()));
    let placed = document(&["rule", "place", "a", "--edge", "gw-1", "--edge", "gw-2"]);
    assert_eq!(placed["items"][1]["edge"], "gw-2");
    assert_eq!(document(&["wait", "a", "--for", "stopped"])["items"][0]["rule"], "a");
    let rule = document(&["rule", "export", "a"]);
    assert_eq!((&rule["name"], &rule["forwards"][0]["topic"]), (&"a".into(), &"a/#".into()));
    assert_eq!(document(&["rule", "export", "a", "b"])["items"][1]["name"], "b");
    assert_eq!(document(&["rule", "export", "--all", "--out", "out"])["items"][0]["file"], "out/a.json");
    let told = document(&["rule", "export", "a", "--format", "mosquitto", "--edge", "gw-1"]);
    assert!(told["text"].as_str().unwrap().contains("connection a"), "{told}");
    assert_eq!(document(&["export", "--out", "backup.jsonl"])["counts"]["rules"], 2);
    assert_eq!(document(&["import", "backup.jsonl", "--data-dir", "moved"])["counts"]["edges"], 2);
    assert_eq!(document(&["rule", "unplace", "a", "--edge", "gw-2"])["pending"], false);
    assert_eq!(document(&["edge", "remove", "gw-2", "--confirm", "gw-2"])["removed"], true);
    assert_eq!(document(&["context", "set", "lab", "--server", "http://lab"])["name"], "lab");
    assert_eq!(document(&["serve", "--check"])["ok"], true);
    assert!(document(&["serve", "--print"])["http"].is_string());
    assert_eq!(document(&["version"])["server"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(document(&["man", "--out", "man1"])["dir"], "man1");
    let removed = document(&["rule", "delete", "b", "--confirm", "b"]);
    assert_eq!((&removed["name"], &removed["deleted"]), (&"b".into(), &true.into()));

    let mut log = String::new();
    run!(world, log, "rule", "get", "gone", "-o", "json");
    run!(world, log, "rule", "get", "gone", "-o", "yaml");
    run!(world, log, "rule", "apply", "-f", "wrong.toml", "-o", "json");
    run!(world, log, "issue", "a", "--edge", "gw-1", "-o", "json");
    run!(world, log, "wait", "a", "--for", "running", "-q", "-o", "json");
    run!(world, log, "stop", "a", "-o", "json");
    run!(world, log, "status", "--server", "http://127.0.0.1:1", "-o", "json");
    run!(world, log, "rule", "diff", "gone", "--from", "1", "-o", "json");
    run!(world, log, "rule", "frobnicate", "-o", "json");
    run!(world, log, "rule", "export", "a", "--format", "mosquitto", "--edge", "gw-9");
    run!(world, log, "rule", "export", "first", "--format", "mosquitto", "--edge", "gw-1");
    world.snapshot("for_programs", &log);
}

#[test]
fn who_is_not_let_in_is_shown_to_operators() {
    let world = World::start();
    let mut log = String::new();
    world.ok(&["edge", "create", "gateway-1"]);
    let mut events = world.command(&["events", "-f"]);
    let mut events =
        events.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    world.until_watched(1);
    world.knock("gateway-1");
    let mut told = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(events.stdout.take().unwrap()), &mut told)
        .unwrap();
    assert!(told.contains("tries to log in as gateway-1 with a wrong credential"), "{told}");
    world.interrupt(&events);
    assert_eq!(events.wait().unwrap().code(), Some(130));
    world.knock("gateway-9");
    run!(world, log, "status");
    run!(world, log, "doctor");
    assert!(!log.contains("hunter2") && !told.contains("hunter2"), "{log}");
    world.snapshot("not_let_in", &log);
}

#[test]
fn where_all_targets_refuse_it_ends_as_one_refusal_does_and_says_what_to_do() {
    let world = World::start();
    let mut log = String::new();
    world.ok(&["rule", "apply", "-f", "first.toml"]);
    for edge in ["gw-1", "gw-2"] {
        world.ok(&["edge", "create", edge]);
        world.ok(&["rule", "place", "first", "--edge", edge]);
    }
    run!(world, log, "issue", "first");
    run!(world, log, "issue", "first", "--yes");
    run!(world, log, "issue", "first", "--yes", "-o", "json");
    run!(world, log, "start", "first", "--edge", "gw-1", "--edge", "gw-2", "--yes");
    run!(world, log, "issue", "first", "--dry-run");
    world.ok(&["issue", "first", "--edge", "gw-1", "--when-offline", "queue"]);
    run!(
        world,
        log,
        "issue",
        "first",
        "--edge",
        "gw-1",
        "--edge",
        "gw-2",
        "--when-offline",
        "queue",
        "--yes"
    );
    world.snapshot("refused", &log);
}

#[test]
fn completion_scripts_and_pages_are_made_of_every_command() {
    let world = World::alone();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = world.ok(&["completion", shell]);
        for word in ["tidegate", "mosquitto", "when-offline", "doctor"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    world.write("tidegate.bash", &world.ok(&["completion", "bash"]));
    let checked =
        std::process::Command::new("bash").arg("-n").arg(world.dir.path().join("tidegate.bash")).output();
    let checked = checked.unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));

    world.ok(&["man", "--out", "man1"]);
    let mut pages: Vec<String> = std::fs::read_dir(world.dir.path().join("man1"))
        .unwrap()
        .map(|page| page.unwrap().file_name().into_string().unwrap())
        .collect();
    pages.sort();
    insta::assert_snapshot!("pages", pages.join("\n"));
    let text =
        std::fs::read_to_string(world.dir.path().join("man1/tidegate-rule-import-mosquitto.1")).unwrap();
    assert!(text.contains("connection") && text.contains(".TH"), "{text}");
}

#[test]
fn a_reader_that_goes_away_and_a_ctrl_c_end_quietly() {
    let world = World::start();
    for n in 0..200 {
        world.write(&format!("many/rule-{n}.toml"), &world.rule_named(&format!("rule-{n}"), "a/#"));
    }
    world.ok(&["rule", "apply", "-f", "many", "-q"]);
    // The pipe is closed before anything is read from it.
    let mut command = world.command(&["rule", "list"]);
    let mut child =
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), String::from_utf8_lossy(&ended.stderr).as_ref()), (Some(0), ""));

    world.ok(&["edge", "create", "gateway-1"]);
    world.ok(&["rule", "place", "rule-1", "--edge", "gateway-1"]);
    let told = world.interrupted(
        &["issue", "rule-1", "--edge", "gateway-1", "--when-offline", "queue", "--wait"],
        "edge unknown",
    );
    assert_eq!(told.0, Some(130));
    assert!(
        told.1.contains("goes on on the server")
            && told.1.contains("tidegate wait rule-1 --edge gateway-1 --for issued"),
        "{}",
        told.1
    );
    let told = world.interrupted(&["events", "-f"], "following events");
    assert_eq!(told.0, Some(130), "{}", told.1);
}

#[test]
fn watching_shows_a_thing_again_when_it_changes() {
    use std::io::BufRead as _;
    let world = World::start();
    let mut child = world
        .command(&["rule", "list", "-w", "-o", "name"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    // The first look finds nothing, and prints nothing; the next one comes by itself.
    world.until_watched(1);
    world.ok(&["rule", "apply", "-f", "first.toml"]);
    assert_eq!(lines.next().unwrap().unwrap(), "first");
    world.interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

use std::path::PathBuf;

use super::*;

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

fn read(text: &str, env: &[(&str, &str)], flags: &Flags) -> Result<AgentConfig, InvalidSettings> {
    let (_dir, path) = file(text);
    let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    AgentConfig::from_layers(Some(&path), env, flags)
}

fn controller(config: &AgentConfig) -> &Controller {
    config.controller.as_ref().expect("the settings name a controller")
}

fn listens(config: &AgentConfig) -> String {
    match &config.local {
        LocalSide::Embedded { listen, .. } => listen.to_string(),
        LocalSide::External(broker) => panic!("no broker of its own but {broker}"),
    }
}

const GOOD: &str = "name = \"gw-7\"\n[controller]\nurl = \"mqtt://cloud.example\"\n";

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let config = read(GOOD, &[], &Flags::default()).unwrap();
    assert_eq!((config.name.as_str(), controller(&config).username.as_str()), ("gw-7", "gw-7"));
    assert_eq!(controller(&config).address.to_string(), "mqtt://cloud.example:1883");
    assert_eq!(listens(&config), "127.0.0.1:1883");
    let env = [
        ("TIDEGATE_EDGE_NAME", "gw-8"),
        ("TIDEGATE_EDGE_CONTROLLER_URL", "mqtt://[::1]:7183"),
        ("HOME", "/"),
    ];
    let config = read(GOOD, &env, &Flags::default()).unwrap();
    let address = controller(&config).address.to_string();
    assert_eq!((config.name.as_str(), address.as_str()), ("gw-8", "mqtt://[::1]:7183"));
    let flags = Flags { name: Some("gw-9".into()), ..Flags::default() };
    assert_eq!(read(GOOD, &env, &flags).unwrap().name.as_str(), "gw-9");
}

#[test]
fn all_problems_are_told_at_once_with_their_place() {
    let text = "nane = \"x\"\nname = \"Gateway 7\"\n[controller]\nurl = \"mqtts://a\"\npassword = 7\n[local]\nlisten = 1883\n[other]\nx = 1\n";
    let error = read(text, &[("TIDEGATE_EDGE_TYPO", "1")], &Flags::default()).unwrap_err();
    let told = error.to_string();
    for place in [
        "nane (",
        "name (",
        "controller.url (",
        "controller.password (",
        "local.listen (",
        "other (",
        "TIDEGATE_EDGE_TYPO",
    ] {
        assert!(told.contains(place), "{place} in {told}");
    }
}

#[test]
fn missing_settings_are_named() {
    let error = AgentConfig::from_layers(None, std::iter::empty(), &Flags::default()).unwrap_err();
    let places: Vec<&str> = error.0.iter().map(|p| p.place.as_str()).collect();
    assert_eq!(places, ["name", "controller.url"]);
}

#[test]
fn a_file_that_cannot_be_read_is_the_one_problem() {
    let error = AgentConfig::from_layers(
        Some(Path::new("/nowhere/agent.toml")),
        std::iter::empty(),
        &Flags::default(),
    );
    let problems = error.unwrap_err().0;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].place.contains("/nowhere/agent.toml"));
}

#[test]
fn addresses_of_the_controller() {
    for (url, expected) in [
        ("mqtt://a", Some("mqtt://a:1883")),
        ("mqtt://a:7183/", Some("mqtt://a:7183")),
        ("mqtt://[fe80::1]", Some("mqtt://[fe80::1]:1883")),
        ("http://a", None),
        ("a:1883", None),
        ("mqtt://", None),
        ("mqtt://a:0", None),
        ("mqtt://a:x", None),
        ("mqtt://u:p@a", None),
    ] {
        assert_eq!(address(url).ok().map(|a| a.to_string()).as_deref(), expected, "{url}");
    }
}

#[test]
fn devices_from_elsewhere_need_a_decision() {
    let listen = |more: &str| {
        read(&format!("{GOOD}[local]\nlisten = \"0.0.0.0:1883\"\n{more}"), &[], &Flags::default())
    };
    assert!(listen("").unwrap_err().to_string().contains("local.anonymous = true"));
    assert!(matches!(
        listen("anonymous = true").unwrap().local,
        LocalSide::Embedded { access: LocalAccess::Anonymous, .. }
    ));
}

#[test]
fn passwords_users_and_policy_come_from_files_and_are_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name).display().to_string()
    };
    let text = format!(
        "name = \"gw-7\"\npolicy_file = \"{}\"\n[controller]\nurl = \"mqtt://a\"\npassword_file = \"{}\"\n[local]\nusers_file = \"{}\"\n",
        path("policy", "hosts = [\"*.corp\"]\ntopics = [\"sensors/#\"]\nmax_queue_bytes = \"1MiB\"\n"),
        path("password", "hunter2\n"),
        path("users", "# devices\ncamera:hunter3\n\n"),
    );
    let config = read(&text, &[], &Flags::default()).unwrap();
    assert_eq!(controller(&config).password.as_ref().unwrap().reveal(), "hunter2");
    assert_eq!(config.policy.max_queue_bytes, Some(1 << 20));
    let shown = format!("{config:?}{}", config.describe());
    assert!(shown.contains("camera") && shown.contains("*.corp") && !shown.contains("hunter"), "{shown}");
    let inline = read(&format!("{GOOD}password = \"hunter4\"\n"), &[], &Flags::default()).unwrap();
    assert_eq!(controller(&inline).password.as_ref().unwrap().reveal(), "hunter4");
    assert!(!format!("{inline:?}{}", inline.describe()).contains("hunter4"));
    for (name, bad) in [("users", "camera"), ("users", ""), ("policy", "host = []"), ("password", "")] {
        path(name, bad);
        assert!(read(&text, &[], &Flags::default()).unwrap_err().to_string().contains(name), "{name}");
        path("users", "camera:hunter3");
        path("policy", "");
        path("password", "hunter2");
    }
}

#[test]
fn m1_a_directory_of_rules_is_enough_to_run_without_a_controller() {
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().display().to_string();
    let flags = Flags { rules_dir: Some(rules.clone()), ..Flags::default() };
    let alone = AgentConfig::from_layers(None, std::iter::empty(), &flags);
    let host = files::host_name().unwrap_or_default();
    match EdgeId::new(host.clone()) {
        Ok(name) => {
            let config = alone.unwrap();
            assert_eq!((&config.name, config.controller.is_none()), (&name, true));
            assert!(config.describe().contains("this agent runs its own rules"));
        }
        Err(_) => assert_eq!(alone.unwrap_err().0[0].place, "name", "the machine is called {host}"),
    }
    // With a controller both are there; half a controller is a mistake and not an agent that runs alone.
    assert!(read(GOOD, &[], &flags).unwrap().controller.is_some());
    let half = format!("name = \"gw-7\"\nrules_dir = \"{rules}\"\n[controller]\nusername = \"x\"\n");
    assert!(read(&half, &[], &Flags::default()).unwrap_err().to_string().contains("controller.url"));
    let gone = Flags { rules_dir: Some(format!("{rules}/gone")), ..Flags::default() };
    assert!(read(GOOD, &[], &gone).unwrap_err().to_string().contains("rules_dir (command line)"));
}

#[test]
fn logs_and_metrics_have_settings() {
    let config = read(GOOD, &[], &Flags::default()).unwrap();
    assert_eq!((config.log.as_str(), config.log_format, config.metrics), ("info", LogFormat::Text, None));
    let text = format!("log = \"debug\"\nlog_format = \"json\"\nmetrics = \"127.0.0.1:9790\"\n{GOOD}");
    let config = read(&text, &[("TIDEGATE_EDGE_LOG", "warn")], &Flags::default()).unwrap();
    assert_eq!((config.log.as_str(), config.log_format), ("warn", LogFormat::Json));
    assert_eq!(config.metrics.unwrap().port(), 9790);
    let text = format!("log = \"tidegate=loud\"\nlog_format = \"xml\"\nmetrics = \"0.0.0.0:9790\"\n{GOOD}");
    let told = read(&text, &[], &Flags::default()).unwrap_err().to_string();
    for problem in ["log (", "log_format (", "metrics (", "loopback"] {
        assert!(told.contains(problem), "{told}");
    }
}

#[test]
fn an_external_local_broker_and_its_login() {
    let local = |text: &str| read(&format!("{GOOD}[local]\n{text}"), &[], &Flags::default());
    let broker = |text: &str| match local(text).unwrap().local {
        LocalSide::External(broker) => broker,
        other @ LocalSide::Embedded { .. } => panic!("{other:?}"),
    };
    let plain = broker("broker = \"mqtt://127.0.0.1\"");
    assert_eq!(
        (plain.to_string().as_str(), plain.username, plain.password),
        ("mqtt://127.0.0.1:1883", None, None)
    );
    let full = broker("broker = \"mqtt://tide%40gate:p%3A%C3%A9@[::1]:1884\"");
    assert_eq!((full.host.as_str(), full.port, full.username.as_deref()), ("::1", 1884, Some("tide@gate")));
    assert_eq!(full.password.as_ref().unwrap().reveal(), "p:\u{e9}");
    let apart = broker("broker = \"mqtt://u@b\"\npassword = \"hunter2\"");
    assert_eq!(apart.password.as_ref().unwrap().reveal(), "hunter2");
    let env = [("TIDEGATE_EDGE_LOCAL_USERNAME", "u"), ("TIDEGATE_EDGE_LOCAL_PASSWORD", "hunter2")];
    let flags = Flags { local_broker: Some("mqtt://b:1".into()), ..Flags::default() };
    let config = read(GOOD, &env, &flags).unwrap();
    let shown = format!("{config:?}{}", config.describe());
    assert!(shown.contains("local.broker         mqtt://b:1") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn wrong_settings_of_a_local_broker_say_the_way_out_and_no_secret() {
    for (text, place, way_out) in [
        ("broker = \"mqtt://b\"\nlisten = \"127.0.0.1:1\"", "local.listen (", "remove one of the two"),
        ("broker = \"mqtt://b\"\nanonymous = true", "local.anonymous (", "remove one of the two"),
        ("broker = \"mqtt://b\"\nusers_file = \"u\"", "local.users_file (", "remove one of the two"),
        ("username = \"u\"", "local.username (", "local.broker names none"),
        (
            "broker = \"mqtts://u:hunter2@b\"",
            "local.broker (",
            "TLS to a local broker comes in a later release",
        ),
        ("broker = \"b:1883\"", "local.broker (", "write mqtt://host:port"),
        ("broker = \"mqtt://u:hunter2@\"", "local.broker (", "names no host"),
        ("broker = \"mqtt://u:hunter2@b:0\"", "local.broker (", "1 to 65535"),
        ("broker = \"mqtt://u:hunter2%4@b\"", "local.broker (", "%XX"),
        ("broker = \"mqtt://:hunter2@b\"", "local.broker (", "no user name"),
        ("broker = \"mqtt://u:hunter2@b\"\nusername = \"v\"", "local.username (", "leave out one"),
        ("broker = \"mqtt://u:hunter2@b\"\npassword = \"hunter2\"", "local.password (", "leave out one"),
        ("broker = \"mqtt://b\"\npassword = \"hunter2\"", "local.password (", "needs a user name"),
        (
            "broker = \"mqtt://u@b\"\npassword_file = \"/nowhere/p\"",
            "local.password_file (",
            "cannot be read",
        ),
    ] {
        let error = read(&format!("{GOOD}[local]\n{text}"), &[], &Flags::default()).unwrap_err();
        assert_eq!(error.0.len(), 1, "{text}: {error}");
        let told = error.to_string();
        assert!(
            told.contains(place) && told.contains(way_out) && !told.contains("hunter2"),
            "{text}: {told}"
        );
    }
}

#[test]
fn the_files_that_hold_secrets_are_known() {
    let none: Vec<PathBuf> = Vec::new();
    let of = |text: &str| {
        let (_dir, path) = file(text);
        let files = AgentConfig::secret_files(Some(&path), &Flags::default());
        files
            .iter()
            .map(|found| if *found == path { "settings".into() } else { found.clone() })
            .collect::<Vec<_>>()
    };
    assert_eq!(of(GOOD), none);
    let settings = [PathBuf::from("settings")];
    assert_eq!(of(&format!("{GOOD}password = \"hunter2\"\n")), settings);
    assert_eq!(of(&format!("{GOOD}[local]\nbroker = \"mqtt://u:hunter2@h\"\n")), settings);
    assert_eq!(of(&format!("{GOOD}[local]\nbroker = \"mqtt://h\"\n")), none);
    let files = of(&format!("{GOOD}password_file = \"/a.key\"\n[local]\nusers_file = \"/users\"\n"));
    assert_eq!(files, [PathBuf::from("/a.key"), PathBuf::from("/users")]);
}

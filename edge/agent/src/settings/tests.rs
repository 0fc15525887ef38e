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

const GOOD: &str = "name = \"gw-7\"\n[controller]\nurl = \"mqtt://cloud.example\"\n";

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let config = read(GOOD, &[], &Flags::default()).unwrap();
    assert_eq!((config.name.as_str(), config.username.as_str()), ("gw-7", "gw-7"));
    assert_eq!(config.controller.to_string(), "mqtt://cloud.example:1883");
    assert_eq!(config.listen.to_string(), "127.0.0.1:1883");
    let env = [
        ("TIDEGATE_EDGE_NAME", "gw-8"),
        ("TIDEGATE_EDGE_CONTROLLER_URL", "mqtt://[::1]:7183"),
        ("HOME", "/"),
    ];
    let config = read(GOOD, &env, &Flags::default()).unwrap();
    assert_eq!((config.name.as_str(), config.controller.to_string().as_str()), ("gw-8", "mqtt://[::1]:7183"));
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
    assert!(matches!(listen("anonymous = true").unwrap().local, LocalAccess::Anonymous));
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
    assert_eq!(config.password.as_ref().unwrap().reveal(), "hunter2");
    assert_eq!(config.policy.max_queue_bytes, Some(1 << 20));
    let shown = format!("{config:?}{}", config.describe());
    assert!(shown.contains("camera") && shown.contains("*.corp") && !shown.contains("hunter"), "{shown}");
    let inline = read(&format!("{GOOD}password = \"hunter4\"\n"), &[], &Flags::default()).unwrap();
    assert_eq!(inline.password.as_ref().unwrap().reveal(), "hunter4");
    assert!(!format!("{inline:?}{}", inline.describe()).contains("hunter4"));
    for (name, bad) in [("users", "camera"), ("users", ""), ("policy", "host = []"), ("password", "")] {
        path(name, bad);
        assert!(read(&text, &[], &Flags::default()).unwrap_err().to_string().contains(name), "{name}");
        path("users", "camera:hunter3");
        path("policy", "");
        path("password", "hunter2");
    }
}

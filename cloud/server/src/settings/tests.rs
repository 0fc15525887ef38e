use super::*;

fn resolve(file: &str, env: &[(&str, &str)], flags: &Flags) -> Result<Settings, SettingsError> {
    let env = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
    Settings::resolve(Some((Path::new("t.toml"), file)), &env, flags)
}

fn problems(result: Result<Settings, SettingsError>) -> Vec<String> {
    match result.unwrap_err() {
        SettingsError::Wrong(problems) => problems.iter().map(ToString::to_string).collect(),
        SettingsError::Read { .. } => panic!("no file is read here"),
    }
}

#[test]
fn nothing_set_gives_loopback_and_the_state_directory() {
    let settings = resolve("", &[("HOME", "/home/a")], &Flags::default()).unwrap();
    assert_eq!(settings, Settings::with_data_dir("/home/a/.local/state/tidegate"));
    let settings = resolve("", &[("HOME", "/home/a"), ("XDG_STATE_HOME", "/s")], &Flags::default()).unwrap();
    assert_eq!(settings.data_dir, Path::new("/s/tidegate"));
    assert_eq!(resolve("", &[], &Flags::default()).unwrap().data_dir, Path::new("tidegate-data"));
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let file = "http = \"127.0.0.1:1\"\nmqtt = \"127.0.0.1:1\"\nstore = \"memory\"\ncache_mib = 64\n";
    let env = [("TIDEGATE_HTTP", "127.0.0.1:2"), ("TIDEGATE_MQTT", "127.0.0.1:2")];
    let flags = Flags { http: Some("127.0.0.1:3".parse().unwrap()), ..Flags::default() };
    let settings = resolve(file, &env, &flags).unwrap();
    assert_eq!((settings.http.port(), settings.mqtt.port()), (3, 2));
    assert_eq!((settings.store, settings.cache_mib), (StoreKind::Memory, 64));
}

#[test]
fn all_problems_are_told_at_once_with_their_places() {
    let file = "http = 7180\nhtpp = \"x\"\nstore = \"redb\"\nhttp_rate = -1\nmetrics_public = \"yes\"\n";
    let told = problems(resolve(file, &[("TIDEGATE_MQTT", "localhost")], &Flags::default()));
    let expect = [
        "t.toml:1:8: http is a text",
        "t.toml:2:1: 'htpp' is not a setting",
        "t.toml:3:9: ",
        "t.toml:4:13: http_rate is a number of requests per second",
        "t.toml:5:18: metrics_public is true or false, without quotes",
        "TIDEGATE_MQTT: mqtt is",
    ];
    assert_eq!(told.len(), expect.len(), "{told:?}");
    for want in expect {
        assert!(told.iter().any(|t| t.starts_with(want)), "{want} in {told:?}");
    }
}

#[test]
fn an_address_of_the_network_needs_a_word_of_its_own() {
    let flags = Flags { http: Some("0.0.0.0:7180".parse().unwrap()), ..Flags::default() };
    let told = problems(resolve("", &[], &flags));
    assert!(told[0].starts_with("--http: 0.0.0.0:7180") && told[0].contains("TLS"), "{told:?}");
    assert!(resolve("allow_remote = true", &[], &flags).is_ok());
}

#[test]
fn what_is_printed_reads_back_the_same() {
    let settings = Settings {
        cache_mib: 77,
        store: StoreKind::Memory,
        http_rate: 0,
        metrics_public: true,
        ..Settings::with_data_dir("/a \"b\"")
    };
    assert_eq!(resolve(&settings.print(), &[], &Flags::default()).unwrap(), settings);
}

#[test]
fn a_broken_file_is_told_with_its_line() {
    let told = problems(resolve("http = \"127.0.0.1:1\"\nmqtt = =\n", &[], &Flags::default()));
    assert!(told[0].starts_with("t.toml:2:"), "{told:?}");
}

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

#[test]
fn a_broker_of_somebody_else_is_printed_without_its_password_and_reads_back() {
    let url = "mqtt://tidegate:s3cret@127.0.0.1:1883";
    let settings = resolve(&format!("broker = \"{url}\""), &[], &Flags::default()).unwrap();
    let printed = settings.print();
    assert!(
        printed.contains("broker = \"mqtt://tidegate@127.0.0.1:1883\"") && !printed.contains("s3cret"),
        "{printed}"
    );
    let again = resolve(&printed, &[], &Flags::default()).unwrap().broker.unwrap();
    assert_eq!(again.password, None);
    assert!(!format!("{settings:?}").contains("s3cret"));

    let tmp = tempfile::tempdir().unwrap();
    let file = tmp.path().join("password");
    let flags = Flags {
        broker: Some("mqtt://tidegate@localhost".to_owned()),
        broker_password_file: Some(file.clone()),
        ..Flags::default()
    };
    let mut settings = resolve(&format!("broker = \"{url}\""), &[], &flags).unwrap();
    assert!(settings.read_password().unwrap_err().to_string().contains("cannot be read"));
    std::fs::write(&file, "\n").unwrap();
    assert!(settings.read_password().unwrap_err().to_string().contains("first line"));
    std::fs::write(&file, "from-file\n").unwrap();
    settings.read_password().unwrap();
    let broker = settings.broker.as_ref().unwrap();
    assert_eq!(broker.password.as_ref().map(|p| p.reveal()), Some("from-file"));
    assert_eq!(broker.address.to_string(), "localhost:1883", "a flag wins over the file");
    assert_eq!(resolve(&settings.print(), &[], &Flags::default()).unwrap().broker_password_file, Some(file));
}

#[test]
fn what_is_wrong_with_a_broker_is_told_with_its_place_and_without_the_password() {
    for (file, want) in [
        ("broker = \"mqtt://u:s3cret@192.0.2.1\"", "allow_remote"),
        ("broker = \"mqtt://u:s3cret@broker.example\"", "allow_remote"),
        ("broker = \"mqtts://u:s3cret@127.0.0.1\"", "TLS"),
        ("broker_password_file = \"/f\"", "without broker"),
        ("broker = \"mqtt://u:s3cret@127.0.0.1\"\nbroker_password_file = \"/f\"", "leave it out of the URL"),
        ("broker = \"mqtt://127.0.0.1\"\nbroker_password_file = \"/f\"", "user name"),
        ("broker = 7", "broker is a text"),
    ] {
        let told = problems(resolve(file, &[], &Flags::default()));
        assert!(
            told.len() == 1 && told[0].starts_with("t.toml:") && told[0].contains(want),
            "{file}: {told:?}"
        );
        assert!(!told[0].contains("s3cret"), "{told:?}");
    }
    let remote = "allow_remote = true\nbroker = \"mqtt://u:s3cret@192.0.2.1\"";
    assert!(resolve(remote, &[], &Flags::default()).is_ok());
}

#[test]
fn the_example_of_deploy_can_be_used() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples/controller.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let settings = Settings::resolve(Some((&path, &text)), &|_| None, &Flags::default()).unwrap();
    assert_eq!(settings.data_dir, Path::new("/var/lib/tidegate"));
}

#[test]
fn log_lines_are_text_or_json() {
    let env = |name: &str| (name == "TIDEGATE_LOG_FORMAT").then(|| OsString::from("json"));
    assert_eq!(Settings::resolve(None, &env, &Flags::default()).unwrap().log_format, LogFormat::Json);
    let flags = Flags { log_format: Some(LogFormat::Text), ..Flags::default() };
    assert_eq!(Settings::resolve(None, &env, &flags).unwrap().log_format, LogFormat::Text);
    let wrong = Some((Path::new("t.toml"), "log_format = \"xml\"\n"));
    let told = Settings::resolve(wrong, &|_| None, &Flags::default()).unwrap_err().to_string();
    assert_eq!(told, "t.toml:1:14: a log format is 'text' or 'json', not 'xml'");
}

#[test]
fn each_wrong_setting_of_the_controller_is_told_with_its_place_and_a_way_out() {
    let wrong = [
        "http = \"localhost\"",
        "http = \"127.0.0.1:99999\"",
        "mqtt = 7183",
        "http = \"0.0.0.0:7180\"",
        "broker = \"mqtts://b\"",
        "broker = \"b:1883\"",
        "store = \"postgres\"",
        "cache_mib = 0",
        "log_format = \"xml\"",
        "data_dir = 3",
        "broker_password_file = \"/etc/shadow-of-nothing\"",
        "htpp = \"127.0.0.1:7180\"",
        "http = \"127.0.0.1:7180",
    ];
    let told: Vec<String> = wrong
        .iter()
        .map(|text| {
            format!("{text}\n    {}\n", problems(resolve(text, &[], &Flags::default())).join("\n    "))
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"));
}

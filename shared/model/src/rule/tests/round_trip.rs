//! What is printed is read back; what is secret is never printed.

use proptest::prelude::*;

use super::*;

#[test]
fn defaults_are_filled_in() {
    let rule = valid(&rule_with("[[forwards]]\ntopic = \"a\"\n"));
    let spec = rule.spec();
    assert_eq!(spec.remote.client_id, "{edge}-{rule}");
    assert_eq!((spec.remote.keep_alive, spec.remote.clean_session), (Seconds(60), false));
    assert_eq!(spec.queue, QueueSpec::default());
    assert_eq!(
        (spec.queue.max_bytes.to_string(), spec.queue.max_age.to_string()),
        ("64MiB".into(), "7d".into())
    );
    assert_eq!(spec.policy, PolicySpec { verify_s: 15, on_wipe: OnWipe::Issue, on_drift: OnDrift::Ask });
    assert_eq!((spec.start, spec.forwards[0].qos), (Start::Auto, Qos::AtLeastOnce));
    assert_eq!(render(&rule, &context()).unwrap().rule.remote.client_id, "gw-7-r");
    assert_eq!(render(&rule, &context()).unwrap().rule.remote.address.to_string(), "h:1883");
}

#[test]
fn toml_json_and_the_store_give_the_same_rule_back() {
    let (rule, input) = valid_with_secret(FULL);
    assert_eq!(
        input,
        SecretInputs { password: SecretInput::Set(Secret::new("hunter2")), ..SecretInputs::default() }
    );
    let toml = rule.canonical_toml();
    assert_eq!(valid_with_secret(&toml), (rule.clone(), SecretInputs::default()), "{toml}");
    let json = rule.to_json_telling(&Secrets { password: Some(Secret::new("hunter2")), key: None });
    assert_eq!(json["remote"]["password_set"], true);
    let draft = parse(&json.to_string(), Format::Json).unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(draft.validate(&Limits::default()).unwrap(), (rule.clone(), SecretInputs::default()));
    // JSON is YAML, too.
    assert_eq!(parse(&json.to_string(), Format::Yaml).unwrap().spec(), rule.spec());
    let stored = serde_json::to_string(&rule).unwrap();
    assert_eq!(serde_json::from_str::<ValidRule>(&stored).unwrap(), rule);
    for text in [toml, json.to_string(), stored, format!("{rule:?} {input:?}")] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn yaml_reads_as_toml_does() {
    let yaml = "
name: camera-up
mountpoint: plant/{edge}/
remote:
  url: mqtt://broker.example
  username: lyon
forwards:
  - topic: sensors/#
    retain: true
  - { topic: 'alarms/+', qos: 0 }
queue: { max_age: 2h }
vars:
  site: {}
";
    let toml = "
name = 'camera-up'
mountpoint = 'plant/{edge}/'
remote = { url = 'mqtt://broker.example', username = 'lyon' }
forwards = [{ topic = 'sensors/#', retain = true }, { topic = 'alarms/+', qos = 0 }]
queue.max_age = '120m'
vars.site = {}
";
    assert_eq!(parse(yaml, Format::Yaml).unwrap().spec(), parse(toml, Format::Toml).unwrap().spec());
}

#[test]
fn the_password_is_kept_set_or_cleared() {
    let stored = Secrets { password: Some(Secret::new("old")), key: None };
    let rule = |line: &str| {
        valid_with_secret(&rule_with(&format!("username = \"u\"\n{line}\n[[forwards]]\ntopic = \"a\"\n")))
    };
    let (first, keep) = rule("");
    let (second, set) = rule("password = \"new\"");
    let (_, same) = rule("password = \"old\"");
    let (_, clear) = rule("password = \"\"");
    assert_eq!(first, second);
    assert!(second.is_unchanged(&first, &keep, &stored));
    assert!(second.is_unchanged(&first, &same, &stored));
    assert!(!second.is_unchanged(&first, &set, &stored));
    assert!(!second.is_unchanged(&first, &clear, &stored));
    assert!(second.is_unchanged(&first, &clear, &Secrets::default()));
    assert_eq!(keep.apply(stored.clone()), stored);
    assert_eq!(set.apply(stored.clone()).password, Some(Secret::new("new")));
    assert_eq!(clear.apply(stored), Secrets::default());
    assert_ne!(rule("").0.content_digest(), valid(FULL).content_digest());
}

#[test]
fn quantities_are_read_and_printed() {
    for (text, seconds, printed) in [
        ("60s", 60, "1m"),
        ("90s", 90, "90s"),
        ("1w", 604_800, "7d"),
        (" 2 h ", 7_200, "2h"),
        ("0s", 0, "0s"),
    ] {
        assert_eq!(text.parse(), Ok(Seconds(seconds)));
        assert_eq!(Seconds(seconds).to_string(), printed);
    }
    assert_eq!("1MB".parse(), Ok(Bytes(1_000_000)));
    assert_eq!(Bytes(1_000_000).to_string(), "1000000B");
    for bad in ["", "s", "60", "1.5h", "-1s", "1y", "99999999999999999999s", "18446744073709551615d"] {
        assert!(bad.parse::<Seconds>().is_err(), "{bad}");
    }
}

#[test]
fn formats_are_known_by_their_ends() {
    for (path, format) in [
        ("a.toml", Some(Format::Toml)),
        ("x/b.YML", Some(Format::Yaml)),
        ("c.yaml", Some(Format::Yaml)),
        ("d.json", Some(Format::Json)),
        ("e.conf", None),
        ("toml", None),
    ] {
        assert_eq!(Format::from_path(path), format, "{path}");
    }
}

/// Text that is hard to print and read, but no variable.
fn hard_text() -> impl Strategy<Value = String> {
    "[a-zé\"'\\\\ #:=\\[\\],/-]{1,20}"
}

fn any_route() -> impl Strategy<Value = RouteSpec> {
    ("[a-z\"'\\\\ ]{1,6}", any::<bool>(), "[a-z'\"\\\\/]{0,8}", any::<bool>()).prop_map(
        |(level, low, prefix, retain)| {
            let qos = if low { Qos::AtMostOnce } else { Qos::AtLeastOnce };
            let exclude = if retain { vec![format!("{level}/x/y")] } else { Vec::new() };
            let topic = format!("{level}/x/#");
            RouteSpec { topic, exclude, qos, strip: String::new(), prefix, retain }
        },
    )
}

proptest! {
    #[test]
    fn printing_then_reading_is_the_identity(
        username in prop::option::of(hard_text()),
        forwards in prop::collection::vec(any_route(), 0..4),
        mountpoint in "[a-zé\"'\\\\ /]{0,20}",
        default in prop::option::of("[a-z\"'\\\\]{1,9}"),
        (age, bytes, verify_s) in (10u64..31_000_000, 65_536u64..1 << 36, 5u32..=120),
        drain in prop::option::of((1u32..1_000_000, prop::option::of(1_024u64..1 << 36))),
    ) {
        let mut spec = valid(FULL).spec().clone();
        spec.remote.username = username;
        spec.forwards = forwards;
        spec.mountpoint = mountpoint;
        spec.queue.max_age = Seconds(age);
        spec.queue.max_bytes = Bytes(bytes);
        spec.queue.drain = drain.map(|(messages, bytes)| DrainSpec {
            messages_per_s: Some(messages),
            bytes_per_s: bytes.map(Bytes),
        });
        spec.policy.verify_s = verify_s;
        spec.vars.insert("other".into(), VarSpec { default });
        let toml = toml::to_string(&spec).unwrap();
        let draft = parse(&toml, Format::Toml).unwrap_or_else(|p| panic!("{toml}\n{p}"));
        prop_assert_eq!(draft.spec(), &spec);
        let json = serde_json::to_string(&spec).unwrap();
        let draft = parse(&json, Format::Json).unwrap_or_else(|p| panic!("{json}\n{p}"));
        prop_assert_eq!(draft.spec(), &spec);
        let yaml = serde_saphyr::to_string(&spec).unwrap();
        let draft = parse(&yaml, Format::Yaml).unwrap_or_else(|p| panic!("{yaml}\n{p}"));
        prop_assert_eq!(draft.spec(), &spec);
        if let Ok((rule, _)) = draft.validate(&Limits::default()) {
            let vars = [("other".to_owned(), "value".to_owned())].into();
            let rendered = render(&rule, &RenderContext { vars, ..context() }).unwrap();
            prop_assert_eq!(EdgeRule::from_rendered(&rendered.bytes).unwrap(), rendered.rule);
        }
    }

    #[test]
    fn quantities_print_what_they_read(n in 0u64..u64::MAX) {
        prop_assert_eq!(Seconds(n).to_string().parse(), Ok(Seconds(n)));
        prop_assert_eq!(Bytes(n).to_string().parse(), Ok(Bytes(n)));
    }
}

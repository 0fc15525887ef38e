//! The remote broker over TLS, at several addresses, behind a proxy.

use super::*;

const CERTIFICATE: &str = include_str!("tls/certificate.pem");
const KEY: &str = include_str!("tls/key.pem");
const ID: &str = "0190a8c0-0000-7000-8000-000000000001";

fn with_tls(lines: &str) -> String {
    format!("name = \"r\"\nforwards = [{{ topic = \"a\" }}]\n[remote]\nurl = \"mqtts://h\"\n{lines}")
}

fn full() -> String {
    with_tls(&format!(
        "fallback_urls = [\"mqtts://{{edge}}.example:8884\", \"mqtts://[fd00::1]\"]\nproxy = \"http://proxy:3128\"\n[remote.tls]\n\
         ca = \"\"\"\n{CERTIFICATE}\"\"\"\nserver_name = \"{{edge}}.example\"\nalpn = [\"mqtt\"]\ncertificate = \"\"\"\n{CERTIFICATE}\"\"\"\n\
         key = \"\"\"\n{KEY}\"\"\"\n"
    ))
}

fn key_context() -> RenderContext {
    let secrets = Secrets { password: None, key: Some(Secret::new(KEY)) };
    RenderContext { secrets: secrets.refs(ID, 4), ..context() }
}

#[test]
fn everything_about_the_connection_reaches_the_edge_but_the_key() {
    let (rule, secrets) = valid_with_secret(&full());
    assert_eq!(secrets.key, SecretInput::Set(Secret::new(KEY)));
    let rendered = render(&rule, &key_context()).unwrap();
    let remote = &rendered.rule.remote;
    assert_eq!(remote.address.to_string(), "h:8883");
    let fallbacks: Vec<String> = remote.fallbacks.iter().map(ToString::to_string).collect();
    assert_eq!(fallbacks, ["gw-7.example:8884", "[fd00::1]:8883"]);
    assert_eq!(remote.proxy.as_ref().map(ToString::to_string).as_deref(), Some("proxy:3128"));
    let tls = remote.tls.as_ref().unwrap();
    assert_eq!(tls.server_name.as_deref(), Some("gw-7.example"));
    assert_eq!((tls.ca.as_deref(), tls.certificate.as_deref()), (Some(CERTIFICATE), Some(CERTIFICATE)));
    assert_eq!((&tls.alpn[..], &tls.key), (&["mqtt".to_owned()][..], &Some(SecretRef::key(ID, 4))));
    assert_eq!(EdgeRule::from_rendered(&rendered.bytes).unwrap(), rendered.rule);
    let json = rule.to_json_telling(&Secrets { password: None, key: Some(Secret::new(KEY)) });
    assert_eq!(json["remote"]["tls"]["key_set"], true);
    assert_eq!(parse(&json.to_string(), Format::Json).unwrap().spec(), rule.spec());
    let toml = rule.canonical_toml();
    assert_eq!(parse(&toml, Format::Toml).unwrap().spec(), rule.spec(), "{toml}");
    let line = KEY.lines().nth(1).unwrap();
    for text in [rendered.bytes, json.to_string(), toml, format!("{rule:?} {secrets:?}")] {
        assert!(!text.contains(line), "the key is in {text}");
    }
}

#[test]
fn mqtts_alone_trusts_the_systems_authorities_and_mqtt_is_as_it_was() {
    let rendered = render(&valid(&with_tls("")), &context()).unwrap();
    let tls = rendered.rule.remote.tls.as_ref().unwrap();
    assert_eq!((&tls.ca, &tls.server_name, tls.alpn.len(), &tls.key), (&None, &None, 0, &None));
    let plain = render(&valid(&with_tls("").replace("mqtts", "mqtt")), &context()).unwrap();
    assert_eq!(plain.rule.remote.tls, None);
    assert!(!plain.bytes.contains("tls") && !plain.bytes.contains("fallbacks"), "{}", plain.bytes);
}

#[test]
fn a_certificate_needs_its_key_and_a_key_its_certificate() {
    let rule = valid(&with_tls(&format!("[remote.tls]\ncertificate = \"\"\"\n{CERTIFICATE}\"\"\"\n")));
    let codes: Vec<_> = render(&rule, &context()).unwrap_err().iter().map(|p| p.code).collect();
    assert_eq!(codes, ["missing-key"]);
    assert!(render(&rule, &key_context()).is_ok());
    // Without a certificate the key is not named, so that nothing waits for it.
    let rendered = render(&valid(&with_tls("")), &key_context()).unwrap();
    assert_eq!(rendered.rule.remote.secrets().count(), 0);
}

#[test]
fn what_is_wrong_is_told_and_no_key_is_quoted() {
    let pem = |field: &str, text: &str| format!("[remote.tls]\n{field} = \"\"\"\n{text}\"\"\"\n");
    let secret = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg";
    for (lines, code, at) in [
        ("fallback_urls = [\"mqtt://i\"]\n".to_owned(), "bad-url", "/remote/fallback_urls/0"),
        ("fallback_urls = [\"mqtts://h:8883\"]\n".to_owned(), "bad-url", "/remote/fallback_urls/0"),
        (
            format!("fallback_urls = [{}]\n", "\"mqtts://i\",".repeat(8)),
            "too-many-addresses",
            "/remote/fallback_urls",
        ),
        ("proxy = \"socks://p:1\"\n".to_owned(), "bad-url", "/remote/proxy"),
        ("proxy = \"http://p\"\n".to_owned(), "bad-url", "/remote/proxy"),
        ("proxy = \"http://u:geheim@p:1\"\n".to_owned(), "credentials-in-url", "/remote/proxy"),
        ("[remote.tls]\nserver_name = \"a b\"\n".to_owned(), "bad-tls", "/remote/tls/server_name"),
        ("[remote.tls]\nalpn = [\"\"]\n".to_owned(), "bad-tls", "/remote/tls/alpn/0"),
        (pem("ca", "geheim"), "bad-certificate", "/remote/tls/ca"),
        (pem("ca", KEY), "bad-certificate", "/remote/tls/ca"),
        (pem("certificate", &CERTIFICATE.replace('M', "*")), "bad-certificate", "/remote/tls/certificate"),
        (pem("key", KEY), "bad-key", "/remote/tls/key"),
        (pem("key", CERTIFICATE), "bad-key", "/remote/tls/key"),
        (pem("key", &KEY.replace("PRIVATE", "ENCRYPTED PRIVATE")), "bad-key", "/remote/tls/key"),
        ("[remote.tls]\nkey = \"*****\"\n".to_owned(), "masked-secret", "/remote/tls/key"),
        ("[remote.tls]\nkey_file = \"k.pem\"\n".to_owned(), "unknown-field", "/remote/tls/key_file"),
    ] {
        let problems = problems(&with_tls(&lines), Format::Toml);
        let found: Vec<_> = problems.iter().map(|p| (p.code, p.place.pointer.as_str())).collect();
        assert_eq!(found, [(code, at)], "{lines}");
        let told = problems.to_string();
        assert!(!told.contains(secret) && !told.contains("geheim"), "a message quotes a secret: {told}");
    }
    let clear = with_tls("[remote.tls]\nalpn = [\"mqtt\"]\n").replace("mqtts", "mqtt");
    assert_eq!(problems(&clear, Format::Toml).iter().map(|p| p.code).collect::<Vec<_>>(), ["bad-tls"]);
}

#[test]
fn on_a_gateway_each_text_may_lie_in_a_file() {
    let files = "[remote.tls]\nca_file = \"ca.pem\"\ncertificate_file = \"c.pem\"\nkey_file = \"k.pem\"\n";
    let draft = parse_on_site(&with_tls(files), Format::Toml).unwrap();
    let named: Vec<_> = draft.files().iter().map(|(field, file)| (field.name(), file.as_str())).collect();
    assert_eq!(
        named,
        [
            ("remote.tls.ca_file", "ca.pem"),
            ("remote.tls.certificate_file", "c.pem"),
            ("remote.tls.key_file", "k.pem")
        ]
    );
    let draft = draft
        .with(FileField::Ca, Secret::new(CERTIFICATE))
        .with(FileField::Certificate, Secret::new(CERTIFICATE))
        .with(FileField::Key, Secret::new(KEY));
    let (rule, secrets) = draft.validate(&Limits::default()).unwrap();
    assert_eq!(rule.spec().remote.tls.as_ref().unwrap().ca.as_deref(), Some(CERTIFICATE));
    assert_eq!(secrets.key, SecretInput::Set(Secret::new(KEY)));
    let both = format!("{files}ca = \"\"\"\n{CERTIFICATE}\"\"\"\n");
    let problems = parse_on_site(&with_tls(&both), Format::Toml).unwrap_err();
    assert_eq!(
        problems.iter().map(|p| p.place.pointer.as_str()).collect::<Vec<_>>(),
        ["/remote/tls/ca_file"]
    );
}

#[test]
fn an_agent_that_lacks_an_ability_is_named_before_anything_is_sent() {
    let rule = valid(&full());
    let agent = ["bridge.v1", "route.exclude"];
    let problems = missing_features(&rule, agent).unwrap_err();
    let at: Vec<_> = problems.iter().map(|p| p.place.pointer.as_str()).collect();
    assert_eq!(at, ["/remote/tls", "/remote/fallback_urls", "/remote/proxy"]);
    assert_eq!(missing_features(&valid(&with_tls("")), agent).unwrap_err().len(), 1);
}

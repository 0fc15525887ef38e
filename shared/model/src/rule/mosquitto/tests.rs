//! Files as people have them, every option once, and there and back again.

use proptest::prelude::*;

use super::*;
use crate::ids::{AccountId, EdgeId};
use crate::rule::{Format, Qos, RenderContext, RouteSpec, Seconds, parse, render};

/// The option's outcome and note, in a connection that is fine but for it.
fn said(line: &str) -> (Outcome, String) {
    let text = format!("connection a\naddress h\ntopic x out\n{line}\n");
    let done = import(&text).unwrap();
    let found =
        done.lines.iter().find(|l| l.line == 4).unwrap_or_else(|| panic!("{line}: no line of its own"));
    assert_eq!(done.bridges[0].rule.is_none(), found.outcome == Outcome::Refused, "{line}: {:?}", done.lines);
    (found.outcome, found.note.clone())
}

fn spec_of(lines: &str) -> RuleSpec {
    let done = import(&format!("connection a\naddress h\ntopic x out\n{lines}\n")).unwrap();
    done.bridges[0].rule.as_ref().unwrap_or_else(|| panic!("{:?}", done.lines)).spec().clone()
}

#[test]
fn every_option_of_the_table_is_mapped_ignored_or_refused() {
    use Outcome::{Ignored, Mapped, Refused};
    let table = [
        ("bridge_protocol_version mqttv311", Mapped, ""),
        ("bridge_protocol_version mqttv31", Mapped, "MQTT 3.1.1"),
        ("bridge_protocol_version mqttv50", Mapped, "properties"),
        ("bridge_protocol_version 5", Refused, "write mqttv311"),
        ("remote_clientid c", Mapped, "{edge}"),
        ("clientid c", Mapped, "{edge}"),
        ("remote_clientid {c}", Refused, "brace"),
        ("remote_clientid", Refused, "empty"),
        ("remote_username u s", Mapped, ""),
        ("username u", Mapped, ""),
        ("remote_password p", Refused, "a password needs a user name"),
        ("cleansession true", Mapped, ""),
        ("cleansession yes", Refused, "true or false"),
        ("keepalive_interval 30", Mapped, ""),
        ("keepalive_interval 2", Mapped, "5 s, as mosquitto does"),
        ("keepalive_interval 70000", Refused, "65535"),
        ("keepalive_interval soon", Refused, "no number"),
        ("start_type automatic", Mapped, ""),
        ("start_type lazy", Mapped, "there is no 'lazy'"),
        ("start_type once", Mapped, "there is no 'once'"),
        ("start_type manual", Mapped, ""),
        ("start_type later", Refused, "'later'"),
        ("bridge_outgoing_retain false", Mapped, ""),
        ("bridge_insecure false", Ignored, ""),
        ("bridge_insecure true", Refused, "always checked"),
        ("local_clientid c", Ignored, "local broker"),
        ("local_username u", Ignored, "local broker"),
        ("local_password p", Ignored, "local broker"),
        ("local_cleansession true", Ignored, "local broker"),
        ("restart_timeout 5 30", Ignored, "tries again"),
        ("restart_timeout 20", Ignored, "tries again"),
        ("idle_timeout 60", Ignored, ""),
        ("threshold 10", Ignored, ""),
        ("round_robin true", Ignored, "tried in turn"),
        ("notifications false", Ignored, ""),
        ("notifications_local_only true", Ignored, ""),
        ("notification_topic a/b", Ignored, ""),
        ("try_private false", Ignored, ""),
        ("bridge_attempt_unsubscribe false", Ignored, ""),
        ("bridge_reload_type immediate", Ignored, ""),
        ("bridge_max_packet_size 1000", Ignored, ""),
        ("bridge_receive_maximum 20", Ignored, "3.1.1"),
        ("bridge_max_topic_alias 10", Ignored, "3.1.1"),
        ("bridge_session_expiry_interval 9", Ignored, "3.1.1"),
        ("bridge_tcp_keepalive 1 2 3", Ignored, ""),
        ("bridge_tcp_user_timeout 9", Ignored, ""),
        ("bridge_bind_address 10.0.0.1", Ignored, ""),
        ("bridge_cafile /ca", Mapped, "into remote.tls.ca"),
        ("bridge_capath /ca", Refused, "into remote.tls.ca"),
        ("bridge_certfile /c", Mapped, "into remote.tls.certificate"),
        ("bridge_keyfile /k", Mapped, "into remote.tls.key"),
        ("bridge_alpn mqtt", Mapped, ""),
        ("bridge_tls_version tlsv1.2", Ignored, "1.3"),
        ("bridge_tls_version tlsv1.1", Refused, "1.2 and 1.3"),
        ("bridge_tls_use_os_certs true", Mapped, ""),
        ("bridge_ciphers x", Ignored, "safe ones"),
        ("bridge_ciphers_tls1.3 x", Ignored, "safe ones"),
        ("bridge_require_ocsp true", Refused, "OCSP"),
        ("bridge_identity i", Refused, "pre-shared"),
        ("bridge_psk 00ff", Refused, "pre-shared"),
        ("include_dir /etc/mosquitto/conf.d", Ignored, "one by one"),
        ("listener 1883", Ignored, "about the broker"),
        ("plugin_opt_x y", Ignored, "about the broker"),
        ("  # a comment", Ignored, "first column"),
        ("tls_insecure true", Refused, "no option of this name"),
        ("\tnotifications true", Refused, "tabs"),
        ("address other", Refused, "given before"),
        ("topic y out 3", Refused, "no QoS"),
        ("topic y up", Refused, "'up' is no direction"),
        ("topic", Refused, "no pattern"),
        ("topic y out 1 a/ b/ c/", Refused, "after the last prefix"),
        ("topic \"\" out 1 a \"\"", Refused, "both prefixes"),
        ("topic a/{b}", Refused, "brace"),
        ("topic a/#/b out", Refused, "'#' must be the last level"),
        ("topic # out 1 a/ b", Refused, "end it with '/'"),
        ("topic tidegate/# out", Refused, "Tidegate's own"),
        ("topic y both 1", Refused, "round and round"),
        ("topic x out", Refused, "stands in forwards[0] already"),
        ("topic x in", Refused, "round and round"),
        ("topic y out 2", Mapped, "QoS 2 becomes 1"),
        ("topic # out 1 a/b/ r/", Mapped, "'a/b' itself goes out too, as 'r'"),
        ("topic y in 1 # no prefixes", Mapped, ""),
    ];
    for (line, outcome, note) in table {
        let found = said(line);
        assert!(found.0 == outcome && found.1.contains(note), "{line}: {found:?}");
        assert!(outcome == Mapped || !found.1.is_empty(), "{line}: a reason is needed");
    }
}

#[test]
fn what_is_mapped_says_the_same() {
    let spec = spec_of(
        "remote_clientid site-7\nusername lyon\nremote_password  two words \ncleansession 1\nkeepalive_interval 30\nstart_type manual",
    );
    assert_eq!((spec.remote.client_id.as_str(), spec.remote.username.as_deref()), ("site-7", Some("lyon")));
    assert_eq!((spec.remote.keep_alive, spec.remote.clean_session), (Seconds(30), true));
    assert_eq!(spec.start, Start::Manual);
    let done = import("connection a\naddress h\nusername u\nremote_password  two words \ntopic x\n").unwrap();
    assert_eq!(
        done.bridges[0].secrets.password,
        crate::rule::SecretInput::Set(crate::rule::Secret::new("two words"))
    );
    assert_eq!(spec_of("").remote.client_id, "{edge}-{rule}");
    assert!(spec_of("").forwards[0].retain && !spec_of("bridge_outgoing_retain false").forwards[0].retain);
}

#[test]
fn addresses_have_a_default_port_and_several_hosts() {
    let url = |address: &str| {
        let done = import(&format!("connection a\naddress {address}\ntopic x\n")).unwrap();
        done.bridges[0].rule.as_ref().map(|r| r.spec().remote.url.clone()).ok_or(done.lines[1].note.clone())
    };
    assert_eq!(url("broker.example").unwrap(), "mqtt://broker.example:1883");
    assert_eq!(url("10.0.0.1:8884   # the far one").unwrap(), "mqtt://10.0.0.1:8884");
    assert_eq!(url("one:1 two:2").unwrap(), "mqtt://one:1");
    assert_eq!(url("fd00::7:1884").unwrap(), "mqtt://[fd00::7]:1884");
    assert_eq!(url("[fd00::7]:1884").unwrap(), "mqtt://[fd00::7]:1884");
    for (bad, why) in [
        ("::1", "needs its port"),
        ("h:0", "not a port"),
        ("h:99999", "not a port"),
        ("", "empty"),
        ("a_/b", "not host:port"),
    ] {
        assert!(url(bad).unwrap_err().contains(why), "{bad}: {:?}", url(bad));
    }
    let done = import("connection a\naddresses one:1 two:2 three\ntopic x\n").unwrap();
    let remote = &done.bridges[0].rule.as_ref().unwrap().spec().remote;
    assert_eq!(
        (remote.url.as_str(), &remote.fallback_urls[..]),
        ("mqtt://one:1", &["mqtt://two:2".to_owned(), "mqtt://three:1883".into()][..])
    );
    let done =
        import("connection a\naddresses one:1 two:2\nbridge_tls_use_os_certs true\ntopic x\n").unwrap();
    let remote = &done.bridges[0].rule.as_ref().unwrap().spec().remote;
    assert_eq!(
        (remote.url.as_str(), &remote.fallback_urls[..]),
        ("mqtts://one:1", &["mqtts://two:2".to_owned()][..])
    );
}

#[test]
fn topics_keep_their_directions_prefixes_and_quotes() {
    let done = import(
        "connection a\naddress h\n\
         topic sensors/# out 1 local/ remote/\n\
         topic orders/+ in 0 \"\" plant/7/\n\
         topic \"\" out 1 door gate/1\n\
         topic \"a b/#\" OUT 1\n\
         topic plain\n",
    )
    .unwrap();
    let spec = done.bridges[0].rule.as_ref().unwrap_or_else(|| panic!("{:?}", done.lines)).spec();
    let told = |routes: &[RouteSpec]| -> Vec<(String, String, String, u8)> {
        routes.iter().map(|r| (r.topic.clone(), r.strip.clone(), r.prefix.clone(), r.qos.into())).collect()
    };
    let row = |topic: &str, strip: &str, prefix: &str, qos| {
        (topic.to_owned(), strip.to_owned(), prefix.to_owned(), qos)
    };
    assert_eq!(
        told(&spec.forwards),
        [
            row("local/sensors/#", "local/", "remote/", 1),
            row("door", "door", "gate/1", 1),
            row("a b/#", "", "", 1),
            row("plain", "", "", 0),
        ]
    );
    assert_eq!(told(&spec.subscriptions), [row("plant/7/orders/+", "plant/7/", "", 0)]);
}

#[test]
fn a_file_with_several_connections_has_a_draft_for_each_and_every_line_in_its_report() {
    let text = "\
# the site's bridges
listener 1883 127.0.0.1
persistence true
include_dir /etc/mosquitto/conf.d

connection Camera_Up.Lyon
address cloud.example:1884
remote_username lyon
remote_password hunter2
topic sensors/# out 1 \"\" plant/lyon/

connection secure
address cloud.example:8883
bridge_cafile /etc/ca.pem
bridge_psk deadbeefcafe
topic a/# out

connection no-address
topic b out
connection
topic c out
";
    let done = import(text).unwrap();
    let names: Vec<(&str, &str, u32, bool)> = done
        .bridges
        .iter()
        .map(|b| (b.connection.as_str(), b.spec.name.as_str(), b.line, b.rule.is_some()))
        .collect();
    assert_eq!(
        names,
        [
            ("Camera_Up.Lyon", "camera-up-lyon", 6, true),
            ("secure", "secure", 12, false),
            ("no-address", "no-address", 18, false),
        ]
    );
    let told: Vec<u32> = done.lines.iter().map(|l| l.line).collect();
    let said: Vec<u32> =
        text.lines().zip(1..).filter(|(l, _)| !l.is_empty() && !l.starts_with('#')).map(|(_, n)| n).collect();
    assert_eq!(told, said, "nothing is silent");
    assert_eq!(done.lines[0].connection, None);
    let why = |line: u32| done.lines.iter().find(|l| l.line == line).unwrap().note.clone();
    assert!(why(6).contains("'camera-up-lyon'") && why(18).contains("no 'address'"));
    assert!(why(20).contains("no name") && why(21).contains("no 'connection'"));
    let shown = format!("{:?} {}", done.lines, serde_json::to_string(&done.lines).unwrap());
    assert!(
        !shown.contains("hunter2")
            && !shown.contains("deadbeef")
            && !format!("{:?}", done.bridges).contains("hunter2")
    );
}

#[test]
fn two_connections_that_become_one_name_and_too_many_are_refused() {
    let done = import("connection a.b\naddress h\ntopic x\nconnection A-B\naddress h\ntopic x\n").unwrap();
    assert!(done.bridges[0].rule.is_some() && done.bridges[1].rule.is_none());
    assert!(done.lines[3].note.contains("becomes the rule 'a-b' already"));
    let many: String =
        (0..=MAX_CONNECTIONS).map(|n| format!("connection c{n}\naddress h\ntopic x\n")).collect();
    let done = import(&many).unwrap();
    assert!(done.bridges[MAX_CONNECTIONS - 1].rule.is_some() && done.bridges[MAX_CONNECTIONS].rule.is_none());
    assert!(import(&"#".repeat(crate::limits::MAX_RULE_TEXT_BYTES + 1)).is_err());
    assert_eq!(rule_name("__", 9).0.as_str(), "bridge-9");
}

fn context(edge: &str) -> RenderContext {
    RenderContext {
        account: AccountId::default_account(),
        edge: EdgeId::new(edge).unwrap(),
        vars: BTreeMap::new(),
        secrets: crate::rule::SecretRefs::default(),
    }
}

fn rule(toml: &str) -> ValidRule {
    parse(toml, Format::Toml).and_then(|d| d.validate(&Limits::default())).unwrap_or_else(|p| panic!("{p}")).0
}

#[test]
fn a_rule_is_written_with_its_variables_filled_in_and_its_differences_as_comments() {
    let rule = rule(
        "name = \"camera-up\"\nmountpoint = \"plant/{edge}/\"\n[remote]\nurl = \"mqtt://broker.example\"\nusername = \"lyon\"\n\
         [[forwards]]\ntopic = \"sensors/#\"\nstrip = \"sensors/\"\n[[forwards]]\ntopic = \"door\"\nstrip = \"door\"\nprefix = \"gate\"\nqos = 0\n\
         [[subscriptions]]\ntopic = \"commands/{edge}/#\"\n[queue]\nmax_bytes = \"1MiB\"\n",
    );
    let written = export(&rule, Some(&context("gw-7"))).unwrap().text;
    assert_eq!(
        written,
        "\
# Rule camera-up of Tidegate on edge gw-7
# the password is not exported: add remote_password if there is one
# queue: mosquitto bounds all clients alike, by max_queued_messages and max_queued_bytes, in memory unless persistence is on
# retain: mosquitto keeps the flag of what comes in
connection camera-up
address broker.example:1883
bridge_protocol_version mqttv311
remote_clientid gw-7-camera-up
remote_username lyon
cleansession false
local_cleansession false
keepalive_interval 60
notifications false
try_private false
bridge_outgoing_retain false
topic # out 1 sensors/ plant/gw-7/
topic \"\" out 0 door plant/gw-7/gate
topic commands/gw-7/# in 1
"
    );
    let problems = export(&rule, None).unwrap_err();
    assert!(problems.iter().all(|p| p.help.contains("--edge")), "{problems}");
    let fields: Vec<&str> = problems.iter().map(|p| p.place.pointer.as_str()).collect();
    assert_eq!(fields, ["/mountpoint", "/subscriptions/0/topic"]);
}

#[test]
fn what_a_line_cannot_hold_is_refused() {
    let with = |line: &str| {
        rule(&format!(
            "name = \"r\"\n[remote]\nurl = \"mqtt://h\"\nusername = \" u\"\n[[forwards]]\n{line}\n"
        ))
    };
    let problems = export(&with("topic = \"a b/#\""), None).unwrap_err();
    assert_eq!(problems.len(), 2, "{problems}");
    assert!(problems.to_string().contains("blanks, also in topics"), "{problems}");
    assert!(export(&with("topic = \"\\\"x\""), None).unwrap_err().to_string().contains("a quote"));
}

fn route(direction: &'static str) -> impl Strategy<Value = RouteSpec> {
    let part = "[a-z0-9$_.-]{1,5}";
    (
        part,
        prop::option::of(part),
        prop::option::of(part),
        any::<bool>(),
        prop::sample::select(vec!["", "/#", "/+/x", "/+"]),
    )
        .prop_map(move |(level, strip, prefix, low, end)| {
            let strip = strip.map(|s| format!("{direction}/{s}/")).unwrap_or_default();
            let prefix = prefix.map(|p| format!("to-{direction}/{p}/")).unwrap_or_default();
            let qos = if low { Qos::AtMostOnce } else { Qos::AtLeastOnce };
            RouteSpec {
                topic: format!("{strip}{direction}-{level}{end}"),
                exclude: Vec::new(),
                qos,
                strip,
                prefix,
                retain: true,
            }
        })
}

proptest! {
    /// Rules that mosquitto can express: automatic, default queue and policy, retain flags as mosquitto has them.
    #[test]
    fn a_rule_that_mosquitto_can_express_comes_back_the_same(
        forwards in prop::collection::vec(route("up"), 0..4),
        subscriptions in prop::collection::vec(route("down"), 0..4),
        (retain, clean_session) in (any::<bool>(), any::<bool>()),
        keep_alive in 5u64..=65_535,
        username in prop::option::of("[a-z#\"/]([a-z0-9 #\"=-]{0,8}[a-z#])?"),
        client_id in prop::option::of("[a-z0-9.:/-]{1,12}"),
        port in 1u16..,
        mountpoint in prop::sample::select(vec!["", "plant/", "plant/{edge}/"]),
    ) {
        let mut spec = spec_of("");
        spec.remote.url = format!("mqtt://broker.example:{port}");
        spec.remote.username = username;
        spec.remote.clean_session = clean_session;
        spec.remote.keep_alive = Seconds(keep_alive);
        if let Some(client_id) = client_id {
            spec.remote.client_id = client_id;
        }
        spec.forwards = forwards.into_iter().map(|r| RouteSpec { retain, ..r }).collect();
        spec.subscriptions = subscriptions;
        spec.mountpoint = mountpoint.to_owned();
        prop_assume!(check::rule(&spec, &SecretInputs::default(), &Limits::default()).is_empty());
        let rule = ValidRule::trusted(spec.clone());
        let back = |text: &str| {
            let done = import(text).unwrap();
            let refused: Vec<_> = done.lines.iter().filter(|l| l.outcome == Outcome::Refused).cloned().collect();
            assert!(refused.is_empty(), "{text}\n{refused:?}");
            done.bridges[0].rule.clone().unwrap()
        };
        if mountpoint.is_empty() {
            let written = export(&rule, None).unwrap_or_else(|p| panic!("{p}"));
            let back = back(&written.text);
            prop_assert_eq!(back.spec(), &spec);
        }
        // For an edge everything is filled in: what the edge does is the same.
        let context = context("gw-7");
        let written = export(&rule, Some(&context)).unwrap_or_else(|p| panic!("{p}"));
        let again = render(&back(&written.text), &context).unwrap().rule;
        prop_assert_eq!(again, render(&rule, &context).unwrap().rule);
    }

    #[test]
    fn no_file_breaks_the_reader_and_no_line_is_silent(
        lines in prop::collection::vec(
            prop_oneof![
                "connection [a-zA-Z_ .]{0,9}", "address [a-z:0-9\\[\\] .@/]{0,20}", "topic [a-z#+/\"{} ]{0,20}",
                "topic [a-z/#]{1,4} (in|out|both) [0-3] [a-z/\"]{0,4} [a-z/\"]{0,4}", "[a-z_]{1,12} [0-9a-z ]{0,9}", "[ #\r\t]{0,3}", ".{0,20}",
                "(remote_password|username|bridge_psk) s3cr3t-[a-z]{0,4}", "keepalive_interval -?[0-9]{0,22}",
            ],
            0..30,
        )
    ) {
        let text = lines.join("\n");
        let done = import(&text).unwrap();
        let told: Vec<u32> = done.lines.iter().map(|l| l.line).collect();
        let said: Vec<u32> = text
            .split('\n')
            .zip(1..)
            .filter(|(l, _)| !l.starts_with('#') && !l.trim_end_matches('\r').trim_matches(' ').is_empty())
            .map(|(_, n)| n)
            .collect();
        prop_assert_eq!(told, said);
        for bridge in &done.bridges {
            let refused = done.lines.iter().any(|l| l.outcome == Outcome::Refused && l.connection.as_deref() == Some(&bridge.connection));
            prop_assert!(bridge.rule.is_none() || !refused || done.bridges.iter().filter(|b| b.connection == bridge.connection).count() > 1);
            if let Some(rule) = &bridge.rule {
                prop_assert!(parse(&rule.canonical_toml(), Format::Toml).and_then(|d| d.validate(&Limits::default())).is_ok());
            }
        }
        for line in done.lines.iter().filter(|l| l.outcome == Outcome::Refused || l.outcome == Outcome::Ignored) {
            prop_assert!(!line.note.is_empty() && !line.note.contains("s3cr3t-"));
        }
    }
}

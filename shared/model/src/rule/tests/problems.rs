//! What is refused, where, and in which words.

use super::*;

/// Code, pointer and line:column of each problem.
fn seen(text: &str, format: Format) -> Vec<(&'static str, String, (u32, u32))> {
    problems(text, format)
        .iter()
        .map(|p| (p.code, p.place.pointer.clone(), (p.place.line.unwrap_or(0), p.place.column.unwrap_or(0))))
        .collect()
}

#[test]
fn each_problem_has_its_code_and_its_place_in_toml() {
    let remote = "name = \"r\"\n[remote]\nurl = \"mqtt://h\"\n";
    let forward = "[[forwards]]\ntopic = \"a/#\"\n";
    for (text, code, pointer, place) in [
        // Lines 4 and later stand in [remote], or open a table.
        (format!("{remote}{forward}qos = 2\n"), "bad-qos", "/forwards/0/qos", (6, 7)),
        (format!("{remote}{forward}qos = 7\n"), "bad-qos", "/forwards/0/qos", (6, 7)),
        (format!("{remote}{forward}qos = \"1\"\n"), "wrong-type", "/forwards/0/qos", (6, 7)),
        (format!("{remote}{forward}retian = true\n"), "unknown-field", "/forwards/0/retian", (6, 1)),
        (format!("{remote}{forward}strip = \"b\"\n"), "bad-strip", "/forwards/0/strip", (6, 9)),
        (format!("{remote}{forward}retain = \"yes\"\n"), "bad-value", "/forwards/0/retain", (6, 10)),
        (format!("{remote}{forward}exclude = \"a/b\"\n"), "wrong-type", "/forwards/0/exclude", (6, 11)),
        (
            format!("{remote}{forward}exclude = [\"a/b\", 3]\n"),
            "wrong-type",
            "/forwards/0/exclude/1",
            (6, 19),
        ),
        (format!("{remote}{forward}exclude = [\"a/#/b\"]\n"), "bad-filter", "/forwards/0/exclude/0", (6, 12)),
        (
            format!("{remote}{forward}exclude = [\"b/#\"]\n"),
            "useless-exclude",
            "/forwards/0/exclude/0",
            (6, 12),
        ),
        (
            format!("{remote}{forward}exclude = [\"#\"]\n"),
            "useless-exclude",
            "/forwards/0/exclude/0",
            (6, 12),
        ),
        (
            format!("{remote}{forward}exclude = [{}]\n", "\"a/b\", ".repeat(17)),
            "too-many-excludes",
            "/forwards/0/exclude",
            (6, 11),
        ),
        (format!("{remote}{forward}strip = \"a/#\"\n"), "bad-strip", "/forwards/0/strip", (6, 9)),
        (format!("{remote}{forward}prefix = \"x/+/\"\n"), "bad-prefix", "/forwards/0/prefix", (6, 10)),
        (
            format!("{remote}{forward}strip = \"a/\"\nprefix = \"x\"\n"),
            "bad-mapping",
            "/forwards/0/prefix",
            (7, 10),
        ),
        (
            format!("{remote}[[forwards]]\ntopic = \"a\"\nstrip = \"a\"\n"),
            "bad-mapping",
            "/forwards/0/prefix",
            (4, 1),
        ),
        (
            format!("{remote}{forward}prefix = \"tidegate/\"\n"),
            "reserved-topic",
            "/forwards/0/prefix",
            (6, 10),
        ),
        (
            format!("{remote}[[forwards]]\ntopic = \"tidegate/#\"\n"),
            "reserved-topic",
            "/forwards/0/topic",
            (5, 9),
        ),
        (
            format!("{remote}[[subscriptions]]\ntopic = \"tidegate\"\n"),
            "reserved-topic",
            "/subscriptions/0/topic",
            (5, 9),
        ),
        (format!("{remote}[[forwards]]\ntopic = \"a/#/b\"\n"), "bad-filter", "/forwards/0/topic", (5, 9)),
        (format!("{remote}[[forwards]]\ntopic = \"\"\n"), "bad-filter", "/forwards/0/topic", (5, 9)),
        (format!("{remote}[[forwards]]\nqos = 1\n"), "missing-field", "/forwards/0/topic", (4, 1)),
        (
            format!("{remote}[[subscriptions]]\ntopic = \"$share/g/a\"\n"),
            "shared-subscription",
            "/subscriptions/0/topic",
            (5, 9),
        ),
        (format!("{remote}{forward}{forward}"), "duplicate-topic", "/forwards/1/topic", (7, 9)),
        (
            format!("{remote}{forward}[[subscriptions]]\ntopic = \"a/#\"\n"),
            "topic-loop",
            "/subscriptions/0/topic",
            (7, 9),
        ),
        (remote.to_owned(), "empty-rule", "", (1, 1)),
        (format!("{remote}forwards = 3\n{forward}"), "unknown-field", "/remote/forwards", (4, 1)),
        (
            format!("{remote}password = \"******\"\nusername = \"u\"\n{forward}"),
            "masked-secret",
            "/remote/password",
            (4, 12),
        ),
        (
            format!("{remote}password = \"p\"\n{forward}"),
            "password-without-username",
            "/remote/password",
            (4, 12),
        ),
        (format!("{remote}username = \"\"\n{forward}"), "bad-username", "/remote/username", (4, 12)),
        (format!("{remote}client_id = \"a b\"\n{forward}"), "bad-client-id", "/remote/client_id", (4, 13)),
        (
            format!("{remote}client_id = \"{{nope}}\"\n{forward}"),
            "unknown-variable",
            "/remote/client_id",
            (4, 13),
        ),
        (
            format!("{remote}client_id = \"{{edge\"\n{forward}"),
            "unbalanced-brace",
            "/remote/client_id",
            (4, 13),
        ),
        (format!("{remote}keep_alive = \"1s\"\n{forward}"), "out-of-range", "/remote/keep_alive", (4, 14)),
        (format!("{remote}keep_alive = \"60\"\n{forward}"), "bad-quantity", "/remote/keep_alive", (4, 14)),
        (format!("{remote}keep_alive = 60\n{forward}"), "wrong-type", "/remote/keep_alive", (4, 14)),
        (format!("{remote}tls = true\n{forward}"), "wrong-type", "/remote/tls", (4, 7)),
        (format!("{remote}protocol = 5\n{forward}"), "unknown-field", "/remote/protocol", (4, 1)),
        (
            format!("{remote}[queue]\nmax_bytes = \"1KiB\"\n{forward}"),
            "out-of-range",
            "/queue/max_bytes",
            (5, 13),
        ),
        (
            format!("{remote}[queue]\nwhen_full = \"explode\"\n{forward}"),
            "bad-value",
            "/queue/when_full",
            (5, 13),
        ),
        (format!("{remote}[queue]\ndrain = {{}}\n{forward}"), "missing-field", "/queue/drain", (5, 9)),
        (format!("{remote}[queue]\ndrain = 500\n{forward}"), "wrong-type", "/queue/drain", (5, 9)),
        (
            format!("{remote}[queue]\ndrain = {{ messages_per_s = 0 }}\n{forward}"),
            "out-of-range",
            "/queue/drain/messages_per_s",
            (5, 28),
        ),
        (
            format!("{remote}[queue]\ndrain = {{ messages_per_s = 99999999999 }}\n{forward}"),
            "out-of-range",
            "/queue/drain/messages_per_s",
            (5, 28),
        ),
        (
            format!("{remote}[queue]\ndrain = {{ bytes_per_s = \"9B\" }}\n{forward}"),
            "out-of-range",
            "/queue/drain/bytes_per_s",
            (5, 25),
        ),
        (
            format!("{remote}[queue]\ndrain = {{ bytes_per_s = \"fast\" }}\n{forward}"),
            "bad-quantity",
            "/queue/drain/bytes_per_s",
            (5, 25),
        ),
        (
            format!("{remote}[queue]\ndrain = {{ messages_per_s = 1, speed = 3 }}\n{forward}"),
            "unknown-field",
            "/queue/drain/speed",
            (5, 31),
        ),
        (format!("{remote}[policy]\nverify_s = 4\n{forward}"), "out-of-range", "/policy/verify_s", (5, 12)),
        (format!("{remote}[vars]\nedge = {{}}\n{forward}"), "bad-variable", "/vars/edge", (5, 8)),
        (
            format!("{remote}[vars]\nx = {{ default = \"a+\" }}\n{forward}"),
            "bad-variable",
            "/vars/x/default",
            (5, 17),
        ),
        (format!("name = \"A\"\n[remote]\nurl = \"mqtt://h\"\n{forward}"), "bad-name", "/name", (1, 8)),
        (format!("[remote]\nurl = \"mqtt://h\"\n{forward}"), "missing-field", "/name", (1, 1)),
        (format!("name = \"r\"\n{forward}"), "missing-field", "/remote", (1, 1)),
        (format!("name = \"r\"\nremote = 3\n{forward}"), "wrong-type", "/remote", (2, 10)),
        (format!("name = \"r\"\n[remote]\n{forward}"), "missing-field", "/remote/url", (2, 1)),
        (
            format!("name = \"r\"\nmountpoint = \"#/\"\n[remote]\nurl = \"mqtt://h\"\n{forward}"),
            "bad-mountpoint",
            "/mountpoint",
            (2, 14),
        ),
        (
            format!("name = \"r\"\nmountpoint = \"tidegate/\"\n[remote]\nurl = \"mqtt://h\"\n{forward}"),
            "reserved-topic",
            "/mountpoint",
            (2, 14),
        ),
        ("name = \n".to_owned(), "syntax", "", (1, 8)),
    ] {
        assert_eq!(seen(&text, Format::Toml), [(code, pointer.to_owned(), place)], "{text}");
    }
}

#[test]
fn urls_that_are_refused() {
    for (url, code) in [
        ("mqtts://h:0", "bad-url"),
        ("tls://h:8883", "bad-url"),
        ("broker.example", "bad-url"),
        ("http://h", "bad-url"),
        ("mqtt://", "bad-url"),
        ("mqtt://h:0", "bad-url"),
        ("mqtt://h:65536", "bad-url"),
        ("mqtt://h:+1", "bad-url"),
        ("mqtt://h/", "bad-url"),
        ("mqtt://h?x=1", "bad-url"),
        ("mqtt://a b", "bad-url"),
        ("mqtt://[::1", "bad-url"),
        ("mqtt://[zz]:1883", "bad-url"),
        ("mqtt://user:s3cret@h", "credentials-in-url"),
        ("mqtt://user:s3/cret@h", "credentials-in-url"),
    ] {
        let text = rule_with("").replace("mqtt://h", url) + "[[forwards]]\ntopic = \"a\"\n";
        let problems = problems(&text, Format::Toml);
        assert_eq!(problems.iter().map(|p| p.code).collect::<Vec<_>>(), [code], "{url}");
        assert!(!problems.to_string().contains("cret"), "a message quotes the password: {problems}");
    }
}

#[test]
fn everything_is_told_at_once_and_in_the_order_of_the_file() {
    let text = r#"name = "Camera"
mountpont = "x/"

[remote]
url = "tls://h"
password = "***"

[[forwards]]
topic = "a/#/b"
qos = 2

[queue]
max_age = "7 days"
"#;
    let problems = problems(text, Format::Toml).in_file("rule.toml");
    let lines: Vec<String> = problems.to_string().lines().map(str::to_owned).collect();
    let starts = [
        "rule.toml:1:8 name: rule name 'Camera'",
        "rule.toml:2:1 mountpont: the field 'mountpont' is not known — did you mean 'mountpoint'?",
        "rule.toml:5:7 remote.url: the scheme 'tls' is not known — write mqtt://host, mqtt://host:port, or mqtts:// for TLS",
        "rule.toml:6:12 remote.password: the password is only a mask — leave the field out",
        "rule.toml:6:12 remote.password: a password needs a user name",
        "rule.toml:9:9 forwards[0].topic: '#' must be the last level, here it is level 2 of 3 — put it at the end",
        "rule.toml:10:7 forwards[0].qos: QoS 2 is not offered",
        "rule.toml:13:11 queue.max_age: 'days' is not a unit here — write \"7d\"",
    ];
    assert_eq!(lines.len(), starts.len(), "{problems}");
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}\n{start}");
    }
}

#[test]
fn yaml_has_lines_too() {
    let text = "name: r\nremote:\n  url: mqtt://h\n  keep_alive: 60\nforwards:\n  - topic: a/#/b\n    qos: 2\n  - topc: b\n";
    assert_eq!(
        seen(text, Format::Yaml),
        [
            ("wrong-type", "/remote/keep_alive".into(), (4, 15)),
            ("bad-filter", "/forwards/0/topic".into(), (6, 12)),
            ("bad-qos", "/forwards/0/qos".into(), (7, 10)),
            ("unknown-field", "/forwards/1/topc".into(), (8, 5)),
            ("missing-field", "/forwards/1/topic".into(), (8, 5)),
        ]
    );
    let found = seen("name: [\n", Format::Yaml);
    assert_eq!((found.len(), found[0].0), (1, "syntax"));
    assert!(found[0].2.0 > 0);
    assert_eq!(seen("name: a\nname: b\n", Format::Yaml)[0].0, "syntax");
}

#[test]
fn json_has_lines_too() {
    let text = "{\n \"name\": \"r\",\n \"remote\": {\"url\": \"mqtt://h\", \"keep_alive\": 60},\n \"forwards\": [\n  \
                {\"topic\": \"a\\u002f#/b\", \"qos\": 2},\n  {\"topc\": \"ü\\\"\", \"qos\": 1.5}]\n}";
    assert_eq!(
        seen(text, Format::Json),
        [
            ("wrong-type", "/remote/keep_alive".into(), (3, 46)),
            ("bad-filter", "/forwards/0/topic".into(), (5, 13)),
            ("bad-qos", "/forwards/0/qos".into(), (5, 34)),
            ("missing-field", "/forwards/1/topic".into(), (6, 3)),
            ("unknown-field", "/forwards/1/topc".into(), (6, 4)),
            ("wrong-type", "/forwards/1/qos".into(), (6, 26)),
        ]
    );
    assert_eq!(seen("{\"name\":}", Format::Json), [("syntax", String::new(), (1, 9))]);
    assert_eq!(seen("{\"a\":1,\n\"a\":2}", Format::Json), [("syntax", String::new(), (2, 1))]);
    assert_eq!(seen("[]", Format::Json)[0].0, "wrong-type");
}

#[test]
fn bounds_hold() {
    let many: String = (0..65).map(|n| format!("[[forwards]]\ntopic = \"a/{n}\"\n")).collect();
    assert_eq!(seen(&rule_with(&many), Format::Toml)[0].0, "too-many-routes");
    assert_eq!(seen(&" ".repeat(256 * 1024 + 1), Format::Toml)[0].0, "too-large");
    let long = "x".repeat(257);
    let text = rule_with(&format!("client_id = \"{long}\"\n[[forwards]]\ntopic = \"a\"\n"));
    assert_eq!(seen(&text, Format::Toml)[0].0, "bad-client-id");
    let vars: String = (0..33).map(|n| format!("v{n} = {{}}\n")).collect();
    let text = rule_with(&format!("[[forwards]]\ntopic = \"a\"\n[vars]\n{vars}"));
    assert_eq!(seen(&text, Format::Toml)[0].0, "too-many-variables");
    let unknown: String = (0..150).map(|n| format!("nonsense-{n} = 1\n")).collect();
    let problems = problems(&rule_with(&unknown), Format::Toml);
    assert_eq!((problems.iter().count(), problems.left_out() > 0), (100, true));
    assert!(problems.to_string().contains("more"));
    let small = Limits { max_routes: 1, max_queue: Bytes(1 << 20) };
    let two = rule_with("[[forwards]]\ntopic = \"a\"\n[[forwards]]\ntopic = \"b\"\n");
    let codes: Vec<_> =
        parse(&two, Format::Toml).unwrap().validate(&small).unwrap_err().iter().map(|p| p.code).collect();
    assert_eq!(codes, ["out-of-range", "too-many-routes"]);
}

#[test]
fn deep_and_bloated_texts_are_refused_and_not_followed() {
    for depth in [100, 1_000, 1_990, 20_000] {
        for (text, format) in [
            (format!("a = {}{}", "[".repeat(depth), "]".repeat(depth)), Format::Toml),
            (format!("a: {}{}", "[".repeat(depth), "]".repeat(depth)), Format::Yaml),
            (
                format!("a: {}{}", "[".repeat(depth), "]".repeat(depth))
                    .replace('[', "{a: ")
                    .replace(']', "}"),
                Format::Yaml,
            ),
            (format!("{}x", "- ".repeat(depth)), Format::Yaml),
            (format!("{}{}", "[".repeat(depth), "]".repeat(depth)), Format::Json),
            (format!("{}1", "{\"a\":".repeat(depth)), Format::Json),
        ] {
            assert!(!seen(&text, format).is_empty());
        }
    }
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let before = format!("*a{}", n - 1);
        laughs.push_str(&format!("a{n}: &a{n} [{}]\n", [before.as_str(); 10].join(", ")));
    }
    assert_eq!(seen(&laughs, Format::Yaml)[0].0, "syntax");
}

/// Routes as (topic, strip, prefix).
type Routes<'a> = &'a [(&'a str, &'a str, &'a str)];

fn looped(mountpoint: &str, forwards: Routes<'_>, subscriptions: Routes<'_>) -> Vec<&'static str> {
    let mut text = format!("name = \"r\"\nmountpoint = \"{mountpoint}\"\n[remote]\nurl = \"mqtt://h\"\n");
    for (list, routes) in [("forwards", forwards), ("subscriptions", subscriptions)] {
        for (topic, strip, prefix) in routes {
            text.push_str(&format!(
                "[[{list}]]\ntopic = \"{topic}\"\nstrip = \"{strip}\"\nprefix = \"{prefix}\"\n"
            ));
        }
    }
    match parse(&text, Format::Toml).unwrap().validate(&Limits::default()) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(|p| p.code).collect(),
    }
}

#[test]
fn loops_are_found_and_only_loops() {
    let looping: [(&str, Routes<'_>, Routes<'_>); 7] = [
        ("", &[("#", "", "")], &[("#", "", "")]),
        ("", &[("a/#", "", "")], &[("+/b", "", "")]),
        ("up/", &[("#", "", "")], &[("up/#", "up/", "")]),
        ("{edge}/", &[("cmd/#", "", "")], &[("{edge}/#", "{edge}/", "")]),
        ("", &[("in/#", "in/", "")], &[("#", "", "in/")]),
        // Two forwards and two subscriptions that only together close the circle.
        ("", &[("a", "a", "x"), ("b", "b", "y")], &[("x", "x", "b"), ("y", "y", "a")]),
        ("", &[("a/#", "a/", "x/")], &[("x", "x", "a")]),
    ];
    for (mountpoint, forwards, subscriptions) in looping {
        assert_eq!(
            looped(mountpoint, forwards, subscriptions),
            ["topic-loop"],
            "{mountpoint} {forwards:?} {subscriptions:?}"
        );
    }
    let straight: [(&str, Routes<'_>, Routes<'_>); 6] = [
        ("plant/{edge}/", &[("sensors/#", "", "")], &[("commands/{edge}/#", "", "")]),
        ("plant/{edge}/", &[("#", "", "")], &[("commands/{edge}/#", "", "")]),
        ("", &[("a/#", "", "")], &[("a/#", "", "in/")]),
        ("", &[("a", "", "")], &[("b", "", "")]),
        // Goes out, comes back under another name, and stays.
        ("up/", &[("a/#", "", "")], &[("up/#", "up/", "back/")]),
        ("", &[("a", "a", "x"), ("b", "b", "y")], &[("x", "x", "b")]),
    ];
    for (mountpoint, forwards, subscriptions) in straight {
        assert!(
            looped(mountpoint, forwards, subscriptions).is_empty(),
            "{mountpoint} {forwards:?} {subscriptions:?}"
        );
    }
}

#[test]
fn what_is_wrong_with_what_is_left_out_hides_nothing_else() {
    let text = "name = \"r\"\n[remote]\nurl = \"mqtt://h\"\n[[forwards]]\ntopic = \"a/#\"\nstrip = \"b\"\nexclude = [\"{x\"]\n";
    let codes: Vec<&str> = seen(text, Format::Toml).into_iter().map(|(code, _, _)| code).collect();
    assert_eq!(codes, ["bad-strip", "unbalanced-brace"]);
}

#[test]
fn what_is_left_out_opens_a_loop_and_settles_a_dispute_where_it_covers_all_of_it() {
    let codes = |text: &str| -> Vec<&'static str> {
        match parse(&format!("name = \"r\"\n[remote]\nurl = \"mqtt://h\"\n{text}"), Format::Toml) {
            Ok(draft) => match draft.validate(&Limits::default()) {
                Ok(_) => Vec::new(),
                Err(problems) => problems.iter().map(|p| p.code).collect(),
            },
            Err(problems) => problems.iter().map(|p| p.code).collect(),
        }
    };
    let both = |out: &str, back: &str| {
        codes(&format!("[[forwards]]\ntopic = \"#\"\n{out}[[subscriptions]]\ntopic = \"cmd/#\"\n{back}"))
    };
    assert_eq!(both("", ""), ["topic-loop"]);
    assert_eq!(both("exclude = [\"cmd/#\"]\n", ""), [] as [&str; 0]);
    assert_eq!(both("exclude = [\"cmd/+\"]\n", ""), ["topic-loop"], "a part of it still goes round");
    assert_eq!(both("exclude = [\"in/#\"]\n", "prefix = \"in/\"\n"), [] as [&str; 0]);
    let two = |exclude: &str| {
        codes(&format!(
            "[[subscriptions]]\ntopic = \"a/#\"\nprefix = \"x/\"\n{exclude}[[subscriptions]]\ntopic = \"+/b\"\nprefix = \"y/\"\n"
        ))
    };
    assert_eq!(two(""), ["ambiguous-subscriptions"]);
    assert_eq!(two("exclude = [\"a/b\"]\n"), [] as [&str; 0]);
    assert_eq!(two("exclude = [\"a/c\"]\n"), ["ambiguous-subscriptions"]);
}

#[test]
fn subscriptions_that_disagree_on_a_message_are_refused() {
    let ambiguous: Routes<'_> = &[("a/#", "", "x/"), ("+/b", "", "y/")];
    assert_eq!(looped("", &[], ambiguous), ["ambiguous-subscriptions"]);
    assert!(looped("", &[], &[("a/#", "", "x/"), ("+/b", "", "x/")]).is_empty());
    assert_eq!(looped("", &[], &[("a", "", "x/"), ("a", "", "y/")]), ["duplicate-topic"]);
    assert!(looped("", &[("a/#", "", "x/"), ("a/#", "", "y/")], &[]).is_empty());
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,200}", cut in 0usize..700) {
        let cut: String = FULL.chars().take(cut).chain(text.chars()).collect();
        for format in [Format::Toml, Format::Yaml, Format::Json] {
            let _ = parse(&text, format);
            let _ = parse(&cut, format);
        }
    }
}

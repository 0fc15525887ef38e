//! What an edge gets, and what messages become there.

use super::*;

fn secrets(version: u64) -> SecretRefs {
    let password = SecretRef::password("0190a8c0-0000-7000-8000-000000000001", version);
    SecretRefs { password: Some(password), key: None }
}

#[test]
fn the_rendered_bytes_are_these() {
    let rendered = render(&valid(FULL), &RenderContext { secrets: secrets(3), ..context() }).unwrap();
    assert_eq!(
        rendered.bytes,
        concat!(
            r#"{"name":"camera-up","start":"manual","remote":{"host":"broker.example","port":1884,"#,
            r#""client_id":"gw-7-camera-up","username":"lyon","#,
            r#""password":{"id":"0190a8c0-0000-7000-8000-000000000001","version":3},"#,
            r#""keep_alive_s":90,"clean_session":true},"forwards":["#,
            r#"{"topic":"sensors/#","qos":0,"strip":"sensors/","prefix":"plant/unknown/gw-7/s/","retain":true},"#,
            r#"{"topic":"alarms/+","qos":1,"strip":"","prefix":"plant/unknown/gw-7/","retain":false}],"#,
            r#""subscriptions":[{"topic":"commands/gw-7/#","qos":1,"strip":"","prefix":"in/","retain":false}],"#,
            r#""queue":{"max_bytes":1073741824,"max_age_s":129600,"when_full":"block"},"#,
            r#""policy":{"verify_s":30,"on_wipe":"keep","on_drift":"heal"}}"#,
        )
    );
    assert_eq!(rendered.digest, crate::digest::Digest::of(rendered.bytes.as_bytes()));
    assert_eq!(EdgeRule::from_rendered(&rendered.bytes).unwrap(), rendered.rule);
}

#[test]
fn a_new_password_gives_a_new_digest_and_no_bytes_hold_it() {
    let rule = valid(FULL);
    let at = |version| render(&rule, &RenderContext { secrets: secrets(version), ..context() }).unwrap();
    assert_ne!(at(1).digest, at(2).digest);
    assert!(!at(1).bytes.contains("hunter2"));
    let anonymous = valid(&rule_with("[[forwards]]\ntopic = \"a\"\n"));
    let rendered = render(&anonymous, &RenderContext { secrets: secrets(1), ..context() }).unwrap();
    assert_eq!(rendered.rule.remote.password, None);
}

#[test]
fn messages_are_mapped_both_ways() {
    let rule = render(&valid(FULL), &context()).unwrap().rule;
    let out = rule.forward(&topic("sensors/t/1"));
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].topic.as_str(), "plant/unknown/gw-7/s/t/1");
    assert_eq!((out[0].qos, out[0].pass_retain), (Qos::AtMostOnce, true));
    assert_eq!(rule.forward(&topic("sensors"))[0].topic.as_str(), "plant/unknown/gw-7/s");
    assert_eq!(rule.forward(&topic("alarms/fire"))[0].topic.as_str(), "plant/unknown/gw-7/alarms/fire");
    assert!(rule.forward(&topic("other")).is_empty());
    assert_eq!(rule.receive(&topic("commands/gw-7/go")).unwrap().topic.as_str(), "in/commands/gw-7/go");
    assert_eq!(rule.receive(&topic("commands/gw-8/go")), None);
}

#[test]
fn a_message_is_sent_once_per_name_and_never_from_or_to_tidegate() {
    let text = rule_with(
        "[[forwards]]\ntopic = \"#\"\nqos = 0\n[[forwards]]\ntopic = \"a/+\"\n[[forwards]]\ntopic = \"a/#\"\nprefix = \"x/\"\n\
         [[subscriptions]]\ntopic = \"down/#\"\nstrip = \"down/\"\nprefix = \"\"\n",
    );
    // `#` out and `down/#` back stripped would loop, so the subscription goes into a rule of its own.
    let (forwards, subscriptions) = text.split_at(text.find("[[subscriptions]]").unwrap());
    let rule = render(&valid(forwards), &context()).unwrap().rule;
    let sent: Vec<_> =
        rule.forward(&topic("a/b")).into_iter().map(|d| (d.topic.to_string(), d.qos)).collect();
    assert_eq!(sent, [("a/b".to_owned(), Qos::AtMostOnce), ("x/a/b".to_owned(), Qos::AtLeastOnce)]);
    assert!(rule.forward(&topic("tidegate/1/default/gw-7/down")).is_empty());
    assert!(rule.forward(&topic("$SYS/load")).is_empty());

    let rule = render(&valid(&rule_with(subscriptions)), &context()).unwrap().rule;
    assert_eq!(rule.receive(&topic("down/x")).unwrap().topic.as_str(), "x");
    assert_eq!(rule.receive(&topic("down/tidegate/1/default/gw-7/down")), None);
    assert_eq!(rule.receive(&topic("down")), None, "nothing would be left of the topic");
}

#[test]
fn variables_come_from_the_placement_then_from_the_default() {
    let rule = valid(FULL);
    let with = |pairs: &[(&str, &str)]| {
        let vars = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        render(&rule, &RenderContext { vars, ..context() })
    };
    assert_eq!(with(&[("site", "lyon")]).unwrap().rule.forwards[1].mapping.prefix, "plant/lyon/gw-7/");
    let codes = |result: Result<Rendered, Problems>| -> Vec<(&'static str, String)> {
        result.unwrap_err().iter().map(|p| (p.code, p.place.pointer.clone())).collect()
    };
    assert_eq!(codes(with(&[("site", "a/#")])), [("bad-variable", "/vars/site".to_owned())]);
    assert_eq!(codes(with(&[("sight", "x")])), [("unknown-variable", "/vars/sight".to_owned())]);
    let text = rule_with("[[forwards]]\ntopic = \"{site}/#\"\n[vars]\nsite = {}\n");
    let result = render(&valid(&text), &context());
    assert_eq!(codes(result), [("missing-variable", "/vars/site".to_owned())]);
}

#[test]
fn what_variables_make_is_checked_again() {
    let text = rule_with(
        "[[forwards]]\ntopic = \"{site}/a\"\n[[subscriptions]]\ntopic = \"lyon/a\"\n[vars]\nsite = {}\n",
    );
    let rule = valid(&text);
    let codes = |site: &str| -> Vec<&'static str> {
        let vars = [("site".to_owned(), site.to_owned())].into();
        match render(&rule, &RenderContext { vars, ..context() }) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.iter().map(|p| p.code).collect(),
        }
    };
    assert!(codes("paris").is_empty());
    assert_eq!(codes("lyon"), ["topic-loop"]);
    assert_eq!(codes("tidegate"), ["reserved-topic"]);
}

#[test]
fn a_rule_of_a_newer_cloud_is_refused_by_its_field() {
    let bytes = render(&valid(FULL), &context()).unwrap().bytes;
    let newer = bytes.replace("\"clean_session\":true", "\"clean_session\":true,\"protocol\":5");
    let problems = EdgeRule::from_rendered(&newer).unwrap_err();
    let problem = problems.iter().next().unwrap();
    assert!(is_unsupported(problem));
    assert_eq!(problem.place.field(), "remote.protocol");
    let older = bytes.replace("\"keep_alive_s\":90,", "");
    let problems = EdgeRule::from_rendered(&older).unwrap_err();
    assert!(!is_unsupported(problems.iter().next().unwrap()));
    assert_eq!(problems.iter().next().unwrap().place.field(), "remote.keep_alive_s");
    for broken in [
        bytes.replace("sensors/#", "tidegate/#"),
        bytes.replace("alarms/+", "alarms/+x"),
        bytes.replace(":1884", ":0"),
        bytes.replace("\"in/\"", "\"tidegate/\""),
        bytes[..bytes.len() - 1].to_owned(),
        format!("{bytes}{}", " ".repeat(64 * 1024)),
    ] {
        assert!(EdgeRule::from_rendered(&broken).is_err(), "{broken}");
    }
}

#[test]
fn a_rule_that_renders_too_large_is_refused() {
    let prefix = "p".repeat(700);
    let routes: String = (0..60)
        .map(|n| format!("[[forwards]]\ntopic = \"{n}/{}\"\nprefix = \"{prefix}/\"\n", "t".repeat(300)))
        .collect();
    let rule = valid(&format!("name = \"r\"\n[remote]\nurl = \"mqtt://h\"\n{routes}"));
    let fits = render(&rule, &context()).unwrap();
    assert!(fits.bytes.len() <= crate::limits::MAX_RENDERED_BYTES);
    // 1,024 bytes hold topic and prefix together, so only many long routes at once pass the bound.
    let routes: String = (0..64)
        .map(|n| {
            format!(
                "[[forwards]]\ntopic = \"{n:02}/{}\"\nstrip = \"{n:02}/{}\"\nprefix = \"{prefix}{n}\"\n",
                "t".repeat(400),
                "t".repeat(300)
            )
        })
        .collect();
    let rule = valid(&format!("name = \"r\"\n[remote]\nurl = \"mqtt://h\"\n{routes}"));
    assert_eq!(render(&rule, &context()).unwrap_err().iter().next().unwrap().code, "too-large");
}

#[test]
fn differences_choose_the_least_disturbing_way() {
    let rendered = |text: &str| render(&valid(text), &context()).unwrap().rule;
    let old = rendered(FULL);
    assert!(EdgeRule::difference(&old, &old).is_none());
    let change = |from: &str, to: &str| EdgeRule::difference(&old, &rendered(&FULL.replace(from, to)));
    assert!(change("alarms/+", "alarms/#").is_topics_only());
    assert!(change("commands/", "orders/").subscriptions);
    assert!(change(":1884", ":1885").connection);
    assert!(!change(":1884", ":1885").is_topics_only());
    assert_eq!(change("36h", "37h"), Change { queue: true, ..Change::default() });
    assert_eq!(change("verify_s = 30", "verify_s = 31"), Change { settings: true, ..Change::default() });
}

#[test]
fn client_ids_clash_at_the_same_broker_only() {
    let rule = |name: &str, url: &str, id: &str| {
        let text = format!(
            "name = \"{name}\"\n[remote]\nurl = \"{url}\"\nclient_id = \"{id}\"\n[[forwards]]\ntopic = \"a\"\n"
        );
        let rendered = render(&valid(&text), &context()).unwrap();
        let login = Login::from(&rendered.rule);
        assert_eq!(Login::of_rendered(&rendered.bytes).as_ref(), Some(&login), "it is read alike");
        login
    };
    assert_eq!(Login::of_rendered("{}"), None);
    let rules = [
        rule("a", "mqtt://h", "x"),
        rule("b", "mqtt://h:1884", "x"),
        rule("c", "mqtt://h", "y"),
        rule("d", "mqtt://H:1883", "x"),
    ];
    let clashes = client_id_clash(&rules);
    assert_eq!(clashes.len(), 1);
    assert_eq!((clashes[0].first.as_str(), clashes[0].second.as_str()), ("a", "d"));
    assert!(clashes[0].to_string().contains("'x' at h:1883"), "{}", clashes[0]);
}

#[test]
fn a_rule_that_an_agent_cannot_run_is_refused_by_field_and_version() {
    let rule = valid(FULL);
    assert!(missing_features(&rule, ["bridge.v1", "bridge.v9"]).is_ok());
    let problems = missing_features(&rule, []).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "remote: the agent on the edge does not know 'bridge.v1' — update it to version 0.1.0 or later"
    );
    assert_eq!(requires(&rule), [Feature::BridgeV1].into());
    let excluding = valid(&rule_with(
        "[[forwards]]\ntopic = \"a/#\"\n[[subscriptions]]\ntopic = \"b/#\"\nexclude = [\"b/c\"]\n",
    ));
    assert_eq!(requires(&excluding), [Feature::BridgeV1, Feature::Exclude].into());
    let problems = missing_features(&excluding, ["bridge.v1"]).unwrap_err();
    assert!(problems.to_string().starts_with("subscriptions[0].exclude: "), "{problems}");
}

#[test]
fn what_is_left_out_is_not_taken_and_not_missed() {
    let text = rule_with(
        "[[forwards]]\ntopic = \"sensors/#\"\nexclude = [\"sensors/+/debug\", \"sensors/{edge}/#\"]\n\
         [[forwards]]\ntopic = \"sensors/1/debug\"\nprefix = \"d/\"\n\
         [[subscriptions]]\ntopic = \"down/#\"\nexclude = [\"down/secret/#\"]\n\
         [[subscriptions]]\ntopic = \"down/secret/mine\"\n",
    );
    let rendered = render(&valid(&text), &context()).unwrap();
    assert!(
        rendered.bytes.contains(r#""exclude":["sensors/+/debug","sensors/gw-7/#"]"#),
        "{}",
        rendered.bytes
    );
    assert_eq!(EdgeRule::from_rendered(&rendered.bytes).unwrap(), rendered.rule);
    let rule = rendered.rule;
    let names =
        |name: &str| rule.forward(&topic(name)).into_iter().map(|d| d.topic.to_string()).collect::<Vec<_>>();
    assert_eq!(names("sensors/1/t"), ["sensors/1/t"]);
    assert_eq!(names("sensors/2/debug"), [] as [&str; 0]);
    assert_eq!(names("sensors/1/debug"), ["d/sensors/1/debug"], "another forward takes it");
    assert_eq!(names("sensors/gw-7"), [] as [&str; 0]);
    assert!(!rule.wants_in_vain("sensors/2/debug"), "nobody wants it, so nothing is lost");
    assert_eq!(rule.receive(&topic("down/go")).unwrap().topic.as_str(), "down/go");
    assert_eq!(rule.receive(&topic("down/secret/x")), None);
    assert!(rule.leaves_out("down/secret/x") && !rule.leaves_out("down/go") && !rule.leaves_out("else"));
    assert!(!rule.leaves_out("down/secret/mine"), "another subscription takes it");
    assert!(rule.receive(&topic("down/secret/mine")).is_some());
}

#[test]
fn a_drain_limit_is_rendered_read_again_and_refused_for_an_agent_that_does_not_know_it() {
    let with = |queue: &str| valid(&rule_with(&format!("[[forwards]]\ntopic = \"a\"\n[queue]\n{queue}")));
    let rule = with("drain = { messages_per_s = 500, bytes_per_s = \"1MiB\" }\n");
    let rendered = render(&rule, &context()).unwrap();
    assert!(
        rendered.bytes.contains(r#""drain":{"messages_per_s":500,"bytes_per_s":1048576}"#),
        "{}",
        rendered.bytes
    );
    assert_eq!(EdgeRule::from_rendered(&rendered.bytes).unwrap(), rendered.rule);
    let half = render(&with("[queue.drain]\nbytes_per_s = \"2kB\"\n"), &context()).unwrap();
    assert!(half.bytes.contains(r#""drain":{"bytes_per_s":2000}"#), "{}", half.bytes);
    assert_eq!(EdgeRule::from_rendered(&half.bytes).unwrap(), half.rule);
    let again = valid(&rule.canonical_toml());
    assert_eq!(again.spec(), rule.spec());
    let problems = missing_features(&rule, ["bridge.v1", "route.exclude"]).unwrap_err();
    assert!(
        problems.to_string().starts_with("queue.drain: the agent on the edge does not know 'queue.drain'"),
        "{problems}"
    );
    assert!(missing_features(&with("max_age = \"1d\"\n"), ["bridge.v1"]).is_ok());
    let damaged = rendered.bytes.replace("\"messages_per_s\":500", "\"messages_per_s\":0");
    assert!(EdgeRule::from_rendered(&damaged).is_err());
}

//! What becomes of a topic, in words that agree with what the agent does.

use super::*;

fn rule(text: &str) -> EdgeRule {
    render(&valid(&rule_with(text)), &context()).unwrap().rule
}

fn entry(table: &str, topic: &str, more: &str) -> String {
    format!("[[{table}]]\ntopic = \"{topic}\"\n{more}")
}

#[test]
fn each_entry_says_what_it_does_and_why() {
    let text = [
        entry(
            "forwards",
            "sensors/#",
            "exclude = [\"sensors/+/debug\"]\nstrip = \"sensors/\"\nprefix = \"s/\"\n",
        ),
        entry("forwards", "sensors/1/t", "strip = \"sensors/\"\nprefix = \"s/\"\nqos = 0\n"),
        entry("forwards", "+/1/t", "prefix = \"all/\"\nretain = \"keep\"\n"),
        entry("subscriptions", "sensors/1/#", "prefix = \"in/\"\n"),
        entry("subscriptions", "sensors/+/t", "prefix = \"in/\"\n"),
    ];
    let rule = rule(&text.concat());
    let said = |fates: &[Fate]| -> Vec<(bool, Option<String>, String)> {
        fates.iter().map(|fate| (fate.taken, fate.becomes.clone(), fate.why.clone())).collect()
    };
    let told = explain(&rule, "sensors/1/t").unwrap();
    let name = |name: &str| Some(name.to_owned());
    let matches = "its filter matches".to_owned();
    assert_eq!(
        said(&told.forwards),
        [
            (true, name("s/1/t"), matches.clone()),
            (false, name("s/1/t"), "forwards[0] sends it under the same topic already".to_owned()),
            (true, name("all/sensors/1/t"), matches.clone()),
        ]
    );
    assert_eq!((told.forwards[2].qos, told.forwards[2].retain), (Some(1), Some(true)));
    assert_eq!(
        said(&told.subscriptions),
        [
            (true, name("in/sensors/1/t"), matches),
            (
                false,
                name("in/sensors/1/t"),
                "subscriptions[0] takes it already; a message is taken once".to_owned()
            ),
        ]
    );
    let why = |topic: &str, entry: usize| explain(&rule, topic).unwrap().forwards[entry].why.clone();
    assert_eq!(why("sensors/1/debug", 0), "exclude 'sensors/+/debug' leaves it out");
    assert_eq!(why("alarms/1", 0), "its filter does not match");
    assert!(why("$SYS/1/t", 2).contains("begin with '$'"));
    assert!(why("tidegate/1/t", 2).contains("Tidegate's own"));
    assert!(why(&format!("{}/1/t", "x".repeat(1_020)), 2).contains("too long"));
    assert!(explain(&rule, "a/#").is_err() && explain(&rule, "").is_err());
}

#[test]
fn what_is_told_is_what_the_agent_does() {
    let text = [
        entry("forwards", "a/#", "exclude = [\"a/b/+\"]\n"),
        entry("forwards", "a/b/#", "prefix = \"p/\"\n"),
        entry("forwards", "+/b/c", ""),
        entry("subscriptions", "x/#", "exclude = [\"x/y\"]\nprefix = \"in/\"\n"),
        entry("subscriptions", "x/y", ""),
    ];
    let rule = rule(&text.concat());
    for name in ["a", "a/b", "a/b/c", "a/b/d", "z/b/c", "x", "x/y", "x/y/z", "tidegate/b/c", "$a/b/c"] {
        let told = explain(&rule, name).unwrap();
        let taken = |fates: &[Fate]| -> Vec<String> {
            fates.iter().filter(|fate| fate.taken).filter_map(|fate| fate.becomes.clone()).collect()
        };
        let sent: Vec<String> = rule.forward(&topic(name)).iter().map(|d| d.topic.to_string()).collect();
        assert_eq!(taken(&told.forwards), sent, "{name}");
        let received: Vec<String> = rule.receive(&topic(name)).iter().map(|d| d.topic.to_string()).collect();
        assert_eq!(taken(&told.subscriptions), received, "{name}");
    }
}

#[test]
fn entries_that_overlap_or_never_decide_are_told() {
    let odd = |text: &[String]| -> Vec<String> {
        oddities(&rule(&text.concat())).into_iter().map(|odd| odd.what).collect()
    };
    let a = |more: &str| entry("forwards", "a/#", more);
    assert_eq!(
        odd(&[a(""), entry("forwards", "a/+", "")]),
        ["forwards[1] never decides anything: forwards[0] takes all that it matches, under the same topic"]
    );
    assert_eq!(
        odd(&[a(""), entry("forwards", "a/+", "prefix = \"x/\"\n")]),
        ["forwards[1] and forwards[0] overlap: what 'a/+' matches is sent twice, under two topics"]
    );
    assert_eq!(
        odd(&[a(""), entry("forwards", "+/b", "")]),
        ["forwards[1] and forwards[0] overlap: what 'a/b' matches is passed on once, as forwards[0] says"]
    );
    assert_eq!(odd(&[a("exclude = [\"a/+\"]\n"), entry("forwards", "a/+", "")]), [] as [&str; 0]);
    assert_eq!(
        odd(&[a("exclude = [\"a/b\"]\n"), entry("forwards", "a/+", "")]),
        ["forwards[1] and forwards[0] overlap: what 'a/+' matches is passed on once, as forwards[0] says"]
    );
    assert_eq!(odd(&[a(""), entry("forwards", "b/#", "")]), [] as [&str; 0]);
    assert_eq!(
        odd(&[entry("subscriptions", "a/#", ""), entry("subscriptions", "a/b", "")]),
        [
            "subscriptions[1] never decides anything: subscriptions[0] takes all that it matches, under the same topic"
        ]
    );
}

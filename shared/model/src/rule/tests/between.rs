//! Loops over the rules of one edge.

use std::slice::from_ref;

use super::*;

fn wiring(name: &str, host: &str, routes: &str) -> Wiring {
    let rule = valid(&format!("name = \"{name}\"\n[remote]\nurl = \"mqtt://{host}\"\n{routes}"));
    let rendered = render(&rule, &context()).unwrap();
    let wiring = Wiring::from(&rendered.rule);
    assert_eq!(
        Wiring::of_rendered(&rendered.bytes),
        Some(wiring.clone()),
        "read without the rest it is the same"
    );
    wiring
}

fn out(topic: &str, prefix: &str) -> String {
    format!("[[forwards]]\ntopic = \"{topic}\"\nprefix = \"{prefix}\"\n")
}

fn back(topic: &str, prefix: &str) -> String {
    format!("[[subscriptions]]\ntopic = \"{topic}\"\nprefix = \"{prefix}\"\n")
}

/// The rules between which a loop is, in words.
fn found(rule: &Wiring, others: &[Wiring]) -> Option<(String, String, String)> {
    let found = loop_between(rule, others)?;
    let told = found.to_string();
    assert!(told.contains(found.out.as_str()) && told.contains(found.back.as_str()), "{told}");
    Some((found.out.to_string(), found.back.to_string(), found.topic))
}

fn names(out: &str, back: &str, topic: &str) -> Option<(String, String, String)> {
    Some((out.to_owned(), back.to_owned(), topic.to_owned()))
}

#[test]
fn one_rule_sends_and_another_brings_back() {
    let (up, down) = (wiring("up", "h", &out("a/#", "")), wiring("down", "h", &back("a/#", "")));
    assert_eq!(found(&down, from_ref(&up)), names("up", "down", "a/#"));
    assert_eq!(found(&up, from_ref(&down)), names("up", "down", "a/#"));
    assert_eq!(found(&up, &[]), None);
    // Another broker, or another name on one of the ways: it ends there.
    assert_eq!(found(&wiring("down", "i", &back("a/#", "")), from_ref(&up)), None);
    assert_eq!(found(&wiring("down", "h", &back("a/#", "in/")), from_ref(&up)), None);
    assert_eq!(found(&wiring("up", "h", &out("a/#", "plant/")), from_ref(&down)), None);
    let excluded = "[[subscriptions]]\ntopic = \"#\"\nexclude = [\"a/#\"]\n";
    assert_eq!(found(&wiring("down", "h", excluded), from_ref(&up)), None);
}

#[test]
fn an_address_to_fall_back_to_is_the_same_broker() {
    let up = wiring("up", "h", &out("a/#", ""));
    let down = wiring("down", "i\"\nfallback_urls = [\"mqtt://h\"]\nusername = \"u", &back("a/#", ""));
    assert_eq!(found(&down, from_ref(&up)), names("up", "down", "a/#"));
}

#[test]
fn a_loop_by_way_of_two_brokers_is_one_too() {
    // a goes out to h and comes back as b, which goes out to i and comes back as a.
    let first = wiring(
        "first",
        "h",
        &(out("a/#", "") + "[[subscriptions]]\ntopic = \"a/#\"\nstrip = \"a/\"\nprefix = \"b/\"\n"),
    );
    let second = wiring(
        "second",
        "i",
        &(out("b/#", "") + "[[subscriptions]]\ntopic = \"b/#\"\nstrip = \"b/\"\nprefix = \"a/\"\n"),
    );
    assert_eq!(found(&second, from_ref(&first)), names("second", "second", "b/#"));
    // Each alone is an echo, which ends after one round.
    assert_eq!(found(&first, &[]), None);
    assert_eq!(found(&second, &[]), None);
    let elsewhere = wiring("second", "i", &(out("c/#", "") + &back("b/#", "a/")));
    assert_eq!(found(&elsewhere, from_ref(&first)), None);
}

#[test]
fn many_rules_that_share_a_broker_are_compared_without_a_loop() {
    let others: Vec<Wiring> = (0..199)
        .map(|n| {
            wiring(
                &format!("r{n}"),
                "h",
                &(out(&format!("s{n}/#"), "plant/") + &back(&format!("c{n}/#"), "in/")),
            )
        })
        .collect();
    let rule = wiring("new", "h", &(out("s/#", "plant/") + &back("c/#", "in/")));
    assert_eq!(found(&rule, &others), None);
}

//! What an operator reads: the list of the account with its totals, and the panel of one placement.

use tidegate_e2e::process::Process;
use tidegate_e2e::world::EDGE;
use tidegate_e2e::{Rule, World};

#[test]
fn c02_c03_c04_the_list_is_of_the_account_and_counts_rules_and_those_that_are_issued() {
    let world = World::new();
    let rule = |name: &str| Rule::new(name, world.remote.address);
    world.run_rule(&rule("camera-up"));
    world.controller.apply_and_place(&rule("alarms"), EDGE);
    world.controller.apply(&rule("nowhere-yet"));

    let list = world.controller.ok(&["rule", "list"]).json();
    let names: Vec<_> =
        list["items"].as_array().unwrap().iter().map(|rule| rule["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["alarms", "camera-up", "nowhere-yet"]);
    let totals = world.controller.ok(&["status"]).json();
    assert_eq!((&totals["rules"], &totals["rules_issued"]), (&3.into(), &1.into()), "{totals}");
    let tally = &totals["tally"];
    assert_eq!((&tally["placements"], &tally["issue"]["issued"]), (&2.into(), &1.into()), "{totals}");
    assert_eq!(tally["pending"], 1, "alarms is placed and not issued: {totals}");

    // What the account does not have is not found, whatever it is called elsewhere.
    world.controller.fails(3, &["rule", "get", "rule-of-somebody-else"]);
    world.controller.fails(3, &["edge", "get", "gateway-of-somebody-else"]);
}

#[test]
fn c15_c16_the_panel_of_a_placement_shows_states_versions_digests_and_as_of() {
    let world = World::new();
    let mut rule = Rule::new("camera-up", world.remote.address);
    world.run_rule(&rule);
    let running = world.controller.placement("camera-up", EDGE).unwrap();
    assert_eq!((&running["version"], &running["edge_version"]), (&1.into(), &1.into()));
    assert_eq!(running["edge_digest"], running["digest"]);
    assert!(running["as_of"].as_str().is_some_and(|at| at.ends_with('Z')), "{running}");

    rule.forwards = vec!["devices/#".to_owned()];
    world.controller.apply(&rule);
    let behind = world.controller.placement("camera-up", EDGE).unwrap();
    assert_eq!(
        (&behind["issue_state"], &behind["run_state"]),
        (&"updates_not_issued".into(), &"running".into())
    );
    assert_eq!((&behind["version"], &behind["edge_version"]), (&2.into(), &1.into()));
    assert_eq!(behind["edge_digest"], running["digest"], "what runs is what was issued");
    assert_ne!(behind["digest"], running["digest"]);
    let allowed = |name: &str| {
        let actions = behind["actions"].as_array().unwrap();
        actions.iter().find(|action| action["name"] == name).is_some_and(|action| action["allowed"] == true)
    };
    assert!(allowed("sync") && allowed("issue_again") && allowed("stop"), "{behind}");
    assert!(!allowed("issue") && !allowed("start"), "{behind}");
}

#[test]
fn events_go_on_when_the_controller_was_killed_and_is_back() {
    let mut world = World::new();
    let rule = |name: &str| Rule::new(name, world.remote.address);
    let rules = [rule("before"), rule("after")];
    let mut events = Process::new("events", world.controller.repeatable(&["events"]));
    events.wait_line("that it follows", 0, |line| line.contains("following events; Ctrl-C"));
    world.controller.apply(&rules[0]);
    events.wait_line("the change", 0, |line| line.contains("before"));

    world.controller.process.kill9();
    events.wait_line("that it waits", 0, |line| line.contains("waiting for it to come back"));
    world.controller.start_again();
    events.wait_line("that it follows again", 0, |line| line.contains("following events again"));
    world.controller.apply(&rules[1]);
    events.wait_line("the change after it", 0, |line| line.contains("after"));
    assert!(!events.text().contains("chunk"), "{}", events.text());
}

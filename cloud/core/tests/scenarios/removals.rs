//! Rules that are taken off, deleted, and placed again.

use crate::world::{EDGE, World, edge_id, rule_name};
use tidegate_cloud_core::{Expect, Rejection, Reply, Request, Saved};
use tidegate_model::code::Code;
use tidegate_model::limits::MAX_RULES_PER_EDGE;
use tidegate_model::placement::{Action, IssueState, RunState};
use tidegate_model::version::RuleVersion;
use tidegate_model::wire::{By, Config, DesiredRun, SetResult, Up};

#[test]
fn a_rule_that_is_placed_again_before_its_removal_arrives_is_known_with_its_bytes() {
    let mut world = World::issued();
    let old = world.view("up").edge_digest;
    world.ask(Request::Unplace { rule: rule_name("up"), edge: edge_id() }).unwrap();
    world.save("up", "other/#").unwrap();
    world.place("up").unwrap();
    // The removal was lost: the edge says that it holds the old version still, and that can be stopped as it is.
    world.connect();
    assert_eq!(world.view("up").edge_digest, old);
    assert_eq!(world.record().committed.as_ref().map(|t| t.at.digest), old);
}

#[test]
fn a_rule_that_is_placed_again_while_its_removal_is_under_way_is_sent_with_its_bytes_in_the_end() {
    let mut world = World::issued();
    world.ask(Request::Unplace { rule: rule_name("up"), edge: edge_id() }).unwrap();
    let removal = world.last_set().unwrap();
    world.place("up").unwrap();
    world.act("up", Action::IssueAgain).unwrap();
    let keep = world.last_set().unwrap();
    assert_eq!((keep.config.clone(), removal.present), (Config::Keep, false));
    // The edge carries out the one after the other.
    world.answer(&removal, Code::Ok, None, RunState::NotRunning, "");
    let refused = SetResult {
        rule: keep.rule,
        generation: keep.generation,
        answers: keep.generation,
        code: Code::MissingDependency,
        attempted: Some(keep.target),
        running: None,
        want: keep.want,
        run: world.run(RunState::NotRunning, By::Cloud),
        duration_ms: 5,
        detail: "this edge holds no rendered rule with that digest".to_owned(),
    };
    world.up(&Up::Result(refused));
    let bytes = world.last_set().unwrap();
    assert_eq!((bytes.generation, bytes.want), (keep.generation, keep.want));
    assert!(matches!(bytes.config, Config::Bytes(_)));
    world.apply_set();
    assert_eq!(world.view("up").issue_state, IssueState::Issued);
}

#[test]
fn a_removal_waits_for_the_edge_and_never_expires() {
    let mut world = World::issued();
    world.disconnect();
    world.ask(Request::Unplace { rule: rule_name("up"), edge: edge_id() }).unwrap();
    assert!(world.view("up").removing);
    world.pass(30 * 86_400_000);
    world.connect();
    let set = world.apply_set();
    assert!(!set.present);
    assert!(
        world
            .controller
            .placement(&rule_name("up"), &edge_id(), tidegate_model::placement::Role::Viewer)
            .is_none()
    );
    // Placed again: the generation goes on above the tombstone's.
    world.place("up").unwrap();
    world.act("up", Action::Issue).unwrap();
    assert!(world.last_set().unwrap().generation > set.generation);
}

#[test]
fn a_removal_that_is_asked_for_twice_is_one_removal() {
    let mut world = World::issued();
    world.disconnect();
    let unplace = || Request::Unplace { rule: rule_name("up"), edge: edge_id() };
    let pending = |answer| matches!(answer, Reply::Unplaced { pending: true });
    assert!(pending(world.ask(unplace()).unwrap()));
    let generation = world.record().generation;
    assert!(pending(world.ask(unplace()).unwrap()));
    assert_eq!(world.record().generation, generation);
    world.connect();
    world.apply_set();
    assert!(matches!(world.ask(unplace()), Err(Rejection::NoSuchPlacement { .. })));
}

#[test]
fn a_rule_that_is_placed_again_before_the_edge_heard_of_its_removal_stays_there_as_it_is() {
    let mut world = World::issued();
    world.disconnect();
    let before = world.view("up").edge_version;
    world.ask(Request::Unplace { rule: rule_name("up"), edge: edge_id() }).unwrap();
    world.place("up").unwrap();
    let view = world.view("up");
    assert!(!view.removing && view.in_flight.is_none());
    world.connect();
    assert_eq!(world.set_count(), 0, "nothing is sent for it");
    let view = world.view("up");
    assert_eq!((view.edge_version, view.run_state), (before, RunState::Running));
    assert_eq!(view.issue_state, IssueState::Issued);
    // And it goes on running: a newer version does not stop it.
    world.save("up", "other/#").unwrap();
    world.act("up", Action::Sync).unwrap();
    assert_eq!(world.last_set().unwrap().run, DesiredRun::Running);
}

#[test]
fn rules_that_were_taken_off_take_no_room_on_an_edge() {
    let mut world = World::placed();
    for number in 0..=MAX_RULES_PER_EDGE {
        let rule = rule_name(&format!("rule-{number}"));
        world.save(rule.as_str(), &format!("sensors/{number}")).unwrap();
        world.place(rule.as_str()).unwrap();
        world.act(rule.as_str(), Action::Issue).unwrap();
        world.apply_set();
        world.ask(Request::Unplace { rule, edge: edge_id() }).unwrap();
        world.apply_set();
        world.down.clear();
    }
    for number in 1..MAX_RULES_PER_EDGE {
        world.place(&format!("rule-{number}")).unwrap();
    }
    let refused = world.place("rule-0").unwrap_err();
    assert!(matches!(refused, Rejection::Limit { limit: MAX_RULES_PER_EDGE, .. }), "{refused}");
}

#[test]
fn a_hello_that_was_said_before_a_set_arrived_does_not_settle_the_removal_of_that_rule() {
    let mut world = World::placed();
    world.act("up", Action::Issue).unwrap();
    world.ask(Request::DeleteRule { rule: rule_name("up"), expect: Expect::Any }).unwrap();
    // The edge has the set by now and all that it said of it was lost; this hello was under way since before.
    world.hello();
    assert_eq!(world.snapshot.placements.len(), 1, "an empty root is no answer to the removal");
    assert!(!world.last_set().expect("the removal is sent again").present);
    world.apply_set();
    assert!(world.snapshot.placements.is_empty());
}

#[test]
fn a_deleted_rule_is_taken_off_its_edges_and_its_name_is_free() {
    let mut world = World::issued();
    world.ask(Request::DeleteRule { rule: rule_name("up"), expect: Expect::Any }).unwrap();
    let set = world.apply_set();
    assert!(!set.present);
    assert!(world.snapshot.placements.is_empty() && world.snapshot.rules.is_empty());
    assert_eq!(world.save("up", "sensors/#").unwrap(), (Saved::Created, RuleVersion(1)));
}

#[test]
fn an_edge_with_rules_is_not_forgotten_by_mistake() {
    let mut world = World::issued();
    let remove = |leave_running| Request::RemoveEdge { edge: edge_id(), leave_running };
    assert!(matches!(world.ask(remove(false)), Err(Rejection::EdgeInUse { count: 1, .. })));
    world.ask(remove(true)).unwrap();
    assert!(world.snapshot.edges.is_empty() && world.snapshot.placements.is_empty());
    let warned = world.warnings.len();
    world.hello();
    assert!(world.warnings.len() > warned, "late messages of {EDGE} are told and dropped");
}

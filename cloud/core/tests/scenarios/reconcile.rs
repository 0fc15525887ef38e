//! What an edge holds against what the cloud knows: lost answers, wiped disks, restored backups, second gateways.

use crate::world::{World, content, edge_id, rule_name};
use tidegate_cloud_core::{Expect, Rejection, Request, WhenOffline};
use tidegate_model::code::Code;
use tidegate_model::ids::StoreId;
use tidegate_model::placement::{Action, IssueState, RunState};
use tidegate_model::rule::SecretInputs;
use tidegate_model::version::{Generation, RuleVersion};
use tidegate_model::wire::{Attempt, Birth, By, Config, DesiredRun, Origin, RunReport, Up};

#[test]
fn what_the_edge_does_not_hold_is_sent_again_with_its_bytes() {
    let mut world = World::issued();
    world.act("up", Action::Stop).unwrap();
    let keep = world.last_set().unwrap();
    let running = world.held.values().next().unwrap().running;
    world.answer(&keep, Code::MissingDependency, running, RunState::Running, "the bytes are not here");
    let bytes = world.last_set().unwrap();
    assert_eq!((bytes.generation, bytes.want), (keep.generation, keep.want));
    assert!(matches!(bytes.config, Config::Bytes(_)));
}

#[test]
fn a_lost_result_is_settled_by_the_inventory_and_nothing_is_applied_twice() {
    let mut world = World::placed();
    world.act("up", Action::Issue).unwrap();
    let set = world.last_set().unwrap();
    world.disconnect();
    // The edge applied it, but nobody heard of it.
    let run = RunReport { sequence: 1, ..world.run(RunState::Running, By::Cloud) };
    let held = crate::world::Held { set: set.clone(), running: Some(set.target), run, origin: Origin::Cloud };
    world.held.insert(set.rule, held);
    world.connect();
    let again = world.last_set().expect("asked for the result with the same set");
    assert_eq!((again.generation, again.want), (set.generation, set.want));
    world.apply_set();
    assert_eq!(world.view("up").issue_state, IssueState::Issued);
}

#[test]
fn how_an_action_ended_that_was_given_up_is_asked_for_although_roots_are_equal() {
    let mut world = World::issued();
    world.act("up", Action::Stop).unwrap();
    let set = world.last_set().unwrap();
    // The edge accepted it and tells so in an inventory; its result is lost, and the controller starts anew.
    let run = world.run(RunState::PausedManual, By::Cloud);
    world.held.insert(
        set.rule,
        crate::world::Held { set: set.clone(), running: Some(set.target), run, origin: Origin::Cloud },
    );
    world.hello();
    world.restart();
    world.connect();
    world.disconnect();
    world.pass(70_000);
    assert_eq!(world.record().last_run.as_ref().map(|last| last.code), Some(Code::EdgeOffline));
    world.connect();
    assert!(world.wants_inventory(), "the roots are equal, and how the stop ended is not known");
}

#[test]
fn m10_a_push_that_got_lost_heals_at_the_next_hello() {
    let mut world = World::placed();
    world.act("up", Action::Issue).unwrap();
    world.pass(120_000);
    assert_eq!(world.view("up").issue_state, IssueState::Failed);
    world.connect();
    world.apply_set();
    assert_eq!(world.view("up").issue_state, IssueState::Issued);
}

#[test]
fn a_wiped_edge_is_issued_again_or_left_alone_by_the_rules_policy() {
    let mut world = World::issued();
    world.disconnect();
    world.held.clear();
    world.sid.store = StoreId(0xb);
    world.sid.epoch = 0;
    world.connect();
    let set = world.apply_set();
    assert_eq!((set.generation.0, set.target.version), (2, RuleVersion(1)));
    assert_eq!(world.view("up").issue_state, IssueState::Issued);

    let policy = content("up", "sensors/#", "policy = { on_wipe = \"keep\" }");
    world.save_with(policy, SecretInputs::default(), Expect::Any).unwrap();
    world.act("up", Action::Sync).unwrap();
    world.apply_set();
    world.held.clear();
    world.sid.store = StoreId(0xc);
    world.connect();
    assert_eq!(world.set_count(), 0);
    assert_eq!(world.view("up").issue_state, IssueState::NotIssued);
}

#[test]
fn a_cloud_that_was_restored_from_a_backup_sends_nothing_before_an_operator_confirms() {
    let mut world = World::issued();
    let backup = world.snapshot.clone();
    world.act("up", Action::IssueAgain).unwrap();
    world.apply_set();
    world.snapshot = backup;
    world.restart();
    world.connect();
    assert_eq!(world.set_count(), 0);
    assert_eq!(world.act("up", Action::IssueAgain).unwrap_err().code(), Code::CloudBehind);
    let summary = world.controller.summary(world.now);
    assert_eq!((summary.indicator, summary.held), ("amber", vec![edge_id()]));
    world.ask(Request::ConfirmEdge { edge: edge_id() }).unwrap();
    world.act("up", Action::IssueAgain).unwrap();
    assert_eq!(world.last_set().unwrap().generation.0, 3);
}

#[test]
fn a_rule_that_was_taken_off_after_the_backup_is_not_sent_again_when_the_edge_is_confirmed() {
    let mut world = World::issued();
    let backup = world.snapshot.clone();
    world.ask(Request::Unplace { rule: rule_name("up"), edge: edge_id() }).unwrap();
    world.apply_set();
    world.snapshot = backup;
    world.restart();
    world.connect();
    world.inventory();
    assert_eq!(world.act("up", Action::IssueAgain).unwrap_err().code(), Code::CloudBehind);
    world.down.clear();
    world.ask(Request::ConfirmEdge { edge: edge_id() }).unwrap();
    world.inventory();
    assert_eq!(world.set_count(), 0, "nobody asked for it");
    let view = world.view("up");
    assert_eq!(
        (view.issue_state, view.run_state, view.removing),
        (IssueState::NotIssued, RunState::NotRunning, false)
    );
    world.act("up", Action::Issue).unwrap();
    let set = world.apply_set();
    assert!(set.present && set.generation.0 > 2);
    assert_eq!(world.view("up").issue_state, IssueState::Issued);
}

#[test]
fn a_generation_that_nobody_can_have_given_is_not_confirmed() {
    let mut world = World::issued();
    let ours = world.view("up").generation;
    world.held.values_mut().for_each(|held| held.set.generation = Generation(u64::MAX));
    world.inventory();
    assert_eq!(world.act("up", Action::IssueAgain).unwrap_err().code(), Code::CloudBehind);
    let refused = world.ask(Request::ConfirmEdge { edge: edge_id() }).unwrap_err();
    assert!(matches!(refused, Rejection::GenerationTooFar(_)), "{refused}");
    assert_eq!(world.view("up").generation, ours);
    // The edge begins anew: what it holds then is what counts.
    world.held.clear();
    world.inventory();
    world.ask(Request::ConfirmEdge { edge: edge_id() }).unwrap();
    world.act("up", Action::IssueAgain).unwrap();
    assert_eq!(world.apply_set().generation, ours.next());
}

#[test]
fn another_content_under_the_generation_in_flight_does_not_settle_it_and_is_overruled_when_confirmed() {
    let mut world = World::issued();
    let backup = world.snapshot.clone();
    world.act("up", Action::Stop).unwrap();
    world.apply_set();
    // The restored cloud gives the same number to another wish, before it hears of the edge.
    world.disconnect();
    world.snapshot = backup;
    world.restart();
    world.act_offline("up", Action::IssueAgain, WhenOffline::Queue).unwrap();
    world.connect();
    assert_eq!(world.set_count(), 0);
    assert_eq!(world.act("up", Action::Stop).unwrap_err().code(), Code::CloudBehind);
    assert!(world.view("up").in_flight.is_some(), "the stop of another time is no answer to it");
    world.ask(Request::ConfirmEdge { edge: edge_id() }).unwrap();
    world.inventory();
    assert!(world.apply_set().generation.0 > 2, "above what the edge knows");
    assert_eq!(world.view("up").run_state, RunState::Running);
}

#[test]
fn what_a_second_gateway_was_started_for_on_site_is_not_wanted_of_the_one_that_is_left() {
    let mut world = World::issued();
    world.act("up", Action::Stop).unwrap();
    world.apply_set();
    let stopped = world.run(RunState::PausedManual, By::Cloud);
    let sequence = stopped.sequence + 1;
    world.report(RunReport { sequence, ..world.run(RunState::Running, By::Local) });
    assert_eq!(world.view("up").desired_run, DesiredRun::Running);
    // The other one goes on; its inventory was lost, and its hello tells nothing that is not known.
    world.report(RunReport { sequence: sequence + 1, ..stopped });
    world.hello();
    assert!(!world.wants_inventory());
    assert_eq!(world.view("up").desired_run, DesiredRun::Stopped);
}

#[test]
fn how_an_action_ended_is_corrected_also_while_actions_on_the_edge_are_held() {
    let mut world = World::issued();
    // Another gateway stands here for a moment; its issue was done, this one's was refused.
    world.presence(&Up::Birth(Birth { boot: 99 }));
    assert_eq!(world.controller.held(&edge_id()), Some(Code::DuplicateEdge));
    let mut page = world.inventory_page();
    let item = &mut page.rules[0];
    let detail = "not for you".to_owned();
    let target = item.running.take();
    item.attempted = Some(Attempt { generation: item.generation, target, code: Code::RemoteAuth, detail });
    item.run = world.run(RunState::NotRunning, By::Agent);
    let sets = world.set_count();
    world.sq = 0;
    world.up(&Up::Inventory(page));
    assert_eq!(world.record().last_issue.as_ref().map(|last| last.code), Some(Code::RemoteAuth));
    assert_eq!(world.set_count(), sets, "it is held: nothing is sent");
}

#[test]
fn what_the_edge_did_under_the_same_number_before_the_cloud_was_restored_is_no_drift() {
    let mut world = World::issued();
    world
        .save_with(
            content("up", "other/#", "[policy]\non_drift = \"heal\""),
            SecretInputs::default(),
            Expect::Any,
        )
        .unwrap();
    world.act("up", Action::Sync).unwrap();
    let set = world.last_set().unwrap();
    // A controller with a higher epoch gave the same set under the same number; this one is not obeyed, and gives up.
    world.ce += 1_000_000_000;
    world.report(world.run(RunState::Running, By::Agent));
    assert_eq!(world.controller.held(&edge_id()), Some(Code::CloudBehind));
    world.pass(70_000);
    assert_eq!(world.record().last_issue.as_ref().map(|last| last.code), Some(Code::CloudBehind));
    world.save("up", "third/#").unwrap();
    world.ask(Request::ConfirmEdge { edge: edge_id() }).unwrap();
    let run = world.run(RunState::Running, By::Cloud);
    let held = crate::world::Held { set: set.clone(), running: Some(set.target), run, origin: Origin::Cloud };
    world.held.insert(set.rule, held);
    let sets = world.set_count();
    world.ce = world.snapshot.meta.epoch;
    world.sq = 0;
    world.inventory();
    assert_eq!(world.record().last_issue.as_ref().map(|last| last.code), Some(Code::Ok));
    assert_eq!(
        world.set_count(),
        sets,
        "it runs what was asked for last; the newer version waits for an operator"
    );
    assert_eq!(world.view("up").issue_state, IssueState::UpdatesNotIssued);
    assert_eq!(world.record().target.as_ref().map(|target| target.at), Some(set.target));
}

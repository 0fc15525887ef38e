//! What storms found, played out by hand: each of these failed once, and what it found is mended in a core.

use std::collections::BTreeMap;

use tidegate_cloud_core::{PlacementView, Request, WhenOffline};
use tidegate_edge_core::{Input, LocalAction, ReplyId};
use tidegate_model::limits::HELLO_EVERY_MS;
use tidegate_model::placement::{Action, IssueState, Link, Role, RunState};
use tidegate_model::rule::SecretInput;
use tidegate_model::wire::DesiredRun;
use tidegate_sim::operator::{Shape, edge_id, rule_name, save};
use tidegate_sim::{Plan, QUIET_MS, SETTLE_MS, World};

const GOOD: Shape = Shape { topic: 0, remote: 0, login: 0, manual: false, other_policy: false };

fn place(world: &mut World) {
    world.ask(Request::Place { rule: rule_name(0), edge: edge_id(0), vars: BTreeMap::new() });
}

fn act(world: &mut World, action: Action) {
    let when_offline = WhenOffline::Queue;
    world.ask(Request::Act { rule: rule_name(0), edge: edge_id(0), action, when_offline });
}

fn unplace(world: &mut World) {
    world.ask(Request::Unplace { rule: rule_name(0), edge: edge_id(0) });
}

/// Five edges online, one rule placed on the first.
fn placed(seed: u64) -> World {
    let mut world = World::new(Plan::calm(seed), true);
    world.pass(5_000);
    world.ask(save(1, 0, GOOD, SecretInput::Keep));
    place(&mut world);
    world
}

fn running(seed: u64) -> World {
    let mut world = placed(seed);
    act(&mut world, Action::Issue);
    world.pass(10_000);
    assert_eq!(view(&world).run_state, RunState::Running);
    world
}

fn view(world: &World) -> PlacementView {
    let core = world.cloud.core.as_ref().expect("the controller runs");
    core.placement(&rule_name(0), &edge_id(0), Role::Operator).expect("it is placed")
}

fn link(world: &World) -> Link {
    world.cloud.core.as_ref().and_then(|core| core.edge(&edge_id(0))).expect("it is known").link
}

fn settles(world: &mut World) {
    world.pass(SETTLE_MS);
    world.expect_settled();
    let asked = world.ledger.inventories_asked;
    world.pass(QUIET_MS);
    world.expect_settled();
    assert_eq!(world.broken, None);
    assert_eq!(world.ledger.inventories_asked, asked, "nobody asks for an inventory in the quiet");
}

fn local(world: &mut World, action: LocalAction) {
    let rule = *world.edges[0].disk.rules.keys().next().expect("a rule is there");
    world.edge_input(0, Input::Local { rule, action, reply: ReplyId(1) });
}

#[test]
fn a_session_believed_dead_is_revived_by_its_pong() {
    let mut world = running(1);
    world.seats[0].cut_until = world.time + 200_000;
    world.pass(190_000);
    assert_eq!(link(&world), Link::Offline, "nothing was heard for too long");
    assert!(view(&world).last_known);
    // The connection itself survived: the next heartbeat is answered with a ping outside all counting.
    world.pass(80_000);
    assert_eq!(link(&world), Link::Online);
    settles(&mut world);
}

#[test]
fn a_local_stop_before_the_first_sign_is_told_to_the_cloud() {
    // How soon the bridge gives its first sign depends on the seed; with these the stop comes before it.
    let mut early = 0;
    for seed in 0..20 {
        let mut world = placed(seed);
        act(&mut world, Action::Issue);
        world.pass(6);
        early += u32::from(view(&world).in_flight.is_some());
        local(&mut world, LocalAction::Stop);
        world.pass(10_000);
        assert_eq!(view(&world).desired_run, DesiredRun::Stopped);
        assert_ne!(view(&world).run_state, RunState::Running);
        settles(&mut world);
    }
    assert!(early > 0);
}

#[test]
fn a_rule_placed_again_before_its_removal_arrived_can_be_stopped() {
    let mut world = placed(3);
    act(&mut world, Action::Issue);
    world.pass(6);
    // The edge has it; its result, the removal and all else are lost.
    world.seats[0].cut_until = world.time + 20_000;
    unplace(&mut world);
    world.ask(save(1, 0, Shape { topic: 1, ..GOOD }, SecretInput::Keep));
    place(&mut world);
    world.pass(120_000);
    assert_eq!(view(&world).issue_state, IssueState::UpdatesNotIssued, "the edge holds the first version");
    act(&mut world, Action::Stop);
    world.pass(1_000);
    assert_eq!(view(&world).run_state, RunState::PausedManual);
    settles(&mut world);
}

#[test]
fn an_edge_restored_from_a_backup_is_believed_and_brought_forward() {
    let mut world = running(4);
    let backup = world.edges[0].disk.clone();
    for _ in 0..3 {
        act(&mut world, Action::Stop);
        world.pass(10_000);
        act(&mut world, Action::Start);
        world.pass(10_000);
    }
    local(&mut world, LocalAction::Stop);
    world.pass(1_000);
    world.kill_edge(0, Some(1_000));
    world.edges[0].disk = backup;
    settles(&mut world);
    assert_eq!(world.edges[0].disk.rules.len(), 1);
}

#[test]
fn a_wiped_edge_is_issued_again() {
    let mut world = running(5);
    world.kill_edge(0, Some(1_000));
    world.edges[0].disk = tidegate_edge_core::Snapshot::fresh(tidegate_model::ids::StoreId(77));
    settles(&mut world);
    assert_eq!((view(&world).issue_state, view(&world).run_state), (IssueState::Issued, RunState::Running));
}

#[test]
fn a_crash_at_any_moment_of_an_issue_leaves_no_false_claim_and_settles() {
    for (ms, cloud, edge) in (0..40).flat_map(|ms| [(ms, true, false), (ms, false, true), (ms, true, true)]) {
        let mut world = placed(6);
        act(&mut world, Action::Issue);
        world.pass(ms);
        if cloud {
            world.kill_cloud();
        }
        if edge {
            world.kill_edge(0, Some(3_000));
        }
        world.pass(SETTLE_MS);
        world.expect_settled();
        assert_eq!(world.broken, None, "after {ms} ms, cloud {cloud}, edge {edge}");
        assert_eq!(view(&world).issue_state, IssueState::Issued, "after {ms} ms, cloud {cloud}, edge {edge}");
    }
}

/// The routine hello (15 minutes, a fifth more at the most) and the time that its answer takes.
const HELLO_AND_ANSWER_MS: i64 = HELLO_EVERY_MS * 6 / 5 + 60_000;

#[test]
fn m10_a_lost_push_heals_within_the_routine_hello_and_nobody_acts() {
    for seed in 0..20 {
        let mut world = running(seed);
        // Long enough that the push and every repetition of the operation's own time-out are lost; the session stays.
        world.seats[0].cut_until = world.time + 30_000;
        act(&mut world, Action::Stop);
        world.pass(30_000);
        assert_eq!(
            world.edges[0].disk.rules.values().next().map(|r| r.run_desired),
            Some(DesiredRun::Running)
        );
        world.pass(HELLO_AND_ANSWER_MS);
        let there = world.edges[0].disk.rules.values().next().expect("a rule is there");
        assert_eq!(
            (there.run_desired, there.run.state),
            (DesiredRun::Stopped, RunState::PausedManual),
            "seed {seed}"
        );
        assert_eq!(
            (view(&world).run_state, view(&world).last_known),
            (RunState::PausedManual, false),
            "seed {seed}"
        );
        assert_eq!(world.broken, None);
    }
}

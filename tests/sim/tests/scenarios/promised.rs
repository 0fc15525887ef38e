//! What the protocol promises, played out by hand and looked at in between.

use tidegate_cloud_core::{PlacementView, Request, WhenOffline};
use tidegate_edge_core::{Input, LocalAction, QueuesFull, ReplyId, RuleFile, SiteRule};
use tidegate_model::limits::HELLO_EVERY_MS;
use tidegate_model::placement::{Action, IssueState, Link, Role, RunState};
use tidegate_model::rule::{Format, Limits, Secrets, parse};
use tidegate_model::wire::{Counters, DesiredRun, Origin};
use tidegate_sim::operator::{edge_id, rule_name};
use tidegate_sim::step::{Moment, Password, Step};
use tidegate_sim::words::Shape;
use tidegate_sim::{QUIET_MS, SETTLE_MS, World};

const GOOD: Shape = Shape { topic: 0, remote: 0, login: 0, manual: false, other_policy: false };

fn save(world: &mut World, shape: Shape) {
    world.play(Step::Save { rule: 0, shape, password: Password::Keep });
}

fn place(world: &mut World) {
    world.play(Step::Place { rule: 0, edge: 0, line: 0 });
}

fn act(world: &mut World, action: Action) {
    let when_offline = WhenOffline::Queue;
    world.ask(Request::Act { rule: rule_name(0), edge: edge_id(0), action, when_offline });
}

fn unplace(world: &mut World) {
    world.ask(Request::Unplace { rule: rule_name(0), edge: edge_id(0) });
}

/// Two edges online, one rule placed on the first.
fn placed(seed: u64) -> World {
    let mut world = World::quiet(seed, 2);
    world.pass(5_000);
    save(&mut world, GOOD);
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
    let rule = *world.agents[0].disk.rules.keys().next().expect("a rule is there");
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
    save(&mut world, Shape { topic: 1, ..GOOD });
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
    world.play(Step::BackUpEdge { edge: 0 });
    for _ in 0..3 {
        act(&mut world, Action::Stop);
        world.pass(10_000);
        act(&mut world, Action::Start);
        world.pass(10_000);
    }
    local(&mut world, LocalAction::Stop);
    world.pass(1_000);
    world.play(Step::RestoreEdge { edge: 0 });
    settles(&mut world);
    assert_eq!(world.agents[0].disk.rules.len(), 1);
}

#[test]
fn a_wiped_edge_is_issued_again() {
    let mut world = running(5);
    world.play(Step::Wipe { edge: 0 });
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
            world.kill_cloud(3_000);
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

/// What is done while a process crashes at one of its commits: everything that makes it write.
fn everything(world: &mut World) {
    act(world, Action::Issue);
    world.pass(10_000);
    act(world, Action::Stop);
    world.pass(10_000);
    act(world, Action::Start);
    world.pass(10_000);
    save(world, Shape { remote: 1, ..GOOD });
    act(world, Action::Sync);
    world.pass(10_000);
    act(world, Action::IssueAgain);
    world.pass(10_000);
    unplace(world);
    world.pass(10_000);
    place(world);
    act(world, Action::Issue);
    world.pass(10_000);
}

#[test]
fn a_crash_around_every_commit_of_either_side_settles() {
    let moments = [Moment::BeforeCommit, Moment::AfterCommit(0), Moment::AfterCommit(1)];
    let steps = (0..30).flat_map(|after| [(after, true), (after, false)]);
    let mut crashed = 0;
    for ((after, cloud), moment) in steps.flat_map(|step| moments.map(|moment| (step, moment))) {
        let mut world = placed(9);
        world.play(match cloud {
            true => Step::CrashCloud { after, moment },
            false => Step::CrashEdge { edge: 0, after, moment },
        });
        everything(&mut world);
        (world.cloud.crash, world.agents[0].crash) = (None, None);
        crashed += u32::from(world.coverage.0.keys().any(|what| what.contains("crashes")));
        settles(&mut world);
    }
    assert!(crashed > 80, "only {crashed} crashes happened");
}

fn held(world: &World) -> Option<String> {
    let view = world.cloud.core.as_ref().and_then(|core| core.edge(&edge_id(0))).expect("it is known");
    view.held.map(|held| held.code)
}

#[test]
fn two_gateways_with_one_disk_are_shown_and_held_and_one_alone_is_well_again() {
    for seed in 0..20 {
        for original in [true, false] {
            let mut world = running(seed);
            world.play(Step::Clone { edge: 0 });
            world.pass(120_000);
            assert_eq!(held(&world).as_deref(), Some("DUPLICATE_EDGE"), "seed {seed}");
            let generation = view(&world).generation;
            act(&mut world, Action::Stop);
            assert_eq!(view(&world).generation, generation, "nothing is begun on a held edge");
            world.play(Step::CloneEnds { edge: 0, original });
            settles(&mut world);
            assert_eq!(held(&world), None);
            act(&mut world, Action::Stop);
            world.pass(5_000);
            assert_eq!(view(&world).run_state, RunState::PausedManual, "seed {seed}");
        }
    }
}

#[test]
fn a_restored_controller_holds_its_actions_until_an_operator_confirms() {
    let mut world = running(11);
    world.play(Step::BackUpCloud);
    act(&mut world, Action::Stop);
    world.pass(10_000);
    world.play(Step::RestoreCloud);
    world.pass(30_000);
    // In a calm world the operator looks after it every two minutes.
    world.pass(SETTLE_MS);
    assert!(world.coverage.of("CLOUD_BEHIND is raised") > 0);
    assert_eq!(held(&world), None);
    assert_eq!(view(&world).run_state, RunState::PausedManual, "what the edge does stands");
    settles(&mut world);
}

#[test]
fn a_rule_that_was_deleted_and_made_again_under_its_name_is_another_rule() {
    let mut world = running(12);
    let first = view(&world).rule_id;
    world.seats[0].cut_until = world.time + 60_000;
    world.play(Step::Delete { rule: 0 });
    save(&mut world, Shape { topic: 1, ..GOOD });
    place(&mut world);
    act(&mut world, Action::Issue);
    settles(&mut world);
    assert_ne!(view(&world).rule_id, first);
    assert_eq!(view(&world).issue_state, IssueState::Issued);
    assert_eq!(world.agents[0].disk.rules.len(), 1, "the first one is gone from the edge");
    assert!(world.agents[0].disk.tombstones.contains_key(&first));
}

#[test]
fn what_is_queued_expires_after_seven_days_and_a_removal_never() {
    for removal in [false, true] {
        let mut world = running(13);
        world.kill_edge(0, Some(8 * 24 * 3_600 * 1_000));
        world.pass(400_000);
        assert_eq!(link(&world), Link::Offline);
        match removal {
            true => unplace(&mut world),
            false => act(&mut world, Action::Stop),
        }
        world.pass(8 * 24 * 3_600 * 1_000);
        settles(&mut world);
        let here = world.agents[0].disk.rules.len();
        assert_eq!(here, usize::from(!removal));
        if !removal {
            assert_eq!(view(&world).run_state, RunState::Running, "the stop expired");
        }
    }
}

#[test]
fn a_full_disk_ends_the_process_and_loses_nothing_that_was_said() {
    for seed in 0..10 {
        let mut world = running(seed);
        world.play(Step::FillEdge { edge: 0, ms: 40_000 });
        world.play(Step::FillCloud { ms: 20_000 });
        act(&mut world, Action::Stop);
        world.pass(30_000);
        act(&mut world, Action::Stop);
        settles(&mut world);
        assert!(world.coverage.of("a commit of an agent fails: its disk is full") > 0);
        assert!(world.coverage.of("a commit of the controller fails: its disk is full") > 0);
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
            world.agents[0].disk.rules.values().next().map(|r| r.run_desired),
            Some(DesiredRun::Running)
        );
        world.pass(HELLO_AND_ANSWER_MS);
        let there = world.agents[0].disk.rules.values().next().expect("a rule is there");
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

#[test]
fn m1_a_rule_of_the_site_is_told_to_the_cloud_and_left_alone_there() {
    let mut world = running(8);
    let text = "name = \"on-site\"\n[remote]\nurl = \"mqtt://remote-0.example\"\n[[forwards]]\ntopic = \"pumps/#\"\n";
    let rule =
        parse(text, Format::Toml).and_then(|draft| draft.validate(&Limits::default())).expect("a rule").0;
    let file =
        RuleFile { name: "a.toml".into(), content: Ok(SiteRule { rule, secrets: Secrets::default() }) };
    world.edge_input(0, Input::RuleFiles { files: vec![file], again: false });
    world.pass(30_000);
    let unmanaged = |world: &World| {
        let view = world.cloud.core.as_ref().and_then(|core| core.edge(&edge_id(0))).expect("it is known");
        let told = view.unmanaged.expect("the edge has told").into_iter();
        told.map(|told| (told.name.map(|n| n.to_string()), told.origin, told.run_state)).collect::<Vec<_>>()
    };
    let shown = [(Some("on-site".to_owned()), Origin::Local, RunState::Running)];
    assert_eq!(unmanaged(&world), shown);
    world.kill_cloud(1_000);
    world.kill_edge(0, Some(1_000));
    settles(&mut world);
    assert_eq!(unmanaged(&world), shown);
    assert_eq!(view(&world).run_state, RunState::Running, "the cloud's own rule is not disturbed");
    world.edge_input(0, Input::RuleFiles { files: Vec::new(), again: false });
    world.pass(30_000);
    assert_eq!(unmanaged(&world), []);
    settles(&mut world);
}

#[test]
fn a_full_queue_is_shown_while_it_is_full_whatever_breaks_meanwhile() {
    let mut world = running(9);
    let rule = *world.agents[0].disk.rules.keys().next().expect("a rule is there");
    let look = |world: &mut World, is_full: bool| {
        let full = QueuesFull { forwards: is_full, subscriptions: false };
        world.edge_input(0, Input::Counters { rule, counters: Counters::default(), full });
        world.pass(5_000);
    };
    look(&mut world, true);
    assert!(view(&world).queue_full.is_some());
    assert_eq!(view(&world).run_state, RunState::Running);
    // The controller dies, then the cable breaks: it is still shown when both are back.
    world.kill_cloud(1_000);
    world.seats[0].cut_until = world.time + 20_000;
    for _ in 0..12 {
        look(&mut world, true);
    }
    assert!(view(&world).queue_full.is_some());
    // The agent dies, and its new process finds room.
    world.kill_edge(0, Some(1_000));
    world.pass(30_000);
    look(&mut world, false);
    assert_eq!(view(&world).queue_full, None);
    settles(&mut world);
}

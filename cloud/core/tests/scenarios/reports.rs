//! What an edge tells by itself, and how it is shown.

use crate::world::World;
use tidegate_model::code::{Code, FaultCode};
use tidegate_model::placement::{Action, IssueState, RunState};
use tidegate_model::wire::{By, DesiredRun, Fault, PlacementState, QueueFull, RunReport, Up};

#[test]
fn c13_c14_faults_and_recoveries_are_told_by_the_edge_and_late_ones_ignored() {
    let mut world = World::issued();
    let fault = RunReport {
        fault: Some(Fault { code: FaultCode::Tcp, detail: "connection refused".into() }),
        ..world.run(RunState::PausedFault, By::Agent)
    };
    world.report(fault.clone());
    let view = world.view("up");
    assert_eq!(view.run_state, RunState::PausedFault);
    assert_eq!(view.run_reason.unwrap().code, "TCP");
    assert_eq!(view.issue_state, IssueState::Issued);
    let recovered = world.run(RunState::Running, By::Agent);
    world.report(recovered);
    assert_eq!(world.view("up").run_state, RunState::Running);
    let rule = world.held.values().next().unwrap().set.rule;
    let late = Up::Report(tidegate_model::wire::Report {
        rule,
        run: fault,
        counters: Default::default(),
        skipped: 0,
    });
    world.up(&late);
    assert_eq!(world.view("up").run_state, RunState::Running, "an older transition is ignored");
}

#[test]
fn c13_a_stop_on_site_is_followed_so_that_a_sync_does_not_start_it_again() {
    let mut world = World::issued();
    let stopped = world.run(RunState::PausedManual, By::Local);
    world.report(stopped);
    let view = world.view("up");
    assert_eq!((view.run_state, view.run_by), (RunState::PausedManual, Some(By::Local)));
    world.save("up", "other/#").unwrap();
    world.act("up", Action::Sync).unwrap();
    assert_eq!(world.last_set().unwrap().run, DesiredRun::Stopped);
}

#[test]
fn c13_a_stop_on_site_while_an_issue_is_under_way_is_followed_when_it_is_settled() {
    let mut world = World::placed();
    world.act("up", Action::Issue).unwrap();
    let set = world.last_set().unwrap();
    let run = RunReport { sequence: 1, by: By::Local, ..RunReport::never_ran() };
    world.answer_with(&set, Code::Ok, Some(set.target), run, "");
    assert_eq!(world.view("up").desired_run, DesiredRun::Stopped);
    // Somebody starts it, it pauses and recovers before the cloud hears of it: it is started all the same.
    let recovered = RunReport { sequence: 4, ..world.run(RunState::Running, By::Agent) };
    world.report(recovered);
    assert_eq!(world.view("up").desired_run, DesiredRun::Running);
}

#[test]
fn another_reason_for_the_same_fault_is_shown_and_flapping_ends_without_a_transition() {
    let mut world = World::issued();
    let running = world.held.values().next().unwrap().run.clone();
    let fault = |detail: &str| RunReport {
        sequence: running.sequence + 1,
        state: RunState::PausedFault,
        fault: Some(Fault { code: FaultCode::Tcp, detail: detail.into() }),
        ..running.clone()
    };
    let shown = |world: &World| world.view("up").run_reason.map(|reason| reason.detail);
    world.report(RunReport { flapping: Some(9), ..fault("connection refused") });
    assert_eq!((shown(&world).as_deref(), world.view("up").flapping), (Some("connection refused"), Some(9)));
    let events = world.events;
    world.report(fault("no route to host"));
    assert_eq!((shown(&world).as_deref(), world.view("up").flapping), (Some("no route to host"), None));
    assert_eq!(world.events, events + 1, "the watchers are told");
    world.report(fault("no route to host"));
    assert_eq!(world.events, events + 1, "the same again is no news");
    world.report(RunReport { sequence: running.sequence, ..fault("late") });
    assert_eq!(shown(&world).as_deref(), Some("no route to host"), "an older transition is ignored");
    // A session that begins says whether it still flaps.
    world.report(RunReport { flapping: Some(9), ..fault("no route to host") });
    world.connect();
    assert_eq!((shown(&world).as_deref(), world.view("up").flapping), (Some("no route to host"), None));
}

#[test]
fn a_full_queue_is_shown_beside_the_run_state_and_forgotten_with_the_session() {
    let mut world = World::issued();
    let (events, running) = (world.events, world.held.values().next().unwrap().run.clone());
    let full = QueueFull { since: world.now.wall, forwards: true, subscriptions: false };
    world.report(RunReport { queue_full: Some(full), ..running.clone() });
    let view = world.view("up");
    assert_eq!((view.run_state, view.run_reason), (RunState::Running, None), "it pauses nothing");
    let shown = view.queue_full.clone().unwrap();
    assert_eq!((shown.since, shown.forwards, shown.subscriptions), (full.since, true, false));
    assert!(shown.reason.detail.contains("devices get no acknowledgement"), "{shown:?}");
    assert_eq!(view.reason.map(|reason| reason.code).as_deref(), Some("QUEUE_FULL"));
    assert_eq!(world.events, events + 1, "the watchers are told");
    assert_eq!(world.controller.summary(world.now).tally.queue_full, 1);
    // The fault of a paused rule matters more, and the advice is another.
    let fault = Fault { code: FaultCode::Tcp, detail: "connection refused".into() };
    let sequence = running.sequence + 1;
    world.report(RunReport {
        sequence,
        state: RunState::PausedFault,
        fault: Some(fault),
        queue_full: Some(full),
        ..running.clone()
    });
    let view = world.view("up");
    let told = PlacementState::from(&view);
    assert_eq!((told.reason.unwrap().code.as_str(), told.queue_full.unwrap().forwards), ("TCP", true));
    assert_eq!(view.reason.map(|reason| reason.code).as_deref(), Some("TCP"));
    assert!(view.queue_full.unwrap().reason.next.starts_with("mend the fault"));
    // A restart of the controller keeps what was said last; a session of the edge that begins says it anew, or not.
    assert_eq!(world.controller.summary(world.now).tally.last_known, 0);
    world.restart();
    assert!(world.view("up").queue_full.is_some() && world.view("up").last_known);
    assert_eq!(world.controller.summary(world.now).tally.last_known, 1);
    world.connect();
    assert_eq!(world.view("up").queue_full, None);
    let paused = world.held.values().next().unwrap().run.clone();
    assert_eq!(paused.state, RunState::PausedFault);
    world.report(paused.clone());
    assert!(world.view("up").queue_full.is_some());
    world.report(RunReport { queue_full: None, ..paused });
    assert_eq!(world.view("up").queue_full, None);
    assert_eq!(world.controller.summary(world.now).tally.queue_full, 0);
    assert_eq!(world.view("up").run_state, RunState::PausedFault);
}

#[test]
fn what_an_edge_says_for_people_is_one_short_line_wherever_it_is_shown() {
    let mut world = World::issued();
    let told = format!("\u{1b}[31mred\n2026-11-21 INFO forged\u{202e}{}", "x".repeat(300_000));
    let fault = Fault { code: FaultCode::Tcp, detail: told };
    world.report(RunReport { fault: Some(fault), ..world.run(RunState::PausedFault, By::Agent) });
    let detail = world.view("up").run_reason.unwrap().detail;
    assert!(detail.len() <= 1_024 + 200 && !detail.chars().any(char::is_control), "{detail:?}");
    assert!(detail.contains("red 2026-11-21 INFO forged\u{fffd}x"), "{detail:?}");
    let stored = &world.snapshot.placements[0].reported.as_ref().unwrap().run.fault.as_ref().unwrap().detail;
    assert_eq!(stored.len(), tidegate_model::limits::MAX_DETAIL_BYTES);
}

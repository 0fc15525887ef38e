//! The two states of a placement through its life, named after the rows of features.md section 5.

use crate::world::{EDGE, World, content, edge_id, rule_name};
use tidegate_cloud_core::{Expect, Rejection, Reply, Request, Saved, WhenOffline};
use tidegate_model::code::{Code, FailureClass, FaultCode};
use tidegate_model::ids::{RuleId, SessionId, StoreId};
use tidegate_model::limits::MAX_RULES_PER_EDGE;
use tidegate_model::placement::{Action, IssueState, Link, RunState};
use tidegate_model::rule::SecretInput;
use tidegate_model::version::{Generation, RuleVersion};
use tidegate_model::wire::{
    Birth, By, Config, Counters, DesiredRun, Fault, Origin, QueueFull, Report, RunReport, SetResult, Up,
};

#[test]
fn c01_issue_runs_and_c07_issued_means_that_the_edge_said_so() {
    let mut world = World::placed();
    assert_eq!(world.view("up").issue_state, IssueState::NotIssued);
    world.act("up", Action::Issue).unwrap();
    let set = world.last_set().unwrap();
    assert_eq!((set.run, set.generation.0), (DesiredRun::Running, 1));
    assert_eq!(set.want, set.compute_want());
    let view = world.view("up");
    assert_eq!(view.issue_state, IssueState::NotIssued, "sending is not arriving");
    assert!(view.in_flight.is_some());
    world.apply_set();
    let view = world.view("up");
    assert_eq!((view.issue_state, view.run_state), (IssueState::Issued, RunState::Running));
    assert!(view.in_flight.is_none() && !view.last_known);
    // It is on disk: a controller that crashed now says the same, but as last known.
    world.restart();
    let view = world.view("up");
    assert_eq!((view.issue_state, view.run_state), (IssueState::Issued, RunState::Running));
    assert!(view.last_known && view.link == Link::Unknown);
}

#[test]
fn c05_issue_to_an_offline_edge_is_refused_and_changes_nothing() {
    let mut world = World::placed();
    world.disconnect();
    let before = world.record().clone();
    world.down.clear();
    let refused = world.act("up", Action::Issue).unwrap_err();
    assert_eq!(refused.code(), Code::EdgeOffline);
    assert_eq!(*world.record(), before);
    assert!(world.down.is_empty());
    world.act_offline("up", Action::Issue, WhenOffline::Queue).unwrap();
    assert!(world.view("up").in_flight.unwrap().queued);
    assert_eq!(world.controller.summary(world.now).tally.pending, 1);
    assert!(world.down.is_empty());
    world.connect();
    assert_eq!(world.set_count(), 1);
    world.apply_set();
    assert_eq!(world.view("up").issue_state, IssueState::Issued);
}

#[test]
fn c05_of_several_queued_actions_only_the_latest_state_is_kept() {
    let mut world = World::issued();
    world.disconnect();
    world.act_offline("up", Action::Stop, WhenOffline::Queue).unwrap();
    world.save("up", "other/#").unwrap();
    assert_eq!(world.act("up", Action::Sync).unwrap_err().code(), Code::EdgeOffline);
    world.act_offline("up", Action::Sync, WhenOffline::Queue).unwrap();
    world.connect();
    let set = world.apply_set();
    assert_eq!((set.target.version, set.run), (RuleVersion(2), DesiredRun::Stopped));
    assert_eq!(world.set_count(), 1);
}

#[test]
fn c05_a_queued_action_expires_after_seven_days() {
    let mut world = World::placed();
    world.disconnect();
    world.act_offline("up", Action::Issue, WhenOffline::Queue).unwrap();
    world.pass(6 * 86_400_000);
    assert!(world.view("up").in_flight.is_some());
    world.pass(2 * 86_400_000);
    let view = world.view("up");
    assert_eq!(view.issue_state, IssueState::Failed);
    assert_eq!(view.reason.unwrap().code, "EXPIRED");
    world.connect();
    assert_eq!(world.set_count(), 0, "what expired is not sent");
}

#[test]
fn c08_an_edit_flips_the_state_in_the_same_transaction_and_sync_closes_it() {
    let mut world = World::issued();
    assert_eq!(world.save("up", "other/#").unwrap(), (Saved::Changed, RuleVersion(2)));
    assert_eq!(world.view("up").issue_state, IssueState::UpdatesNotIssued);
    let view = world.view("up");
    assert_eq!((view.version, view.edge_version), (RuleVersion(2), Some(RuleVersion(1))));
    world.act("up", Action::Sync).unwrap();
    let set = world.apply_set();
    assert_eq!(set.restart, 1, "a sync asks for no restart: the nonce is the first issue's");
    assert_eq!(world.view("up").issue_state, IssueState::Issued);
}

#[test]
fn c09_a_parameter_error_fails_and_the_old_version_keeps_running() {
    let mut world = World::issued();
    let old = world.view("up").edge_digest;
    world.save("up", "other/#").unwrap();
    world.act("up", Action::Sync).unwrap();
    let set = world.last_set().unwrap();
    let running = world.held.values().next().unwrap().running;
    world.answer(&set, Code::RemoteAuth, running, RunState::Running, "bad user name or password");
    let view = world.view("up");
    assert_eq!((view.issue_state, view.run_state), (IssueState::Failed, RunState::Running));
    let reason = view.issue_reason.unwrap();
    assert_eq!((reason.code.as_str(), reason.class), ("REMOTE_AUTH", Some(FailureClass::Parameter)));
    assert_eq!(view.edge_digest, old);
    // Stopping does not deploy the failed version, and what is kept is the old one.
    world.act("up", Action::Stop).unwrap();
    let set = world.last_set().unwrap();
    assert_eq!((set.target.version, &set.config), (RuleVersion(1), &Config::Keep));
    world.apply_set();
    // An edit after the failure: no longer failed, but the reason is kept.
    world.save("up", "third/#").unwrap();
    let view = world.view("up");
    assert_eq!(view.issue_state, IssueState::UpdatesNotIssued);
    assert_eq!(view.issue_reason.unwrap().code, "REMOTE_AUTH");
}

#[test]
fn c09_no_answer_is_a_network_failure_and_a_late_result_wins() {
    let mut world = World::placed();
    world.act("up", Action::Issue).unwrap();
    world.pass(9_000);
    assert_eq!(world.set_count(), 1);
    world.pass(45_000);
    assert_eq!(world.set_count(), 5, "it was sent again");
    let view = world.view("up");
    assert_eq!(view.issue_state, IssueState::Failed);
    let reason = view.issue_reason.unwrap();
    assert_eq!((reason.code.as_str(), reason.class), ("TIMED_OUT", Some(FailureClass::Network)));
    world.apply_set();
    let view = world.view("up");
    assert_eq!((view.issue_state, view.run_state), (IssueState::Issued, RunState::Running));
}

#[test]
fn c10_a_rule_with_manual_start_is_issued_and_not_started() {
    let mut world = World::placed();
    world
        .save_with(content("up", "sensors/#", "start = \"manual\""), SecretInput::Keep, Expect::Any)
        .unwrap();
    world.act("up", Action::Issue).unwrap();
    assert_eq!(world.last_set().unwrap().run, DesiredRun::Stopped);
}

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
fn what_the_edge_holds_can_be_stopped_although_its_bytes_are_not_known_here() {
    let mut world = World::placed();
    world.act("up", Action::Issue).unwrap();
    let set = world.last_set().unwrap();
    // Taken off before it answered, edited, placed again: the edge has the first version, of which no bytes are left.
    world.ask(Request::Unplace { rule: rule_name("up"), edge: edge_id() }).unwrap();
    world.save("up", "other/#").unwrap();
    world.place("up").unwrap();
    world.answer(&set, Code::Ok, Some(set.target), RunState::Running, "");
    world.act("up", Action::Stop).unwrap();
    let stop = world.last_set().unwrap();
    assert_eq!((stop.target, &stop.config, stop.run), (set.target, &Config::Keep, DesiredRun::Stopped));
    world.apply_set();
    assert_eq!(world.view("up").run_state, RunState::PausedManual);
    // What was learnt of it stays the same while it is sent again: one generation is one set.
    world.act("up", Action::Start).unwrap();
    let first = world.last_set().unwrap();
    world.pass(11_000);
    assert_eq!(world.last_set().unwrap(), first);
}

#[test]
fn a_rule_that_nobody_manages_is_told_once_and_does_not_ask_for_inventories() {
    let mut world = World::issued();
    world.ask(Request::DeleteRule { rule: rule_name("up"), expect: Expect::Any }).unwrap();
    let before = world.held.clone();
    world.apply_set();
    // A backup brings back what the cloud has forgotten by now.
    world.held = before;
    world.connect();
    assert_eq!(world.controller.edge(&edge_id()).unwrap().unmanaged_rules, Some(1));
    let recovered = world.run(RunState::Running, By::Agent);
    world.report(recovered);
    world.pass(6_000);
    world.down.clear();
    let heartbeat =
        tidegate_model::wire::Heartbeat { root: world.root(), runs: Default::default(), queued: 0 };
    world.up(&Up::Heartbeat(heartbeat));
    assert!(world.down.is_empty(), "both sides hold the same");
}

#[test]
fn a_rule_of_the_site_is_shown_with_its_name_its_origin_and_its_run_state_and_never_touched() {
    let mut world = World::issued();
    let unmanaged = |world: &World| world.controller.edge(&edge_id()).unwrap().unmanaged;
    assert_eq!(unmanaged(&world), Some(Vec::new()));
    // The site writes a rule of its own, which ends in a fault that only the site can mend.
    let mut held = world.held.values().next().unwrap().clone();
    let ours = held.set.rule;
    held.set.rule = RuleId(uuid::Uuid::from_u128(8 << 76));
    held.set.name = rule_name("on-site");
    held.origin = Origin::Local;
    let fault = Fault { code: FaultCode::Auth, detail: "bad user name or password".into() };
    held.run = RunReport { state: RunState::PausedFault, fault: Some(fault), ..held.run };
    let site = held.set.rule;
    world.held.insert(site, held.clone());
    world.down.clear();
    world.connect();
    let shown = unmanaged(&world).unwrap();
    assert_eq!(shown.len(), 1);
    assert_eq!((shown[0].rule, shown[0].name.clone()), (site, Some(rule_name("on-site"))));
    assert_eq!((shown[0].origin, shown[0].run_state), (Origin::Local, RunState::PausedFault));
    assert!(!shown[0].last_known && shown[0].since == Some(held.run.since));
    let reason = shown[0].run_reason.clone().unwrap();
    assert_eq!((reason.code.as_str(), reason.detail.as_str()), ("AUTH", "bad user name or password"));
    assert!(reason.next.contains("on the gateway"), "the cloud cannot mend it: {}", reason.next);
    let (list, _) = world.controller.edges(None, 10);
    assert_eq!((list[0].unmanaged_rules, &list[0].unmanaged), (Some(1), &None), "lists only count them");
    // A report of it is shown and told to the watchers once; counters alone are no news.
    let events = world.events;
    let run = RunReport { sequence: 9, state: RunState::Running, fault: None, ..held.run };
    world.held.get_mut(&site).unwrap().run = run.clone();
    let report = Report { rule: site, run, counters: Counters::default(), skipped: 0 };
    world.up(&Up::Report(report.clone()));
    world.up(&Up::Report(report));
    assert_eq!(unmanaged(&world).unwrap()[0].run_state, RunState::Running);
    assert_eq!(unmanaged(&world).unwrap()[0].run_reason, None);
    assert_eq!(world.events, events + 1);
    // What an edge said before it went away is not what is.
    world.disconnect();
    assert!(unmanaged(&world).unwrap()[0].last_known);
    // A controller that just started has not heard of any; that is not the same as none.
    world.restart();
    assert_eq!(unmanaged(&world), None);
    world.connect();
    assert_eq!(unmanaged(&world).unwrap().len(), 1);
    assert_eq!(world.set_count(), 0, "nothing is sent for it");
    assert_eq!(world.record().rule, ours);
    // A new disk holds what it says, not what the old one said.
    world.held.clear();
    world.sid = SessionId { store: StoreId(0xb), epoch: 1 };
    world.presence(&Up::Birth(Birth { boot: 8 }));
    assert_eq!(unmanaged(&world), None);
    world.connect();
    assert_eq!(unmanaged(&world), Some(Vec::new()));
}

#[test]
fn a_rule_of_a_forgotten_cloud_is_taken_off_when_somebody_asks_and_no_twin_of_it_is_issued_before() {
    let mut world = World::issued();
    let old = *world.held.keys().next().unwrap();
    world.ask(Request::RemoveEdge { edge: edge_id(), leave_running: true }).unwrap();
    world.ask(Request::DeleteRule { rule: rule_name("up"), expect: Expect::Any }).unwrap();
    world.save("up", "sensors/#").unwrap();
    world.ask(Request::CreateEdge { edge: edge_id(), credential: "hash".to_owned() }).unwrap();
    world.connect();
    world.inventory();
    world.place("up").unwrap();
    let refused = world.act("up", Action::Issue).unwrap_err();
    assert!(refused.to_string().contains(&old.to_string()), "{refused}");

    let remove = |rule: RuleId| Request::RemoveUnmanaged { edge: edge_id(), rule };
    let other = RuleId(uuid::Uuid::from_u128(5));
    assert!(matches!(world.ask(remove(other)).unwrap_err(), Rejection::NoSuchUnmanaged { .. }));
    assert!(matches!(world.ask(remove(old)).unwrap(), Reply::Unplaced { pending: true }));
    let removal = world.last_set().unwrap();
    assert_eq!((removal.rule, removal.present), (old, false));
    assert!(removal.generation > world.held[&old].set.generation);
    assert!(
        matches!(world.ask(remove(old)).unwrap_err(), Rejection::NoSuchUnmanaged { .. }),
        "once is enough"
    );
    world.apply_set();
    assert!(world.snapshot.placements.iter().all(|placement| placement.rule != old));
    world.act("up", Action::Issue).unwrap();
    world.apply_set();
    assert_eq!(world.view("up").issue_state, IssueState::Issued);
}

#[test]
fn a_rule_of_the_site_is_not_taken_off_by_the_cloud() {
    let mut world = World::issued();
    let old = *world.held.keys().next().unwrap();
    world.held.get_mut(&old).unwrap().origin = Origin::Local;
    world.ask(Request::RemoveEdge { edge: edge_id(), leave_running: true }).unwrap();
    world.ask(Request::DeleteRule { rule: rule_name("up"), expect: Expect::Any }).unwrap();
    world.ask(Request::CreateEdge { edge: edge_id(), credential: "hash".to_owned() }).unwrap();
    world.connect();
    world.inventory();
    let refused = world.ask(Request::RemoveUnmanaged { edge: edge_id(), rule: old }).unwrap_err();
    assert!(matches!(refused, Rejection::OfTheSite { .. }), "{refused}");
    assert_eq!(world.set_count(), 0);
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
fn a_rule_that_this_cloud_forgot_is_shown_as_one_of_a_cloud() {
    let mut world = World::issued();
    world.snapshot.placements.clear();
    world.restart();
    world.connect();
    let shown = world.controller.edge(&edge_id()).unwrap().unmanaged.unwrap();
    assert_eq!(shown.len(), 1);
    assert_eq!((shown[0].name.clone(), shown[0].origin), (Some(rule_name("up")), Origin::Cloud));
    assert_eq!(shown[0].run_state, RunState::Running);
}

#[test]
fn c17_the_version_grows_by_one_and_an_unchanged_save_keeps_it() {
    let mut world = World::new();
    assert_eq!(world.save("up", "a").unwrap(), (Saved::Created, RuleVersion(1)));
    assert_eq!(world.save("up", "a").unwrap(), (Saved::Unchanged, RuleVersion(1)));
    assert_eq!(world.save("up", "b").unwrap(), (Saved::Changed, RuleVersion(2)));
    let etag = world.controller.rule(&rule_name("up"), tidegate_model::placement::Role::Viewer).unwrap().etag;
    let first = world.save_with(content("up", "c", ""), SecretInput::Keep, Expect::Etag(etag.clone()));
    assert_eq!(first.unwrap(), (Saved::Changed, RuleVersion(3)));
    let second = world.save_with(content("up", "d", ""), SecretInput::Keep, Expect::Etag(etag));
    assert!(matches!(second, Err(Rejection::VersionConflict { .. })));
}

#[test]
fn a_password_is_a_change_and_is_kept_when_it_is_left_out() {
    let mut world = World::placed();
    assert_eq!(world.save_secret("up", "s3cret").unwrap().1, RuleVersion(2));
    assert_eq!(world.save("up", "sensors/#").unwrap(), (Saved::Unchanged, RuleVersion(2)));
    assert_eq!(world.save_secret("up", "s3cret").unwrap().0, Saved::Unchanged);
    world.act("up", Action::Issue).unwrap();
    let set = world.apply_set();
    assert_eq!(set.secrets[0].value, "s3cret");
    assert!(!format!("{set:?}").contains("s3cret"));
    assert_eq!(world.save_secret("up", "other").unwrap(), (Saved::Changed, RuleVersion(3)));
    assert_eq!(world.view("up").issue_state, IssueState::UpdatesNotIssued);
    let shown = world.controller.rule(&rule_name("up"), tidegate_model::placement::Role::Viewer).unwrap();
    assert!(!serde_json::to_string(&shown).unwrap().contains("other"));
}

#[test]
fn c18_c19_issue_is_for_the_first_time_and_issue_again_always_restarts() {
    let mut world = World::issued();
    assert_eq!(world.act("up", Action::Issue).unwrap_err().code(), Code::NotAllowed);
    world.act("up", Action::IssueAgain).unwrap();
    let set = world.apply_set();
    assert_eq!((set.generation.0, set.restart), (2, 2));
    world.act("up", Action::IssueAgain).unwrap();
    assert_eq!(world.apply_set().restart, 3);
    assert_eq!(world.view("up").issue_state, IssueState::Issued);
}

#[test]
fn c21_c22_start_and_stop_are_idempotent_and_keep_what_the_edge_has() {
    let mut world = World::issued();
    assert!(matches!(world.act("up", Action::Start).unwrap(), Reply::Already { .. }));
    world.act("up", Action::Stop).unwrap();
    let set = world.apply_set();
    assert_eq!((set.run, set.config), (DesiredRun::Stopped, Config::Keep));
    assert_eq!(world.view("up").run_state, RunState::PausedManual);
    assert!(matches!(world.act("up", Action::Stop).unwrap(), Reply::Already { .. }));
    world.restart();
    world.connect();
    assert_eq!(world.set_count(), 0, "a reconnect restarts nothing");
    assert_eq!(world.view("up").run_state, RunState::PausedManual);
    world.act("up", Action::Start).unwrap();
    world.apply_set();
    assert_eq!(world.view("up").run_state, RunState::Running);
}

#[test]
fn a_stop_supersedes_an_issue_that_is_under_way() {
    let mut world = World::placed();
    world.act("up", Action::Issue).unwrap();
    world.act("up", Action::Stop).unwrap();
    let set = world.last_set().unwrap();
    assert_eq!((set.generation.0, set.run), (2, DesiredRun::Stopped));
    assert!(matches!(set.config, Config::Bytes(_)), "the edge does not have it yet");
    world.apply_set();
    let view = world.view("up");
    assert_eq!((view.issue_state, view.run_state), (IssueState::Issued, RunState::PausedManual));
}

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
    world.save_with(policy, SecretInput::Keep, Expect::Any).unwrap();
    world.act("up", Action::Sync).unwrap();
    world.apply_set();
    world.held.clear();
    world.sid.store = StoreId(0xc);
    world.connect();
    assert_eq!(world.set_count(), 0);
    assert_eq!(world.view("up").issue_state, IssueState::NotIssued);
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
fn b08_a_rule_that_needs_more_than_the_agent_can_is_refused_before_it_is_sent() {
    let mut world = World::placed();
    world.features.clear();
    world.connect();
    let before = world.record().clone();
    let refused = world.act("up", Action::Issue).unwrap_err();
    assert_eq!(refused.code(), Code::UnsupportedField);
    let text = refused.to_string();
    assert!(text.contains("agent is 0.1.0") && text.contains("remote"), "{text}");
    assert_eq!((world.record(), world.set_count()), (&before, 0));
    // Queued for an agent that comes back too old: it fails when it is about to be sent.
    world.features.insert("bridge.v1".to_owned());
    world.connect();
    world.disconnect();
    world.act_offline("up", Action::Issue, WhenOffline::Queue).unwrap();
    world.features.clear();
    world.connect();
    assert_eq!(world.set_count(), 0);
    assert_eq!(world.view("up").issue_reason.unwrap().code, "UNSUPPORTED_FIELD");
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
fn placing_a_rule_that_the_edge_holds_unmanaged_asks_what_it_holds() {
    let mut world = World::issued();
    world.snapshot.placements.clear();
    world.restart();
    world.connect();
    let edge = world.controller.edge(&edge_id()).unwrap();
    assert_eq!(edge.unmanaged_rules, Some(1));
    world.down.clear();
    world.place("up").unwrap();
    assert!(world.wants_inventory());
    world.inventory();
    assert_eq!(world.controller.edge(&edge_id()).unwrap().unmanaged, Some(Vec::new()));
    let view = world.view("up");
    assert_eq!((view.issue_state, view.run_state), (IssueState::Issued, RunState::Running));
    assert_eq!(world.act("up", Action::IssueAgain).unwrap_err().code(), Code::CloudBehind);
}

#[test]
fn two_rules_with_one_client_id_do_not_go_on_one_edge() {
    let mut world = World::placed();
    let same = content("down", "x", "").canonical_toml().replace("{edge}-{rule}", "gw-1-up");
    let draft = tidegate_model::rule::parse(&same, tidegate_model::rule::Format::Toml).unwrap();
    let (rule, _) = draft.validate(&Default::default()).unwrap();
    world.save_with(rule, SecretInput::Keep, Expect::Any).unwrap();
    match world.place("down") {
        Err(Rejection::ClientIdClash { other, .. }) => assert_eq!(other, rule_name("up")),
        other => panic!("{other:?}"),
    }
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

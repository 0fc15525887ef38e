//! Sets, from reception to result: accept, probe, commit, revert, remove, survive.

#[allow(dead_code)] // each test file uses a part of it
mod world;

use tidegate_edge_core::{BridgeEvent, Effect, LocalAction, LocalAnswer, LocalRefusal, Policy};
use tidegate_model::code::{Code, FaultCode};
use tidegate_model::digest::Digest;
use tidegate_model::placement::RunState;
use tidegate_model::rule::SecretRef;
use tidegate_model::version::Generation;
use tidegate_model::wire::{By, Config, DesiredRun, Fault, Set};
use world::{
    RULE, World, forwards, keep, removal, render_text, rendered, secret, set, set_of, setup, wanted,
};

use DesiredRun::{Running, Stopped};

#[test]
fn an_issued_rule_is_received_probed_committed_and_answered() {
    let mut w = World::welcomed();
    w.set(set(1, 1, "sensors/#", Running));
    assert_eq!(w.kinds(), ["received"]);
    assert_eq!(w.bridge_effects(), ["start"], "nothing is taken in before the commit");
    assert!(w.disk.rules[&RULE].candidate.is_some() && w.disk.rules[&RULE].committed.is_none());
    w.bridge(BridgeEvent::Running);
    assert_eq!(w.kinds(), ["received", "result"], "the result tells the transition, no report repeats it");
    assert_eq!(w.bridge_effects(), ["start", "take in"]);
    let result = &w.results()[0];
    let target = set(1, 1, "sensors/#", Running).target;
    assert_eq!((result.code, result.attempted, result.running), (Code::Ok, Some(target), Some(target)));
    assert_eq!((result.run.state, result.run.sequence, result.run.by), (RunState::Running, 1, By::Cloud));
    assert_eq!(w.disk.rules[&RULE].running(), Some(target));
}

#[test]
fn a_fault_of_the_rule_reverts_to_the_last_known_good() {
    for (fault, code) in [
        (FaultCode::Auth, Code::RemoteAuth),
        (FaultCode::NotAuthorized, Code::RemoteNotAuthorized),
        (FaultCode::SubscribeRefused, Code::SubscribeRefused),
        (FaultCode::Config, Code::InvalidConfig),
    ] {
        let mut w = World::running();
        let good = w.disk.rules[&RULE].running();
        let bad = rendered("client_id = \"other\"\n[[forwards]]\ntopic = \"sensors/#\"");
        w.set(set_of(2, 2, bad, Running));
        w.fault(fault);
        let result = &w.results()[0];
        assert_eq!((result.code, result.running, result.run.state), (code, good, RunState::Running));
        assert_ne!(result.attempted, good);
        assert_eq!(w.disk.rules[&RULE].candidate, None);
        w.bridge(BridgeEvent::Running);
        assert_eq!(w.reports(), [], "the old version runs as before: no transition");
    }
}

#[test]
fn a_first_issue_that_fails_leaves_nothing_and_runs_nothing() {
    let mut w = World::welcomed();
    w.set(set(1, 1, "sensors/#", Running));
    w.fault(FaultCode::Auth);
    assert_eq!(w.bridge_effects(), ["start", "take in nothing", "stop"]);
    let result = &w.results()[0];
    assert_eq!((result.code, result.running), (Code::RemoteAuth, None));
    assert_eq!(result.run.state, RunState::NotRunning);
    w.reboot(2);
    assert_eq!(w.bridge_effects(), Vec::<&str>::new());
    assert_eq!(w.local(LocalAction::Start), LocalAnswer::Refused(LocalRefusal::NothingHere));
}

#[test]
fn a_fault_of_the_world_commits_and_the_rule_runs_when_the_world_is_back() {
    for fault in [FaultCode::Dns, FaultCode::Tcp, FaultCode::KeepAlive] {
        let mut w = World::welcomed();
        w.set(set(1, 1, "sensors/#", Running));
        w.fault(fault);
        let result = &w.results()[0];
        assert_eq!((result.code, result.run.state), (Code::Ok, RunState::PausedFault));
        assert_eq!(result.run.fault.as_ref().unwrap().code, fault);
        assert_eq!(
            w.bridge_effects(),
            ["start", "take in"],
            "devices are listened to while the remote is away"
        );
        w.bridge(BridgeEvent::Running);
        let report = &w.reports()[0];
        assert_eq!((report.run.state, report.run.by, report.run.sequence), (RunState::Running, By::Agent, 2));
        assert_eq!(report.skipped, 0);
    }
}

#[test]
fn silence_for_verify_s_commits_as_paused() {
    let mut w = World::welcomed();
    w.set(set(1, 1, "sensors/#", Running));
    w.wait(14_999);
    assert_eq!(w.results(), []);
    w.wait(1);
    let result = &w.results()[0];
    assert_eq!((result.code, result.run.state), (Code::Ok, RunState::PausedFault));
    assert_eq!(result.duration_ms, 15_000);
}

#[test]
fn generations_order_sets() {
    let mut w = World::running();
    let held = set(1, 1, "sensors/#", Running);
    // The same again: answered from disk, nothing is done.
    w.set(held.clone());
    // A lower one, and the same number with another content.
    w.set(wanted(Set { generation: Generation(0), ..held.clone() }));
    w.set(wanted(Set { restart: 9, ..held.clone() }));
    let results = w.results();
    assert_eq!(results.iter().map(|r| r.code).collect::<Vec<_>>(), [Code::Ok, Code::Stale, Code::Conflict]);
    assert_eq!(results[1].generation, Generation(1));
    assert_eq!(results[1].answers, Generation(0));
    assert!(results.iter().all(|r| r.want == held.want));
    assert_eq!(w.bridge_effects().len(), 1, "only the start from before");
}

#[test]
fn a_repeated_set_that_is_under_way_is_acknowledged_only() {
    let mut w = World::welcomed();
    w.set(set(1, 1, "sensors/#", Running));
    w.set(set(1, 1, "sensors/#", Running));
    assert_eq!(w.kinds(), ["received", "received"]);
    assert_eq!(w.bridge_effects(), ["start"]);
}

#[test]
fn a_want_that_does_not_fit_is_refused_and_leaves_nothing() {
    let mut w = World::welcomed();
    w.set(Set { want: Digest::of(b"lie"), ..set(1, 1, "sensors/#", Running) });
    assert_eq!(w.results()[0].code, Code::BadMessage);
    assert!(w.disk.rules.is_empty());
}

#[test]
fn missing_bytes_are_asked_for_and_taken_at_the_same_generation() {
    let mut w = World::welcomed();
    w.set(keep(3, 1, "sensors/#", Running));
    assert_eq!(w.results()[0].code, Code::MissingDependency);
    w.set(set(3, 1, "sensors/#", Running));
    w.bridge(BridgeEvent::Running);
    assert_eq!(w.results()[1].code, Code::Ok);
    // And now they are here.
    w.set(keep(4, 1, "sensors/#", Stopped));
    assert_eq!(w.results()[2].code, Code::Ok);
}

#[test]
fn secrets_come_with_the_set_or_are_here_already() {
    let text = "name = \"a\"\n[remote]\nurl = \"mqtt://b.example\"\nusername = \"u\"\npassword = \"p\"\n[[forwards]]\ntopic = \"x\"\n";
    let bytes = |version| render_text(text, Some(SecretRef { id: "s1".into(), version }));
    let mut w = World::welcomed();
    w.set(set_of(1, 1, bytes(1), Running));
    assert_eq!(w.results()[0].code, Code::MissingDependency);
    assert!(w.results()[0].detail.contains("'s1' in version 1"), "{}", w.results()[0].detail);
    w.set(Set { secrets: vec![secret(1)], ..set_of(1, 1, bytes(1), Running) });
    w.bridge(BridgeEvent::Running);
    assert_eq!(w.results()[1].code, Code::Ok);
    w.set(Set { config: Config::Keep, ..set_of(2, 1, bytes(1), Stopped) });
    assert_eq!(w.results()[2].code, Code::Ok);
    w.set(set_of(3, 2, bytes(2), Running));
    assert_eq!(w.results()[3].code, Code::MissingDependency);
    assert!(!format!("{:?}", w.disk).contains("hunter2"));
}

#[test]
fn what_the_site_forbids_is_refused_by_name() {
    let policy = Policy { hosts: Some(vec!["*.corp".into()]), ..Policy::default() };
    let mut w = World::with(tidegate_edge_core::Setup { policy, ..setup(1) });
    w.handle(tidegate_edge_core::Input::Boot);
    w.connect();
    w.set(set(1, 1, "sensors/#", Running));
    let result = &w.results()[0];
    assert_eq!(result.code, Code::PolicyDenied);
    assert!(result.detail.contains("broker.example"), "{}", result.detail);
}

#[test]
fn an_unknown_field_names_itself() {
    let mut w = World::welcomed();
    let mut json: serde_json::Value = serde_json::from_str(&forwards("a")).unwrap();
    json["from_the_future"] = true.into();
    w.set(set_of(1, 1, json.to_string(), Running));
    let result = &w.results()[0];
    assert_eq!(result.code, Code::UnsupportedField);
    assert!(result.detail.contains("from_the_future"), "{}", result.detail);
}

#[test]
fn a_refused_set_keeps_what_runs_and_gives_up_what_was_being_tried() {
    let mut w = World::running();
    w.set(set_of(2, 2, rendered("client_id = \"o\"\n[[forwards]]\ntopic = \"a\""), Running));
    w.set(set_of(3, 3, "{}".into(), Running));
    let result = w.results().pop().unwrap();
    assert_eq!((result.code, result.generation), (Code::InvalidConfig, Generation(3)));
    assert_eq!(w.disk.rules[&RULE].candidate, None);
    assert_eq!(w.bridge_effects().last(), Some(&"start"), "back to the last known good");
    assert_eq!(w.disk.rules[&RULE].running().unwrap(), set(1, 1, "sensors/#", Running).target);
}

#[test]
fn changes_disturb_no_more_than_they_must() {
    let mut w = World::running();
    // Forwards only: the connection is not concerned, so the commit is immediate.
    w.set(set(2, 2, "other/#", Running));
    assert_eq!(w.results()[0].code, Code::Ok);
    assert_eq!(w.bridge_effects(), ["start", "take in"]);
    // Subscriptions: resubscribe.
    let subscribes = rendered("[[forwards]]\ntopic = \"other/#\"\n[[subscriptions]]\ntopic = \"news/#\"");
    w.set(set_of(3, 3, subscribes, Running));
    match w.effects.iter().rev().find(|e| matches!(e, Effect::ReconfigureBridge { .. })) {
        Some(Effect::ReconfigureBridge { change, .. }) => assert!(change.is_topics_only()),
        other => panic!("{other:?}"),
    }
    w.bridge(BridgeEvent::Running);
    // Another address: reconnect, by the same way.
    let moved = rendered(
        "client_id = \"x\"\n[[forwards]]\ntopic = \"other/#\"\n[[subscriptions]]\ntopic = \"news/#\"",
    );
    w.set(set_of(4, 4, moved, Running));
    match w.effects.last() {
        Some(Effect::PublishUp(_)) | None => panic!("nothing was ordered"),
        Some(effect) => {
            assert!(matches!(effect, Effect::ReconfigureBridge { change, .. } if change.connection))
        }
    }
    assert_eq!(w.reports(), [], "the run state never changed");
}

#[test]
fn with_an_external_local_broker_other_forwards_need_its_word_and_its_absence_fails_no_issue() {
    let mut w = World::with(tidegate_edge_core::Setup { subscribes_locally: true, ..setup(1) });
    w.handle(tidegate_edge_core::Input::Boot);
    w.connect();
    w.set(set(1, 1, "sensors/#", Running));
    w.bridge(BridgeEvent::Running);
    assert_eq!(w.results()[0].code, Code::Ok);
    w.set(set(2, 2, "other/#", Running));
    assert_eq!(w.results().len(), 1, "its subscriptions are not granted yet");
    assert_eq!(w.disk.rules[&RULE].running().unwrap(), set(1, 1, "sensors/#", Running).target);
    let last = w.effects.iter().rev().find(|e| matches!(e, Effect::ReconfigureBridge { .. }));
    assert!(matches!(last, Some(Effect::ReconfigureBridge { change, .. }) if change.is_topics_only()));
    let away = Fault { code: FaultCode::LocalBroker, detail: "it is away".to_owned() };
    w.bridge(BridgeEvent::Faulted(away));
    assert_eq!(
        w.results()[1].code,
        Code::Ok,
        "the rule cannot help it: it is committed, and runs when it can"
    );
    let record = &w.disk.rules[&RULE];
    assert_eq!(record.running().unwrap(), set(2, 2, "other/#", Running).target);
    assert_eq!(record.run.state, RunState::PausedFault);
    w.bridge(BridgeEvent::Running);
    assert_eq!(w.disk.rules[&RULE].run.state, RunState::Running);
}

#[test]
fn issue_again_restarts_and_a_repeated_issue_does_not() {
    let mut w = World::running();
    let again = Set { generation: Generation(2), ..set(2, 1, "sensors/#", Running) };
    w.set(again.clone());
    assert_eq!(w.bridge_effects(), ["start", "take in"], "nothing differs: nothing is done");
    assert_eq!(w.results().len(), 1);
    w.set(wanted(Set { generation: Generation(3), restart: 5, ..again }));
    assert_eq!(w.bridge_effects(), ["start", "take in", "take in", "start"]);
    assert_eq!(w.results().len(), 1, "answered with the state reached");
    w.bridge(BridgeEvent::Running);
    assert_eq!(w.results()[1].code, Code::Ok);
}

#[test]
fn stop_and_start_keep_the_version() {
    let mut w = World::running();
    w.set(keep(2, 1, "sensors/#", Stopped));
    assert_eq!(w.results()[0].run.state, RunState::PausedManual);
    assert_eq!(w.bridge_effects(), ["start", "take in nothing", "stop"]);
    w.reboot(2);
    assert_eq!(w.bridge_effects(), Vec::<&str>::new(), "still stopped after a reboot");
    w.connect();
    w.welcome(tidegate_model::wire::Want::None);
    w.forget();
    w.set(keep(3, 1, "sensors/#", Running));
    assert_eq!(w.results(), []);
    w.bridge(BridgeEvent::Running);
    assert_eq!((w.results()[0].code, w.results()[0].run.state), (Code::Ok, RunState::Running));
}

#[test]
fn a_rule_that_never_ran_is_not_running_when_it_is_stopped() {
    let mut w = World::welcomed();
    w.set(set(1, 1, "sensors/#", Stopped));
    assert_eq!(w.results()[0].run.state, RunState::NotRunning);
    assert_eq!(w.bridge_effects(), ["take in nothing", "stop"]);
    assert!(w.disk.rules[&RULE].committed.is_some());
    w.set(keep(2, 1, "sensors/#", Running));
    w.set(keep(3, 1, "sensors/#", Stopped));
    assert_eq!(w.results().last().unwrap().run.state, RunState::NotRunning);
}

#[test]
fn somebody_on_site_stops_and_starts_without_a_generation() {
    let mut w = World::running();
    assert_eq!(w.local(LocalAction::Stop), LocalAnswer::Done);
    assert_eq!(w.local(LocalAction::Stop), LocalAnswer::Already);
    let report = &w.reports()[0];
    assert_eq!((report.run.state, report.run.by), (RunState::PausedManual, By::Local));
    assert_eq!(w.disk.rules[&RULE].generation, Generation(1));
    w.reboot(2);
    assert_eq!(w.bridge_effects(), Vec::<&str>::new());
    assert_eq!(w.local(LocalAction::Start), LocalAnswer::Done);
    w.bridge(BridgeEvent::Running);
    let run = &w.disk.rules[&RULE].run;
    assert_eq!((run.state, run.by), (RunState::Running, By::Local));
    // A later set of the cloud wins.
    w.local(LocalAction::Stop);
    w.connect();
    w.set(keep(2, 1, "sensors/#", Running));
    assert_eq!(w.disk.rules[&RULE].run_desired, Running);
}

#[test]
fn what_somebody_on_site_wants_is_told_even_where_nothing_ran_yet() {
    let mut w = World::welcomed();
    w.set(set(1, 1, "sensors/#", Running));
    assert_eq!(w.local(LocalAction::Stop), LocalAnswer::Done);
    // The set is settled, and its result says that it does not run because somebody on site did not want it.
    let result = w.results().pop().unwrap();
    assert_eq!((result.code, result.run.state, result.run.by), (Code::Ok, RunState::NotRunning, By::Local));
    assert_eq!(result.run.sequence, 1);
    // A start on site that a crash interrupts is still a start on site.
    assert_eq!(w.local(LocalAction::Start), LocalAnswer::Done);
    w.reboot(2);
    w.connect();
    w.welcome(tidegate_model::wire::Want::None);
    w.bridge(BridgeEvent::Running);
    let report = w.reports().pop().unwrap();
    assert_eq!((report.run.state, report.run.by), (RunState::Running, By::Local));
}

#[test]
fn a_removed_rule_leaves_its_numbers_and_nothing_else() {
    let mut w = World::running();
    w.set(removal(2));
    assert_eq!(w.bridge_effects(), ["start", "take in nothing", "stop", "destroy"]);
    assert_eq!((w.results()[0].code, w.results()[0].running), (Code::Ok, None));
    assert!(w.disk.rules.is_empty());
    w.set(removal(2));
    w.set(set(1, 1, "sensors/#", Running));
    assert_eq!(w.results()[1].code, Code::Ok);
    assert_eq!((w.results()[2].code, w.results()[2].generation), (Code::Stale, Generation(2)));
    w.reboot(2);
    assert_eq!(w.bridge_effects(), ["destroy"], "in case the crash came before the queue was deleted");
    w.connect();
    w.set(set(3, 1, "sensors/#", Running));
    w.bridge(BridgeEvent::Running);
    assert_eq!(w.disk.rules[&RULE].run.sequence, 3, "run states go on counting");
    assert!(w.disk.tombstones.is_empty());
}

#[test]
fn after_a_crash_the_candidate_is_probed_once_more() {
    let mut w = World::running();
    let good = w.disk.rules[&RULE].running();
    w.set(set_of(2, 2, rendered("client_id = \"o\"\n[[forwards]]\ntopic = \"a\""), Running));
    w.reboot(2);
    assert_eq!(w.bridge_effects(), ["take in", "start"], "messages come in under the last known good");
    w.fault(FaultCode::Auth);
    assert_eq!(w.disk.rules[&RULE].outcome.as_ref().unwrap().code, Code::RemoteAuth);
    assert_eq!(w.disk.rules[&RULE].running(), good);
    // Without a session nothing was said; the answer is given when it is asked for.
    w.connect();
    w.set(set_of(2, 2, rendered("client_id = \"o\"\n[[forwards]]\ntopic = \"a\""), Running));
    assert_eq!(w.results()[0].code, Code::RemoteAuth);
}

#[test]
fn rules_run_from_disk_without_the_cloud() {
    let mut w = World::running();
    w.reboot(2);
    assert_eq!(w.bridge_effects(), ["take in", "start"]);
    w.fault(FaultCode::Tcp);
    assert_eq!(w.disk.rules[&RULE].run.state, RunState::PausedFault);
}

#[test]
fn a_bridge_that_ends_is_ordered_again_after_a_pause() {
    let mut w = World::running();
    for pause in [1_000, 2_000, 4_000] {
        w.bridge(BridgeEvent::Ended { detail: "it panicked".into() });
        assert_eq!(w.disk.rules[&RULE].run.state, RunState::PausedFault);
        let before = w.bridge_effects().len();
        w.wait(pause - 1);
        assert_eq!(w.bridge_effects().len(), before);
        w.wait(1);
        assert_eq!(w.bridge_effects().last(), Some(&"start"));
    }
}

#[test]
fn a_bridge_that_could_not_be_started_keeps_its_reason_and_is_tried_again() {
    let mut w = World::welcomed();
    w.set(set(1, 1, "sensors/#", Running));
    w.fault(FaultCode::Disk);
    w.bridge(BridgeEvent::Ended { detail: "its queue cannot be opened".into() });
    let fault = |w: &World| w.disk.rules[&RULE].run.fault.as_ref().map(|fault| fault.code);
    assert_eq!(fault(&w), Some(FaultCode::Disk));
    w.wait(1_000);
    assert_eq!(w.bridge_effects().last(), Some(&"start"));
    w.fault(FaultCode::Disk);
    assert_eq!(w.reports(), [], "the same again is no transition");
}

#[test]
fn signs_of_an_earlier_order_mean_nothing() {
    let mut w = World::welcomed();
    w.set(set(1, 1, "sensors/#", Running));
    let earlier = w.last_order();
    w.set(set_of(2, 2, rendered("client_id = \"o\"\n[[forwards]]\ntopic = \"a\""), Running));
    w.handle(tidegate_edge_core::Input::Bridge { rule: RULE, order: earlier, event: BridgeEvent::Running });
    assert_eq!(w.results(), []);
    w.bridge(BridgeEvent::Running);
    assert_eq!(w.results()[0].generation, Generation(2));
}

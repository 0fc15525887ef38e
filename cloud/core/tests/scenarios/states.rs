//! The two states of a placement through its life, named after the rows of features.md section 5.

use crate::world::{World, content, edge_id, rule_name};
use tidegate_cloud_core::{Expect, Rejection, Reply, Request, Saved, WhenOffline};
use tidegate_model::code::{Code, FailureClass};
use tidegate_model::placement::{Action, IssueState, Link, RunState};
use tidegate_model::rule::{Format, Limits, SecretInputs, parse};
use tidegate_model::version::RuleVersion;
use tidegate_model::wire::{Config, DesiredRun};

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
        .save_with(content("up", "sensors/#", "start = \"manual\""), SecretInputs::default(), Expect::Any)
        .unwrap();
    world.act("up", Action::Issue).unwrap();
    assert_eq!(world.last_set().unwrap().run, DesiredRun::Stopped);
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
fn c17_the_version_grows_by_one_and_an_unchanged_save_keeps_it() {
    let mut world = World::new();
    assert_eq!(world.save("up", "a").unwrap(), (Saved::Created, RuleVersion(1)));
    assert_eq!(world.save("up", "a").unwrap(), (Saved::Unchanged, RuleVersion(1)));
    assert_eq!(world.save("up", "b").unwrap(), (Saved::Changed, RuleVersion(2)));
    let etag = world.controller.rule(&rule_name("up"), tidegate_model::placement::Role::Viewer).unwrap().etag;
    let first = world.save_with(content("up", "c", ""), SecretInputs::default(), Expect::Etag(etag.clone()));
    assert_eq!(first.unwrap(), (Saved::Changed, RuleVersion(3)));
    let second = world.save_with(content("up", "d", ""), SecretInputs::default(), Expect::Etag(etag));
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
fn two_rules_with_one_client_id_do_not_go_on_one_edge() {
    let mut world = World::placed();
    let same = content("down", "x", "").canonical_toml().replace("{edge}-{rule}", "gw-1-up");
    let draft = tidegate_model::rule::parse(&same, tidegate_model::rule::Format::Toml).unwrap();
    let (rule, _) = draft.validate(&Default::default()).unwrap();
    world.save_with(rule, SecretInputs::default(), Expect::Any).unwrap();
    match world.place("down") {
        Err(Rejection::ClientIdClash { other, .. }) => assert_eq!(other, rule_name("up")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_rule_that_closes_a_loop_with_another_one_of_the_edge_is_refused_when_it_is_placed_and_when_it_is_saved()
{
    let mut world = World::issued();
    let back = |topic: &str| {
        let text = format!(
            "name = \"down\"\n[remote]\nurl = \"mqtt://broker.example\"\n[[subscriptions]]\n\
             topic = \"plant/{{edge}}/{topic}\"\nstrip = \"plant/{{edge}}/\"\n"
        );
        parse(&text, Format::Toml).unwrap().validate(&Limits::default()).unwrap().0
    };
    world.save_with(back("sensors/#"), SecretInputs::default(), Expect::Any).unwrap();
    let refused = world.place("down").unwrap_err();
    let told = refused.to_string();
    assert!(matches!(refused, Rejection::LoopBetween { .. }), "{told}");
    assert!(told.contains("'up'") && told.contains("'down'") && told.contains("sensors/#"), "{told}");
    // With other topics it may stand there; then a change that closes the loop is refused, and nothing is changed.
    world.save_with(back("commands/#"), SecretInputs::default(), Expect::Any).unwrap();
    world.place("down").unwrap();
    let refused = world.save_with(back("sensors/#"), SecretInputs::default(), Expect::Any).unwrap_err();
    assert!(matches!(refused, Rejection::LoopBetween { .. }), "{refused}");
    assert_eq!(world.view("down").version.0, 2);
}

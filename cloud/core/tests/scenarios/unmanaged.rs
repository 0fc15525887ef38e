//! Rules on an edge that this cloud does not manage: shown, never touched by themselves, taken off by name.

use crate::world::{World, edge_id, rule_name};
use tidegate_cloud_core::{Expect, Rejection, Reply, Request};
use tidegate_model::code::{Code, FaultCode};
use tidegate_model::ids::{RuleId, SessionId, StoreId};
use tidegate_model::placement::{Action, IssueState, RunState};
use tidegate_model::wire::{Birth, By, Counters, Fault, Origin, Report, RunReport, Up};

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

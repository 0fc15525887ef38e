//! What a request would do is what it does, and asking changes nothing.

use tidegate_cloud_core::{
    Affected, Effect, Expect, How, Input, Rehearsed, Rejection, Reply, ReplyTo, Request,
};
use tidegate_model::placement::{Action, IssueState, Role};
use tidegate_model::rule::SecretInputs;

use crate::world::{World, content, edge_id, rule_name};

/// What the request would do. The controller is the same afterwards, to the last timer, and nothing is written or sent.
pub fn rehearse(world: &mut World, request: Request) -> Result<Rehearsed, Rejection> {
    let before = format!("{:?}", world.controller);
    let output = world.controller.handle(
        world.now,
        Input::Request {
            reply_to: ReplyTo(1),
            by: tidegate_cloud_core::Actor { name: "test".into(), via: "api".into() },
            role: Role::Operator,
            request: Box::new(request),
            how: How { once: None, dry_run: true },
        },
    );
    assert_eq!(format!("{:?}", world.controller), before, "a rehearsal changed the controller");
    assert!(output.writes.is_empty(), "a rehearsal writes: {:?}", output.writes);
    let [Effect::Reply { result, .. }] = output.effects.as_slice() else {
        panic!("a rehearsal does something: {:?}", output.effects)
    };
    match result.clone().map(|reply| *reply).map_err(|rejection| *rejection)? {
        Reply::Rehearsed(rehearsed) => Ok(*rehearsed),
        other => panic!("it was done: {other:?}"),
    }
}

fn save(topic: &str) -> Request {
    Request::SaveRule {
        id: tidegate_model::ids::RuleId(uuid::Uuid::from_u128(77)),
        content: Box::new(content("up", topic, "")),
        secrets: SecretInputs::default(),
        expect: Expect::Any,
        note: String::new(),
    }
}

#[test]
fn a_save_tells_the_version_that_it_would_make_and_where_updates_would_be_missing() {
    let mut world = World::issued();
    let told = rehearse(&mut world, save("other/#")).unwrap();
    let Reply::Rule { rule, .. } = &told.reply else { panic!("{told:?}") };
    assert_eq!((rule.version.0, told.affected_total), (2, 1));
    let [Affected { issue_state_before, after, sends, .. }] = told.affected.as_slice() else {
        panic!("{told:?}")
    };
    assert_eq!((*issue_state_before, *sends), (Some(IssueState::Issued), false));
    assert_eq!(after.as_ref().unwrap().issue_state, IssueState::UpdatesNotIssued);
    let unchanged = rehearse(&mut world, save("sensors/#")).unwrap();
    assert!(unchanged.affected.is_empty());
}

#[test]
fn an_action_tells_that_it_would_send_and_a_refusal_is_the_same() {
    let mut world = World::issued();
    let act = |action| Request::Act {
        rule: rule_name("up"),
        edge: edge_id(),
        action,
        when_offline: tidegate_cloud_core::WhenOffline::Refuse,
    };
    let told = rehearse(&mut world, act(Action::Stop)).unwrap();
    assert!(told.affected[0].sends);
    assert!(matches!(rehearse(&mut world, act(Action::Sync)).unwrap().reply, Reply::Already { .. }));
    world.disconnect();
    let would = rehearse(&mut world, act(Action::Stop)).unwrap_err().to_string();
    let does = world.ask(act(Action::Stop)).unwrap_err().to_string();
    assert_eq!(would, does);
}

#[test]
fn bounds_count_what_is_there() {
    let mut world = World::placed();
    let settings = tidegate_cloud_core::Settings { max_rules: 1, max_edges: 1, ..Default::default() };
    let (controller, _) =
        tidegate_cloud_core::Controller::restore(settings, world.snapshot.clone(), 0, world.now);
    world.controller = controller;
    let other = Request::SaveRule {
        id: tidegate_model::ids::RuleId(uuid::Uuid::from_u128(78)),
        content: Box::new(content("other", "a/#", "")),
        secrets: SecretInputs::default(),
        expect: Expect::Any,
        note: String::new(),
    };
    assert!(matches!(rehearse(&mut world, other), Err(Rejection::Limit { .. })));
    let edge = tidegate_model::ids::EdgeId::new("gw-2").unwrap();
    let create = Request::CreateEdge { edge, credential: "$x".into() };
    assert!(matches!(rehearse(&mut world, create), Err(Rejection::Limit { .. })));
    assert!(rehearse(&mut world, save("a/#")).is_ok());
}

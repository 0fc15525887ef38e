//! Requests that are done once however often they are sent, also over a crash.

use tidegate_cloud_core::{
    Expect, How, Input, KEEP_ANSWER_MS, KeptAnswer, Once, OnceKey, Rejection, Reply, Request, WhenOffline,
};
use tidegate_model::digest::Digest;
use tidegate_model::ids::RuleId;
use tidegate_model::placement::Action;
use tidegate_model::rule::SecretInputs;

use crate::world::{World, content, edge_id, rule_name};

fn render(reply: &Reply) -> KeptAnswer {
    let body = match reply {
        Reply::Rule { rule, saved } => format!("{} {:?} {saved:?}", rule.name, rule.version),
        Reply::Acted { operation, .. } => format!("operation {:?}", operation.id),
        other => format!("{other:?}"),
    };
    KeptAnswer { status: 200, headers: Vec::new(), body }
}

fn once(key: &str, request: &str) -> How {
    let once = Once { key: OnceKey::new(key).unwrap(), request: Digest::of(request.as_bytes()), render };
    How { once: Some(once), dry_run: false }
}

fn create(id: u128) -> Request {
    Request::SaveRule {
        id: RuleId(uuid::Uuid::from_u128(id)),
        content: Box::new(content("new", "sensors/#", "")),
        secrets: SecretInputs::default(),
        expect: Expect::Absent,
        note: String::new(),
    }
}

fn replayed(result: Result<Reply, Rejection>) -> String {
    match result.unwrap() {
        Reply::Replayed(answer) => answer.body,
        other => panic!("it was done again: {other:?}"),
    }
}

#[test]
fn the_second_time_gets_the_first_answer_also_after_a_crash() {
    let mut world = World::new();
    assert!(matches!(world.ask_how(create(1), once("k", "create")), Ok(Reply::Rule { .. })));
    let rules = world.snapshot.rules.clone();
    assert!(replayed(world.ask_how(create(2), once("k", "create"))).contains("Created"));
    world.restart();
    assert!(replayed(world.ask_how(create(3), once("k", "create"))).contains("Created"));
    assert_eq!(world.snapshot.rules, rules);
    // Without the key, or with another, it is another request.
    assert!(matches!(world.ask(create(4)), Err(Rejection::RuleExists(_))));
    assert!(matches!(world.ask_how(create(5), once("l", "create")), Err(Rejection::RuleExists(_))));
}

#[test]
fn an_action_is_sent_once() {
    let mut world = World::placed();
    let act = || Request::Act {
        rule: rule_name("up"),
        edge: edge_id(),
        action: Action::IssueAgain,
        when_offline: WhenOffline::Refuse,
    };
    world.act("up", Action::Issue).unwrap();
    world.apply_set();
    let sent = world.down.len();
    world.ask_how(act(), once("k", "again")).unwrap();
    assert_eq!(world.down.len(), sent + 1);
    world.apply_set();
    let (sent, generation) = (world.down.len(), world.snapshot.placements[0].generation);
    replayed(world.ask_how(act(), once("k", "again")));
    assert_eq!((world.down.len(), world.snapshot.placements[0].generation), (sent, generation));
}

#[test]
fn a_key_belongs_to_one_request_and_to_one_caller() {
    let mut world = World::new();
    world.ask_how(create(1), once("k", "create")).unwrap();
    assert!(matches!(world.ask_how(create(1), once("k", "other")), Err(Rejection::KeyReused)));
    let kept = world.controller.kept_answers();
    let by = tidegate_cloud_core::Actor { name: "somebody else".into(), via: "api".into() };
    let once = once("k", "other").once.unwrap();
    assert!(world.controller.kept_answer(&by, &once).unwrap().is_none());
    assert_eq!(kept, 1);
}

#[test]
fn what_was_refused_is_not_kept() {
    let mut world = World::placed();
    world.disconnect();
    let act = || Request::Act {
        rule: rule_name("up"),
        edge: edge_id(),
        action: Action::Issue,
        when_offline: WhenOffline::Refuse,
    };
    assert!(matches!(world.ask_how(act(), once("k", "a")), Err(Rejection::NotAllowed { .. })));
    assert!(world.snapshot.answers.is_empty());
    world.connect();
    assert!(matches!(world.ask_how(act(), once("k", "a")), Ok(Reply::Acted { .. })));
}

#[test]
fn answers_are_forgotten_after_a_day_also_over_restarts_and_jumps_of_the_clock() {
    let mut world = World::new();
    world.ask_how(create(1), once("k", "create")).unwrap();
    world.pass(KEEP_ANSWER_MS - 1_000);
    assert_eq!(world.snapshot.answers.len(), 1);
    world.restart();
    world.pass(2_000);
    assert!(world.snapshot.answers.is_empty());
    assert_eq!(world.controller.kept_answers(), 0);

    world
        .ask_how(Request::DeleteRule { rule: rule_name("new"), expect: Expect::Any }, once("d", "d"))
        .unwrap();
    // A day passed while the controller was down.
    world.now.wall = world.now.wall.plus_ms(KEEP_ANSWER_MS);
    world.restart();
    assert!(world.snapshot.answers.is_empty());

    // The clock goes back: the answer is kept longer, and not for ever.
    world.ask_how(create(2), once("k", "create")).unwrap();
    world.now.wall = world.now.wall.plus_ms(-3_600_000);
    world.input(Input::Tick);
    world.pass(KEEP_ANSWER_MS + 3_600_000 + 1_000);
    assert!(world.snapshot.answers.is_empty());
    assert!(world.controller.next_deadline().is_none_or(|due| due.at > world.now.monotonic));
}

//! Whatever happens, in whatever order: the controller never panics, and what it shows follows from what it wrote.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tidegate_cloud_core::{Controller, Expect, PlacementFilter, Request, Settings, WhenOffline};
use tidegate_model::code::Code;
use tidegate_model::ids::{RuleId, StoreId};
use tidegate_model::placement::{Action, IssueState, Role, RunState};
use tidegate_model::rule::SecretInputs;
use tidegate_model::version::RuleVersion;
use tidegate_model::wire::By;

use crate::rehearse::rehearse;
use crate::world::{World, content, edge_id, rule_name};

#[derive(Debug, Clone)]
enum Step {
    Save(u8),
    Place,
    Unplace,
    Delete,
    Act(Action, bool),
    Apply,
    Fail(bool),
    Report(RunState),
    Connect,
    Disconnect,
    Wipe,
    Restart,
    Pass(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0..4_u8).prop_map(Step::Save),
        1 => Just(Step::Place),
        1 => Just(Step::Unplace),
        1 => Just(Step::Delete),
        4 => (prop::sample::select(Action::ALL.to_vec()), any::<bool>()).prop_map(|(a, queue)| Step::Act(a, queue)),
        4 => Just(Step::Apply),
        1 => any::<bool>().prop_map(Step::Fail),
        1 => prop::sample::select(vec![RunState::Running, RunState::PausedFault, RunState::PausedManual]).prop_map(Step::Report),
        2 => Just(Step::Connect),
        1 => Just(Step::Disconnect),
        1 => Just(Step::Wipe),
        1 => Just(Step::Restart),
        1 => prop::sample::select(vec![1_000, 61_000, 400_000]).prop_map(Step::Pass),
    ]
}

/// The request that a step makes, if it makes one.
fn request(step: &Step) -> Option<Request> {
    let (rule, edge) = (rule_name("up"), edge_id());
    Some(match step {
        Step::Save(topic) => Request::SaveRule {
            id: RuleId(uuid::Uuid::from_u128(1_000)),
            content: Box::new(content("up", &format!("sensors/{topic}"), "")),
            secrets: SecretInputs::default(),
            expect: Expect::Any,
            note: String::new(),
        },
        Step::Place => Request::Place { rule, edge, vars: BTreeMap::new() },
        Step::Unplace => Request::Unplace { rule, edge },
        Step::Delete => Request::DeleteRule { rule, expect: Expect::Any },
        Step::Act(action, queue) => {
            let when_offline = if *queue { WhenOffline::Queue } else { WhenOffline::Refuse };
            Request::Act { rule, edge, action: *action, when_offline }
        }
        Step::Apply
        | Step::Fail(_)
        | Step::Report(_)
        | Step::Connect
        | Step::Disconnect
        | Step::Wipe
        | Step::Restart
        | Step::Pass(_) => return None,
    })
}

fn take(world: &mut World, step: &Step) {
    let edge = edge_id();
    // A refusal is as good an answer as any here: what counts is what it leaves behind.
    match step {
        Step::Save(topic) => drop(world.save("up", &format!("sensors/{topic}"))),
        Step::Place => drop(world.place("up")),
        Step::Unplace => drop(world.ask(Request::Unplace { rule: rule_name("up"), edge })),
        Step::Delete => drop(world.ask(Request::DeleteRule { rule: rule_name("up"), expect: Expect::Any })),
        Step::Act(action, queue) => {
            let when_offline = if *queue { WhenOffline::Queue } else { WhenOffline::Refuse };
            drop(world.act_offline("up", *action, when_offline));
        }
        Step::Apply => {
            if world.last_set().is_some() {
                world.apply_set();
            }
        }
        Step::Fail(parameter) => {
            if let Some(set) = world.last_set().filter(|set| set.present) {
                let running = world.held.get(&set.rule).and_then(|held| held.running);
                let code = if *parameter { Code::RemoteAuth } else { Code::NoSpace };
                if running.is_some() || matches!(set.config, tidegate_model::wire::Config::Bytes(_)) {
                    world.answer(&set, code, running, RunState::NotRunning, "no");
                }
            }
        }
        Step::Report(state) => {
            if !world.held.is_empty() {
                let run = world.run(*state, By::Agent);
                world.report(run);
            }
        }
        Step::Connect => world.connect(),
        Step::Disconnect => world.disconnect(),
        Step::Wipe => {
            world.held.clear();
            world.sid.store = StoreId(world.sid.store.0 + 1);
        }
        Step::Restart => world.restart(),
        Step::Pass(ms) => world.pass(*ms),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_breaks_and_what_is_shown_is_what_was_written(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::placed();
        let mut version = RuleVersion(1);
        let mut generations = BTreeMap::new();
        for step in &steps {
            // What a request would do is what it does then.
            let told = request(step).map(|request| rehearse(&mut world, request));
            let writes_before = world.snapshot.clone();
            take(&mut world, step);
            match &told {
                Some(Ok(told)) => for affected in &told.affected {
                    let shown = world.controller.placement(&affected.rule, &affected.edge, Role::Operator);
                    let after = affected.after.as_ref();
                    if let Some(shown) = shown {
                        prop_assert_eq!(format!("{:?}", Some(&shown)), format!("{after:?}"));
                    }
                },
                Some(Err(_)) => prop_assert_eq!(&world.snapshot.placements, &writes_before.placements),
                None => {}
            }
            let (restored, _) = Controller::restore(Settings::default(), world.snapshot.clone(), 0, world.now);
            let all = |c: &Controller| c.placements(&PlacementFilter::default(), None, 10, Role::Operator).0;
            for (now, then) in all(&world.controller).iter().zip(all(&restored)) {
                prop_assert_eq!((now.issue_state, now.run_state, now.generation), (then.issue_state, then.run_state, then.generation));
                prop_assert_eq!(&now.in_flight, &then.in_flight);
                // Issued means that the edge said exactly that.
                if now.issue_state == IssueState::Issued {
                    prop_assert_eq!((now.edge_version, now.edge_digest), (Some(now.version), Some(now.digest)));
                }
            }
            prop_assert_eq!(all(&world.controller).len(), all(&restored).len());
            if let Some(rule) = world.controller.rule_record(&rule_name("up")) {
                let deleted_meanwhile = rule.version == RuleVersion(1);
                prop_assert!(deleted_meanwhile || rule.version == version || rule.version == version.next());
                version = rule.version;
            }
            for record in &world.snapshot.placements {
                let known = generations.insert(record.rule, record.generation);
                prop_assert!(known.is_none_or(|known| known <= record.generation), "a generation fell");
            }
        }
    }
}

//! Somebody at the console who saves, places, issues and stops at random, sometimes with a mistake.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use tidegate_cloud_core::{Expect, Request, WhenOffline};
use tidegate_model::ids::{EdgeId, RuleId, RuleName};
use tidegate_model::placement::Action;
use tidegate_model::rule::{Format, Limits, Secret, SecretInput, ValidRule, parse};
use uuid::Uuid;

use crate::RULES;
use crate::remote::{REMOTES, host};
use crate::rng::Rng;

/// The name of an edge.
#[must_use]
pub fn edge_id(index: usize) -> EdgeId {
    EdgeId::new(format!("gw-{index}")).expect("it is a valid name")
}

/// The name of a rule.
#[must_use]
pub fn rule_name(index: usize) -> RuleName {
    RuleName::new(format!("rule-{index}")).expect("it is a valid name")
}

/// What tells one content of a rule from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    /// Which topic is forwarded, from 0 to 1.
    pub topic: usize,
    /// Which remote broker, below [`REMOTES`].
    pub remote: usize,
    /// Which login, from 0 (good) to 2.
    pub login: usize,
    /// Whether it waits for a start.
    pub manual: bool,
    /// Whether the cloud's policies on wiped and drifting edges are the ones that are not the default.
    pub other_policy: bool,
}

const LOGINS: [&str; 3] = ["good", "bad-login", "bad-rights"];

impl Shape {
    /// Any of them, most often one that runs.
    #[must_use]
    pub fn any(rng: &mut Rng) -> Self {
        Self {
            topic: rng.below(2),
            remote: rng.below(REMOTES),
            login: if rng.chance(750) { 0 } else { rng.between(1, 2).unsigned_abs() as usize },
            manual: rng.chance(200),
            other_policy: rng.chance(200),
        }
    }

    fn text(&self, rule: usize) -> String {
        let name = rule_name(rule);
        let start = if self.manual { "manual" } else { "auto" };
        let policy =
            if self.other_policy { "[policy]\non_wipe = \"keep\"\non_drift = \"heal\"\n" } else { "" };
        let topic = ["sensors/#", "alarms/#"][self.topic];
        format!(
            "name = \"{name}\"\nstart = \"{start}\"\nmountpoint = \"plant/{{edge}}/\"\n{policy}[remote]\nurl = \"mqtt://{}\"\nusername = \"{}\"\n[[forwards]]\ntopic = \"{topic}\"\n",
            host(self.remote),
            LOGINS[self.login],
        )
    }
}

/// The rule of this name with this content. Reading rules costs more than a whole step, so each is read once.
#[must_use]
pub fn content(rule: usize, shape: Shape) -> ValidRule {
    static READ: OnceLock<BTreeMap<(usize, Shape), ValidRule>> = OnceLock::new();
    let read = READ.get_or_init(|| {
        let mut all = BTreeMap::new();
        for rule in 0..RULES {
            for bits in 0..(2 * REMOTES * LOGINS.len() * 4) {
                let shape = Shape {
                    topic: bits % 2,
                    remote: bits / 2 % REMOTES,
                    login: bits / 2 / REMOTES % LOGINS.len(),
                    manual: bits / 2 / REMOTES / LOGINS.len() % 2 == 1,
                    other_policy: bits / 2 / REMOTES / LOGINS.len() / 2 == 1,
                };
                let rule_of_shape = parse(&shape.text(rule), Format::Toml)
                    .and_then(|draft| draft.validate(&Limits::default()))
                    .map(|(rule, _)| rule)
                    .expect("the texts of the simulation are valid rules");
                all.insert((rule, shape), rule_of_shape);
            }
        }
        all
    });
    read[&(rule, shape)].clone()
}

/// A rule's save.
#[must_use]
pub fn save(id: u128, rule: usize, shape: Shape, secret: SecretInput) -> Request {
    Request::SaveRule {
        id: RuleId(Uuid::from_u128(id)),
        content: Box::new(content(rule, shape)),
        secret,
        expect: Expect::Any,
        note: String::new(),
    }
}

/// The next thing that the operator wants, of so many rules and edges. `id` is the identity of a rule that may come new.
pub fn wish(rng: &mut Rng, id: u128, (rules, edges): (usize, usize)) -> Request {
    let rule = rng.below(rules);
    let (name, edge) = (rule_name(rule), edge_id(rng.below(edges)));
    let when_offline = if rng.chance(300) { WhenOffline::Queue } else { WhenOffline::Refuse };
    let act = |action| Request::Act { rule: name.clone(), edge: edge.clone(), action, when_offline };
    match rng.below(100) {
        0..=14 => {
            let secret = match rng.below(10) {
                0..=6 => SecretInput::Keep,
                7 | 8 => SecretInput::Set(Secret::new(["one", "two"][rng.below(2)])),
                _ => SecretInput::Clear,
            };
            save(id, rule, Shape::any(rng), secret)
        }
        15..=29 => Request::Place { rule: name, edge, vars: BTreeMap::new() },
        30..=35 => Request::Unplace { rule: name, edge },
        36 | 37 => Request::DeleteRule { rule: name, expect: Expect::Any },
        38 => Request::ConfirmEdge { edge },
        39..=58 => act(Action::Issue),
        59..=64 => act(Action::IssueAgain),
        65..=78 => act(Action::Sync),
        79..=88 => act(Action::Start),
        _ => act(Action::Stop),
    }
}

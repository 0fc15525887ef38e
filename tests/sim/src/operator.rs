//! Somebody at the console, sometimes with a mistake: the rules of the world and the requests that steps become.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

use tidegate_cloud_core::{Expect, Request};
use tidegate_model::ids::{EdgeId, RuleId, RuleName};
use tidegate_model::rule::{Format, Limits, Secret, SecretInput, ValidRule, parse};
use uuid::Uuid;

use crate::RULES;
use crate::remote::{REMOTES, host};
use crate::rng::Rng;
use crate::step::Password;

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
const TOPICS: [&str; 2] = ["sensors/#", "alarms/#"];

impl Shape {
    /// Any of them, most often one that runs.
    #[must_use]
    pub fn any(rng: &mut Rng) -> Self {
        Self {
            topic: rng.below(2),
            remote: rng.below(REMOTES),
            login: if rng.chance(750) { 0 } else { rng.below(2) + 1 },
            manual: rng.chance(200),
            other_policy: rng.chance(200),
        }
    }

    fn text(&self, rule: usize) -> String {
        let name = rule_name(rule);
        let start = if self.manual { "manual" } else { "auto" };
        let policy =
            if self.other_policy { "[policy]\non_wipe = \"keep\"\non_drift = \"heal\"\n" } else { "" };
        let topic = TOPICS[self.topic];
        format!(
            "name = \"{name}\"\nstart = \"{start}\"\nmountpoint = \"plant/{{edge}}/{{line}}/\"\n{policy}[vars]\nline = {{ default = \"line-0\" }}\n[remote]\nurl = \"mqtt://{}\"\nusername = \"{}\"\n[[forwards]]\ntopic = \"{topic}\"\n",
            host(self.remote),
            LOGINS[self.login],
        )
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {} as {}", TOPICS[self.topic], host(self.remote), LOGINS[self.login])?;
        f.write_str(if self.manual { ", waiting for a start" } else { "" })?;
        f.write_str(if self.other_policy { ", kept when wiped, healed when drifting" } else { "" })
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

/// A rule's save. `id` is its identity if it is new.
#[must_use]
pub fn save(id: u128, rule: usize, shape: Shape, password: Password) -> Request {
    let secret = match password {
        Password::Keep => SecretInput::Keep,
        Password::Set(which) => SecretInput::Set(Secret::new(["one", "two"][which % 2])),
        Password::Clear => SecretInput::Clear,
    };
    Request::SaveRule {
        id: RuleId(Uuid::from_u128(id)),
        content: Box::new(content(rule, shape)),
        secret,
        expect: Expect::Any,
        note: String::new(),
    }
}

/// A placement, with a value of its variable.
#[must_use]
pub fn place(rule: usize, edge: usize, line: usize) -> Request {
    let vars = BTreeMap::from([("line".to_owned(), format!("line-{line}"))]);
    Request::Place { rule: rule_name(rule), edge: edge_id(edge), vars }
}

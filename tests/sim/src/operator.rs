//! Somebody at the console, sometimes with a mistake: the rules of the world and the requests that steps become.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use tidegate_cloud_core::{Expect, Request};
use tidegate_model::ids::{EdgeId, RuleId, RuleName};
use tidegate_model::rule::{Format, Limits, Secret, SecretInput, SecretInputs, ValidRule, parse};
use uuid::Uuid;

use crate::remote::{REMOTES, host};
use crate::rng::Rng;
use crate::step::Password;
use crate::{EDGES, RULES};

thread_local! {
    // Names share their text: each thread has its own, so that none waits for another's counts.
    static IDS: Vec<EdgeId> =
        (0..EDGES).map(|i| EdgeId::new(format!("gw-{i}")).expect("it is a valid name")).collect();
    static NAMES: Vec<RuleName> =
        (0..RULES).map(|i| RuleName::new(format!("rule-{i}")).expect("it is a valid name")).collect();
    static READ: RefCell<BTreeMap<(usize, Shape), ValidRule>> = const { RefCell::new(BTreeMap::new()) };
}

/// The name of an edge, of which there are at most [`EDGES`].
#[must_use]
pub fn edge_id(index: usize) -> EdgeId {
    IDS.with(|names| names[index].clone())
}

/// The name of a rule, of which there are at most [`RULES`].
#[must_use]
pub fn rule_name(index: usize) -> RuleName {
    NAMES.with(|names| names[index].clone())
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
    let read = |read: &RefCell<BTreeMap<_, ValidRule>>| {
        let mut all = read.borrow_mut();
        let content = all.entry((rule, shape)).or_insert_with(|| {
            let draft = parse(&shape.text(rule), Format::Toml);
            let valid = draft.and_then(|draft| draft.validate(&Limits::default()));
            valid.map(|(rule, _)| rule).expect("the texts of the simulation are valid rules")
        });
        content.clone()
    };
    READ.with(read)
}

/// A rule's save. `id` is its identity if it is new.
#[must_use]
pub fn save(id: u128, rule: usize, shape: Shape, password: Password) -> Request {
    let password = match password {
        Password::Keep => SecretInput::Keep,
        Password::Set(which) => SecretInput::Set(Secret::new(["one", "two"][which % 2])),
        Password::Clear => SecretInput::Clear,
    };
    Request::SaveRule {
        id: RuleId(Uuid::from_u128(id)),
        content: Box::new(content(rule, shape)),
        secrets: SecretInputs { password, ..SecretInputs::default() },
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

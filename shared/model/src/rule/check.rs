//! What a rule must be as a whole, beyond the types of its fields.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::edge::Route;
use super::loops;
use super::problem::{Problems, pointer};
use super::quantity::{Bytes, Seconds};
use super::resolve::resolve;
use super::secret::{SecretInput, SecretInputs};
use super::spec::RuleSpec;
use super::template::{self, BUILT_IN};
use super::tls;
use crate::limits::{
    DRAIN_BYTES, DRAIN_MESSAGES, KEEP_ALIVE_S, MAX_CREDENTIAL_BYTES, MAX_ROUTES_PER_RULE, MAX_VARS_PER_RULE,
    QUEUE_AGE_S, QUEUE_BYTES, VERIFY_S,
};

/// Bounds that an installation may set tighter than the protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Forwards and subscriptions of a rule together.
    pub max_routes: usize,
    /// Largest queue a rule may ask for.
    pub max_queue: Bytes,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_routes: MAX_ROUTES_PER_RULE, max_queue: Bytes(*QUEUE_BYTES.end()) }
    }
}

/// Every problem of a rule, places without lines.
pub(super) fn rule(spec: &RuleSpec, secrets: &SecretInputs, limits: &Limits) -> Problems {
    let mut problems = Problems::default();
    numbers(spec, limits, &mut problems);
    password(spec, &secrets.password, &mut problems);
    match &secrets.key {
        SecretInput::Set(key) => tls::check_key(key, spec.remote.tls.as_ref(), &mut problems),
        SecretInput::Clear if tls::needs_key(spec.remote.tls.as_ref()) => {
            tls::missing_key(&mut problems);
        }
        SecretInput::Clear | SecretInput::Keep => {}
    }
    variables(spec, &mut problems);
    let samples = samples(spec);
    let resolved = resolve(spec, &|name| samples.get(name).map(String::as_str), &mut problems);
    if spec.forwards.is_empty() && spec.subscriptions.is_empty() {
        problems.add(
            "",
            "empty-rule",
            "the rule moves nothing",
            "add at least one [[forwards]] or [[subscriptions]] with a topic",
        );
    }
    let routes = spec.forwards.len() + spec.subscriptions.len();
    if routes > limits.max_routes {
        problems.add(
            "",
            "too-many-routes",
            format!(
                "the rule has {routes} forwards and subscriptions, at most {} are allowed",
                limits.max_routes
            ),
            "use wildcards or split the rule",
        );
    } else {
        routes_together(&resolved.forwards, &resolved.subscriptions, &mut problems);
    }
    problems
}

/// What cannot be told of one route alone: twice the same, two names for one message, loops.
pub(super) fn routes_together(
    forwards: &[Option<Route>],
    subscriptions: &[Option<Route>],
    problems: &mut Problems,
) {
    for (second, first) in pairs(forwards) {
        if first.1.filter == second.1.filter && first.1.image == second.1.image {
            duplicate("/forwards", first, second, problems);
        }
    }
    for (second, first) in pairs(subscriptions) {
        if first.1.filter == second.1.filter {
            duplicate("/subscriptions", first, second, problems);
        } else if let Some(both) = first.1.filter.intersection(&second.1.filter)
            && !first.1.leaves_out(&both)
            && !second.1.leaves_out(&both)
            && first.1.mapping.map_filter(&both) != second.1.mapping.map_filter(&both)
        {
            problems.add(
                format!("/subscriptions/{}/topic", second.0),
                "ambiguous-subscriptions",
                format!(
                    "'{both}' is also matched by subscriptions[{}], which maps it to another local topic; brokers send \
                     such a message once or twice",
                    first.0
                ),
                "make the filters apart, map both alike, or use two rules",
            );
        }
    }
    loops::find(forwards, subscriptions, problems);
}

type Numbered<'r> = (usize, &'r Route);

/// Each route that could be read with each before it.
fn pairs(routes: &[Option<Route>]) -> impl Iterator<Item = (Numbered<'_>, Numbered<'_>)> {
    let read = |until: usize| {
        routes[..until].iter().enumerate().filter_map(|(index, route)| Some((index, route.as_ref()?)))
    };
    read(routes.len()).flat_map(move |second| read(second.0).map(move |first| (second, first)))
}

fn duplicate(base: &str, first: Numbered<'_>, second: Numbered<'_>, problems: &mut Problems) {
    problems.add(
        format!("{base}/{}/topic", second.0),
        "duplicate-topic",
        format!("'{}' stands in {}[{}] already", second.1.filter, &base[1..], first.0),
        "remove one of the two",
    );
}

fn numbers(spec: &RuleSpec, limits: &Limits, problems: &mut Problems) {
    let mut bound = |at: &str, value: u64, range: RangeInclusive<u64>, print: fn(u64) -> String| {
        if !range.contains(&value) {
            problems.add(
                at,
                "out-of-range",
                format!("{} is out of range", print(value)),
                format!("choose {} to {}", print(*range.start()), print(*range.end())),
            );
        }
    };
    let seconds = |n| Seconds(n).to_string();
    let bytes = |n| Bytes(n).to_string();
    bound("/remote/keep_alive", spec.remote.keep_alive.0, KEEP_ALIVE_S, seconds);
    bound("/queue/max_bytes", spec.queue.max_bytes.0, *QUEUE_BYTES.start()..=limits.max_queue.0, bytes);
    bound("/queue/max_age", spec.queue.max_age.0, QUEUE_AGE_S, seconds);
    if let Some(drain) = spec.queue.drain {
        let at = "/queue/drain/messages_per_s";
        let least = |value: Option<u64>, range: &RangeInclusive<u64>| value.unwrap_or(*range.start());
        bound(at, least(drain.messages_per_s.map(u64::from), &DRAIN_MESSAGES), DRAIN_MESSAGES, |n| {
            n.to_string()
        });
        let at = "/queue/drain/bytes_per_s";
        bound(at, least(drain.bytes_per_s.map(|bytes| bytes.0), &DRAIN_BYTES), DRAIN_BYTES, bytes);
    }
    bound("/policy/verify_s", spec.policy.verify_s.into(), VERIFY_S, |n| n.to_string());
}

fn password(spec: &RuleSpec, secret: &SecretInput, problems: &mut Problems) {
    const AT: &str = "/remote/password";
    let SecretInput::Set(secret) = secret else { return };
    let text = secret.reveal();
    if text.len() >= 3 && text.bytes().all(|b| b == b'*') {
        problems.add(
            AT,
            "masked-secret",
            "the password is only a mask",
            "leave the field out to keep the stored one, or write the new password",
        );
    } else if text.len() > MAX_CREDENTIAL_BYTES {
        problems.add(AT, "bad-password", "the password is longer than 1,024 bytes", "use a shorter one");
    }
    if spec.remote.username.is_none() {
        problems.add(
            AT,
            "password-without-username",
            "a password needs a user name (MQTT 3.1.1, section 3.1.2.9)",
            "add username to [remote], or remove the password",
        );
    }
}

fn variables(spec: &RuleSpec, problems: &mut Problems) {
    if spec.vars.len() > MAX_VARS_PER_RULE {
        problems.add(
            "/vars",
            "too-many-variables",
            format!(
                "the rule declares {} variables, at most {MAX_VARS_PER_RULE} are allowed",
                spec.vars.len()
            ),
            "remove those that no text uses",
        );
    }
    for (name, var) in &spec.vars {
        let at = pointer("/vars", name);
        if BUILT_IN.contains(&name.as_str()) {
            problems.add(at, "bad-variable", format!("{{{name}}} is there already"), "choose another name");
            continue;
        }
        if !template::is_variable_name(name) {
            let what = "this is not a name for a variable";
            problems.add(at, "bad-variable", what, "use a-z, 0-9 and '_', beginning with a letter");
            continue;
        }
        if let Some(why) = var.default.as_deref().and_then(template::value_error) {
            let help = "a value is 1 to 128 bytes of plain text";
            problems.add(format!("{at}/default"), "bad-variable", format!("the value {why}"), help);
        }
    }
}

/// Values that stand for those of any edge while a rule is checked: unlike what a person writes into a topic.
fn samples(spec: &RuleSpec) -> BTreeMap<&str, String> {
    let mut samples = BTreeMap::from([
        ("edge", "any-edge-name".to_owned()),
        ("account", "any-account-name".to_owned()),
        ("rule", spec.name.to_string()),
    ]);
    for (name, var) in &spec.vars {
        let usable = var.default.clone().filter(|value| template::value_error(value).is_none());
        samples.insert(name, usable.unwrap_or_else(|| format!("any-{name}")));
    }
    samples
}

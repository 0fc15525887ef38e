//! Messages that would go round for ever: what goes out comes back and goes out again. Within one rule, and over all rules of
//! an edge, which share its local broker and perhaps a remote one.

use serde::Serialize;

use super::edge::{EdgeRule, Login, Route};
use super::problem::Problems;
use super::rendered;
use crate::ids::RuleName;
use crate::topic::TopicFilter;

/// A route, its number in the file, and the number of its rule.
#[derive(Clone, Copy)]
struct Numbered<'r> {
    rule: usize,
    index: usize,
    route: &'r Route,
}

/// A route that leads to another one: the number of that, the way back between them, the topics on it.
type Step = (usize, usize, TopicFilter);

/// Whether a route of the first rule, a way back of the second and a route of the third can pass a message on.
type Joined<'j> = &'j dyn Fn(usize, usize, usize) -> bool;

/// The routes of a rule that could be read.
fn numbered<'r>(
    rule: usize,
    routes: impl Iterator<Item = Option<&'r Route>>,
) -> impl Iterator<Item = Numbered<'r>> {
    routes.enumerate().filter_map(move |(index, route)| Some(Numbered { rule, index, route: route? }))
}

/// Notes every loop of a rule.
///
/// A message that forward F sends may come back by subscription S and match forward G: then F leads to G. A cycle among
/// forwards is a loop. One that comes back once and matches no forward again is an echo, which is harmless, and allowed.
/// The same is looked for from the remote side, with the roles exchanged.
pub(super) fn find(forwards: &[Option<Route>], subscriptions: &[Option<Route>], problems: &mut Problems) {
    let outs: Vec<_> = numbered(0, forwards.iter().map(Option::as_ref)).collect();
    let ins: Vec<_> = numbered(0, subscriptions.iter().map(Option::as_ref)).collect();
    if let Some(Found { forward, subscription, topic }) = over(&outs, &ins, &|_, _| true, &|_| true) {
        problems.add(
            format!("/subscriptions/{}/topic", subscription.1),
            "topic-loop",
            format!(
                "forwards[{}] sends messages that this subscription brings back ('{topic}' at the remote), \
                 round and round",
                forward.1
            ),
            "add a mountpoint or prefix that the subscription does not match, or choose one direction",
        );
    }
}

/// What rules of one edge are compared by: as what each logs in, and which topics it moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wiring {
    /// As what it logs in, and where.
    pub login: Login,
    /// Local to remote.
    pub forwards: Vec<Route>,
    /// Remote to local.
    pub subscriptions: Vec<Route>,
}

impl Wiring {
    /// Reads it of a rendered rule, without the rest; `None` when it is none.
    pub fn of_rendered(text: &str) -> Option<Self> {
        rendered::wiring(text)
    }

    /// Whether both speak to one broker, as far as addresses tell.
    fn shares_broker(&self, other: &Self) -> bool {
        self.login.addresses.iter().any(|address| other.login.addresses.contains(address))
    }
}

impl From<&EdgeRule> for Wiring {
    fn from(rule: &EdgeRule) -> Self {
        let (forwards, subscriptions) = (rule.forwards.clone(), rule.subscriptions.clone());
        Self { login: Login::from(rule), forwards, subscriptions }
    }
}

/// Two rules of one edge between which messages would go round for ever, perhaps by way of others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoopBetween {
    /// The rule that sends.
    pub out: RuleName,
    /// Number of its forward.
    pub forward: usize,
    /// The rule that brings back.
    pub back: RuleName,
    /// Number of its subscription.
    pub subscription: usize,
    /// The topics between, as the remote broker calls them.
    pub topic: String,
}

impl std::fmt::Display for LoopBetween {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { out, forward, back, subscription, topic } = self;
        write!(
            f,
            "forwards[{forward}] of '{out}' sends messages that subscriptions[{subscription}] of '{back}' brings back ('{topic}' at the \
             remote), round and round; give one of them a prefix that the other does not match, or leave the topics out with exclude"
        )
    }
}

/// Looks for a loop that `rule` makes with the others of its edge. These are taken to make none among themselves, and the rule
/// none alone.
pub fn loop_between(rule: &Wiring, others: &[Wiring]) -> Option<LoopBetween> {
    let all: Vec<&Wiring> = std::iter::once(rule).chain(others).collect();
    let (mut outs, mut ins) = (Vec::new(), Vec::new());
    for (rule, wiring) in all.iter().enumerate() {
        outs.extend(numbered(rule, wiring.forwards.iter().map(Some)));
        ins.extend(numbered(rule, wiring.subscriptions.iter().map(Some)));
    }
    let same_broker = |a: usize, b: usize| a == b || all[a].shares_broker(all[b]);
    let Found { forward, subscription, topic } = over(&outs, &ins, &same_broker, &|rule| rule == 0)?;
    let name = |number: usize| all[number].login.rule.clone();
    Some(LoopBetween {
        out: name(forward.0),
        forward: forward.1,
        back: name(subscription.0),
        subscription: subscription.1,
        topic: topic.to_string(),
    })
}

/// A loop: forward and subscription, each as the numbers of rule and route, and the topics between them.
struct Found {
    forward: (usize, usize),
    subscription: (usize, usize),
    topic: TopicFilter,
}

/// Looks from both sides. `same_broker` tells whether two rules speak to one remote broker, `is_new` which rules a loop has to
/// go through.
fn over(
    outs: &[Numbered<'_>],
    ins: &[Numbered<'_>],
    same_broker: &dyn Fn(usize, usize) -> bool,
    is_new: &dyn Fn(usize) -> bool,
) -> Option<Found> {
    let numbers = |route: &Numbered<'_>| (route.rule, route.index);
    let by_remote = |out: usize, back: usize, _: usize| same_broker(out, back);
    if let Some((forward, subscription, topic)) = cycle(outs, ins, &by_remote, is_new) {
        return Some(Found {
            forward: numbers(&outs[forward]),
            subscription: numbers(&ins[subscription]),
            topic,
        });
    }
    let by_local = |_: usize, out: usize, back: usize| same_broker(out, back);
    let (subscription, forward, local) = cycle(ins, outs, &by_local, is_new)?;
    let topic = outs[forward].route.mapping.map_filter(&local).unwrap_or(local);
    Some(Found { forward: numbers(&outs[forward]), subscription: numbers(&ins[subscription]), topic })
}

/// The first cycle through a new rule: the route that leads there, the one that leads back, the topics on their way.
fn cycle(
    there: &[Numbered<'_>],
    back: &[Numbered<'_>],
    joined: Joined<'_>,
    is_new: &dyn Fn(usize) -> bool,
) -> Option<Step> {
    let mut known: Vec<Option<Vec<Step>>> = vec![None; there.len()];
    for start in 0..there.len() {
        // A cycle goes through a route of a new rule, or comes back by one: then it is found from where that leads to.
        let begins = is_new(there[start].rule)
            || back.iter().any(|returning| {
                is_new(returning.rule)
                    && there[start].route.image.intersection(&returning.route.filter).is_some()
            });
        if !begins {
            continue;
        }
        let mut seen = vec![false; there.len()];
        let mut stack = vec![start];
        while let Some(node) = stack.pop() {
            let next = known[node].get_or_insert_with(|| steps(&there[node], there, back, joined));
            if next.iter().any(|(target, _, _)| *target == start) {
                let first = known[start].as_ref()?;
                let direct = first.iter().find(|(target, _, _)| *target == start).or(first.first())?;
                return Some((start, direct.1, direct.2.clone()));
            }
            for (target, _, _) in next {
                if !std::mem::replace(&mut seen[*target], true) {
                    stack.push(*target);
                }
            }
        }
    }
    None
}

/// Which routes a route leads to.
fn steps(
    from: &Numbered<'_>,
    there: &[Numbered<'_>],
    back: &[Numbered<'_>],
    joined: Joined<'_>,
) -> Vec<Step> {
    let mut steps = Vec::new();
    for (by, returning) in back.iter().enumerate() {
        let Some(between) = from.route.image.intersection(&returning.route.filter) else { continue };
        if returning.route.leaves_out(&between) {
            continue;
        }
        let Ok(home) = returning.route.mapping.map_filter(&between) else { continue };
        for (target, again) in there.iter().enumerate() {
            if joined(from.rule, returning.rule, again.rule)
                && home.intersection(&again.route.filter).is_some_and(|both| !again.route.leaves_out(&both))
            {
                steps.push((target, by, between.clone()));
            }
        }
    }
    steps
}

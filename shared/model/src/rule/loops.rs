//! Finds messages that would go round for ever: what goes out comes back and goes out again.

use super::edge::Route;
use super::problem::Problems;
use crate::topic::TopicFilter;

/// A route and its number in the file.
type Numbered<'r> = (usize, &'r Route);

/// Notes every loop of a rule.
///
/// A message that forward F sends may come back by subscription S and match forward G: then F leads to G. A cycle among
/// forwards is a loop. One that comes back once and matches no forward again is an echo, which is harmless, and allowed.
/// The same is looked for from the remote side, with the roles exchanged.
pub(super) fn find(forwards: &[Option<Route>], subscriptions: &[Option<Route>], problems: &mut Problems) {
    let (outs, ins) = (numbered(forwards), numbered(subscriptions));
    let found = cycle(&outs, &ins).or_else(|| {
        let (subscription, forward, remote) = cycle(&ins, &outs)?;
        let (_, route) = outs.iter().find(|(index, _)| *index == forward)?;
        Some((forward, subscription, route.mapping.map_filter(&remote).unwrap_or(remote)))
    });
    if let Some((forward, subscription, topic)) = found {
        problems.add(
            format!("/subscriptions/{subscription}/topic"),
            "topic-loop",
            format!("forwards[{forward}] sends messages that this subscription brings back ('{topic}' at the remote), \
                     round and round"),
            "add a mountpoint or prefix that the subscription does not match, or choose one direction",
        );
    }
}

/// The routes that could be read.
fn numbered(routes: &[Option<Route>]) -> Vec<Numbered<'_>> {
    routes.iter().enumerate().filter_map(|(index, route)| Some((index, route.as_ref()?))).collect()
}

/// The first cycle: the number of a route that leads there, of the one that leads back, and the topics on their way.
fn cycle(there: &[Numbered<'_>], back: &[Numbered<'_>]) -> Option<(usize, usize, TopicFilter)> {
    let next: Vec<Vec<(usize, usize, TopicFilter)>> =
        there.iter().map(|(_, route)| steps(route, there, back)).collect();
    for start in 0..there.len() {
        let mut seen = vec![false; there.len()];
        let mut stack = vec![start];
        while let Some(node) = stack.pop() {
            if next[node].iter().any(|(target, _, _)| *target == start) {
                let direct = next[start].iter().find(|(target, _, _)| *target == start);
                let first = direct.or_else(|| next[start].first())?;
                return Some((there[start].0, back[first.1].0, first.2.clone()));
            }
            for (target, _, _) in &next[node] {
                if !std::mem::replace(&mut seen[*target], true) {
                    stack.push(*target);
                }
            }
        }
    }
    None
}

/// Which routes a route leads to, by which way back, with which topics between.
fn steps(route: &Route, there: &[Numbered<'_>], back: &[Numbered<'_>]) -> Vec<(usize, usize, TopicFilter)> {
    let mut steps = Vec::new();
    for (by, (_, returning)) in back.iter().enumerate() {
        let Some(between) = route.image.intersection(&returning.filter) else { continue };
        if returning.leaves_out(&between) {
            continue;
        }
        let Ok(home) = returning.mapping.map_filter(&between) else { continue };
        for (target, (_, again)) in there.iter().enumerate() {
            if home.intersection(&again.filter).is_some_and(|both| !again.leaves_out(&both)) {
                steps.push((target, by, between.clone()));
            }
        }
    }
    steps
}

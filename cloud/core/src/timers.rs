//! When something is due: at most one moment per key, and the next of all.

use std::collections::BTreeMap;

use tidegate_model::ids::{EdgeId, RuleId};
use tidegate_model::time::Monotonic;

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TimerKey {
    /// An edge said nothing for too long.
    Silence(EdgeId),
    /// A hold of an edge for `DUPLICATE_EDGE` may end.
    Hold(EdgeId),
    /// An operation on a placement.
    Operation(RuleId, EdgeId),
    /// The oldest kept answer may be forgotten.
    Answers,
}

impl TimerKey {
    pub(crate) fn what(&self) -> &'static str {
        match self {
            Self::Silence(_) => "an edge is silent",
            Self::Hold(_) => "a hold of an edge may end",
            Self::Operation(..) => "an operation waits for its edge",
            Self::Answers => "a kept answer may be forgotten",
        }
    }
}

/// A moment, and which one it was of all that were set: two at the same moment come in the order in which they were set.
type Place = (Monotonic, u64);

/// The moments, by key and in order.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    by_key: BTreeMap<TimerKey, Place>,
    by_time: BTreeMap<Place, TimerKey>,
    last: u64,
}

impl Timers {
    /// Sets the moment of a key, in place of the one that it had.
    pub(crate) fn set(&mut self, key: TimerKey, at: Monotonic) {
        self.last += 1;
        let place = (at, self.last);
        if let Some(before) = self.by_key.insert(key.clone(), place) {
            self.by_time.remove(&before);
        }
        self.by_time.insert(place, key);
    }

    /// Waits no longer for a key.
    pub(crate) fn clear(&mut self, key: &TimerKey) {
        if let Some(place) = self.by_key.remove(key) {
            self.by_time.remove(&place);
        }
    }

    /// Takes one key whose moment has come.
    pub(crate) fn pop_due(&mut self, now: Monotonic) -> Option<TimerKey> {
        let entry = self.by_time.first_entry()?;
        if entry.key().0 > now {
            return None;
        }
        let key = entry.remove();
        self.by_key.remove(&key);
        Some(key)
    }

    /// The next moment.
    pub(crate) fn next(&self) -> Option<(Monotonic, &TimerKey)> {
        self.by_time.first_key_value().map(|((at, _), key)| (*at, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_moment_and_the_earliest_comes_first() {
        let mut timers = Timers::default();
        let edge = |n: &str| TimerKey::Silence(EdgeId::new(n).unwrap());
        timers.set(edge("a"), Monotonic(30));
        timers.set(edge("b"), Monotonic(20));
        timers.set(edge("a"), Monotonic(10));
        assert_eq!(timers.next(), Some((Monotonic(10), &edge("a"))));
        assert_eq!(timers.pop_due(Monotonic(9)), None);
        assert_eq!(timers.pop_due(Monotonic(25)), Some(edge("a")));
        assert_eq!(timers.pop_due(Monotonic(25)), Some(edge("b")));
        assert_eq!(timers.pop_due(Monotonic(25)), None);
        assert_eq!(timers.next(), None);
    }
}

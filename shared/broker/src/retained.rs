//! The retained messages: one per topic, bounded in number and bytes, and which of them a disk copy lacks. Pure; the
//! file is `store`'s.

use crate::message::{Message, Qos};
use crate::session::Replay;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

/// What became of a message that was to be retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    Stored,
    Deleted,
    /// The bound on number or bytes is reached; what was retained on the topic before is gone, since it is not true
    /// any more.
    NoRoom,
}

/// What the disk copy lacks.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Topics to write anew, with their message or, when it is gone, nothing.
    pub topics: Vec<(Arc<str>, Option<Arc<Message>>)>,
    /// Everything is to be written anew, and `topics` is everything.
    pub whole: bool,
}

/// The retained messages.
#[derive(Debug)]
pub(crate) struct Retained {
    by_topic: BTreeMap<Arc<str>, Arc<Message>>,
    bytes: usize,
    max_messages: usize,
    max_bytes: usize,
    changed: BTreeSet<Arc<str>>,
    /// More topics changed than are worth remembering one by one.
    all_changed: bool,
}

impl Retained {
    pub fn new(max_messages: usize, max_bytes: usize) -> Self {
        Self {
            by_topic: BTreeMap::new(),
            bytes: 0,
            max_messages,
            max_bytes,
            changed: BTreeSet::new(),
            all_changed: false,
        }
    }

    /// Sets, replaces or, for an empty payload, deletes the message of a topic. Only for messages with `retain` set.
    pub fn put(&mut self, message: &Arc<Message>) -> Kept {
        let existed = self.remove(&message.topic);
        if message.payload.is_empty() {
            if existed {
                self.mark(&message.topic);
            }
            return Kept::Deleted;
        }
        if self.by_topic.len() >= self.max_messages || self.bytes + message.cost() > self.max_bytes {
            if existed {
                self.mark(&message.topic);
            }
            return Kept::NoRoom;
        }
        self.bytes += message.cost();
        self.by_topic.insert(Arc::clone(&message.topic), Arc::clone(message));
        self.mark(&message.topic);
        Kept::Stored
    }

    fn remove(&mut self, topic: &str) -> bool {
        let Some(old) = self.by_topic.remove(topic) else { return false };
        self.bytes -= old.cost();
        true
    }

    fn mark(&mut self, topic: &Arc<str>) {
        if self.all_changed {
            return;
        }
        self.changed.insert(Arc::clone(topic));
        if self.changed.len() > self.max_messages {
            self.changed_entirely();
        }
    }

    /// The disk copy is to be written anew.
    pub fn changed_entirely(&mut self) {
        self.all_changed = true;
        self.changed.clear();
    }

    /// What changed since the last call.
    pub fn take_changes(&mut self) -> Changes {
        let whole = std::mem::take(&mut self.all_changed);
        let changed = std::mem::take(&mut self.changed);
        let topics = if whole {
            self.by_topic
                .iter()
                .map(|(topic, message)| (Arc::clone(topic), Some(Arc::clone(message))))
                .collect()
        } else {
            changed
                .into_iter()
                .map(|topic| (Arc::clone(&topic), self.by_topic.get(&topic).cloned()))
                .collect()
        };
        Changes { topics, whole }
    }

    /// Works on a replay: looks at no more than `max_looks` topics and hands at most `max_found` messages or
    /// `max_bytes` bytes to `found`, so that nobody waits long for the lock around it. True when the replay is done.
    pub fn replay(
        &self,
        replay: &mut Replay,
        mut budget: Budget,
        mut found: impl FnMut(Arc<Message>, Qos),
    ) -> bool {
        while let Some((topic, qos)) = replay.exact.pop_front() {
            if let Some(message) = self.by_topic.get(&topic) {
                budget.spend(message);
                found(Arc::clone(message), qos.min(message.qos));
            }
            if budget.is_spent() {
                return replay.exact.is_empty() && replay.wild.is_none();
            }
        }
        let Some(wild) = &replay.wild else { return true };
        let from = match &replay.cursor {
            Some(cursor) => Bound::Excluded(&**cursor),
            None => Bound::Included(wild.prefix()),
        };
        for (topic, message) in self.by_topic.range::<str, _>((from, Bound::Unbounded)) {
            if !topic.starts_with(wild.prefix()) {
                return true;
            }
            replay.cursor = Some(Arc::clone(topic));
            budget.looks = budget.looks.saturating_sub(1);
            if let Some(qos) = wild.level(topic) {
                budget.spend(message);
                found(Arc::clone(message), qos.min(message.qos));
            }
            if budget.is_spent() {
                return false;
            }
        }
        true
    }

    pub fn len(&self) -> usize {
        self.by_topic.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// How much one step of a replay may do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    /// Topics to look at.
    pub looks: usize,
    /// Messages to hand over.
    pub messages: usize,
    /// Bytes to hand over; the last message may pass it.
    pub bytes: usize,
}

impl Budget {
    fn spend(&mut self, message: &Message) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(message.cost());
    }

    fn is_spent(&self) -> bool {
        self.looks == 0 || self.messages == 0 || self.bytes == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::FilterSet;
    use std::collections::VecDeque;

    fn message(topic: &str, payload: &'static [u8]) -> Arc<Message> {
        Arc::new(Message::new(topic, payload, Qos::AtLeastOnce).retained())
    }

    #[test]
    fn it_sets_replaces_deletes_and_counts() {
        let mut retained = Retained::new(2, 10_000);
        assert_eq!(retained.put(&message("a", b"1")), Kept::Stored);
        assert_eq!(retained.put(&message("a", b"22")), Kept::Stored);
        assert_eq!((retained.len(), retained.bytes()), (1, message("a", b"22").cost()));
        assert_eq!(retained.put(&message("b", b"1")), Kept::Stored);
        assert_eq!(retained.put(&message("c", b"1")), Kept::NoRoom);
        assert_eq!(retained.put(&message("a", b"")), Kept::Deleted);
        assert_eq!(retained.put(&message("b", b"")), Kept::Deleted);
        assert_eq!((retained.len(), retained.bytes()), (0, 0));
    }

    #[test]
    fn a_replacement_without_room_leaves_nothing_stale() {
        let mut retained = Retained::new(5, 100);
        assert_eq!(retained.put(&message("a", b"old")), Kept::Stored);
        assert_eq!(retained.put(&message("a", &[7; 90])), Kept::NoRoom);
        assert_eq!(retained.len(), 0);
    }

    #[test]
    fn a_replay_in_small_steps_finds_each_match_once() {
        let mut retained = Retained::new(1_000, 1_000_000);
        for n in 0..250 {
            retained.put(&message(&format!("s/{n:03}/t"), b"x"));
            retained.put(&message(&format!("other/{n}"), b"x"));
        }
        let wild = FilterSet::new([("s/+/t", Qos::AtMostOnce), ("s/#", Qos::AtLeastOnce)]);
        let mut replay =
            Replay { exact: VecDeque::from([("other/7".into(), Qos::AtMostOnce)]), wild, cursor: None };
        let (mut found, mut steps) = (Vec::new(), 0);
        loop {
            steps += 1;
            let budget = Budget { looks: 60, messages: 50, bytes: 1 << 20 };
            if retained.replay(&mut replay, budget, |m, q| found.push((m.topic.to_string(), q))) {
                break;
            }
        }
        assert!(steps >= 5);
        assert_eq!(found.len(), 251);
        assert_eq!(found[0], ("other/7".to_owned(), Qos::AtMostOnce));
        assert!(found[1..].iter().all(|(_, q)| *q == Qos::AtLeastOnce));
        found.dedup();
        assert_eq!(found.len(), 251);
    }

    #[test]
    fn changes_are_coalesced_and_bounded() {
        let mut retained = Retained::new(2, 10_000);
        retained.put(&message("a", b"1"));
        retained.put(&message("a", b"2"));
        let changes = retained.take_changes();
        assert_eq!(changes.topics.len(), 1);
        assert!(!changes.whole && retained.take_changes().topics.is_empty());
        for n in 0..5 {
            retained.put(&message(&format!("t{n}"), b"1"));
            retained.put(&message(&format!("t{n}"), b""));
        }
        let changes = retained.take_changes();
        assert!(changes.whole);
        assert_eq!(changes.topics.len(), 1);
    }
}

//! One rule in memory: its record as it is on disk, and what is known of its bridge and of what was told.

use std::collections::VecDeque;
use std::sync::Arc;

use tidegate_model::digest::Digest;
use tidegate_model::ids::MessageId;
use tidegate_model::limits::FLAPPING_PER_MINUTE;
use tidegate_model::rule::EdgeRule;
use tidegate_model::time::Monotonic;
use tidegate_model::wire::{By, Counters, QueueFull};

use crate::io::Order;
use crate::record::{Held, RuleRecord};
use crate::timing::{FLAPPING_WINDOW_MS, REPORT_PAUSE_MS};
use crate::trial::Trial;

/// Changes of a run state that are remembered at the most; more in a minute are told as this many.
const MAX_CHANGES: usize = 600;

/// A rule that should be here.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub record: RuleRecord,
    /// The last rendered rule that was read of it, by its digest.
    read: Option<(Digest, Arc<EdgeRule>)>,
    pub bridge: Bridge,
    pub voice: Voice,
    pub attempt: Attempt,
}

/// What was ordered of the bridge.
#[derive(Debug, Clone)]
pub(crate) enum Bridge {
    /// Nothing.
    Down,
    /// It is there, connected or not.
    Up(Up),
    /// It ended by itself and is ordered again later.
    Resting { again_at: Monotonic, tries: u32 },
}

/// A bridge that is there.
#[derive(Debug, Clone)]
pub(crate) struct Up {
    pub order: Order,
    pub config: Arc<EdgeRule>,
    /// Until when its first sign after the order is awaited; `None`: it came.
    pub settle_by: Option<Monotonic>,
    /// On whose behalf it was ordered, until its first sign.
    pub cause: By,
    /// How often its task ended by itself in a row.
    pub tries: u32,
}

/// The set that is being carried out, or the last one.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub since: Monotonic,
    /// The message to answer.
    pub re: Option<MessageId>,
}

/// What was told of the run state and the counters.
#[derive(Debug, Clone, Default)]
pub(crate) struct Voice {
    changes: VecDeque<Monotonic>,
    /// Number of the transition that the controller is known to have.
    pub known: u64,
    pub told_at: Option<Monotonic>,
    /// The next report without a transition: one that waits because the rule flaps, that it does not any more, another detail
    /// of its fault, a full queue.
    pub due: Option<Monotonic>,
    pub counters: Counters,
    pub counters_told: Counters,
    /// A queue is full.
    pub full: Option<Full>,
}

/// A queue of a rule that is full.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Full {
    /// As it is told.
    pub told: QueueFull,
    /// When it was seen to be full last.
    pub seen: Monotonic,
}

impl Rule {
    pub fn new(record: RuleRecord, now: Monotonic) -> Self {
        let attempt = Attempt { since: now, re: None };
        Self { record, read: None, bridge: Bridge::Down, voice: Voice::default(), attempt }
    }

    /// Keeps what was read of the bytes of this digest, so that they are not read again.
    pub fn has_read(&mut self, digest: Digest, config: EdgeRule) {
        self.read = Some((digest, Arc::new(config)));
    }

    /// What it is to run now; `None` when there is nothing, or this software cannot run it (an older agent than the one
    /// that accepted it).
    pub fn config(&mut self) -> Option<Arc<EdgeRule>> {
        read_once(&mut self.read, self.record.current()?)
    }

    /// What is committed; `None` like [`Rule::config`].
    pub fn committed_config(&mut self) -> Option<Arc<EdgeRule>> {
        read_once(&mut self.read, self.record.committed.as_ref()?)
    }

    /// Who waits for the bridge's first sign.
    pub fn trial(&self) -> Trial {
        match (&self.record.outcome, &self.record.candidate) {
            (Some(_), _) => Trial::Nobody,
            (None, Some(_)) => Trial::Probe,
            (None, None) => Trial::Start,
        }
    }

    /// When the rule needs attention without any input, apart from its reports.
    pub fn deadline(&self) -> Option<Monotonic> {
        match &self.bridge {
            Bridge::Down => None,
            Bridge::Up(up) => up.settle_by,
            Bridge::Resting { again_at, .. } => Some(*again_at),
        }
    }
}

fn read_once(read: &mut Option<(Digest, Arc<EdgeRule>)>, held: &Held) -> Option<Arc<EdgeRule>> {
    let digest = held.target.digest;
    if read.as_ref().is_none_or(|(of, _)| *of != digest) {
        let config = EdgeRule::from_rendered(&held.bytes).ok()?;
        *read = Some((digest, Arc::new(config)));
    }
    read.as_ref().map(|(_, config)| config.clone())
}

impl Voice {
    /// The run state changed now.
    pub fn changed(&mut self, now: Monotonic) {
        self.changes.push_back(now);
        if self.changes.len() > MAX_CHANGES {
            self.changes.pop_front();
        }
    }

    /// How many changes there were within the last minute, where they are too many to be told one by one.
    pub fn flapping(&self, now: Monotonic) -> Option<u32> {
        let past = self.changes.partition_point(|at| at.plus_ms(FLAPPING_WINDOW_MS) <= now);
        let count = self.changes.len() - past;
        (count > FLAPPING_PER_MINUTE).then(|| u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// When a rule that flaps has changed so seldom for a minute that it does not any more; `None`: it does not flap.
    pub fn calm_at(&self, now: Monotonic) -> Option<Monotonic> {
        self.flapping(now)?;
        self.changes.iter().rev().nth(FLAPPING_PER_MINUTE).map(|at| at.plus_ms(FLAPPING_WINDOW_MS))
    }

    /// Tells it at this moment at the latest.
    pub fn tell_at(&mut self, at: Monotonic) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// When what changes all the time may be told next: now, or [`REPORT_PAUSE_MS`] after the last report.
    pub fn not_before(&self, now: Monotonic) -> Monotonic {
        self.told_at.map_or(now, |at| at.plus_ms(REPORT_PAUSE_MS)).max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_six_changes_in_a_minute_are_flapping() {
        let mut voice = Voice::default();
        for second in 0..6 {
            voice.changed(Monotonic(second * 1_000));
        }
        assert_eq!(voice.flapping(Monotonic(6_000)), None);
        voice.changed(Monotonic(6_000));
        assert_eq!(voice.flapping(Monotonic(6_000)), Some(7));
        assert_eq!(
            voice.calm_at(Monotonic(6_000)),
            Some(Monotonic(60_000)),
            "six were within the last minute then"
        );
        assert_eq!(voice.flapping(Monotonic(61_000)), None);
        for _ in 0..10_000 {
            voice.changed(Monotonic(70_000));
        }
        assert_eq!(voice.flapping(Monotonic(70_000)), Some(600));
    }
}

//! Which message it is that the other side does not take: the evidence, and when it suffices (docs/adr/0020).
//!
//! A broker that finds a packet too large (or its topic forbidden) closes the connection without a word. So does one that is
//! stopped, overloaded, or fought over by two clients of one name. Told apart by an experiment, in three steps:
//!
//! ```text
//! in company    connections end with the same record as the oldest without an acknowledgement
//!  -> alone     records are sent one at a time: connections end with only that record on its way
//!  -> left out  at once the next one is sent in its place. It is acknowledged: others pass, this one does not. It is not:
//!               it is left out as well; after several the broker is at fault, and the oldest is tried again
//! ```
//!
//! Every other time those of a refused topic that are no smaller are left out without being sent: of a long row of messages that
//! are too large none would pass.
//!
//! Nothing is given up before the last step, and what is left out may be sent again only while nothing behind it was
//! acknowledged: the order holds. Knows neither sockets nor the queue; offsets and moments come with each call.

use tidegate_model::time::Monotonic;

/// Connections in a row that ended with the same oldest record, until records are sent one at a time.
pub const IN_COMPANY: u32 = 3;
/// Connections in a row that ended with one record alone on its way, until another one is tried in its place. One that is at
/// least as large as one that was refused so often is left out the first time. Doubles, up to 16 times, with each time
/// that nothing behind it passed either.
pub const ALONE: u32 = 3;
/// Records that are sent in vain in the place of others at the most. When none of them passes, none is to blame.
pub const MAX_TRIED: u32 = 8;
/// Records that are left out at the same time at the most.
pub const MAX_LEFT_OUT: usize = 1_000;
/// How soon after the refusal another one is tried, in ms: later, the broker may have come to itself in between.
pub const AT_ONCE_MS: i64 = 5_000;
/// How long the last of the line is left out, with nothing behind it to try in its place, in ms.
pub const TRUST_AGAIN_MS: i64 = 60_000;

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Try again, after the usual pause.
    Pause,
    /// Try the next record at once.
    AtOnce,
    /// Go back to this record, the oldest of those that were left out, after the usual pause.
    Back(u64),
}

/// What is known of the oldest records.
#[derive(Debug, Default)]
pub struct Suspicion {
    /// The oldest record without an acknowledgement when the last connection ended.
    oldest: u64,
    /// Connections in a row that ended like that.
    ended: u32,
    /// Up to this offset records are sent one at a time; 0: none are.
    alone_to: u64,
    /// In order; not sent now.
    left_out: Vec<u64>,
    /// Those among them that were refused alone: topic and size in bytes.
    refused: Vec<(String, usize)>,
    /// When the last of them was refused.
    refused_at: Option<Monotonic>,
    /// How often nothing passed that was tried in the place of others.
    in_vain: u32,
    /// This broker has refused single messages before.
    is_known: bool,
}

impl Suspicion {
    /// Records are to be sent one at a time.
    pub fn is_alone(&self) -> bool {
        self.alone_to > 0
    }

    /// Where to begin, if not at the oldest record: behind those that are left out.
    pub fn begin(&self) -> Option<u64> {
        self.left_out.last().map(|last| last + 1)
    }

    /// The oldest of those that are left out.
    pub fn oldest(&self) -> Option<u64> {
        self.left_out.first().copied()
    }

    /// The other side ended the connection while the records from `first` to `last` waited for an acknowledgement; `what` is
    /// topic and size of the first, if it was alone.
    pub fn ended(&mut self, first: u64, last: u64, what: Option<(&str, usize)>, now: Monotonic) -> Next {
        if self.oldest != first {
            (self.oldest, self.ended) = (first, 0);
        }
        self.ended += 1;
        if !self.is_alone() {
            if self.is_known || self.ended >= IN_COMPANY {
                (self.alone_to, self.ended) = (last, 0);
            }
            return Next::Pause;
        }
        let Some((topic, bytes)) = what.filter(|_| first == last) else { return Next::Pause };
        let follows = !self.left_out.is_empty();
        let is_larger = self.refused.iter().any(|(_, other)| bytes >= *other);
        let needed = match (follows, is_larger) {
            (false, _) => ALONE << self.in_vain.min(4),
            (true, false) => ALONE,
            (true, true) => 1,
        };
        if self.ended >= needed {
            self.left_out.push(first);
            self.refused.push((topic.to_owned(), bytes));
            self.refused_at = Some(now);
            self.alone_to = self.alone_to.max(first + 1);
            self.ended = 0;
        } else if !follows {
            return Next::Pause;
        }
        if self.refused.len() > MAX_TRIED as usize {
            self.in_vain += 1;
            return Next::Back(self.include().unwrap_or(first));
        }
        Next::AtOnce
    }

    /// Whether something may be sent in the place of those that are left out. `Some`: no, go back to this record, the oldest of
    /// them: the refusal was too long ago to tell anything, or nothing is behind them (`is_last`) for long.
    pub fn stale(&mut self, is_last: bool, now: Monotonic) -> Option<u64> {
        let refused_at = self.refused_at.filter(|_| !self.left_out.is_empty())?;
        let patience = if is_last { TRUST_AGAIN_MS } else { AT_ONCE_MS };
        if now < refused_at.plus_ms(patience) {
            return None;
        }
        let first = self.include();
        // It was refused often enough: once more is enough to leave it out again.
        self.in_vain += 1;
        self.oldest = first.unwrap_or(0);
        self.ended = (ALONE << self.in_vain.min(4)) - 1;
        first
    }

    /// The record was acknowledged that was sent alone. Returns those that were left out before it: they are what this broker
    /// does not take.
    pub fn passed(&mut self, offset: u64) -> Vec<u64> {
        self.ended = 0;
        self.in_vain = 0;
        if offset >= self.alone_to {
            self.alone_to = 0;
        }
        self.is_known |= !self.left_out.is_empty();
        self.refused.clear();
        std::mem::take(&mut self.left_out)
    }

    /// Leaves a record out that is next and would not pass. `false`: it is to be sent.
    pub fn skips(&mut self, offset: u64, topic: &str, bytes: usize) -> bool {
        let known = |(other, least): &(String, usize)| other == topic && bytes >= *least;
        let skips =
            self.in_vain % 2 == 1 && self.left_out.len() < MAX_LEFT_OUT && self.refused.iter().any(known);
        if skips {
            self.left_out.push(offset);
            self.alone_to = self.alone_to.max(offset + 1);
        }
        skips
    }

    /// Nothing is left out any more. Returns the oldest of what was.
    fn include(&mut self) -> Option<u64> {
        let first = self.left_out.first().copied();
        self.left_out.clear();
        self.refused.clear();
        first
    }

    /// What was found could not be kept: they are left out as before.
    pub fn not_kept(&mut self, left_out: Vec<u64>, now: Monotonic) {
        self.alone_to = self.alone_to.max(left_out.last().map_or(0, |last| last + 1));
        self.refused_at = Some(now);
        self.left_out = left_out;
    }

    /// Another broker, or another login: nothing is known of it. `Some`: go back to this record.
    pub fn forget(&mut self) -> Option<u64> {
        let first = self.left_out.first().copied();
        *self = Self::default();
        first
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Topic and size of a record: the even ones are larger.
    fn what(offset: u64) -> (&'static str, usize) {
        let topic = ["a", "b", "c"][usize::try_from(offset % 3).unwrap()];
        (topic, if offset.is_multiple_of(2) { 100 } else { 10 })
    }

    /// A broker that takes what `takes` says, a line of records, and a client that obeys the suspicion.
    struct Line {
        now: Monotonic,
        suspicion: Suspicion,
        /// Offsets that are neither acknowledged nor set aside.
        waiting: BTreeSet<u64>,
        delivered: Vec<u64>,
        aside: Vec<u64>,
        connections: u32,
        refusals: i64,
    }

    const WINDOW: usize = 5;

    impl Line {
        fn new(records: u64) -> Self {
            Self {
                now: Monotonic(0),
                suspicion: Suspicion::default(),
                waiting: (1..=records).collect(),
                delivered: Vec::new(),
                aside: Vec::new(),
                connections: 0,
                refusals: 0,
            }
        }

        /// One connection, which the broker ends at the first record that it does not take.
        fn connect(&mut self, mut takes: impl FnMut(u64) -> bool) {
            self.connections += 1;
            loop {
                let begin = self.suspicion.begin().unwrap_or(0);
                let is_last = self.waiting.range(begin..).next().is_none();
                if self.suspicion.stale(is_last, self.now).is_some() {
                    continue;
                }
                let count = if self.suspicion.is_alone() { 1 } else { WINDOW };
                let flight: Vec<u64> = self.waiting.range(begin..).take(count).copied().collect();
                let Some(first) = flight.first().copied() else {
                    self.now = self.now.plus_ms(1_000);
                    return;
                };
                let last = *flight.last().unwrap();
                let (topic, bytes) = what(first);
                if self.suspicion.skips(first, topic, bytes) {
                    continue;
                }
                if !takes(first) {
                    self.refusals += 1;
                    let next = self.suspicion.ended(first, last, Some((topic, bytes)), self.now);
                    self.now = self.now.plus_ms(if next == Next::AtOnce { 10 } else { 10_000 });
                    return;
                }
                let found = if self.suspicion.is_alone() { self.suspicion.passed(first) } else { Vec::new() };
                self.waiting.remove(&first);
                self.delivered.push(first);
                for offset in found {
                    self.waiting.remove(&offset);
                    self.aside.push(offset);
                }
            }
        }
    }

    #[test]
    fn the_one_that_is_refused_is_found_and_all_others_pass_in_order() {
        let mut line = Line::new(20);
        while !line.waiting.is_empty() {
            line.connect(|offset| offset != 7);
        }
        assert_eq!(line.aside, [7]);
        assert_eq!(line.delivered, (1..=20).filter(|offset| *offset != 7).collect::<Vec<_>>());
        assert_eq!(line.connections, IN_COMPANY + ALONE + 1);
    }

    #[test]
    fn several_in_a_row_are_found_with_one_proof_and_later_ones_sooner() {
        let refused = [4, 5, 6, 14];
        let mut line = Line::new(20);
        while !line.waiting.is_empty() {
            line.connect(|offset| !refused.contains(&offset));
        }
        assert_eq!(line.aside, refused);
        // 4 is found first; 5 is smaller than it and gets as many chances, 6 does not. The broker being known, 14 is not tried
        // in company more than once.
        assert_eq!(line.connections, (IN_COMPANY + ALONE + ALONE + 1) + (1 + ALONE) + 1);
    }

    #[test]
    fn a_long_row_of_large_ones_under_one_topic_is_found_with_one_proof() {
        let mut suspicion = Suspicion::default();
        let (mut next, mut refusals) = (1, 0);
        while suspicion.in_vain == 0 {
            refusals += 1;
            match suspicion.ended(next, next, Some(("cam", 500)), Monotonic(0)) {
                Next::Back(offset) => next = offset,
                Next::Pause | Next::AtOnce => next = suspicion.begin().unwrap_or(1),
            }
        }
        // Each of the others only once: it is as large as the first.
        assert_eq!((refusals, next), (IN_COMPANY + ALONE + MAX_TRIED, 1));
        for _ in 0..2 * ALONE {
            suspicion.ended(1, 1, Some(("cam", 500)), Monotonic(0));
        }
        for offset in 2..200 {
            assert!(suspicion.skips(offset, "cam", 500 + usize::try_from(offset).unwrap()));
        }
        assert!(
            !suspicion.skips(200, "cam", 499) && !suspicion.skips(200, "door", 500),
            "these may tell something"
        );
        assert_eq!(suspicion.begin(), Some(200));
        assert_eq!(suspicion.passed(200), (1..200).collect::<Vec<_>>());
        assert!(!suspicion.skips(201, "cam", 500), "what was learned is forgotten with the proof");
    }

    #[test]
    fn a_broker_that_takes_nothing_for_a_while_costs_nothing() {
        // However long it lasts: all that is in the line arrives, in order.
        for refusals in (0..40_u32).chain([100, 150, 200, 201, 202, 203, 204, 205]) {
            let mut line = Line::new(60);
            let mut left = refusals;
            // It comes to itself while the client makes a pause.
            while left > 0 || line.suspicion.begin().is_some() {
                line.connect(|_| false);
                left = left.saturating_sub(1);
            }
            for _ in 0..3 {
                line.connect(|_| true);
            }
            assert!(line.aside.is_empty() && line.waiting.is_empty(), "{refusals}");
            assert!(line.delivered.is_sorted());
        }
    }

    #[test]
    fn one_that_takes_nothing_is_not_flooded_with_attempts() {
        let mut line = Line::new(100);
        for _ in 0..2_000 {
            line.connect(|_| false);
        }
        assert!(line.now.0 / line.refusals > 5_000, "{} in {:?}", line.refusals, line.now);
    }

    #[test]
    fn the_last_of_the_line_waits_for_a_proof_that_is_fresh() {
        let mut line = Line::new(2);
        for _ in 0..IN_COMPANY + ALONE + 1 {
            line.connect(|offset| offset != 2);
        }
        assert_eq!((line.aside.len(), line.suspicion.begin()), (0, Some(3)));
        // A minute later it is tried once more, and once is enough.
        line.now = line.now.plus_ms(TRUST_AGAIN_MS);
        line.connect(|offset| offset != 2);
        assert_eq!(line.suspicion.begin(), Some(3));
        // What comes long after the refusal is no proof: the oldest has its chance before it.
        line.now = line.now.plus_ms(AT_ONCE_MS);
        line.waiting.insert(3);
        line.connect(|_| true);
        assert_eq!((line.delivered.as_slice(), line.aside.as_slice()), (&[1, 2, 3][..], &[][..]));
    }

    #[test]
    fn the_last_of_the_line_is_found_when_another_comes() {
        let mut line = Line::new(2);
        for _ in 0..50 {
            line.connect(|offset| offset != 2);
            line.now = line.now.plus_ms(20_000);
        }
        line.waiting.insert(3);
        line.connect(|offset| offset != 2);
        line.connect(|offset| offset != 2);
        assert_eq!((line.delivered.as_slice(), line.aside.as_slice()), (&[1, 3][..], &[2][..]));
    }

    #[test]
    fn another_broker_is_not_suspected() {
        let mut line = Line::new(2);
        for _ in 0..10 {
            line.connect(|offset| offset != 2);
        }
        assert_eq!(line.suspicion.forget(), Some(2));
        assert!(!line.suspicion.is_alone() && line.suspicion.begin().is_none());
    }

    proptest! {
        /// Whatever the broker does, nothing is lost, nothing is acknowledged out of order, and what it takes always is never set
        /// aside by a broker that is merely cut at random for fewer times in a row than the steps take.
        #[test]
        fn nothing_is_lost_or_reordered(
            refused in prop::collection::btree_set(1u64..40, 0..8),
            cuts in prop::collection::vec(0u32..4, 0..60),
        ) {
            let mut line = Line::new(40);
            let mut cuts = cuts.into_iter();
            for _ in 0..400 {
                // Up to so many records pass, then the link is cut; later it holds.
                let mut left = cuts.next().map_or(u32::MAX, |n| n + 1);
                line.connect(|offset| {
                    let lets = !refused.contains(&offset) && left > 0;
                    left = left.saturating_sub(1);
                    lets
                });
            }
            prop_assert!(line.delivered.is_sorted());
            let mut all: Vec<u64> = line.delivered.iter().chain(&line.aside).chain(&line.waiting).copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (1..=40).collect::<Vec<_>>());
            let aside: BTreeSet<u64> = line.aside.iter().copied().collect();
            // One that was not even sent had the topic of one that was refused, and was no smaller.
            let is_like = |offset: &u64| refused.iter().any(|r| what(*r).0 == what(*offset).0 && what(*offset).1 >= what(*r).1);
            prop_assert!(aside.iter().all(is_like), "{:?} for {:?}", aside, refused);
            // What is left has nothing behind it that passes.
            prop_assert!(line.waiting.iter().all(is_like));
        }
    }
}

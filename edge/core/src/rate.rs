//! How fast a rule may send: a token bucket for messages and one for bytes, in whole numbers. The moment comes with each call.
//!
//! Each bucket holds what may be sent in one second and fills up all the time, so what stays below the limit never waits, and
//! a burst of a second's worth passes at once. A message goes when both buckets hold anything at all; one that is larger than what
//! they hold leaves a debt, so that no message is too large to be sent.

use tidegate_model::time::Monotonic;

/// Ms in a second.
const SECOND: i64 = 1_000;

/// The limit of one rule.
#[derive(Debug, Clone)]
pub struct Rate {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
}

/// Counts in thousandths, so that every ms brings a whole number of them.
#[derive(Debug, Clone)]
struct Bucket {
    per_s: i64,
    level: i64,
    at: Monotonic,
}

impl Bucket {
    fn new(per_s: u64, now: Monotonic) -> Self {
        // Far beyond any link, and small enough to be multiplied.
        let per_s = i64::try_from(per_s).unwrap_or(i64::MAX).clamp(1, 1 << 40);
        Self { per_s, level: per_s * SECOND, at: now }
    }

    fn fill(&mut self, now: Monotonic) {
        // After a second it is full, whatever it owed but for the debt of one message.
        let passed = now.0.saturating_sub(self.at.0).max(0);
        self.at = Monotonic(self.at.0.max(now.0));
        self.level = self.level.saturating_add(self.per_s.saturating_mul(passed)).min(self.per_s * SECOND);
    }

    fn free_at(&self) -> Monotonic {
        if self.level > 0 {
            return self.at;
        }
        self.at.plus_ms((-self.level) / self.per_s + 1)
    }

    fn take(&mut self, count: u64) {
        let count = i64::try_from(count).unwrap_or(i64::MAX).saturating_mul(SECOND);
        self.level = self.level.saturating_sub(count);
    }
}

impl Rate {
    /// At most so many messages and bytes per second, as far as given; full at this moment.
    pub fn new(messages_per_s: Option<u64>, bytes_per_s: Option<u64>, now: Monotonic) -> Self {
        let bucket = |per_s: Option<u64>| per_s.map(|per_s| Bucket::new(per_s, now));
        Self { messages: bucket(messages_per_s), bytes: bucket(bytes_per_s) }
    }

    /// When the next message may be sent; not later than now: at once.
    pub fn free_at(&mut self, now: Monotonic) -> Monotonic {
        let mut free = now;
        for bucket in [&mut self.messages, &mut self.bytes].into_iter().flatten() {
            bucket.fill(now);
            free = free.max(bucket.free_at());
        }
        free
    }

    /// A message of so many bytes is sent.
    pub fn sent(&mut self, bytes: usize) {
        if let Some(messages) = &mut self.messages {
            messages.take(1);
        }
        if let Some(bucket) = &mut self.bytes {
            bucket.take(bytes as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_second_at_once_then_one_after_the_other() {
        let mut rate = Rate::new(Some(4), None, Monotonic(0));
        for _ in 0..4 {
            assert_eq!(rate.free_at(Monotonic(0)), Monotonic(0));
            rate.sent(10);
        }
        for at in [1, 251, 501] {
            assert_eq!(rate.free_at(Monotonic(at - 1)), Monotonic(at));
            assert_eq!(rate.free_at(Monotonic(at)), Monotonic(at));
            rate.sent(10);
        }
        assert_eq!(rate.free_at(Monotonic(9_000)), Monotonic(9_000));
    }

    #[test]
    fn one_that_is_larger_than_a_second_is_sent_and_paid_for() {
        let mut rate = Rate::new(None, Some(1_000), Monotonic(0));
        rate.sent(5_000);
        assert_eq!(rate.free_at(Monotonic(0)), Monotonic(4_001));
    }

    #[test]
    fn a_clock_that_stands_still_or_jumps_far_is_borne() {
        let mut rate = Rate::new(Some(1), Some(1), Monotonic(1_000));
        rate.sent(usize::MAX);
        assert!(rate.free_at(Monotonic(0)) > Monotonic(1_000));
        assert!(rate.free_at(Monotonic(i64::MAX - 1)) >= Monotonic(i64::MAX - 1));
        let mut rate = Rate::new(Some(u64::MAX), None, Monotonic(0));
        rate.sent(1);
        assert_eq!(rate.free_at(Monotonic(5)), Monotonic(5));
    }

    proptest! {
        /// Messages that are always there: over any stretch never more than the limit and a second's worth, and no less than the
        /// limit.
        #[test]
        fn a_backlog_is_sent_at_the_limit(
            messages_per_s in 1u64..500,
            bytes_per_s in 500u64..20_000,
            sizes in prop::collection::vec(0usize..1_000, 50..300),
            late in prop::collection::vec(0i64..30, 300),
        ) {
            let mut rate = Rate::new(Some(messages_per_s), Some(bytes_per_s), Monotonic(0));
            let mut now = Monotonic(0);
            let mut log: Vec<(i64, usize)> = Vec::new();
            for (size, late) in sizes.iter().zip(late) {
                let free = rate.free_at(now);
                if free > now {
                    prop_assert!(rate.clone().free_at(Monotonic(free.0 - 1)) > Monotonic(free.0 - 1), "not a ms too late");
                    // The shell looks a little later.
                    now = free.plus_ms(late);
                    prop_assert_eq!(rate.free_at(now), now, "when it is time it is free");
                }
                rate.sent(*size);
                log.push((now.0, *size));
            }
            for first in 0..log.len() {
                let (mut count, mut bytes) = (0, 0);
                for (at, size) in &log[first..] {
                    let ms = u64::try_from(at - log[first].0).unwrap();
                    // What was sent before the last one is within what the buckets held and got.
                    prop_assert!(count * 1_000 <= messages_per_s * (ms + 1_000), "{} in {} ms", count, ms);
                    prop_assert!(bytes * 1_000 <= bytes_per_s * (ms + 1_000), "{} bytes in {} ms", bytes, ms);
                    count += 1;
                    bytes += *size as u64;
                }
            }
        }

        /// What comes more slowly than the limit never waits.
        #[test]
        fn live_traffic_below_the_limit_never_waits(
            per_s in 1u64..1_000,
            gaps in prop::collection::vec(0i64..50, 1..200),
        ) {
            let mut rate = Rate::new(Some(per_s), None, Monotonic(0));
            let mut now = Monotonic(0);
            for gap in gaps {
                now = now.plus_ms(i64::try_from(1_000_u64.div_ceil(per_s)).unwrap() + gap);
                prop_assert_eq!(rate.free_at(now), now);
                rate.sent(1);
            }
        }
    }
}

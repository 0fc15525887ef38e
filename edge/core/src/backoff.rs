//! How long a bridge waits before it tries its remote broker again: full jitter under a bound that doubles.
//!
//! Randomness and the moment are arguments. Leaves the waiting to the shell.

use tidegate_model::time::Monotonic;

/// The bound of the first pause, in ms.
pub const FIRST_BOUND_MS: i64 = 200;
/// The highest bound, in ms.
pub const LAST_BOUND_MS: i64 = 30_000;
/// A connection counts as good when something is heard this long after CONNACK, in ms: one that is accepted and broken
/// at once must not be tried again at full speed.
pub const GOOD_AFTER_MS: i64 = 10_000;

/// The pauses of one bridge.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    failures: u32,
    connected: Option<Monotonic>,
}

impl Backoff {
    /// No failure yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// An attempt failed, or a connection broke: how many ms to wait, from 0 to the bound. `random` is any number.
    pub fn failed(&mut self, random: u64) -> i64 {
        self.connected = None;
        let bound = FIRST_BOUND_MS.saturating_mul(1 << self.failures.min(16)).min(LAST_BOUND_MS);
        self.failures = self.failures.saturating_add(1);
        let span = bound.unsigned_abs() + 1;
        i64::try_from(random % span).unwrap_or(bound)
    }

    /// CONNACK came.
    pub fn connected(&mut self, now: Monotonic) {
        self.connected = Some(now);
    }

    /// Something came from the remote broker.
    pub fn heard(&mut self, now: Monotonic) {
        if self.connected.is_some_and(|since| now >= since.plus_ms(GOOD_AFTER_MS)) {
            self.failures = 0;
        }
    }

    /// Other settings deserve a fresh start.
    pub fn reset(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_to_thirty_seconds() {
        let mut backoff = Backoff::new();
        for bound in [200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000] {
            let span = u64::try_from(bound).unwrap() + 1;
            assert_eq!(backoff.clone().failed(0), 0, "full jitter begins at nothing");
            assert_eq!(backoff.clone().failed(span), 0);
            assert_eq!(backoff.failed(span - 1), bound);
        }
        for _ in 0..100 {
            assert!((0..=30_000).contains(&backoff.failed(u64::MAX)));
        }
    }

    #[test]
    fn only_a_connection_that_lasts_starts_over() {
        let mut backoff = Backoff::new();
        for _ in 0..5 {
            backoff.failed(0);
        }
        backoff.connected(Monotonic(1_000));
        backoff.heard(Monotonic(10_999));
        assert_eq!(backoff.clone().failed(6_400), 6_400);
        backoff.heard(Monotonic(11_000));
        assert_eq!(backoff.failed(200), 200);
    }

    #[test]
    fn what_is_heard_without_a_connection_means_nothing() {
        let mut backoff = Backoff::new();
        backoff.connected(Monotonic(0));
        backoff.failed(0);
        backoff.heard(Monotonic(90_000));
        assert_eq!(backoff.failed(400), 400);
    }
}

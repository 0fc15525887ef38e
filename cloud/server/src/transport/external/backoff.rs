//! The pause before a broken connection is made again: full jitter, so that nothing that broke together returns together.

use std::time::Duration;

/// Longest first pause.
const FIRST: Duration = Duration::from_millis(200);
/// Longest pause of all.
const LONGEST: Duration = Duration::from_secs(30);
/// A connection that stood this long was a good one: the pauses begin anew.
const GOOD_AFTER: Duration = Duration::from_secs(10);

/// How often in a row the connection broke early.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause after a connection that stood for `stood`, by a random number.
    pub(super) fn pause(&mut self, stood: Duration, random: u64) -> Duration {
        if stood >= GOOD_AFTER {
            self.failures = 0;
        }
        let most = FIRST.saturating_mul(1_u32 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(random % (most + 1))
    }
}

/// A random number for [`Backoff::pause`].
pub(super) fn random() -> u64 {
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        // Without randomness the longest pause is the safe one.
        Err(_) => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_half_a_minute_and_begin_anew_after_a_good_connection() {
        let mut backoff = Backoff::default();
        // The largest pause that a random number gives: `most` itself.
        let mut most = |stood| {
            let mut copy = Backoff { failures: backoff.failures };
            let pauses = (0..60_001).map(|random| copy_pause(&mut copy, stood, random)).max().unwrap();
            backoff.pause(stood, 0);
            pauses
        };
        fn copy_pause(backoff: &mut Backoff, stood: Duration, random: u64) -> Duration {
            Backoff { failures: backoff.failures }.pause(stood, random)
        }
        let short = Duration::from_secs(1);
        let seen: Vec<u128> = (0..10).map(|_| most(short).as_millis()).collect();
        assert_eq!(seen, [200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]);
        assert_eq!(most(Duration::from_secs(10)).as_millis(), 200);
    }
}

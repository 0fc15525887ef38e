//! The clocks of the process, as the core wants them.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidegate_model::time::{Monotonic, Now, Wall};

/// Counts from the moment it was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }

    pub fn now(&self) -> Now {
        let elapsed = i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX);
        Now { monotonic: Monotonic(elapsed), wall: wall() }
    }

    /// When this moment of the core comes; rounded up, so that the deadline has passed then.
    pub fn instant(&self, at: Monotonic) -> tokio::time::Instant {
        let ms = u64::try_from(at.0).unwrap_or(0).saturating_add(1);
        (self.start + Duration::from_millis(ms.min(365 * 86_400_000))).into()
    }
}

/// 2024-01-01: a wall clock before this was never set, as on a gateway without a battery for it.
const SET_SINCE_MS: i64 = 1_704_067_200_000;

/// What a queued message is stamped with: the wall clock, unless that was never set.
pub(crate) fn stamp_ms() -> i64 {
    stamp_of(wall())
}

fn stamp_of(wall: Wall) -> i64 {
    if wall.0 < SET_SINCE_MS { tidegate_edge_queue::UNKNOWN_AGE } else { wall.0 }
}

/// Wall clock.
pub(crate) fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_never_set_stamps_no_age() {
        assert_eq!(stamp_of(Wall(86_400_000)), tidegate_edge_queue::UNKNOWN_AGE);
        assert_eq!(stamp_of(Wall(1_795_000_000_000)), 1_795_000_000_000);
    }
}

//! The one place of the controller that reads clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidegate_model::time::{Monotonic, Now, Wall};

/// Both clocks, the monotonic one counted from the start of the process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// This moment, for the core.
    pub(crate) fn now(&self) -> Now {
        let since_start = self.start.elapsed().as_millis();
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let ms = |ms: u128| i64::try_from(ms).unwrap_or(i64::MAX);
        Now { monotonic: Monotonic(ms(since_start)), wall: Wall(ms(since_1970)) }
    }

    /// How long to sleep until a moment of the core; at least 1 ms, so that rounding never makes a busy loop.
    pub(crate) fn until(&self, at: Monotonic) -> Duration {
        let left = at.0.saturating_sub(self.now().monotonic.0).max(1);
        Duration::from_millis(u64::try_from(left).unwrap_or(1))
    }
}

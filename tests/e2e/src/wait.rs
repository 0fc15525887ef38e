//! Waiting for a condition with a deadline. No test sleeps and hopes.

use std::time::{Duration, Instant};

/// Deadline of everything that has no tighter promise: long, because it only counts when something is broken.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Pause between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks at a condition until it gives a value.
///
/// # Panics
/// When it gave none within [`PATIENCE`].
pub fn until<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, condition)
}

/// Looks at a condition until it gives a value.
///
/// # Panics
/// When it gave none within `deadline`.
#[track_caller]
pub fn within<T>(deadline: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        std::thread::sleep(PAUSE);
    }
}

//! The agent's own pauses and bounds, in milliseconds unless the name says otherwise. What the protocol fixes for both
//! sides stands in `tidegate_model::limits`.

/// First pause between two hellos that no welcome answered; it doubles.
pub(crate) const HELLO_RETRY_MS: i64 = 2_000;
/// Longest pause between two hellos that no welcome answered.
pub(crate) const HELLO_RETRY_MAX_MS: i64 = 30_000;
/// A hello that a new controller epoch causes waits up to this long, so that a fleet does not say it at once.
pub(crate) const EPOCH_SPREAD_MS: i64 = 3_000;
/// Least pause between two births in one session, however often somebody else's presence is seen.
pub(crate) const BIRTH_PAUSE_MS: i64 = 1_000;
/// First pause before a bridge task that ended by itself is started again; it doubles.
pub(crate) const RESTART_FIRST_MS: i64 = 1_000;
/// Longest pause before a bridge task that ended by itself is started again.
pub(crate) const RESTART_MAX_MS: i64 = 30_000;
/// Least pause between two reports of one rule while it flaps.
pub const REPORT_PAUSE_MS: i64 = 10_000;
/// A queue that was full has room when it was not seen full for so long: one that is full on and off is told once.
pub const ROOM_AFTER_MS: i64 = 30_000;
/// Window over which changes of a run state are counted.
pub(crate) const FLAPPING_WINDOW_MS: i64 = 60_000;
/// Changed counters of a running rule are told this often.
pub const COUNTERS_EVERY_MS: i64 = 30_000;
/// Least and most seconds between heartbeats that the agent takes from a welcome.
pub(crate) const HEARTBEAT_RANGE_S: std::ops::RangeInclusive<u32> = 1..=3_600;
/// Seconds for which a start waits for a first sign of the remote broker, where the rule does not say.
pub(crate) const VERIFY_DEFAULT_S: u64 = 15;

//! The bounds of one queue, and what happens at them.

use std::time::Duration;

/// Smallest segment that makes sense, in bytes: below it the headers and the syncs of new files dominate.
const MIN_SEGMENT_BYTES: u64 = 1024;
/// A queue holds at least this many segments, so that releasing or dropping one frees a part, not all.
const MIN_SEGMENTS: u64 = 4;
/// What lies aside takes at most this part of `max_bytes`.
const ASIDE_PART: u64 = 4;

/// The bounds of one queue. All sizes are bytes on disk, record headers included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueConfig {
    /// Most bytes of all segments together. While a segment is exchanged for a new one, one more may exist.
    pub max_bytes: u64,
    /// Records older than this are dropped by [`crate::Queue::expire`]; `None` keeps them for ever.
    pub max_age: Option<Duration>,
    /// What happens to a new record when `max_bytes` is reached.
    pub when_full: WhenFull,
    /// Size of a segment, the unit of deletion; at most a quarter of `max_bytes` is used.
    pub segment_bytes: u64,
    /// Most bytes in memory that were handed to [`crate::Queue::append`] and are not on disk yet.
    pub max_waiting_bytes: u64,
}

/// What a full queue does with the next record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// The record waits in memory, unacknowledged, until records are released.
    Block,
    /// The oldest segment is deleted, its unreleased records are counted as dropped.
    DropOldest,
}

impl Default for QueueConfig {
    /// 64 MiB, a week, drop the oldest, segments of 4 MiB, 4 MiB waiting.
    fn default() -> Self {
        QueueConfig {
            max_bytes: 64 << 20,
            max_age: Some(Duration::from_secs(7 * 24 * 3600)),
            when_full: WhenFull::DropOldest,
            segment_bytes: 4 << 20,
            max_waiting_bytes: 4 << 20,
        }
    }
}

impl QueueConfig {
    /// The size of a new segment in bytes, before it is stretched for a record that is larger.
    pub(crate) fn segment_size(&self) -> u64 {
        self.segment_bytes.min(self.max_bytes / MIN_SEGMENTS).max(MIN_SEGMENT_BYTES)
    }

    /// Largest record, in bytes on disk: half the queue, so that it fits beside the one it follows.
    pub(crate) fn max_record(&self) -> u64 {
        (self.max_bytes / 2).min(u64::from(u32::MAX / 2))
    }

    /// Most bytes of what lies aside, beside `max_bytes`; the last one may be larger.
    pub(crate) fn aside_bound(&self) -> u64 {
        self.max_bytes / ASIDE_PART
    }

    /// The bound on waiting bytes; one record of any permitted size fits.
    pub(crate) fn waiting_bound(&self) -> u64 {
        self.max_waiting_bytes.max(1)
    }
}

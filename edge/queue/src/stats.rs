//! Numbers a queue tells about itself.

use std::collections::VecDeque;

use crate::record::Source;

/// Most sources of records that opening a queue tells of.
pub const MAX_SOURCES: usize = 16_384;

/// Records that did not reach the reader, by reason, since the queue was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DropCounts {
    /// Dropped with the oldest segment to make room, or QoS 0 and refused with `Full`.
    pub full: u64,
    /// Older than `max_age`.
    pub age: u64,
    /// Accepted once, now unreadable.
    pub corrupt: u64,
    /// Larger than the queue takes.
    pub too_large: u64,
    /// QoS 0 and refused because of a disk error. (QoS 1 stays with its sender and is not lost.)
    pub disk: u64,
    /// Dropped by hand ([`crate::Queue::drop_where`]), in the line or aside.
    pub by_hand: u64,
    /// Set aside, then given up: more lay aside than may, or its file was damaged.
    pub aside: u64,
}

impl DropCounts {
    /// The sum over all reasons.
    pub fn total(&self) -> u64 {
        self.full + self.age + self.corrupt + self.too_large + self.disk + self.by_hand + self.aside
    }
}

/// A snapshot of one queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Durable records that are not released.
    pub queued: u64,
    /// Their bytes on disk, to within 64 KiB per partly released segment.
    pub bytes: u64,
    /// When the oldest of them was accepted (wall clock, ms); up to 64 KiB of records too early.
    pub oldest_at_ms: Option<i64>,
    /// Records that were handed over and are not durable yet: they wait for the disk or for room.
    pub waiting: u64,
    /// Highest durable offset; 0 when nothing was ever appended.
    pub tail: u64,
    /// Highest released (or dropped) offset.
    pub released: u64,
    /// Records made durable since the queue was opened.
    pub appended_total: u64,
    /// Records released by the reader since the queue was opened.
    pub released_total: u64,
    /// Batches (one write, one `fdatasync` each) since the queue was opened.
    pub commits_total: u64,
    /// Records that lie aside.
    pub aside: u64,
    /// Their bytes on disk.
    pub aside_bytes: u64,
    /// Records lost, by reason.
    pub dropped: DropCounts,
    /// The last write or sync failed and none has succeeded since.
    pub faulted: bool,
}

/// What opening a queue found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Records that are there and not released.
    pub records: u64,
    /// Records that had been accepted and are unreadable.
    pub skipped_bad: u64,
    /// Bytes cut off the end: written, but never acknowledged.
    pub truncated_bytes: u64,
    /// The cursor file was missing or damaged beside existing segments: everything kept is sent again.
    pub cursor_lost: bool,
    /// The sources of the newest records, in the order of the records, the last one last: of those that stand in a segment
    /// that is still there, released or not, at most [`MAX_SOURCES`].
    pub sources: VecDeque<Source>,
}

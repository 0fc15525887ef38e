//! The newest durable records in memory, so that a reader that keeps up never touches a file.

use std::collections::VecDeque;

use crate::record::Stored;

/// Most bytes of records kept in memory per queue. An agent has hundreds of queues, and in an outage all are behind.
const MAX_TAIL_BYTES: u64 = 256 << 10;

/// The last records of the log without a hole, bounded by [`MAX_TAIL_BYTES`].
#[derive(Default)]
pub(crate) struct Tail {
    records: VecDeque<Stored>,
    bytes: u64,
}

impl Tail {
    /// Adds the next record and forgets the oldest ones beyond the bound.
    pub(crate) fn push(&mut self, stored: Stored) {
        self.bytes += stored.record.disk_len();
        self.records.push_back(stored);
        while self.bytes > MAX_TAIL_BYTES {
            self.pop();
        }
    }

    /// Forgets everything up to `offset`.
    pub(crate) fn forget(&mut self, offset: u64) {
        while self.records.front().is_some_and(|first| first.offset <= offset) {
            self.pop();
        }
    }

    /// Records from `start` on, if they all are here.
    pub(crate) fn read(&self, start: u64, max_records: usize, max_bytes: usize) -> Option<Vec<Stored>> {
        if self.records.front()?.offset > start {
            return None;
        }
        let first = self.records.partition_point(|stored| stored.offset < start);
        let mut bytes = 0;
        let mut found = Vec::new();
        for stored in self.records.range(first..).take(max_records) {
            bytes += stored.record.payload.len() + stored.record.topic.len();
            if bytes > max_bytes && !found.is_empty() {
                break;
            }
            found.push(stored.clone());
        }
        Some(found)
    }

    /// Forgets a run of records in the middle.
    pub(crate) fn forget_run(&mut self, (first, last): (u64, u64)) {
        let from = self.records.partition_point(|stored| stored.offset < first);
        let to = self.records.partition_point(|stored| stored.offset <= last);
        self.bytes -= self.records.drain(from..to).map(|stored| stored.record.disk_len()).sum::<u64>();
    }

    /// When the record at `offset` was accepted, if it is here.
    pub(crate) fn at_ms(&self, offset: u64) -> Option<i64> {
        let at = self.records.binary_search_by_key(&offset, |stored| stored.offset).ok()?;
        self.records.get(at).map(|stored| stored.record.at_ms)
    }

    fn pop(&mut self) {
        if let Some(stored) = self.records.pop_front() {
            self.bytes -= stored.record.disk_len();
        }
    }
}

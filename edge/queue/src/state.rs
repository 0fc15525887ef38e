//! What handles and writer share under one lock, and what the writer should do next. Does no IO.

use std::collections::VecDeque;

use crate::{
    aside::Asides,
    by_hand::Removed,
    catalog::{Catalog, Room},
    core::{Callback, Done, Job},
    holes::Run,
    record::{Record, Stored},
    segment::SEGMENT_HEADER,
};

/// Most bytes of one batch: one write and one sync.
const MAX_BATCH_BYTES: u64 = 1 << 20;

/// The queue as it is now.
pub(crate) struct State {
    pub catalog: Catalog,
    pub asides: Asides,
    /// Number of the file of holes.
    pub holes_number: u64,
    /// The highest offset that the reader has in its hands.
    pub in_hand: u64,
    /// What the writer is to do beside records, in order.
    pub jobs: VecDeque<Job>,
    pub waiting: VecDeque<Waiting>,
    pub waiting_bytes: u64,
    /// Records of the batch that is being written.
    pub committing: u64,
    /// When the writer last looked there was no room for the first that waits, nor may anything be dropped for it.
    pub blocked: bool,
    /// Somebody was refused with `Full` and wants to hear of space.
    pub refused: bool,
    /// Drop what is too old at this wall clock.
    pub expire_at_ms: Option<i64>,
    /// Something happened since the writer last looked.
    pub signal: bool,
    pub closing: bool,
    /// A write failed, and not everybody was told yet.
    pub failing: bool,
    pub on_durable: Option<Callback>,
    pub on_space: Option<Callback>,
}

/// A record that is not durable yet.
pub(crate) struct Waiting {
    pub record: Record,
    pub done: Done,
}

/// What the writer should do next.
pub(crate) enum Plan {
    Idle,
    Job(Job),
    Expire(i64),
    Roll { base: u64, size: u64 },
    Write { base: u64, batch: Vec<Waiting> },
}

impl State {
    pub fn plan(&mut self, room: u64) -> Plan {
        if let Some(job) = self.jobs.pop_front() {
            return Plan::Job(job);
        }
        if let Some(now_ms) = self.expire_at_ms.take() {
            return Plan::Expire(now_ms);
        }
        self.blocked = false;
        let Some(first) = self.waiting.front().map(|waiting| waiting.record.disk_len()) else {
            return Plan::Idle;
        };
        let base = self.catalog.next();
        if first > room {
            let size = self.catalog.config.segment_size().max(first + SEGMENT_HEADER);
            return match self.catalog.room_for(size) {
                Room::Yes => Plan::Roll { base, size },
                Room::Blocked => {
                    self.blocked = true;
                    Plan::Idle
                }
            };
        }
        let mut bytes = 0;
        let fitting = self.waiting.iter().take_while(|waiting| {
            bytes += waiting.record.disk_len();
            bytes <= room && bytes <= MAX_BATCH_BYTES.max(first)
        });
        let count = fitting.count();
        let batch: Vec<Waiting> = self.waiting.drain(..count).collect();
        self.waiting_bytes -= batch.iter().map(|waiting| waiting.record.disk_len()).sum::<u64>();
        self.committing = batch.len() as u64;
        Plan::Write { base, batch }
    }

    /// The reader gets these.
    pub fn hand_out(&mut self, records: &[Stored]) {
        if let Some(last) = records.last() {
            self.in_hand = self.in_hand.max(last.offset);
        }
    }

    pub fn drop_runs(&mut self, runs: &[Run]) -> Removed {
        let from = self.in_hand.max(self.catalog.cursor()) + 1;
        let mut removed = Removed::default();
        for (first, last) in runs {
            let held = (*last).min(from - 1);
            removed.in_hand += self.catalog.count((*first).max(self.catalog.cursor() + 1), held);
            match self.catalog.drop_run((*first, *last), from) {
                Some(dropped) => removed.dropped += dropped,
                None => removed.has_more = true,
            }
        }
        self.catalog.dropped.by_hand += removed.dropped;
        self.catalog.skip_gaps();
        removed
    }

    pub fn aside_dropped(&mut self, offset: u64) {
        self.asides.remove(offset);
        self.catalog.dropped.by_hand += 1;
    }

    pub fn failed(&mut self, lost: u64) {
        self.committing = 0;
        self.catalog.faulted = true;
        self.catalog.dropped.disk += lost;
    }

    /// Whom to tell that there is space, when somebody was refused and enough went away.
    pub fn space(&mut self) -> Option<Callback> {
        if !self.refused || self.waiting_bytes > self.catalog.config.waiting_bound() / 2 {
            return None;
        }
        self.refused = false;
        self.on_space.clone()
    }
}

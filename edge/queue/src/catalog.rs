//! What is in the log, and every decision about it: is there room, what may be deleted, what was lost. Does no IO.

use std::collections::VecDeque;

use crate::{
    config::{QueueConfig, WhenFull},
    holes::{MAX_HOLES, Run},
    record::Stored,
    recover::Recovered,
    segment::Segment,
    stats::{DropCounts, QueueStats},
    tail::Tail,
};

/// Is there room for one more segment?
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Yes, or there will be after dropping the oldest.
    Yes,
    /// Not until something is released.
    Blocked,
}

/// The durable log as memory knows it.
pub(crate) struct Catalog {
    pub config: QueueConfig,
    /// Oldest first. The newest is never removed: its name holds the next offset over a restart.
    segments: VecDeque<Segment>,
    /// Everything up to here is released or dropped.
    cursor: u64,
    next: u64,
    tail: Tail,
    pub dropped: DropCounts,
    appended: u64,
    released: u64,
    commits: u64,
    pub faulted: bool,
}

/// Where to find the next record on disk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadPlan {
    pub base: u64,
    pub start: u64,
    pub from: u64,
    pub end: u64,
    pub last: u64,
}

/// The answer to "what is from this offset on?".
pub(crate) enum Look {
    /// These records; none when the reader is at the end.
    Here(Vec<Stored>),
    /// In a file.
    OnDisk(ReadPlan),
}

impl Catalog {
    pub(crate) fn new(config: QueueConfig, recovered: Recovered) -> Catalog {
        Catalog {
            config,
            segments: recovered.segments,
            cursor: recovered.cursor,
            next: recovered.next,
            tail: Tail::default(),
            dropped: DropCounts { corrupt: recovered.recovery.skipped_bad, ..DropCounts::default() },
            appended: 0,
            released: 0,
            commits: 0,
            faulted: false,
        }
    }

    pub(crate) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The offset the next durable record gets.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn room_for(&self, size: u64) -> Room {
        let kept = self.live_bytes();
        match self.config.when_full {
            WhenFull::DropOldest => Room::Yes,
            WhenFull::Block if kept == 0 || kept + size <= self.config.max_bytes => Room::Yes,
            WhenFull::Block => Room::Blocked,
        }
    }

    /// The writer made the segment `base` (always the next offset). One without records in its place is replaced.
    pub(crate) fn rolled(&mut self, base: u64, size: u64) {
        if let Some(newest) = self.segments.back_mut() {
            newest.file_bytes = newest.end;
            if newest.base == base {
                self.segments.pop_back();
            }
        }
        self.segments.push_back(Segment::empty(base, size));
        if self.config.when_full == WhenFull::DropOldest {
            while self.live_bytes() + size > self.config.max_bytes && self.drop_oldest() {}
        }
    }

    /// The oldest live segment but the newest is given up; `false` when there is none.
    pub(crate) fn drop_oldest(&mut self) -> bool {
        let sealed = self.segments.len().saturating_sub(1);
        let Some(last) =
            self.segments.iter().take(sealed).map(|segment| segment.last).find(|last| *last > self.cursor)
        else {
            return false;
        };
        self.dropped.full += self.advance(last);
        true
    }

    /// A batch is durable: the records, each with its place in the newest segment.
    pub(crate) fn committed(&mut self, batch: Vec<(Stored, u64)>) {
        self.commits += 1;
        self.faulted = false;
        for (stored, pos) in batch {
            self.appended += 1;
            self.next = stored.offset + 1;
            if let Some(newest) = self.segments.back_mut() {
                newest.note(stored.offset, pos, stored.record.disk_len(), stored.record.at_ms);
            }
            self.tail.push(stored);
        }
    }

    /// The reader is done with everything up to `offset`. Released or dropped offsets are harmless.
    pub(crate) fn release(&mut self, offset: u64) {
        self.released += self.advance(offset.min(self.next - 1));
    }

    /// Drops whole segments whose newest record is older than `limit_ms`; counts them.
    pub(crate) fn expire_segments(&mut self, limit_ms: i64) {
        let mut to = self.cursor;
        for segment in &self.segments {
            if segment.last > to {
                if segment.newest_at_ms >= limit_ms {
                    break;
                }
                to = segment.last;
            }
        }
        self.expire_to(to);
    }

    /// Drops the records up to `offset` because of their age.
    pub(crate) fn expire_to(&mut self, offset: u64) {
        self.dropped.age += self.advance(offset);
    }

    /// Forgets the released segments and returns their first offsets: the files may be deleted.
    pub(crate) fn take_removable(&mut self) -> Vec<u64> {
        let mut removable = Vec::new();
        while self.segments.len() > 1
            && self.segments.front().is_some_and(|oldest| oldest.last <= self.cursor)
        {
            removable.extend(self.segments.pop_front().map(|segment| segment.base));
        }
        removable
    }

    /// Records from `offset` on, or where they are. A reader behind the cursor jumps to it.
    pub(crate) fn look(&self, offset: u64, max_records: usize, max_bytes: usize) -> Look {
        let start = offset.max(self.cursor + 1);
        if start >= self.next {
            return Look::Here(Vec::new());
        }
        if let Some(found) = self.tail.read(start, max_records, max_bytes) {
            return Look::Here(found);
        }
        let at = self.segments.partition_point(|segment| segment.last < start);
        let Some(segment) = self.segments.get(at) else { return Look::Here(Vec::new()) };
        let start = start.max(segment.base);
        Look::OnDisk(ReadPlan {
            base: segment.base,
            start,
            from: segment.seek(start),
            end: segment.end,
            last: segment.last,
        })
    }

    /// Is the segment that begins with `base` still part of the log?
    pub(crate) fn has_segment(&self, base: u64) -> bool {
        self.segments.binary_search_by_key(&base, |segment| segment.base).is_ok()
    }

    /// A reader could not read `first ..= last` of the segment that begins with `base`.
    pub(crate) fn unreadable(&mut self, base: u64, first: u64, last: u64) {
        if let Ok(at) = self.segments.binary_search_by_key(&base, |segment| segment.base) {
            self.dropped.corrupt += self.segments[at].note_gap(first, last);
        }
    }

    pub(crate) fn stats(&self, waiting: u64) -> QueueStats {
        let oldest = self.cursor + 1;
        let holder = self.segments.iter().find(|segment| segment.count(oldest, u64::MAX) > 0);
        QueueStats {
            queued: self.count(oldest, u64::MAX),
            bytes: self.segments.iter().map(|segment| segment.bytes_after(self.cursor)).sum(),
            oldest_at_ms: holder.and_then(|segment| {
                self.tail.at_ms(oldest).or_else(|| segment.about_at_ms(oldest.max(segment.base)))
            }),
            waiting,
            tail: self.next - 1,
            released: self.cursor,
            appended_total: self.appended,
            released_total: self.released,
            commits_total: self.commits,
            aside: 0,
            aside_bytes: 0,
            dropped: self.dropped,
            faulted: self.faulted,
        }
    }

    /// Bytes of the segments that hold unreleased records; the newest counts with what is written to it.
    fn live_bytes(&self) -> u64 {
        let newest = self.segments.len().saturating_sub(1);
        self.segments
            .iter()
            .enumerate()
            .filter(|(_, segment)| segment.last > self.cursor && segment.last >= segment.base)
            .map(|(at, segment)| if at == newest { segment.end } else { segment.file_bytes })
            .sum()
    }

    /// The runs of missing records that are not released yet.
    pub(crate) fn gaps(&self) -> Vec<Run> {
        let all = self.segments.iter().flat_map(|segment| segment.gaps());
        all.filter(|(_, last)| *last > self.cursor).copied().collect()
    }

    /// Drops the records of a run, from this offset on. Returns how many there were; `None`: there are too many holes.
    pub(crate) fn drop_run(&mut self, (first, last): Run, from: u64) -> Option<u64> {
        let (first, last) = (first.max(from), last.min(self.next - 1));
        if first > last {
            return Some(0);
        }
        if self.segments.iter().map(|segment| segment.gaps().len()).sum::<usize>() >= MAX_HOLES {
            return None;
        }
        let mut dropped = 0;
        for segment in &mut self.segments {
            let (first, last) = (first.max(segment.base), last.min(segment.last));
            if first <= last {
                dropped += segment.note_gap(first, last);
            }
        }
        self.tail.forget_run((first, last));
        Some(dropped)
    }

    /// The readable records of a run.
    pub(crate) fn count(&self, first: u64, last: u64) -> u64 {
        let from = self.segments.partition_point(|segment| segment.last < first);
        self.segments
            .range(from..)
            .take_while(|segment| segment.base <= last)
            .map(|segment| segment.count(first, last))
            .sum()
    }

    /// Leaves out the records of a segment that were dropped by hand.
    pub(crate) fn without_gaps(&self, base: u64, records: &mut Vec<Stored>) {
        if let Ok(at) = self.segments.binary_search_by_key(&base, |segment| segment.base)
            && !self.segments[at].gaps().is_empty()
        {
            records.retain(|stored| self.segments[at].gap_end(stored.offset).is_none());
        }
    }

    /// Where nothing is to be sent the cursor goes on by itself: the space becomes free.
    pub(crate) fn skip_gaps(&mut self) {
        loop {
            let at = self.segments.partition_point(|segment| segment.last <= self.cursor);
            let Some(end) = self.segments.get(at).and_then(|segment| segment.gap_end(self.cursor + 1)) else {
                return;
            };
            self.cursor = end;
            self.tail.forget(end);
        }
    }

    /// Moves the cursor forward; returns how many readable records it passed.
    fn advance(&mut self, to: u64) -> u64 {
        if to <= self.cursor {
            return 0;
        }
        let passed = self.count(self.cursor + 1, to);
        self.cursor = to;
        self.tail.forget(to);
        self.skip_gaps();
        passed
    }
}

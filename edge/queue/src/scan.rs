//! Reads records out of a segment file: from a position on, past what is damaged.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    catalog::ReadPlan,
    disk::{Disk, DiskFile, read_chunk},
    record::{Parsed, Stored, find_magic, parse},
    segment,
};

/// How much of a file is read at once.
pub(crate) const READ_CHUNK: u64 = 128 << 10;

/// Reads segments one at a time; remembers the last file, and where that read ended.
pub(crate) struct SegmentReader {
    disk: Arc<dyn Disk>,
    last: Mutex<Option<Last>>,
}

struct Last {
    base: u64,
    file: Box<dyn DiskFile>,
    /// The next read may begin with this offset at this position.
    next: (u64, u64),
}

impl SegmentReader {
    pub fn new(disk: Arc<dyn Disk>) -> SegmentReader {
        SegmentReader { disk, last: Mutex::new(None) }
    }

    /// Reads as `plan` says, from within one segment.
    pub fn read(&self, plan: ReadPlan, max_records: usize, max_bytes: usize) -> io::Result<Scan> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let last = match &mut *last {
            Some(last) if last.base == plan.base => last,
            other => {
                let file = self.disk.open(&segment::name(plan.base))?;
                other.insert(Last { base: plan.base, file, next: (0, 0) })
            }
        };
        let (next_offset, next_pos) = last.next;
        let from = if next_offset == plan.start { next_pos } else { plan.from };
        let found = scan(&*last.file, ReadPlan { from, ..plan }, max_records, max_bytes)?;
        last.next = found.next;
        Ok(found)
    }

    /// Does not keep a deleted file alive, unless it is being read just now.
    pub fn forget(&self, bases: &[u64]) {
        if !bases.is_empty()
            && let Ok(mut last) = self.last.try_lock()
        {
            last.take_if(|last| bases.contains(&last.base));
        }
    }
}

/// What a scan found, and the offset and position at which the next one may begin.
pub(crate) struct Scan {
    pub records: Vec<Stored>,
    /// Runs of unreadable offsets (first, last).
    pub gaps: Vec<(u64, u64)>,
    pub next: (u64, u64),
}

/// Reads at least one record if there is one.
fn scan(file: &dyn DiskFile, plan: ReadPlan, max_records: usize, max_bytes: usize) -> io::Result<Scan> {
    let (mut records, mut gaps) = (Vec::new(), Vec::new());
    let (mut pos, mut want, mut bytes) = (plan.from, READ_CHUNK, 0);
    let mut expected = plan.start;
    while pos < plan.end {
        let here = want.min(plan.end - pos);
        let buf = read_chunk(file, pos, usize::try_from(here).map_err(io::Error::other)?)?;
        let whole = buf.len() as u64 == plan.end - pos;
        let mut at = 0;
        want = READ_CHUNK;
        while at < buf.len() {
            match parse(&buf[at..]) {
                Parsed::Record(view) if view.offset < plan.start => at += view.len,
                Parsed::Record(view) if view.offset >= expected && view.offset <= plan.last => {
                    bytes += view.len;
                    let full = records.len() >= max_records || (bytes > max_bytes && !records.is_empty());
                    if full {
                        return Ok(Scan { records, gaps, next: (expected, pos + at as u64) });
                    }
                    if view.offset > expected {
                        gaps.push((expected, view.offset - 1));
                    }
                    expected = view.offset + 1;
                    at += view.len;
                    records.push(view.to_stored());
                }
                Parsed::Short(needed) if !whole && pos + (at + needed) as u64 <= plan.end => {
                    want = READ_CHUNK.max(needed as u64);
                    break;
                }
                Parsed::Record(_) | Parsed::Short(_) | Parsed::Bad => match find_magic(&buf, at + 1) {
                    Some(next) => at = next,
                    // Keep what may be the beginning of a magic for the next chunk.
                    None if whole => at = buf.len(),
                    None => {
                        at = buf.len().saturating_sub(3).max(at + 1);
                        break;
                    }
                },
            }
        }
        if buf.is_empty() {
            break; // the file is shorter than it was: the rest is unreadable
        }
        pos += at as u64;
    }
    if expected <= plan.last {
        gaps.push((expected, plan.last));
    }
    Ok(Scan { records, gaps, next: (plan.last + 1, plan.end) })
}

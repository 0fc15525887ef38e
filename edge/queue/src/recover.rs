//! Reads the directory of a queue and decides what is there: which records stand, which were accepted and are
//! damaged (skipped, counted), and where the torn end of the log begins (cut off).

use std::{collections::VecDeque, io};

use crate::{
    disk::{Disk, read_chunk},
    holes,
    record::{Parsed, Source, find_magic, parse},
    segment::{self, SEGMENT_HEADER, Segment},
    stats::{MAX_SOURCES, Recovery},
};

/// The log as found.
pub(crate) struct Recovered {
    pub segments: VecDeque<Segment>,
    pub cursor: u64,
    /// The next offset to give out.
    pub next: u64,
    /// Number of the file of holes.
    pub holes_number: u64,
    pub recovery: Recovery,
}

/// Where a readable record stands.
struct Found {
    offset: u64,
    batch: u64,
    pos: u64,
    len: u64,
    at_ms: i64,
    source: Option<Source>,
}

/// Scans every segment. `cursor` is what the cursor file says, if it says anything. `only_reads`: nothing is mended.
pub(crate) fn recover(disk: &dyn Disk, cursor: Option<u64>, only_reads: bool) -> io::Result<Recovered> {
    let mut bases: Vec<u64> =
        disk.list()?.iter().filter_map(|name| segment::base_of(name)).filter(|base| *base > 0).collect();
    bases.sort_unstable();
    let mut recovery = Recovery { cursor_lost: cursor.is_none() && !bases.is_empty(), ..Recovery::default() };
    let before_oldest = bases.first().map_or(0, |base| base - 1);
    let cursor = cursor.unwrap_or(0).max(before_oldest);
    let mut segments: VecDeque<Segment> = VecDeque::new();
    for (at, &base) in bases.iter().enumerate() {
        let following = bases.get(at + 1).copied();
        segments.push_back(load(disk, base, following, cursor, only_reads, &mut recovery)?);
    }
    let (holes, holes_number, useless) = holes::recover(disk)?;
    for (first, last) in holes {
        for segment in &mut segments {
            let (first, last) = (first.max(segment.base), last.min(segment.last));
            if first <= last {
                segment.note_gap(first, last);
            }
        }
    }
    for name in useless.iter().filter(|_| !only_reads) {
        disk.remove(name)?;
    }
    let tail = segments.back().map_or(0, |newest| newest.last);
    recovery.records = segments.iter().map(|segment| segment.count(cursor + 1, u64::MAX)).sum();
    Ok(Recovered { segments, cursor, next: tail.max(cursor) + 1, holes_number, recovery })
}

fn load(
    disk: &dyn Disk,
    base: u64,
    following: Option<u64>,
    cursor: u64,
    only_reads: bool,
    recovery: &mut Recovery,
) -> io::Result<Segment> {
    let file = disk.open(&segment::name(base))?;
    let len = file.len()?;
    let bytes = read_chunk(&*file, 0, usize::try_from(len).map_err(io::Error::other)?)?;
    let mut segment = Segment::empty(base, len);
    stand(&mut segment, scan(&bytes, base, following), following, cursor, recovery);
    if only_reads {
        return Ok(segment);
    }
    // Cutting also gives back what was preallocated. New records never go into a recovered segment.
    if len > segment.end {
        let rest = bytes.get(usize::try_from(segment.end).map_err(io::Error::other)?..).unwrap_or(&[]);
        if following.is_none() {
            recovery.truncated_bytes +=
                rest.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1);
        }
        file.truncate(segment.end)?;
        segment.file_bytes = segment.end;
    }
    if following.is_none() {
        // After a mere process crash the end may be in the page cache only, and after a failed sync a second one does
        // not write it. From here on these records count as durable, so they are written once more.
        let end = usize::try_from(segment.end).map_err(io::Error::other)?.min(bytes.len());
        file.write_at(&bytes[..end], 0)?;
        file.sync()?;
    }
    Ok(segment)
}

/// Every readable record of a segment with a plausible offset. A failed batch may have left records in the file that
/// were written again to the following segment; those carry offsets the following segment claims.
fn scan(bytes: &[u8], base: u64, following: Option<u64>) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    let mut at = SEGMENT_HEADER as usize;
    while at < bytes.len() {
        if let Parsed::Record(view) = parse(&bytes[at..]) {
            let least = found.last().map_or(base, |last| last.offset + 1);
            if view.offset >= least && following.is_none_or(|following| view.offset < following) {
                found.push(Found {
                    offset: view.offset,
                    batch: view.batch,
                    pos: at as u64,
                    len: view.len as u64,
                    at_ms: view.at_ms,
                    source: view.source,
                });
                at += view.len;
                continue;
            }
        }
        let Some(next) = find_magic(bytes, at + 1) else { break };
        at = next;
    }
    found
}

/// Decides which of the found records stand.
fn stand(
    segment: &mut Segment,
    found: Vec<Found>,
    following: Option<u64>,
    cursor: u64,
    recovery: &mut Recovery,
) {
    let acknowledged = match following {
        Some(following) => following - 1,
        None => found.iter().map(|record| record.batch.saturating_sub(1)).max().unwrap_or(0),
    };
    let mut expected = segment.base;
    for record in found {
        let missing_to = (record.offset - 1).min(acknowledged);
        if missing_to >= expected {
            recovery.skipped_bad += damaged(segment, expected, missing_to, cursor);
            expected = missing_to + 1;
        }
        if record.offset > expected {
            return; // torn: `expected` was never acknowledged, so neither was what follows it
        }
        segment.note(record.offset, record.pos, record.len, record.at_ms);
        if let Some(source) = record.source {
            if recovery.sources.len() == MAX_SOURCES {
                recovery.sources.pop_front();
            }
            recovery.sources.push_back(source);
        }
        expected = record.offset + 1;
    }
    if following.is_some() && acknowledged >= expected {
        recovery.skipped_bad += damaged(segment, expected, acknowledged, cursor);
    }
}

/// Notes a gap; returns how many of its records were still wanted.
fn damaged(segment: &mut Segment, first: u64, last: u64, cursor: u64) -> u64 {
    segment.note_gap(first, last);
    last.saturating_sub(cursor.max(first - 1))
}

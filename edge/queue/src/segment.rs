//! One segment: its name, its header, and what memory knows about it.

/// Bytes before the first record: magic, first offset, CRC.
pub(crate) const SEGMENT_HEADER: u64 = 24;
/// Distance of the marks that say where a record is, in bytes.
const MARK_EVERY: u64 = 64 << 10;
const MAGIC: [u8; 8] = *b"TGsegmt1";
const SUFFIX: &str = ".seg";

/// File name of the segment whose first offset is `base`.
pub(crate) fn name(base: u64) -> String {
    format!("{base:020}{SUFFIX}")
}

/// The first offset a file name speaks of, if it is a segment's.
pub(crate) fn base_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The header of a new segment. It is for people and later formats: recovery trusts the name and each record.
pub(crate) fn header(base: u64) -> [u8; SEGMENT_HEADER as usize] {
    let mut bytes = [0; SEGMENT_HEADER as usize];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&base.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..16]);
    bytes[16..20].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// What memory knows about a segment: a few bytes per [`MARK_EVERY`] bytes of records.
#[derive(Debug)]
pub(crate) struct Segment {
    /// First offset that may be in it.
    pub base: u64,
    /// Last durable offset in it; `base - 1` while there is none.
    pub last: u64,
    /// Where the durable records end.
    pub end: u64,
    /// Bytes the file takes on disk.
    pub file_bytes: u64,
    /// Newest `at_ms` in it.
    pub newest_at_ms: i64,
    marks: Vec<Mark>,
    /// Offsets that were accepted and are unreadable, or were dropped by hand: (first, last), in order.
    gaps: Vec<(u64, u64)>,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    offset: u64,
    pos: u64,
    at_ms: i64,
}

impl Segment {
    /// A segment without records.
    pub(crate) fn empty(base: u64, file_bytes: u64) -> Segment {
        Segment {
            base,
            last: base - 1,
            end: SEGMENT_HEADER,
            file_bytes,
            newest_at_ms: i64::MIN,
            marks: Vec::new(),
            gaps: Vec::new(),
        }
    }

    /// Notes the record `offset`, which stands at `pos` and is `len` bytes long.
    pub(crate) fn note(&mut self, offset: u64, pos: u64, len: u64, at_ms: i64) {
        if self.marks.last().is_none_or(|mark| pos >= mark.pos + MARK_EVERY) {
            self.marks.push(Mark { offset, pos, at_ms });
        }
        self.last = offset;
        self.end = pos + len;
        self.newest_at_ms = self.newest_at_ms.max(at_ms);
    }

    /// Notes that the offsets `first ..= last` cannot be read, or are not wanted. Returns how many of them were not known before.
    pub(crate) fn note_gap(&mut self, first: u64, last: u64) -> u64 {
        let new = (last - first + 1).saturating_sub(overlap(&self.gaps, first, last));
        if new > 0 {
            // In order, apart: the new one swallows what it touches.
            let from = self.gaps.partition_point(|gap| gap.1 + 1 < first);
            let to = self.gaps.partition_point(|gap| gap.0 <= last + 1);
            let low = self.gaps[from..to].first().map_or(first, |gap| gap.0.min(first));
            let high = self.gaps[from..to].last().map_or(last, |gap| gap.1.max(last));
            self.gaps.splice(from..to, [(low, high)]);
        }
        self.last = self.last.max(last);
        new
    }

    /// The gaps, in order.
    pub(crate) fn gaps(&self) -> &[(u64, u64)] {
        &self.gaps
    }

    /// Where the gap ends that this offset is in.
    pub(crate) fn gap_end(&self, offset: u64) -> Option<u64> {
        let gap = self.gaps.get(self.gaps.partition_point(|gap| gap.1 < offset))?;
        (gap.0 <= offset).then_some(gap.1)
    }

    /// Readable records with `first <= offset <= last`.
    pub(crate) fn count(&self, first: u64, last: u64) -> u64 {
        let (first, last) = (first.max(self.base), last.min(self.last));
        if first > last { 0 } else { (last - first + 1).saturating_sub(overlap(&self.gaps, first, last)) }
    }

    /// Where to begin reading to find `offset`.
    pub(crate) fn seek(&self, offset: u64) -> u64 {
        self.mark(offset).map_or(SEGMENT_HEADER, |mark| mark.pos)
    }

    /// About when `offset` was accepted.
    pub(crate) fn about_at_ms(&self, offset: u64) -> Option<i64> {
        self.mark(offset).map(|mark| mark.at_ms)
    }

    /// Bytes of the records after `offset`, to within a mark.
    pub(crate) fn bytes_after(&self, offset: u64) -> u64 {
        if offset >= self.last { 0 } else { self.end - self.seek(offset + 1) }
    }

    fn mark(&self, offset: u64) -> Option<&Mark> {
        let after = self.marks.partition_point(|mark| mark.offset <= offset);
        after.checked_sub(1).map(|at| &self.marks[at])
    }
}

/// How many of these offsets are in gaps, which are in order.
fn overlap(gaps: &[(u64, u64)], first: u64, last: u64) -> u64 {
    let from = gaps.partition_point(|gap| gap.1 < first);
    gaps[from..]
        .iter()
        .take_while(|gap| gap.0 <= last)
        .map(|(from, to)| (*to).min(last) - (*from).max(first) + 1)
        .sum()
}

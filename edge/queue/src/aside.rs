//! Records that were set aside: taken out of the line because their target never takes them, and kept for people. One file
//! each, named after the record's offset, so that setting the same one aside twice makes no second.
//!
//! A file holds two records in the queue's own format: the one that was set aside, and a note about it (topic: why;
//! moment: when). Bounded in number and bytes: the oldest go, and are counted.

use std::{collections::BTreeMap, io};

use bytes::Bytes;

use crate::{
    disk::{Disk, read_chunk},
    record::{MAX_TOPIC_BYTES, Parsed, Record, encode, parse},
};

/// Most records that lie aside of one queue.
pub const MAX_ASIDE: usize = 1_000;
const SUFFIX: &str = ".aside";

/// A record that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    /// Where it stood in the line.
    pub offset: u64,
    /// The record as it was accepted.
    pub record: Record,
    /// Why it was set aside, for people.
    pub reason: String,
    /// When, wall clock ms.
    pub since_ms: i64,
}

/// File name of the record that stood at `offset`.
pub(crate) fn name(offset: u64) -> String {
    format!("{offset:020}{SUFFIX}")
}

fn offset_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The bytes of a file. A reason that is too long is cut.
pub(crate) fn bytes_of(aside: &Aside) -> Vec<u8> {
    let mut reason = aside.reason.clone();
    reason.truncate(reason.floor_char_boundary(MAX_TOPIC_BYTES));
    let note = Record {
        topic: reason,
        payload: Bytes::new(),
        qos: 0,
        retain: false,
        at_ms: aside.since_ms,
        source: None,
    };
    let mut out = Vec::new();
    encode(&mut out, aside.offset, aside.offset, &aside.record);
    encode(&mut out, aside.offset, aside.offset, &note);
    out
}

/// Reads a file; `None` when it is damaged, or was never finished.
pub(crate) fn read(disk: &dyn Disk, offset: u64) -> io::Result<Option<Aside>> {
    let file = disk.open(&name(offset))?;
    let len = usize::try_from(file.len()?).map_err(io::Error::other)?;
    let bytes = read_chunk(&*file, 0, len)?;
    let Parsed::Record(message) = parse(&bytes) else { return Ok(None) };
    let Some(Parsed::Record(note)) = bytes.get(message.len..).map(parse) else { return Ok(None) };
    let (message, note) = (message.to_stored(), note.to_stored());
    if message.offset != offset || note.offset != offset {
        return Ok(None);
    }
    let (reason, since_ms) = (note.record.topic, note.record.at_ms);
    Ok(Some(Aside { offset, record: message.record, reason, since_ms }))
}

/// What lies aside, as memory knows it.
#[derive(Debug, Default)]
pub(crate) struct Asides {
    /// Bytes of the file of each, by offset.
    bytes: BTreeMap<u64, u64>,
    total: u64,
}

impl Asides {
    /// Looks at every file. Returns the names of those that are of no use: `true` for one whose record is not in the line
    /// any more, because the cursor is past it.
    pub fn recover(disk: &dyn Disk, cursor: u64) -> io::Result<(Asides, Vec<(String, bool)>)> {
        let (mut asides, mut bad) = (Asides::default(), Vec::new());
        for file in disk.list()? {
            let Some(offset) = offset_of(&file) else { continue };
            match read(disk, offset)? {
                Some(aside) => asides.insert(offset, bytes_of(&aside).len() as u64),
                None => bad.push((file, offset <= cursor)),
            }
        }
        Ok((asides, bad))
    }

    pub fn insert(&mut self, offset: u64, bytes: u64) {
        self.remove(offset);
        self.bytes.insert(offset, bytes);
        self.total += bytes;
    }

    pub fn remove(&mut self, offset: u64) {
        self.total -= self.bytes.remove(&offset).unwrap_or(0);
    }

    /// The oldest, where there are too many or they take more than `max_bytes`; the last one always stays.
    pub fn surplus(&self, max_bytes: u64) -> Option<u64> {
        let too_many = self.bytes.len() > MAX_ASIDE || (self.total > max_bytes && self.bytes.len() > 1);
        too_many.then(|| self.bytes.keys().next().copied())?
    }

    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub fn bytes(&self) -> u64 {
        self.total
    }

    /// At most `count` offsets from `offset` on.
    pub fn from(&self, offset: u64, count: usize) -> Vec<u64> {
        self.bytes.range(offset..).take(count).map(|(offset, _)| *offset).collect()
    }
}

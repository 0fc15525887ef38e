//! A record, and its bytes.
//!
//! ```text
//!  0  magic "TGr1"
//!  4  u32  CRC-32 of everything from byte 8 to the end
//!  8  u32  length of the whole record
//! 12  u64  offset
//! 20  u64  first offset of the batch it was written with (everything before was synced)
//! 28  i64  accepted at, wall clock ms
//! 36  u8   flags: bits 0-1 QoS, bit 2 retain, bit 3 a source follows the header
//! 37  u8   0
//! 38  u16  length of the topic
//! 40  where bit 3 is set: u16 packet id and u64 print of the source; then topic, then the payload to the end
//! ```
//! Numbers are little endian.

use bytes::Bytes;

/// Longest topic of a record, in bytes.
pub const MAX_TOPIC_BYTES: usize = u16::MAX as usize;

pub(crate) const MAGIC: [u8; 4] = *b"TGr1";
pub(crate) const RECORD_HEADER: usize = 40;
const RETAIN: u8 = 0b100;
const SOURCE: u8 = 0b1000;
/// Bytes of a source.
const SOURCE_BYTES: usize = 10;

/// Stamp of a record that was accepted while the clock was not set, as on a gateway without a battery for it: its age is
/// not known, so it is never too old. The bound by bytes still holds.
pub const UNKNOWN_AGE: i64 = i64::MAX;

/// The message of a broker that became records, as that broker names it while it is not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Packet id of the PUBLISH, never 0.
    pub id: u16,
    /// Fingerprint of its topic and payload.
    pub print: u64,
}

/// One message on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The topic at the target, already mapped: an edit of the rule never rewrites what was accepted.
    pub topic: String,
    /// The payload as it came.
    pub payload: Bytes,
    /// QoS towards the target, 0 to 2.
    pub qos: u8,
    /// Publish with the retain flag.
    pub retain: bool,
    /// Wall clock ms at which the record was accepted; decides its age. [`UNKNOWN_AGE`] where the clock was not set.
    pub at_ms: i64,
    /// Of the records that one message of a broker became, the last one bears this; all of them are on disk when it is.
    /// Whoever appends reads it again in [`crate::Recovery::sources`]. `None`: it can only come once.
    pub source: Option<Source>,
}

/// A durable record and its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Position in the queue, counted from 1, never used twice.
    pub offset: u64,
    /// The record.
    pub record: Record,
}

impl Record {
    /// Bytes on disk.
    pub(crate) fn disk_len(&self) -> u64 {
        let source = if self.source.is_some() { SOURCE_BYTES } else { 0 };
        (RECORD_HEADER + source + self.topic.len() + self.payload.len()) as u64
    }
}

/// Appends the bytes of `record` to `out`. The topic is at most [`MAX_TOPIC_BYTES`] long.
pub(crate) fn encode(out: &mut Vec<u8>, offset: u64, batch: u64, record: &Record) {
    let start = out.len();
    let len = u32::try_from(record.disk_len()).expect("append refuses records above u32::MAX / 2 bytes");
    let topic_len = u16::try_from(record.topic.len()).expect("append refuses longer topics");
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&offset.to_le_bytes());
    out.extend_from_slice(&batch.to_le_bytes());
    out.extend_from_slice(&record.at_ms.to_le_bytes());
    let retain = if record.retain { RETAIN } else { 0 };
    out.push((record.qos & 0b11) | retain | if record.source.is_some() { SOURCE } else { 0 });
    out.push(0);
    out.extend_from_slice(&topic_len.to_le_bytes());
    if let Some(source) = record.source {
        out.extend_from_slice(&source.id.to_le_bytes());
        out.extend_from_slice(&source.print.to_le_bytes());
    }
    out.extend_from_slice(record.topic.as_bytes());
    out.extend_from_slice(&record.payload);
    let crc = crc32fast::hash(&out[start + 8..]);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

/// A record found in a buffer, not copied yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub offset: u64,
    pub batch: u64,
    pub at_ms: i64,
    /// Bytes of the whole record.
    pub len: usize,
    pub source: Option<Source>,
    flags: u8,
    topic: &'a str,
    payload: &'a [u8],
}

/// What stands at the beginning of a buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Parsed<'a> {
    /// A whole, undamaged record.
    Record(View<'a>),
    /// Perhaps a record; that many bytes are needed to tell.
    Short(usize),
    /// No record.
    Bad,
}

/// Reads the record at the beginning of `buf`.
pub(crate) fn parse(buf: &[u8]) -> Parsed<'_> {
    if buf.len() < RECORD_HEADER {
        return if buf.starts_with(&MAGIC) || MAGIC.starts_with(buf) {
            Parsed::Short(RECORD_HEADER)
        } else {
            Parsed::Bad
        };
    }
    if !buf.starts_with(&MAGIC) {
        return Parsed::Bad;
    }
    let len = u32::from_le_bytes(array(&buf[8..12])) as usize;
    let topic_len = usize::from(u16::from_le_bytes(array(&buf[38..40])));
    let topic_at = RECORD_HEADER + if buf[36] & SOURCE == 0 { 0 } else { SOURCE_BYTES };
    if len < topic_at + topic_len {
        return Parsed::Bad;
    }
    if buf.len() < len {
        return Parsed::Short(len);
    }
    if crc32fast::hash(&buf[8..len]) != u32::from_le_bytes(array(&buf[4..8])) {
        return Parsed::Bad;
    }
    let Ok(topic) = std::str::from_utf8(&buf[topic_at..topic_at + topic_len]) else {
        return Parsed::Bad;
    };
    let source = (topic_at > RECORD_HEADER).then(|| Source {
        id: u16::from_le_bytes(array(&buf[40..42])),
        print: u64::from_le_bytes(array(&buf[42..50])),
    });
    Parsed::Record(View {
        offset: u64::from_le_bytes(array(&buf[12..20])),
        batch: u64::from_le_bytes(array(&buf[20..28])),
        at_ms: i64::from_le_bytes(array(&buf[28..36])),
        len,
        source,
        flags: buf[36],
        topic,
        payload: &buf[topic_at + topic_len..len],
    })
}

/// Where the next magic begins in `buf`, at or after `from`.
pub(crate) fn find_magic(buf: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(step) = buf.get(at..)?.iter().position(|byte| *byte == MAGIC[0]) {
        at += step;
        if buf[at..].starts_with(&MAGIC) {
            return Some(at);
        }
        at += 1;
    }
    None
}

impl View<'_> {
    /// Copies the record out of the buffer, so that a small record does not keep a large buffer alive.
    pub(crate) fn to_stored(self) -> Stored {
        Stored {
            offset: self.offset,
            record: Record {
                topic: self.topic.to_owned(),
                payload: Bytes::copy_from_slice(self.payload),
                qos: self.flags & 0b11,
                retain: self.flags & RETAIN != 0,
                at_ms: self.at_ms,
                source: self.source,
            },
        }
    }
}

fn array<const N: usize>(slice: &[u8]) -> [u8; N] {
    slice.try_into().expect("callers pass exactly N bytes")
}

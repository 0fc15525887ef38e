//! Values: a format byte and a checksum before the JSON, in pieces of less than 8 KB.
//!
//! sled writes larger values to files of their own that it neither syncs nor reclaims; hence the pieces. A record's
//! pieces lie under its key and a big-endian number:
//!
//! ```text
//! key 0000 -> format 1 | pieces u16 | CRC-32 of the whole u32 | first bytes
//! key 0001 -> format 2 | next bytes
//! ```

use serde::de::DeserializeOwned;
use sled::{IVec, Tree};

/// Format of the first piece: JSON.
const FORMAT_HEAD: u8 = 1;
/// Format of a further piece.
const FORMAT_MORE: u8 = 2;
/// Bytes of a head before its part of the JSON.
const HEAD_BYTES: usize = 1 + 2 + 4;
/// JSON bytes in one piece.
const PIECE_BYTES: usize = 7 * 1024;
/// Bytes of a piece's number at the end of its key.
const NUMBER_BYTES: usize = 2;

/// What is wrong with a value.
#[derive(Debug)]
pub(crate) enum ValueError {
    /// It is not what was written.
    Damaged(String),
    /// sled could not read.
    Sled(sled::Error),
}

impl From<sled::Error> for ValueError {
    fn from(error: sled::Error) -> Self {
        Self::Sled(error)
    }
}

impl ValueError {
    pub(crate) fn at(self, doing: &'static str, dir: &std::path::Path) -> crate::Error {
        match self {
            Self::Damaged(what) => crate::Error::damaged(dir, what),
            Self::Sled(error) => crate::Error::from_sled(doing, dir, &error),
        }
    }
}

pub(crate) fn piece_key(key: &[u8], number: u16) -> Vec<u8> {
    [key, &number.to_be_bytes()].concat()
}

/// The pieces of a record; `None` when it is larger than 65,535 pieces of 7 KB.
pub(crate) fn encode(json: &[u8]) -> Option<Vec<Vec<u8>>> {
    let count = u16::try_from(json.len().div_ceil(PIECE_BYTES)).ok()?;
    let crc = crc32fast::hash(json);
    let pieces = json.chunks(PIECE_BYTES).enumerate().map(|(number, part)| {
        let mut piece = Vec::with_capacity(HEAD_BYTES + part.len());
        if number == 0 {
            piece.push(FORMAT_HEAD);
            piece.extend_from_slice(&count.to_be_bytes());
            piece.extend_from_slice(&crc.to_be_bytes());
        } else {
            piece.push(FORMAT_MORE);
        }
        piece.extend_from_slice(part);
        piece
    });
    Some(pieces.collect())
}

struct Head<'v> {
    pieces: u16,
    crc: u32,
    part: &'v [u8],
}

fn head(value: &[u8]) -> Option<Head<'_>> {
    let (format, rest) = value.split_first()?;
    let (pieces, rest) = rest.split_first_chunk::<2>()?;
    let (crc, part) = rest.split_first_chunk::<4>()?;
    (*format == FORMAT_HEAD).then_some(Head {
        pieces: u16::from_be_bytes(*pieces),
        crc: u32::from_be_bytes(*crc),
        part,
    })
}

/// How many pieces the record has whose first piece this is; 0 if it is no first piece.
pub(crate) fn pieces_of(first: &[u8]) -> u16 {
    head(first).map_or(0, |head| head.pieces)
}

/// Puts the JSON of a record together.
fn join(
    key: &[u8],
    first: &[u8],
    mut more: impl FnMut(&[u8]) -> Result<Option<IVec>, ValueError>,
) -> Result<Vec<u8>, ValueError> {
    let damaged = |what: &str| ValueError::Damaged(format!("the value under key {} {what}", hex(key)));
    let head = head(first).ok_or_else(|| damaged("has an unknown format"))?;
    let mut json = head.part.to_vec();
    for number in 1..head.pieces {
        let piece = more(&piece_key(key, number))?.ok_or_else(|| damaged("lacks a piece"))?;
        match piece.split_first() {
            Some((&FORMAT_MORE, part)) => json.extend_from_slice(part),
            Some(_) | None => return Err(damaged("has a piece of an unknown format")),
        }
    }
    if crc32fast::hash(&json) == head.crc { Ok(json) } else { Err(damaged("has a wrong checksum")) }
}

/// Reads a record from its JSON. What the reader says may quote a password, so it is not said.
pub(crate) fn parse<T: DeserializeOwned>(key: &[u8], json: &[u8]) -> Result<T, ValueError> {
    serde_json::from_slice(json).map_err(|_| {
        ValueError::Damaged(format!(
            "the value under key {} is not a record that this version knows",
            hex(key)
        ))
    })
}

fn hex(key: &[u8]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads the JSON of one record.
pub(crate) fn get(tree: &Tree, key: &[u8]) -> Result<Option<Vec<u8>>, ValueError> {
    let Some(first) = tree.get(piece_key(key, 0))? else { return Ok(None) };
    join(key, &first, |piece| Ok(tree.get(piece)?)).map(Some)
}

/// Reads every record of a tree in the order of their keys; a piece that belongs to no record is damage. `piece` sees each
/// entry as it is stored, `record` each key with its JSON.
pub(crate) fn scan(
    tree: &Tree,
    mut piece: impl FnMut(&[u8], &[u8]),
    mut record: impl FnMut(&[u8], Vec<u8>) -> Result<(), ValueError>,
) -> Result<(), ValueError> {
    let mut entries = tree.iter();
    while let Some(entry) = entries.next() {
        let (full_key, first) = entry?;
        piece(&full_key, &first);
        let (key, number) = split(&full_key)?;
        if number != 0 {
            return Err(ValueError::Damaged(format!(
                "key {} has a piece without a beginning",
                hex(&full_key)
            )));
        }
        let json = join(key, &first, |wanted| match entries.next() {
            Some(Ok((found, value))) => {
                piece(&found, &value);
                Ok((*found == *wanted).then_some(value))
            }
            Some(Err(error)) => Err(error.into()),
            None => Ok(None),
        })?;
        record(key, json)?;
    }
    Ok(())
}

/// The keys of records, without their further pieces.
pub(crate) fn heads(
    entries: impl Iterator<Item = sled::Result<(IVec, IVec)>>,
) -> impl Iterator<Item = Result<Vec<u8>, ValueError>> {
    entries.filter_map(|entry| match entry {
        Err(error) => Some(Err(error.into())),
        Ok((key, _)) => match split(&key) {
            Ok((key, 0)) => Some(Ok(key.to_vec())),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        },
    })
}

fn split(key: &[u8]) -> Result<(&[u8], u16), ValueError> {
    let (key, number) = key
        .split_last_chunk::<NUMBER_BYTES>()
        .ok_or_else(|| ValueError::Damaged(format!("key {} is too short", hex(key))))?;
    Ok((key, u16::from_be_bytes(*number)))
}

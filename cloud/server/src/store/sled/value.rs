//! Values: a format byte and a checksum before the JSON, in pieces of less than 8 KB.
//!
//! sled writes larger values to files of their own that it neither syncs nor reclaims; hence the pieces. A record's
//! pieces lie under its key and a big-endian number:
//!
//! ```text
//! key 0000 -> format 1 | pieces u16 | CRC-32 of the whole u32 | first bytes
//! key 0001 -> format 2 | next bytes
//! ```

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sled::transaction::{ConflictableTransactionError, TransactionalTree, UnabortableTransactionError};
use sled::{IVec, Tree};

use crate::store::StoreError;

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
pub(super) enum ValueError {
    /// It is not what was written.
    Damaged(String),
    /// sled could not read.
    Sled(sled::Error),
}

impl ValueError {
    pub(super) fn at(self, dir: &Path) -> StoreError {
        match self {
            Self::Damaged(what) => StoreError::Damaged { dir: dir.to_owned(), what },
            Self::Sled(error) => super::open::sled_error("reading", dir, &error),
        }
    }
}

impl From<sled::Error> for ValueError {
    fn from(error: sled::Error) -> Self {
        Self::Sled(error)
    }
}

fn piece_key(key: &[u8], number: u16) -> Vec<u8> {
    [key, &number.to_be_bytes()].concat()
}

/// The pieces of a record.
pub(super) fn encode(record: &impl Serialize) -> Result<Vec<Vec<u8>>, String> {
    let json = serde_json::to_vec(record).map_err(|e| e.to_string())?;
    let count =
        u16::try_from(json.len().div_ceil(PIECE_BYTES)).map_err(|_| "the record is too large".to_owned())?;
    let crc = crc32fast::hash(&json);
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
    Ok(pieces.collect())
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

fn decode<T: DeserializeOwned>(
    key: &[u8],
    first: &[u8],
    mut more: impl FnMut(&[u8]) -> Result<Option<IVec>, ValueError>,
) -> Result<T, ValueError> {
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
    if crc32fast::hash(&json) != head.crc {
        return Err(damaged("has a wrong checksum"));
    }
    // What the reader says may quote a password.
    serde_json::from_slice(&json).map_err(|_| damaged("is not a record that this version knows"))
}

fn hex(key: &[u8]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads one record.
pub(super) fn get<T: DeserializeOwned>(tree: &Tree, key: &[u8]) -> Result<Option<T>, ValueError> {
    let Some(first) = tree.get(piece_key(key, 0))? else { return Ok(None) };
    decode(key, &first, |piece| Ok(tree.get(piece)?)).map(Some)
}

/// Reads every record of a tree in the order of their keys; a piece that belongs to no record is damage.
pub(super) fn scan<T: DeserializeOwned, R>(
    tree: &Tree,
    mut take: impl FnMut(&[u8], T) -> Result<R, ValueError>,
) -> Result<Vec<R>, ValueError> {
    let mut records = Vec::new();
    let mut pieces = tree.iter();
    while let Some(entry) = pieces.next() {
        let (full_key, first) = entry?;
        let (key, number) = split(&full_key)?;
        if number != 0 {
            return Err(ValueError::Damaged(format!(
                "key {} has a piece without a beginning",
                hex(&full_key)
            )));
        }
        let record = decode(key, &first, |wanted| match pieces.next() {
            Some(Ok((found, piece))) => Ok((*found == *wanted).then_some(piece)),
            Some(Err(error)) => Err(error.into()),
            None => Ok(None),
        })?;
        records.push(take(key, record)?);
    }
    Ok(records)
}

/// The keys of records, without their further pieces.
pub(super) fn heads(
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

/// How many pieces a record has within a transaction; 0: there is no record.
fn pieces_in(tree: &TransactionalTree, key: &[u8]) -> Result<u16, UnabortableTransactionError> {
    let first = tree.get(piece_key(key, 0))?;
    Ok(first.as_deref().and_then(head).map_or(0, |head| head.pieces))
}

/// Puts a record within a transaction, in place of the one that is there.
pub(super) fn put_in<E>(
    tree: &TransactionalTree,
    key: &[u8],
    pieces: &[Vec<u8>],
) -> Result<(), ConflictableTransactionError<E>> {
    let before = pieces_in(tree, key)?;
    let mut number = 0;
    for piece in pieces {
        tree.insert(piece_key(key, number), piece.as_slice())?;
        number += 1;
    }
    for left in number..before {
        tree.remove(piece_key(key, left))?;
    }
    Ok(())
}

/// Removes a record within a transaction.
pub(super) fn remove_in<E>(
    tree: &TransactionalTree,
    key: &[u8],
) -> Result<(), ConflictableTransactionError<E>> {
    for number in 0..pieces_in(tree, key)? {
        tree.remove(piece_key(key, number))?;
    }
    Ok(())
}

/// Reads a record within a transaction.
pub(super) fn get_in<T: DeserializeOwned>(
    tree: &TransactionalTree,
    key: &[u8],
) -> Result<Result<Option<T>, ValueError>, UnabortableTransactionError> {
    let Some(first) = tree.get(piece_key(key, 0))? else { return Ok(Ok(None)) };
    let mut pieces = std::collections::BTreeMap::new();
    for number in 1..head(&first).map_or(0, |head| head.pieces) {
        let key = piece_key(key, number);
        if let Some(piece) = tree.get(&key)? {
            pieces.insert(key, piece);
        }
    }
    Ok(decode(key, &first, |piece| Ok(pieces.remove(piece))).map(Some))
}

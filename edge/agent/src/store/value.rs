//! The bytes of a value: JSON, cut into chunks that sled keeps in its log (larger values would become files that are
//! never synced), each with a format byte, a checksum, its number of siblings and the length of the whole.
//!
//! ```text
//! 0  u8   format, 1
//! 1  u32  CRC-32 of everything behind it
//! 5  u16  how many chunks the value has
//! 7  data
//! ```
//! Numbers are big endian.

use serde::Serialize;
use serde::de::DeserializeOwned;

const FORMAT: u8 = 1;
const HEADER: usize = 7;
/// Bytes of data in one chunk; sled turns values of 8 KB and more into blob files.
const CHUNK: usize = 7_000;

/// What is wrong with a stored value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadValue {
    #[error("a value has an unknown format")]
    Format,
    #[error("a value's checksum does not fit")]
    Checksum,
    #[error("a part of a value is missing")]
    Incomplete,
    #[error("a value cannot be read")]
    Content,
}

/// The chunks of a value, in order; at least one.
pub(super) fn encode<T: Serialize>(value: &T) -> Vec<Vec<u8>> {
    let json = serde_json::to_vec(value).expect("records have string keys and no failing serializer");
    let count = u16::try_from(json.chunks(CHUNK).len()).expect("a record is far below 65,535 chunks of 7 KB");
    let chunk = |data: &[u8]| {
        let mut body = count.to_be_bytes().to_vec();
        body.extend_from_slice(data);
        let mut out = vec![FORMAT];
        out.extend_from_slice(&crc32fast::hash(&body).to_be_bytes());
        out.extend_from_slice(&body);
        out
    };
    json.chunks(CHUNK).map(chunk).collect()
}

/// How many chunks the value has that this chunk belongs to.
pub(super) fn siblings(chunk: &[u8]) -> Result<u16, BadValue> {
    Ok(u16::from_be_bytes(
        check(chunk)?.get(..2).and_then(|b| b.try_into().ok()).ok_or(BadValue::Incomplete)?,
    ))
}

fn check(chunk: &[u8]) -> Result<&[u8], BadValue> {
    if chunk.len() < HEADER {
        return Err(BadValue::Incomplete);
    }
    if chunk[0] != FORMAT {
        return Err(BadValue::Format);
    }
    let body = &chunk[5..];
    if crc32fast::hash(body).to_be_bytes() == chunk[1..5] { Ok(body) } else { Err(BadValue::Checksum) }
}

/// Puts the chunks of a value together again.
pub(super) fn decode<T: DeserializeOwned>(chunks: &[impl AsRef<[u8]>]) -> Result<T, BadValue> {
    let mut json = Vec::new();
    for chunk in chunks {
        if usize::from(siblings(chunk.as_ref())?) != chunks.len() {
            return Err(BadValue::Incomplete);
        }
        json.extend_from_slice(&chunk.as_ref()[HEADER..]);
    }
    serde_json::from_slice(&json).map_err(|_| BadValue::Content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_any_size_come_back_and_damage_is_noticed() {
        for size in [0, 1, CHUNK - 2, CHUNK, 200_000] {
            let value = "x".repeat(size);
            let chunks = encode(&value);
            assert!(chunks.iter().all(|c| c.len() < 8_000));
            assert_eq!(decode::<String>(&chunks), Ok(value));
            let mut damaged = chunks.clone();
            *damaged.last_mut().unwrap().last_mut().unwrap() ^= 1;
            assert_eq!(decode::<String>(&damaged), Err(BadValue::Checksum));
            if chunks.len() > 1 {
                assert_eq!(decode::<String>(&chunks[1..]), Err(BadValue::Incomplete));
            }
        }
    }
}

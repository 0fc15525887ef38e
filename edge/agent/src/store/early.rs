//! Schema 1 of the agent's store, and how it becomes schema 2: the same keys, other values.
//!
//! A value was cut into chunks, each with its own checksum, under the key and the chunk's number (u16):
//!
//! ```text
//! 0  u8   format, 1
//! 1  u32  CRC-32 of everything behind it
//! 5  u16  how many chunks the value has
//! 7  data
//! ```
//! Numbers are big endian. The schema's number was one chunk under the bare key `schema_version`.

use tidegate_records::{META, Raw, RawChange, Tree, pieces};

use super::{RULES, TOMBSTONES};

const FORMAT: u8 = 1;
const HEADER: usize = 7;
const SCHEMA_KEY: &[u8] = b"schema_version";
/// Bytes of a chunk's number at the end of its key.
const NUMBER_BYTES: usize = 2;

/// The schema's number, as schema 1 wrote it.
pub(super) fn schema(raw: &Raw<'_>) -> Option<u32> {
    let entries = raw.entries(META).ok()?;
    let (_, chunk) = entries.iter().find(|(key, _)| key == SCHEMA_KEY)?;
    let json = data(chunk).ok()?.1;
    serde_json::from_slice(json).ok()
}

/// Every value as schema 2 writes it, and the old schema's number gone.
pub(super) fn to_schema_2(raw: &Raw<'_>) -> Result<Vec<RawChange>, String> {
    let mut changes = vec![RawChange { tree: META, key: SCHEMA_KEY.to_vec(), value: None }];
    for tree in [META, RULES, TOMBSTONES] {
        let entries = raw.entries(tree)?;
        let mut chunks = entries.iter().filter(|(key, _)| tree != META || key != SCHEMA_KEY).peekable();
        while let Some((first_key, first)) = chunks.next() {
            let (key, number) = split(first_key)?;
            if number != 0 {
                return Err("a value has lost its beginning".to_owned());
            }
            let (count, part) = data(first)?;
            let mut json = part.to_vec();
            for wanted in 1..count {
                let next = chunks.next_if(|(full, _)| split(full) == Ok((key, wanted)));
                let (_, chunk) = next.ok_or("a part of a value is missing")?;
                json.extend_from_slice(data(chunk)?.1);
            }
            let written = pieces(tree, key, &json)?;
            changes.extend((written.len()..usize::from(count)).map(|number| gone(tree, key, number)));
            changes.extend(written);
        }
    }
    Ok(changes)
}

fn gone(tree: Tree, key: &[u8], number: usize) -> RawChange {
    // It is below the number of chunks, which is a u16.
    let number = u16::try_from(number).unwrap_or(u16::MAX);
    RawChange { tree, key: [key, &number.to_be_bytes()].concat(), value: None }
}

fn split(key: &[u8]) -> Result<(&[u8], u16), String> {
    let (key, number) = key.split_last_chunk::<NUMBER_BYTES>().ok_or("a key is too short")?;
    Ok((key, u16::from_be_bytes(*number)))
}

/// How many chunks the value has, and the data of this one.
fn data(chunk: &[u8]) -> Result<(u16, &[u8]), String> {
    let header = chunk.get(..HEADER).ok_or("a part of a value is too short")?;
    if header[0] != FORMAT {
        return Err("a value has an unknown format".to_owned());
    }
    if crc32fast::hash(&chunk[5..]).to_be_bytes() != header[1..5] {
        return Err("a value's checksum does not fit".to_owned());
    }
    Ok((u16::from_be_bytes([header[5], header[6]]), &chunk[HEADER..]))
}

//! Runs of records that were dropped by hand out of the middle of the line. On disk one small file, written anew under a
//! higher number each time; the segments stay as they are.
//!
//! ```text
//! magic "TGholes1", u32 number of runs, each run (u64 first, u64 last), u32 CRC-32 of all before; little endian
//! ```

use std::io;

use crate::disk::{Disk, read_chunk};

/// Most runs of missing records of one queue. A drop stops there.
pub const MAX_HOLES: usize = 65_536;
const MAGIC: [u8; 8] = *b"TGholes1";
const SUFFIX: &str = ".holes";

/// Offsets from the first to the last.
pub(crate) type Run = (u64, u64);

/// File name of this number.
pub(crate) fn name(number: u64) -> String {
    format!("{number:020}{SUFFIX}")
}

fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The bytes of a file.
pub(crate) fn encode(runs: &[Run]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 + runs.len() * 16);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&u32::try_from(runs.len()).expect("there are at most MAX_HOLES").to_le_bytes());
    for (first, last) in runs {
        bytes.extend_from_slice(&first.to_le_bytes());
        bytes.extend_from_slice(&last.to_le_bytes());
    }
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Vec<Run>> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    let (magic, rest) = body.split_first_chunk::<8>()?;
    let (_, runs) = rest.split_first_chunk::<4>()?;
    if *magic != MAGIC || crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    let (pairs, _) = runs.as_chunks::<16>();
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let runs = pairs.iter().map(|pair| (number(&pair[..8]), number(&pair[8..])));
    Some(runs.filter(|(first, last)| first <= last).collect())
}

/// What was dropped, by the newest file that is whole; the highest number that is in use, and the files of no use.
pub(crate) fn recover(disk: &dyn Disk) -> io::Result<(Vec<Run>, u64, Vec<String>)> {
    let mut numbers: Vec<u64> = disk.list()?.iter().filter_map(|name| number_of(name)).collect();
    numbers.sort_unstable();
    let highest = numbers.last().copied().unwrap_or(0);
    let (mut runs, mut useless) = (None, Vec::new());
    for number in numbers.into_iter().rev() {
        if runs.is_none() {
            let file = disk.open(&name(number))?;
            let len = usize::try_from(file.len()?).map_err(io::Error::other)?;
            runs = decode(&read_chunk(&*file, 0, len)?);
            if runs.is_some() {
                continue;
            }
        }
        useless.push(name(number));
    }
    Ok((runs.unwrap_or_default(), highest, useless))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_whole_says_nothing() {
        let bytes = encode(&[(3, 9), (12, 12)]);
        assert_eq!(decode(&bytes), Some(vec![(3, 9), (12, 12)]));
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), None);
            let mut bad = bytes.clone();
            bad[cut] ^= 1;
            assert_eq!(decode(&bad), None);
        }
        assert_eq!(number_of(&name(7)), Some(7));
    }
}

//! What all records together look like: written with every commit, compared at every opening.
//!
//! A checksum tells that a value was changed; it does not tell that one is missing, or is the one from before the last
//! commit. sled 0.34 loses single pages that way when bytes of its file change, and says nothing. The seal counts and sums
//! up everything that is stored, and is kept up to date by what each commit takes away and adds.

use serde::{Deserialize, Serialize};

/// Count and sum of all pieces of all trees, but for the seal itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seal {
    /// Commits since the store was made.
    pub commits: u64,
    /// Pieces of records.
    pub pieces: u64,
    /// The sum, modulo 2^64, of the CRC-32 of each piece with its tree and key.
    pub sum: u64,
}

impl Seal {
    pub(crate) fn add(&mut self, tree: usize, key: &[u8], value: &[u8]) {
        self.pieces = self.pieces.wrapping_add(1);
        self.sum = self.sum.wrapping_add(piece(tree, key, value));
    }

    pub(crate) fn take(&mut self, tree: usize, key: &[u8], value: &[u8]) {
        self.pieces = self.pieces.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(piece(tree, key, value));
    }

    /// The same contents, one commit later.
    pub(crate) fn next(self) -> Self {
        Self { commits: self.commits + 1, ..self }
    }
}

fn piece(tree: usize, key: &[u8], value: &[u8]) -> u64 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&tree.to_be_bytes());
    crc.update(&key.len().to_be_bytes());
    crc.update(key);
    crc.update(value);
    u64::from(crc.finalize())
}

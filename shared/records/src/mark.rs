//! The file `mark`: how many commits the database held for certain, as a witness against a database that lost its end.
//!
//! Written after each commit, in place and without a sync of its own: it may lag behind, never run ahead. Its existence says
//! that the store was made once; it is made, durably, after the first commit.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Name of the file.
pub(crate) const NAME: &str = "mark";
const MAGIC: [u8; 8] = *b"TGmark01";
const LEN: usize = 24;

/// The open file.
#[derive(Debug)]
pub(crate) struct Mark {
    file: File,
}

impl Mark {
    /// Opens the file, or makes it, and makes its name and this number durable.
    pub(crate) fn make(dir: &Path, commits: u64) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mark = Self { file: options.open(dir.join(NAME))? };
        mark.write(commits)?;
        mark.file.sync_data()?;
        File::open(dir)?.sync_all()?;
        Ok(mark)
    }

    /// Notes that this many commits are durable.
    pub(crate) fn write(&self, commits: u64) -> io::Result<()> {
        self.file.write_all_at(&encode(commits), 0)
    }
}

/// The number that the file holds; `None` where it is missing or damaged: a witness less, no damage of the records.
pub(crate) fn read(dir: &Path) -> io::Result<Option<u64>> {
    match std::fs::read(dir.join(NAME)) {
        Ok(bytes) => {
            let commits = decode(&bytes);
            if commits.is_none() {
                tracing::warn!(store = %dir.display(), "the file mark is damaged; it is written anew");
            }
            Ok(commits)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn encode(commits: u64) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&commits.to_be_bytes());
    let crc = crc32fast::hash(&bytes[..16]);
    bytes[16..20].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<u64> {
    let commits = u64::from_be_bytes(bytes.get(8..16)?.try_into().ok()?);
    (bytes == encode(commits)).then_some(commits)
}

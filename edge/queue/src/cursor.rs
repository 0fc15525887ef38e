//! The cursor file: the highest released offset. 24 bytes, overwritten in place, never synced: a stale cursor costs
//! duplicates, never a record.

use std::io;

use crate::disk::{Disk, DiskFile, read_chunk};

const NAME: &str = "cursor";
const MAGIC: [u8; 8] = *b"TGcursr1";
const LEN: usize = 24;

/// The open cursor file.
pub(crate) struct Cursor {
    file: Option<Box<dyn DiskFile>>,
    written: u64,
}

impl Cursor {
    /// Opens the file and reads it; `None` when it is missing or damaged.
    pub(crate) fn open(disk: &dyn Disk) -> (Cursor, Option<u64>) {
        let file = disk.open(NAME).ok();
        let released = file.as_deref().and_then(|file| decode(&read_chunk(file, 0, LEN).ok()?));
        (Cursor { file, written: released.unwrap_or(0) }, released)
    }

    /// Writes the cursor if it moved.
    pub(crate) fn write(&mut self, disk: &dyn Disk, released: u64) -> io::Result<()> {
        if released == self.written {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            empty @ None => empty.insert(disk.create(NAME, LEN as u64)?),
        };
        file.write_at(&encode(released), 0)?;
        self.written = released;
        Ok(())
    }

    /// The offset the file holds.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }
}

fn encode(released: u64) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&released.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..16]);
    bytes[16..20].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<u64> {
    let bytes: &[u8; LEN] = bytes.try_into().ok()?;
    let released = u64::from_le_bytes(bytes[8..16].try_into().ok()?);
    (*bytes == encode(released)).then_some(released)
}

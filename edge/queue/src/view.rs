//! Looking at a queue without taking part in it: for people, and for exports.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use crate::{
    aside::Aside,
    config::QueueConfig,
    core::Core,
    disk::ReadOnlyDisk,
    error::{QueueError, ReadError},
    record::Stored,
    stats::QueueStats,
    writer::Writer,
};

/// Sees what is in a queue; changes nothing, and does not move its reader.
#[derive(Clone)]
pub struct View {
    core: Arc<Core>,
    /// Of a queue that nobody has open: keeps it so.
    _lock: Option<Arc<Mutex<Writer>>>,
}

impl View {
    pub(crate) fn of(core: Arc<Core>) -> View {
        View { core, _lock: None }
    }

    /// Looks at a queue that nobody has open. Nothing is written, and nobody can open it meanwhile.
    ///
    /// # Errors
    /// [`QueueError::Locked`] when it is open, [`QueueError::Io`] when it is not there or cannot be read.
    pub fn peek(dir: &Path) -> Result<View, QueueError> {
        let disk = Arc::new(ReadOnlyDisk::new(dir));
        let (core, writer, _) = Core::open_as(disk, dir, QueueConfig::default(), 0, true)?;
        Ok(View { core: Arc::new(core), _lock: Some(Arc::new(Mutex::new(writer))) })
    }

    /// Its counters.
    pub fn stats(&self) -> QueueStats {
        self.core.stats()
    }

    /// As [`crate::Queue::read_from`].
    ///
    /// # Errors
    /// [`ReadError`] when the disk does not let it read.
    pub fn read_from(
        &self,
        offset: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Vec<Stored>, ReadError> {
        self.core.look_from(offset, max_records, max_bytes)
    }

    /// What lies aside, from this offset on, oldest first: at most `max_records`, at most `max_bytes` of topics and payloads,
    /// but at least one if there is one. Reads files.
    ///
    /// # Errors
    /// [`ReadError`] when the disk does not let it read.
    pub fn asides(&self, offset: u64, max_records: usize, max_bytes: usize) -> Result<Vec<Aside>, ReadError> {
        self.core.asides(offset, max_records, max_bytes)
    }
}

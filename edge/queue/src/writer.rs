//! The writer's own state: the open segment and the cursor file. Every write, sync and deletion happens here, on one
//! thread, without a lock held.

use std::{any::Any, collections::VecDeque, io, sync::Arc};

use crate::{
    cursor::Cursor,
    disk::{Disk, DiskFile},
    record::{Record, encode},
    segment::{self, SEGMENT_HEADER},
};

/// What only the writer thread touches.
pub(crate) struct Writer {
    disk: Arc<dyn Disk>,
    cursor: Cursor,
    active: Option<Active>,
    buf: Vec<u8>,
    /// Released segments whose files are still there.
    doomed: VecDeque<u64>,
    /// Held until the writer ends.
    _lock: Box<dyn Any + Send>,
}

/// The segment that is written to.
struct Active {
    file: Box<dyn DiskFile>,
    pos: u64,
    size: u64,
}

impl Writer {
    pub(crate) fn new(disk: Arc<dyn Disk>, cursor: Cursor, lock: Box<dyn Any + Send>) -> Writer {
        Writer { disk, cursor, active: None, buf: Vec::new(), doomed: VecDeque::new(), _lock: lock }
    }

    /// Bytes that fit into the open segment; 0 when there is none.
    pub(crate) fn room(&self) -> u64 {
        self.active.as_ref().map_or(0, |active| active.size - active.pos)
    }

    /// Starts a new segment, durable with its name before this returns.
    pub(crate) fn roll(&mut self, base: u64, size: u64) -> io::Result<()> {
        if let Some(full) = self.active.take() {
            // Gives back what was preallocated. If it fails the bytes come back at the next start.
            if let Err(error) = full.file.truncate(full.pos) {
                tracing::debug!(%error, "cannot shorten a full queue segment");
            }
        }
        let file = self.disk.create(&segment::name(base), size)?;
        file.write_at(&segment::header(base), 0)?;
        file.sync()?;
        self.disk.sync_dir()?;
        self.active = Some(Active { file, pos: SEGMENT_HEADER, size });
        Ok(())
    }

    /// Writes a batch in one piece and syncs it. Returns where each record stands. After an error the segment is never
    /// written again: what a failed sync left in the page cache cannot be trusted.
    pub(crate) fn commit(&mut self, base: u64, batch: &[Record]) -> io::Result<Vec<u64>> {
        let Some(mut active) = self.active.take() else {
            return Err(io::Error::other("no segment is open"));
        };
        self.buf.clear();
        let mut places = Vec::with_capacity(batch.len());
        for (offset, record) in (base..).zip(batch) {
            places.push(active.pos + self.buf.len() as u64);
            encode(&mut self.buf, offset, base, record);
        }
        active.file.write_at(&self.buf, active.pos)?;
        active.file.sync()?;
        active.pos += self.buf.len() as u64;
        self.active = Some(active);
        Ok(places)
    }

    /// Writes a file of its own, durable with its name before this returns. What a crash leaves of it is not whole.
    pub(crate) fn write_file(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let file = self.disk.create(name, bytes.len() as u64)?;
        file.write_at(bytes, 0)?;
        file.sync()?;
        self.disk.sync_dir()
    }

    /// Deletes a file; one that is not there is no error.
    pub(crate) fn delete_file(&self, name: &str) -> io::Result<()> {
        match self.disk.remove(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Writes the cursor, if it moved.
    pub(crate) fn write_cursor(&mut self, released: u64) {
        if let Err(error) = self.cursor.write(&*self.disk, released) {
            tracing::warn!(line.kind = "queue-disk", %error, "cannot write the queue's cursor: after a restart messages are sent twice");
        }
    }

    /// The offset the cursor file holds.
    pub(crate) fn cursor_written(&self) -> u64 {
        self.cursor.written()
    }

    /// Deletes segments, oldest first. One that cannot be deleted stays in line, with all younger ones behind it: a
    /// hole in the log would look like damage at the next start.
    pub(crate) fn remove(&mut self, bases: &[u64]) {
        self.doomed.extend(bases);
        while let Some(base) = self.doomed.front() {
            match self.disk.remove(&segment::name(*base)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(line.kind = "queue-disk", %error, segment = segment::name(*base), "cannot delete a queue segment");
                    return;
                }
            }
            self.doomed.pop_front();
        }
    }
}

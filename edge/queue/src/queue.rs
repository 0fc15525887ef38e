//! The handle: opens the queue, runs its writer thread, closes it.

use std::{
    fs, io,
    path::Path,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    aside::Aside,
    by_hand::Removed,
    config::QueueConfig,
    core::{Core, Step},
    disk::{Disk, OsDisk},
    error::{AppendError, AsideError, DropError, QueueError, ReadError},
    record::{Record, Stored},
    segment,
    stats::{QueueStats, Recovery},
    view::View,
    writer::Writer,
};

/// How long the writer rests after a failed write or sync; what arrives meanwhile waits, within the bound.
const FAULT_PAUSE: Duration = Duration::from_millis(250);

/// A durable queue. Clones are handles of the same queue; the last one to go closes it.
#[derive(Clone)]
pub struct Queue {
    inner: Arc<Inner>,
}

struct Inner {
    core: Arc<Core>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Queue {
    /// Opens the queue in `dir`, or makes it, and tells what was found. `now_ms` (wall clock) drops what is too old.
    ///
    /// Reads every segment once: allow for some 100 ms per GiB in the page cache, more from a slow disk.
    ///
    /// # Errors
    /// [`QueueError::Locked`] when it is open elsewhere, [`QueueError::Io`] when the directory cannot be read.
    pub fn open(dir: &Path, config: QueueConfig, now_ms: i64) -> Result<(Queue, Recovery), QueueError> {
        let io = |doing| move |source| QueueError::Io { dir: dir.to_owned(), doing, source };
        let disk = OsDisk::create_dir(dir).map_err(io("make the directory"))?;
        Queue::start(Arc::new(disk), dir, config, now_ms)
    }

    pub(crate) fn start(
        disk: Arc<dyn Disk>,
        dir: &Path,
        config: QueueConfig,
        now_ms: i64,
    ) -> Result<(Queue, Recovery), QueueError> {
        let (core, writer, recovery) = Core::open(disk, dir, config, now_ms)?;
        let core = Arc::new(core);
        let shared = Arc::clone(&core);
        let thread = thread::Builder::new()
            .name("queue-writer".to_owned())
            .spawn(move || run(&shared, writer))
            .map_err(|source| QueueError::Io { dir: dir.to_owned(), doing: "start the writer", source })?;
        Ok((Queue { inner: Arc::new(Inner { core, writer: Mutex::new(Some(thread)) }) }, recovery))
    }

    /// Hands a record over. Never waits for the disk.
    ///
    /// `done` gets the record's offset once it is durable; until then the source must not be acknowledged. Records
    /// become durable in the order of these calls. Under [`crate::WhenFull::Block`] a record waits in memory until
    /// there is room, at most [`QueueConfig::max_waiting_bytes`] of them; beyond that `done` gets
    /// [`AppendError::Full`] at once, on the caller's thread. Otherwise `done` runs on the writer thread: it must be
    /// short and must not call [`Queue::read_from`].
    pub fn append(&self, record: Record, done: impl FnOnce(Result<u64, AppendError>) + Send + 'static) {
        self.inner.core.append(record, Box::new(done));
    }

    /// Would a record of this many bytes (topic and payload) be taken now, rather than refused with `Full`?
    ///
    /// For a message that goes to several queues or to none. Another thread may take the room first. After `false` the
    /// callback of [`Queue::on_space`] comes.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.inner.core.has_room(bytes as u64 + crate::record::RECORD_HEADER as u64)
    }

    /// Durable records from `offset` on, in order: at most `max_records`, at most `max_bytes` of topics and payloads,
    /// but at least one if there is one. Empty at the end of the queue.
    ///
    /// The first offset may be higher than asked for (released, dropped, expired), and offsets may be missing
    /// (damaged). May read files: asynchronous callers try [`Queue::read_cached`] first.
    ///
    /// # Errors
    /// [`ReadError`] when the disk does not let it read.
    pub fn read_from(
        &self,
        offset: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Vec<Stored>, ReadError> {
        self.inner.core.read_from(offset, max_records, max_bytes)
    }

    /// Like [`Queue::read_from`], but only from memory: `None` when a file must be read.
    pub fn read_cached(&self, offset: u64, max_records: usize, max_bytes: usize) -> Option<Vec<Stored>> {
        self.inner.core.read_cached(offset, max_records, max_bytes)
    }

    /// Everything up to `offset` is done. The cursor file follows soon; a crash before that brings duplicates.
    /// Offsets that were released or dropped before are harmless.
    pub fn release(&self, offset: u64) {
        self.inner.core.release(offset);
    }

    /// Drops from the front what is older than `max_age` at `now_ms` (wall clock), soon, on the writer thread.
    pub fn expire(&self, now_ms: i64) {
        self.inner.core.expire(now_ms);
    }

    /// Sets the callback that runs on the writer thread whenever records became durable. One per queue: the reader's.
    pub fn on_durable(&self, callback: impl Fn() + Send + Sync + 'static) {
        self.inner.core.set_on_durable(Some(Arc::new(callback)));
    }

    /// Sets the callback that runs, after an [`AppendError::Full`] or a `false` of [`Queue::has_room`], when half of the waiting bytes are free again.
    pub fn on_space(&self, callback: impl Fn() + Send + Sync + 'static) {
        self.inner.core.set_on_space(Some(Arc::new(callback)));
    }

    /// Keeps a copy of the record at `offset` beside the line, with the reason, because its target never takes it: durable
    /// when this returns. Then release it. Bounded by [`crate::MAX_ASIDE`] and a quarter of `max_bytes`: the oldest go, counted.
    /// Returns the record; `None`: it is not there any more. Blocks, for the disk; never call it on the writer's thread.
    ///
    /// # Errors
    /// [`AsideError`]; the record stands in the line as before.
    pub fn set_aside(&self, offset: u64, reason: String, now_ms: i64) -> Result<Option<Record>, AsideError> {
        self.on_writer(move |core, writer| core.set_aside(writer, offset, reason, now_ms))
            .unwrap_or(Err(AsideError::Closed))
    }

    /// The reader begins anew at this offset: what it read from there on is not in its hands any more.
    pub fn rewind(&self, offset: u64) {
        self.inner.core.rewind(offset);
    }

    /// Looks at this queue without taking part.
    pub fn view(&self) -> View {
        View::of(Arc::clone(&self.inner.core))
    }

    /// Drops the records that are meant, all if nothing is said, and counts them. What the reader has read and not released
    /// stays. Durable when this returns. May read the whole queue; blocks.
    ///
    /// # Errors
    /// [`DropError`]; what was dropped before it is not sent by this process, but may come back with the next one.
    pub fn drop_where(&self, is_meant: Option<&dyn Fn(&Record) -> bool>) -> Result<Removed, DropError> {
        let runs = self.inner.core.runs_of(is_meant).map_err(DropError::Read)?;
        let removed = self.on_writer(move |core, writer| core.drop_runs(writer, &runs));
        removed.ok_or(DropError::Closed)?.map_err(DropError::Disk)
    }

    /// Drops those that lie aside and are meant; counts them. Blocks.
    ///
    /// # Errors
    /// [`DropError`]; those before it are dropped.
    pub fn drop_asides(&self, is_meant: impl Fn(&Aside) -> bool + Send + 'static) -> Result<u64, DropError> {
        let dropped = self.on_writer(move |core, writer| core.drop_asides(writer, &is_meant));
        dropped.ok_or(DropError::Closed)?.map_err(DropError::Read)
    }

    /// Has the writer's thread do something and waits for it; `None`: the queue is closed.
    fn on_writer<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Core, &mut Writer) -> T + Send + 'static,
    ) -> Option<T> {
        let (tell, told) = mpsc::sync_channel(1);
        let job = move |core: &Core, writer: &mut Writer| {
            // Whoever asked may have gone.
            let _ = tell.send(work(core, writer));
        };
        self.inner.core.submit(Box::new(job)).then(|| told.recv().ok())?
    }

    /// The last write or sync failed and none has succeeded since.
    pub fn is_faulted(&self) -> bool {
        self.inner.core.is_faulted()
    }

    /// Records wait for room, and none may be dropped for them ([`crate::WhenFull::Block`]): who handed them over is not
    /// acknowledged.
    pub fn is_full(&self) -> bool {
        self.inner.core.is_full()
    }

    /// A snapshot of the counters. Looks at every segment: for people and reports, not for each message.
    pub fn stats(&self) -> QueueStats {
        self.inner.core.stats()
    }

    /// Sets new bounds. A smaller `max_bytes` takes effect with the next segment; nothing is dropped at once.
    pub fn reconfigure(&self, config: QueueConfig) {
        self.inner.core.reconfigure(config);
    }

    /// Writes what waits and has room, refuses the rest with [`AppendError::Closed`], writes the cursor, ends the
    /// writer and gives the directory free. Blocks until done; called on the writer thread, it only begins.
    pub fn close(&self) {
        self.inner.close();
    }

    /// Deletes a queue that nobody has open, with everything in it. One that is not there is no error.
    ///
    /// # Errors
    /// [`QueueError::Locked`] when it is open, [`QueueError::Io`] when something cannot be deleted.
    pub fn destroy(dir: &Path) -> Result<(), QueueError> {
        let io = |doing| move |source| QueueError::Io { dir: dir.to_owned(), doing, source };
        let disk = OsDisk::existing(dir);
        let _lock = match disk.lock() {
            Ok(Some(lock)) => lock,
            Ok(None) => return Err(QueueError::Locked { dir: dir.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(io("take the lock")(error)),
        };
        // Newest first: whatever a crash leaves is a log with its oldest records.
        let mut names = disk.list().map_err(io("list the files"))?;
        names.sort_unstable_by_key(|name| std::cmp::Reverse(segment::base_of(name)));
        for name in names {
            disk.remove(&name).map_err(io("delete a file"))?;
        }
        fs::remove_dir(dir).map_err(io("delete the directory"))
    }
}

impl Inner {
    fn close(&self) {
        self.core.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && writer.thread().id() != thread::current().id()
            && writer.join().is_err()
        {
            tracing::error!("the writer of a queue panicked");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("stats", &self.stats()).finish()
    }
}

fn run(core: &Core, mut writer: Writer) {
    loop {
        match core.step(&mut writer) {
            Step::Worked => {}
            Step::Failed => core.pause(FAULT_PAUSE),
            Step::Idle if !core.wait() => break,
            Step::Idle => {}
        }
    }
    core.finish(&mut writer);
}

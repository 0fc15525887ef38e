//! The queue without its thread: what handles share with the writer, and the writer's single step. Tests call
//! [`Core::step`] by hand, so that every crash happens at a known write.

use std::{
    collections::VecDeque,
    io, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    aside::{self, Aside, Asides},
    catalog::{Catalog, Look},
    config::{QueueConfig, WhenFull},
    cursor::Cursor,
    disk::Disk,
    error::{AppendError, AsideError, QueueError, ReadError},
    record::{MAX_TOPIC_BYTES, Record, Stored},
    recover::recover,
    scan::{READ_CHUNK, Scan, SegmentReader},
    segment,
    state::{Plan, State, Waiting},
    stats::{QueueStats, Recovery},
    writer::Writer,
};

/// Records looked at in one go when old ones are dropped.
const EXPIRE_CHUNK: usize = 512;

/// Tells the caller of `append` how it ended.
pub(crate) type Done = Box<dyn FnOnce(Result<u64, AppendError>) + Send>;
/// Work for the writer's thread, which gets no record.
pub(crate) type Job = Box<dyn FnOnce(&Core, &mut Writer) + Send>;
/// Called without arguments when something happened.
pub(crate) type Callback = Arc<dyn Fn() + Send + Sync>;

/// What handles share with the writer.
pub(crate) struct Core {
    state: Mutex<State>,
    wake: Condvar,
    reader: SegmentReader,
    disk: Arc<dyn Disk>,
}

/// How a step of the writer ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Something was done, there may be more.
    Worked,
    /// A write or sync failed; the batch was told.
    Failed,
    /// Nothing can be done now.
    Idle,
}

impl Core {
    /// Takes the lock, recovers the log, and returns both halves.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        config: QueueConfig,
        now_ms: i64,
    ) -> Result<(Core, Writer, Recovery), QueueError> {
        Core::open_as(disk, dir, config, now_ms, false)
    }

    /// The same; `only_reads`: nothing is mended, for a disk that cannot be written.
    pub(crate) fn open_as(
        disk: Arc<dyn Disk>,
        dir: &Path,
        config: QueueConfig,
        now_ms: i64,
        only_reads: bool,
    ) -> Result<(Core, Writer, Recovery), QueueError> {
        let io = |doing| move |source| QueueError::Io { dir: dir.to_owned(), doing, source };
        let lock = disk
            .lock()
            .map_err(io("take the lock"))?
            .ok_or_else(|| QueueError::Locked { dir: dir.to_owned() })?;
        let (cursor, released) = Cursor::open(&*disk);
        let recovered = recover(&*disk, released, only_reads).map_err(io("read the segments"))?;
        let recovery = recovered.recovery.clone();
        let (asides, lost) =
            recover_asides(&*disk, recovered.cursor, only_reads).map_err(io("read what lies aside"))?;
        let (holes_number, in_hand) = (recovered.holes_number, recovered.cursor);
        let mut catalog = Catalog::new(config, recovered);
        catalog.dropped.aside += lost;
        catalog.skip_gaps();
        let state = State {
            catalog,
            asides,
            holes_number,
            in_hand,
            jobs: VecDeque::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            committing: 0,
            blocked: false,
            refused: false,
            expire_at_ms: Some(now_ms),
            signal: true,
            closing: false,
            failing: false,
            on_durable: None,
            on_space: None,
        };
        let core = Core {
            reader: SegmentReader::new(Arc::clone(&disk)),
            state: Mutex::new(state),
            wake: Condvar::new(),
            disk: Arc::clone(&disk),
        };
        Ok((core, Writer::new(disk, cursor, lock), recovery))
    }

    pub(crate) fn append(&self, record: Record, done: Done) {
        let mut state = self.state();
        let bytes = record.disk_len();
        let limit = state.catalog.config.max_record();
        let refusal = if state.closing {
            AppendError::Closed
        } else if state.failing {
            AppendError::Disk(Arc::new(io::Error::other("what came before it could not be written")))
        } else if bytes > limit || record.topic.len() > MAX_TOPIC_BYTES {
            state.catalog.dropped.too_large += 1;
            AppendError::TooLarge { bytes, limit }
        } else if !state.waiting.is_empty()
            && state.waiting_bytes + bytes > state.catalog.config.waiting_bound()
        {
            state.refused = true;
            if record.qos == 0 {
                state.catalog.dropped.full += 1;
            }
            AppendError::Full
        } else {
            state.waiting_bytes += bytes;
            state.waiting.push_back(Waiting { record, done });
            self.signal(state);
            return;
        };
        drop(state);
        done(Err(refusal));
    }

    pub(crate) fn release(&self, offset: u64) {
        let mut state = self.state();
        state.catalog.release(offset);
        self.signal(state);
    }

    /// The reader begins anew at this offset.
    pub(crate) fn rewind(&self, offset: u64) {
        self.state().in_hand = offset.saturating_sub(1);
    }

    /// The first offset that is not released, and the next to be given out.
    pub(crate) fn bounds(&self) -> (u64, u64) {
        let state = self.state();
        (state.catalog.cursor() + 1, state.catalog.next())
    }

    pub(crate) fn expire(&self, now_ms: i64) {
        let mut state = self.state();
        state.expire_at_ms = Some(now_ms);
        self.signal(state);
    }

    pub(crate) fn reconfigure(&self, config: QueueConfig) {
        let mut state = self.state();
        state.catalog.config = config;
        self.signal(state);
    }

    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closing = true;
        self.signal(state);
    }

    pub(crate) fn set_on_durable(&self, callback: Option<Callback>) {
        self.state().on_durable = callback;
    }

    pub(crate) fn set_on_space(&self, callback: Option<Callback>) {
        self.state().on_space = callback;
    }

    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        let mut state = self.state();
        let room =
            state.waiting.is_empty() || state.waiting_bytes + bytes <= state.catalog.config.waiting_bound();
        state.refused |= !room;
        room
    }

    pub(crate) fn stats(&self) -> QueueStats {
        let state = self.state();
        QueueStats {
            aside: state.asides.len(),
            aside_bytes: state.asides.bytes(),
            ..state.catalog.stats(state.waiting.len() as u64 + state.committing)
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.state().blocked
    }

    pub(crate) fn is_faulted(&self) -> bool {
        self.state().catalog.faulted
    }

    /// Records from memory; `None` when a file must be read.
    pub(crate) fn read_cached(
        &self,
        offset: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Option<Vec<Stored>> {
        let mut state = self.state();
        match state.catalog.look(offset, max_records.max(1), max_bytes) {
            Look::Here(found) => {
                state.hand_out(&found);
                Some(found)
            }
            Look::OnDisk(_) => None,
        }
    }

    /// Records for the reader, who has them in its hands from now on.
    pub(crate) fn read_from(
        &self,
        offset: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Vec<Stored>, ReadError> {
        self.read(offset, max_records, max_bytes, State::hand_out)
    }

    /// Records for somebody else.
    pub(crate) fn look_from(
        &self,
        offset: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Vec<Stored>, ReadError> {
        self.read(offset, max_records, max_bytes, |_, _| {})
    }

    fn read(
        &self,
        mut offset: u64,
        max_records: usize,
        max_bytes: usize,
        note: fn(&mut State, &[Stored]),
    ) -> Result<Vec<Stored>, ReadError> {
        loop {
            let plan = {
                let mut state = self.state();
                match state.catalog.look(offset, max_records.max(1), max_bytes) {
                    Look::Here(found) => {
                        note(&mut state, &found);
                        return Ok(found);
                    }
                    Look::OnDisk(plan) => plan,
                }
            };
            let found = self.reader.read(plan, max_records.max(1), max_bytes);
            let mut state = self.state();
            match found {
                Ok(Scan { mut records, gaps, .. }) => {
                    for (first, last) in gaps {
                        state.catalog.unreadable(plan.base, first, last);
                    }
                    // Nothing readable up to the end of this segment, or nothing that is wanted so far.
                    offset = records.last().map_or(plan.last, |stored| stored.offset) + 1;
                    state.catalog.without_gaps(plan.base, &mut records);
                    if !records.is_empty() {
                        note(&mut state, &records);
                        return Ok(records);
                    }
                }
                Err(source) if state.catalog.has_segment(plan.base) => {
                    return Err(ReadError { segment: segment::name(plan.base), source });
                }
                Err(_) => {} // dropped meanwhile: look again
            }
        }
    }

    /// Has the writer do something before the next record. `false`: the queue is closing. Each caller waits for its job, so
    /// there are never more jobs than callers.
    pub(crate) fn submit(&self, job: Job) -> bool {
        let mut state = self.state();
        let open = !state.closing;
        if open {
            state.jobs.push_back(job);
        }
        self.signal(state);
        open
    }

    /// Keeps the record at `offset` beside the line, durably, and returns it. The line is not touched: the reader releases it.
    /// `None`: there is no such record (any more). On the writer's thread.
    pub(crate) fn set_aside(
        &self,
        writer: &Writer,
        offset: u64,
        reason: String,
        since_ms: i64,
    ) -> Result<Option<Record>, AsideError> {
        let found = self.look_from(offset, 1, 1).map_err(AsideError::Read)?;
        let Some(stored) = found.into_iter().next().filter(|stored| stored.offset == offset) else {
            return Ok(None);
        };
        let aside = Aside { offset, record: stored.record, reason, since_ms };
        let bytes = aside::bytes_of(&aside);
        writer.write_file(&aside::name(offset), &bytes).map_err(AsideError::Disk)?;
        let mut state = self.state();
        state.asides.insert(offset, bytes.len() as u64);
        let bound = state.catalog.config.aside_bound();
        while let Some(oldest) = state.asides.surplus(bound) {
            state.asides.remove(oldest);
            state.catalog.dropped.aside += 1;
            drop(state);
            if let Err(error) = writer.delete_file(&aside::name(oldest)) {
                tracing::warn!(line.kind = "queue-disk", %error, "cannot delete a message that lay aside");
            }
            state = self.state();
        }
        Ok(Some(aside.record))
    }

    /// What lies aside, from the offset on: at most `max_records`, at most `max_bytes` of them, at least one if there is one.
    pub(crate) fn asides(
        &self,
        offset: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Vec<Aside>, ReadError> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        let offsets = self.state().asides.from(offset, max_records.max(1));
        for offset in offsets {
            match aside::read(&*self.disk, offset) {
                Ok(Some(aside)) => {
                    bytes += aside.record.topic.len() + aside.record.payload.len();
                    if bytes > max_bytes && !found.is_empty() {
                        break;
                    }
                    found.push(aside);
                }
                Ok(None) => {}
                // Dropped meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(ReadError { segment: aside::name(offset), source }),
            }
        }
        Ok(found)
    }

    /// Does one piece of work: deletes, drops what is too old, starts a segment, or commits a batch.
    pub(crate) fn step(&self, writer: &mut Writer) -> Step {
        let (cursor, removable, plan) = {
            let mut state = self.state();
            let plan = state.plan(writer.room());
            (state.catalog.cursor(), state.catalog.take_removable(), plan)
        };
        writer.write_cursor(cursor);
        writer.remove(&removable);
        self.reader.forget(&removable);
        match plan {
            Plan::Idle => Step::Idle,
            Plan::Job(job) => {
                job(self, writer);
                Step::Worked
            }
            Plan::Expire(now_ms) => {
                self.drop_expired(now_ms);
                Step::Worked
            }
            Plan::Roll { base, size } => match writer.roll(base, size) {
                Ok(()) => {
                    self.state().catalog.rolled(base, size);
                    Step::Worked
                }
                Err(error) => self.roll_failed(error),
            },
            Plan::Write { base, batch } => self.commit(writer, base, batch),
        }
    }

    /// Sleeps until there is something to look at; `false` when the queue is closing and there is not.
    pub(crate) fn wait(&self) -> bool {
        let mut state = self.state();
        while !state.signal {
            if state.closing {
                return false;
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.signal = false;
        true
    }

    /// Sleeps after a failed write, unless the queue is closing.
    pub(crate) fn pause(&self, pause: Duration) {
        let state = self.state();
        let closing = |state: &mut State| !state.closing;
        drop(self.wake.wait_timeout_while(state, pause, closing).unwrap_or_else(PoisonError::into_inner));
    }

    /// The writer's last act: the cursor is written, whoever still waits is refused.
    pub(crate) fn finish(&self, writer: &mut Writer) {
        let (cursor, left) = {
            let mut state = self.state();
            state.closing = true;
            // Whoever waits for one finds that it is gone.
            state.jobs.clear();
            state.waiting_bytes = 0;
            (state.catalog.cursor(), mem::take(&mut state.waiting))
        };
        if cursor != writer.cursor_written() {
            writer.write_cursor(cursor);
        }
        for waiting in left {
            tell(waiting.done, Err(AppendError::Closed));
        }
    }

    fn commit(&self, writer: &mut Writer, base: u64, batch: Vec<Waiting>) -> Step {
        let (records, dones): (Vec<Record>, Vec<Done>) =
            batch.into_iter().map(|waiting| (waiting.record, waiting.done)).unzip();
        let places = match writer.commit(base, &records) {
            Ok(places) => places,
            Err(error) => {
                let lost = records.iter().filter(|record| record.qos == 0).count() as u64;
                return self.fail(self.state(), error, lost, dones);
            }
        };
        let stored = (base..).zip(records).map(|(offset, record)| Stored { offset, record });
        let (durable, space) = {
            let mut state = self.state();
            state.committing = 0;
            state.catalog.committed(stored.zip(places).collect());
            (state.on_durable.clone(), state.space())
        };
        for (offset, done) in (base..).zip(dones) {
            tell(done, Ok(offset));
        }
        for callback in durable.into_iter().chain(space) {
            guarded(|| callback());
        }
        Step::Worked
    }

    /// No new segment: on a full disk the oldest one may go, else everybody who waits is told.
    fn roll_failed(&self, error: io::Error) -> Step {
        let mut state = self.state();
        if error.kind() == io::ErrorKind::StorageFull
            && state.catalog.config.when_full == WhenFull::DropOldest
            && state.catalog.drop_oldest()
        {
            tracing::warn!(line.kind = "queue-disk", %error, "disk full: the queue drops its oldest segment");
            return Step::Worked;
        }
        self.fail(state, error, 0, Vec::new())
    }

    /// Tells everybody who waits that nothing was written: those of the batch, and those behind it, who must not come before
    /// what is sent again. Until all are told nothing is taken. `lost` counts those of the batch that nobody sends again.
    fn fail(
        &self,
        mut state: MutexGuard<'_, State>,
        error: io::Error,
        lost: u64,
        mut dones: Vec<Done>,
    ) -> Step {
        let waiting = mem::take(&mut state.waiting);
        state.waiting_bytes = 0;
        let behind = waiting.iter().filter(|waiting| waiting.record.qos == 0).count() as u64;
        state.failed(lost + behind);
        state.failing = true;
        drop(state);
        dones.extend(waiting.into_iter().map(|waiting| waiting.done));
        tracing::error!(line.kind = "queue-disk", %error, messages = dones.len(), "cannot write the queue to disk: nothing is acknowledged");
        let error = Arc::new(error);
        for done in dones {
            tell(done, Err(AppendError::Disk(Arc::clone(&error))));
        }
        let space = {
            let mut state = self.state();
            state.failing = false;
            state.space()
        };
        if let Some(callback) = space {
            guarded(|| callback());
        }
        Step::Failed
    }

    fn drop_expired(&self, now_ms: i64) {
        let limit_ms = {
            let mut state = self.state();
            let Some(age) = state.catalog.config.max_age else { return };
            let limit_ms = now_ms.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
            state.catalog.expire_segments(limit_ms);
            limit_ms
        };
        loop {
            let from = self.state().catalog.cursor() + 1;
            let found = match self.look_from(from, EXPIRE_CHUNK, READ_CHUNK as usize) {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(line.kind = "queue-disk", %error, "cannot look for expired messages");
                    return;
                }
            };
            let old = found.iter().take_while(|stored| stored.record.at_ms < limit_ms);
            let Some(last) = old.last().map(|stored| stored.offset) else { return };
            self.state().catalog.expire_to(last);
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, mut state: MutexGuard<'_, State>) {
        state.signal = true;
        drop(state);
        self.wake.notify_all();
    }
}

/// What lies aside, and how many of them are lost because their files are damaged. One whose record still stands in the line
/// was never finished: nothing is lost by it.
fn recover_asides(disk: &dyn Disk, cursor: u64, only_reads: bool) -> io::Result<(Asides, u64)> {
    let (asides, bad) = Asides::recover(disk, cursor)?;
    let mut lost = 0;
    for (name, is_lost) in bad {
        tracing::warn!(
            line.kind = "queue-disk",
            file = name,
            is_lost,
            "the file of a message that was set aside is damaged or not whole; it is removed"
        );
        lost += u64::from(is_lost);
        if !only_reads {
            disk.remove(&name)?;
        }
    }
    Ok((asides, lost))
}

fn tell(done: Done, result: Result<u64, AppendError>) {
    guarded(move || done(result));
}

/// Runs a caller's callback. One that panics must not end the writer, which all others wait for.
fn guarded(callback: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(callback)).is_err() {
        tracing::error!("a callback of the queue panicked");
    }
}

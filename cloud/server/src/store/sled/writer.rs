//! The one thread that writes: many callers, one transaction, one sync.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tidegate_cloud_core::{RuleRecord, Write};
use tidegate_model::ids::RuleId;
use tidegate_model::version::RuleVersion;
use tidegate_records::{Change, META, Reader, Records};
use tokio::sync::{mpsc, oneshot};

use super::{ANSWERS, EDGES, PLACEMENTS, RULES, VERSIONS, keys};
use crate::store::{StoreError, expect};

/// Commands that wait for the thread at the most; further callers wait.
const MAX_WAITING: usize = 1_024;
/// Commands that share a transaction at the most.
const MAX_BATCH: usize = 256;
/// How long the thread goes on taking commands that are there already.
const MAX_DRAIN: Duration = Duration::from_millis(5);

struct Command {
    writes: Vec<Write>,
    done: oneshot::Sender<Result<(), StoreError>>,
}

/// A handle on the thread; the thread ends when this is dropped, and drops the database.
#[derive(Debug)]
pub(super) struct Writer {
    commands: Option<mpsc::Sender<Command>>,
    poison: Arc<Mutex<Option<String>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(dir: &Path, records: Records) -> Result<Self, StoreError> {
        let (commands, waiting) = mpsc::channel(MAX_WAITING);
        let poison = Arc::new(Mutex::new(None));
        let reader = records.reader();
        let mut worker = Worker { dir: dir.to_owned(), records, reader, poison: Arc::clone(&poison) };
        let thread = std::thread::Builder::new()
            .name("tidegate-store".to_owned())
            .spawn(move || worker.work(waiting))
            .map_err(|error| worker_failed(dir, "opening", error.to_string()))?;
        Ok(Self { commands: Some(commands), poison, thread: Some(thread) })
    }

    pub(super) fn apply(
        &self,
        writes: Vec<Write>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        let (commands, poison) = (self.commands.clone(), Arc::clone(&self.poison));
        async move {
            let ended = || {
                let why = poison.lock().unwrap_or_else(PoisonError::into_inner).clone();
                StoreError::Poisoned { why: why.unwrap_or_else(|| "the writer's thread ended".to_owned()) }
            };
            let (done, result) = oneshot::channel();
            let Some(commands) = commands else { return Err(ended()) };
            commands.send(Command { writes, done }).await.map_err(|_| ended())?;
            result.await.unwrap_or_else(|_| Err(ended()))
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // What it was doing is bounded: one batch. A panic in it was already told as a poisoned store.
            let _ = thread.join();
        }
    }
}

fn worker_failed(dir: &Path, doing: &'static str, why: String) -> StoreError {
    StoreError::Failed { doing, dir: dir.to_owned(), why }
}

struct Worker {
    dir: PathBuf,
    records: Records,
    reader: Reader,
    poison: Arc<Mutex<Option<String>>>,
}

impl Worker {
    fn work(&mut self, mut waiting: mpsc::Receiver<Command>) {
        while let Some(first) = waiting.blocking_recv() {
            let mut batch = vec![first];
            let began = Instant::now();
            while batch.len() < MAX_BATCH
                && began.elapsed() < MAX_DRAIN
                && let Ok(next) = waiting.try_recv()
            {
                batch.push(next);
            }
            let (writes, callers): (Vec<_>, Vec<_>) = batch.into_iter().map(|c| (c.writes, c.done)).unzip();
            match self.commit(&writes) {
                // A caller that went away does not hear of it; its writes stand.
                Ok(results) => {
                    callers.into_iter().zip(results).for_each(|(done, result)| drop(done.send(result)))
                }
                Err(error) => {
                    *self.poison.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
                    callers.into_iter().for_each(|done| drop(done.send(Err(error.clone()))));
                    // With the receiver every command that waits is dropped, and told that the store is poisoned.
                    return;
                }
            }
        }
    }

    /// Commits a batch; its result is durable. One result per command: a conflict is the command's own.
    fn commit(&mut self, batch: &[Vec<Write>]) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let mut changes = Vec::new();
        let mut results = Vec::with_capacity(batch.len());
        // What the commands before, which are not durable yet, made of the versions of rules.
        let mut written: BTreeMap<RuleId, Option<RuleVersion>> = BTreeMap::new();
        for writes in batch {
            let checked = expect::check(writes, |id| match written.get(&id) {
                Some(version) => Ok(*version),
                None => self.stored_version(id).map_err(Refusal::Failed),
            });
            match checked {
                Ok(after) => {
                    written.extend(after);
                    for write in writes {
                        let change = change(write).map_err(|why| worker_failed(&self.dir, "writing", why))?;
                        changes.push(change);
                    }
                    results.push(Ok(()));
                }
                Err(Refusal::Conflict(conflict)) => results.push(Err(conflict)),
                Err(Refusal::Failed(error)) => return Err(error),
            }
        }
        // Without a write somebody asked how the store is.
        let done = if changes.is_empty() { self.records.probe() } else { self.records.commit(&changes) };
        done.map_err(|error| StoreError::from_disk(&self.dir, error))?;
        Ok(results)
    }

    /// The version of a rule that is durable; nobody else writes.
    fn stored_version(&self, id: RuleId) -> Result<Option<RuleVersion>, StoreError> {
        let stored = self.reader.get::<RuleRecord>(RULES, &keys::rule(id));
        Ok(stored.map_err(|error| StoreError::from_disk(&self.dir, error))?.map(|record| record.version))
    }
}

/// What a write of the core is on disk.
fn change(write: &Write) -> Result<Change, String> {
    match write {
        Write::PutMeta(meta) => Change::put(META, keys::META.to_vec(), meta),
        Write::PutRule { record, .. } => Change::put(RULES, keys::rule(record.id), record),
        Write::PutVersion(record) => {
            Change::put(VERSIONS, keys::version(record.rule, record.version), record)
        }
        Write::RemoveRule(id) => Ok(Change::remove(RULES, keys::rule(*id))),
        Write::PutEdge(record) => Change::put(EDGES, keys::edge(&record.id), record),
        Write::RemoveEdge(id) => Ok(Change::remove(EDGES, keys::edge(id))),
        Write::PutPlacement(record) => {
            Change::put(PLACEMENTS, keys::placement(record.rule, &record.edge), record)
        }
        Write::PutAnswer(record) => Change::put(ANSWERS, keys::answer(&record.id), record),
        Write::RemoveAnswer(id) => Ok(Change::remove(ANSWERS, keys::answer(id))),
        Write::RemovePlacement { rule, edge } => Ok(Change::remove(PLACEMENTS, keys::placement(*rule, edge))),
    }
}

/// Why a command is not written.
enum Refusal {
    Conflict(StoreError),
    Failed(StoreError),
}

impl From<StoreError> for Refusal {
    fn from(conflict: StoreError) -> Self {
        Self::Conflict(conflict)
    }
}

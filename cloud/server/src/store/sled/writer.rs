//! The one thread that writes: many callers, one transaction, one sync.

use std::fs::File;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sled::Transactional as _;
use sled::transaction::{ConflictableTransactionError, TransactionError, TransactionalTree};
use tidegate_cloud_core::{RuleRecord, Write};
use tokio::sync::{mpsc, oneshot};

use super::open::{SCHEMA, Trees, made, sled_error};
use super::{keys, value};
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
    pub(super) fn start(dir: &Path, trees: Trees) -> Result<Self, StoreError> {
        let failed = |error: std::io::Error| StoreError::Failed {
            doing: "opening",
            dir: dir.to_owned(),
            why: error.to_string(),
        };
        let file = File::open(dir.join("db")).map_err(failed)?;
        let (commands, waiting) = mpsc::channel(MAX_WAITING);
        let poison = Arc::new(Mutex::new(None));
        let mut worker = Worker { dir: dir.to_owned(), trees, file, poison: Arc::clone(&poison) };
        worker.commit(vec![]).map_err(|why| why.at(dir))?;
        made(dir)?;
        let thread = std::thread::Builder::new()
            .name("tidegate-store".to_owned())
            .spawn(move || worker.work(waiting))
            .map_err(failed)?;
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

/// Why a batch was not committed.
enum CommitError {
    Value(value::ValueError),
    Sled(sled::Error),
    Other(String),
}

impl CommitError {
    fn at(self, dir: &Path) -> StoreError {
        match self {
            Self::Value(error) => error.at(dir),
            Self::Sled(error) => sled_error("writing", dir, &error),
            Self::Other(why) => StoreError::Failed { doing: "writing", dir: dir.to_owned(), why },
        }
    }
}

/// What ends a transaction before its time.
enum Abort {
    Conflict(StoreError),
    Value(value::ValueError),
    Encode(String),
}

impl From<StoreError> for Abort {
    fn from(conflict: StoreError) -> Self {
        Self::Conflict(conflict)
    }
}

struct Worker {
    dir: PathBuf,
    trees: Trees,
    file: File,
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
            let committed = catch_unwind(AssertUnwindSafe(|| self.commit(writes)))
                .unwrap_or_else(|_| Err(CommitError::Other("the database panicked".to_owned())));
            match committed {
                // A caller that went away does not hear of it; its writes stand.
                Ok(results) => {
                    callers.into_iter().zip(results).for_each(|(done, result)| drop(done.send(result)))
                }
                Err(error) => {
                    let error = error.at(&self.dir);
                    *self.poison.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
                    callers.into_iter().for_each(|done| drop(done.send(Err(error.clone()))));
                    // With the receiver every command that waits is dropped, and told that the store is poisoned.
                    return;
                }
            }
        }
    }

    /// Commits a batch; its result is durable. One result per command: a conflict is the command's own. A batch of no
    /// command at all writes the schema's number.
    fn commit(&mut self, batch: Vec<Vec<Write>>) -> Result<Vec<Result<(), StoreError>>, CommitError> {
        if !batch.is_empty() && batch.iter().all(Vec::is_empty) {
            return Ok(batch.iter().map(|_| Ok(())).collect());
        }
        let trees = &self.trees;
        let all =
            (&trees.meta, &trees.rules, &trees.versions, &trees.edges, &trees.placements, &trees.answers);
        let result = all.transaction(|(meta, rules, versions, edges, placements, answers)| {
            let tx = Transaction { meta, rules, versions, edges, placements, answers };
            if batch.is_empty() {
                tx.put(meta, keys::SCHEMA_VERSION, &SCHEMA)?;
            }
            batch.iter().map(|writes| tx.command(writes)).collect::<Result<Vec<_>, _>>()
        });
        let results = result.map_err(|error| match error {
            TransactionError::Storage(error) => CommitError::Sled(error),
            TransactionError::Abort(Abort::Value(error)) => CommitError::Value(error),
            TransactionError::Abort(Abort::Encode(why)) => CommitError::Other(why),
            TransactionError::Abort(Abort::Conflict(error)) => CommitError::Other(error.to_string()),
        })?;
        self.trees.db.flush().map_err(CommitError::Sled)?;
        self.file.sync_data().map_err(|error| CommitError::Other(error.to_string()))?;
        Ok(results)
    }
}

struct Transaction<'t> {
    meta: &'t TransactionalTree,
    rules: &'t TransactionalTree,
    versions: &'t TransactionalTree,
    edges: &'t TransactionalTree,
    placements: &'t TransactionalTree,
    answers: &'t TransactionalTree,
}

type Tx<T> = Result<T, ConflictableTransactionError<Abort>>;

fn abort<T>(why: Abort) -> Tx<T> {
    Err(ConflictableTransactionError::Abort(why))
}

impl Transaction<'_> {
    /// All writes of a command, or none and its conflict.
    fn command(&self, writes: &[Write]) -> Tx<Result<(), StoreError>> {
        let checked = expect::check(writes, |id| self.stored_version(id));
        match checked {
            Ok(()) => {}
            Err(CheckError::Conflict(conflict)) => return Ok(Err(conflict)),
            Err(CheckError::Failed(error)) => return Err(error),
        }
        writes.iter().try_for_each(|write| self.write(write))?;
        Ok(Ok(()))
    }

    fn stored_version(
        &self,
        id: tidegate_model::ids::RuleId,
    ) -> Result<Option<tidegate_model::version::RuleVersion>, CheckError> {
        let stored = value::get_in::<RuleRecord>(self.rules, &keys::rule(id))
            .map_err(|error| CheckError::Failed(error.into()))?;
        match stored {
            Ok(record) => Ok(record.map(|r| r.version)),
            Err(error) => Err(CheckError::Failed(ConflictableTransactionError::Abort(Abort::Value(error)))),
        }
    }

    fn put(&self, tree: &TransactionalTree, key: &[u8], record: &impl serde::Serialize) -> Tx<()> {
        match value::encode(record) {
            Ok(pieces) => value::put_in(tree, key, &pieces),
            Err(why) => abort(Abort::Encode(why)),
        }
    }

    fn write(&self, write: &Write) -> Tx<()> {
        match write {
            Write::PutMeta(meta) => self.put(self.meta, keys::META, meta),
            Write::PutRule { record, .. } => self.put(self.rules, &keys::rule(record.id), record),
            Write::PutVersion(record) => {
                self.put(self.versions, &keys::version(record.rule, record.version), record)
            }
            Write::RemoveRule(id) => value::remove_in(self.rules, &keys::rule(*id)),
            Write::PutEdge(record) => self.put(self.edges, &keys::edge(&record.id), record),
            Write::RemoveEdge(id) => value::remove_in(self.edges, &keys::edge(id)),
            Write::PutPlacement(record) => {
                self.put(self.placements, &keys::placement(record.rule, &record.edge), record)
            }
            Write::RemovePlacement { rule, edge } => {
                value::remove_in(self.placements, &keys::placement(*rule, edge))
            }
            Write::PutAnswer(record) => self.put(self.answers, &keys::answer(&record.id), record),
            Write::RemoveAnswer(id) => value::remove_in(self.answers, &keys::answer(id)),
        }
    }
}

/// Why preconditions could not be confirmed.
enum CheckError {
    Conflict(StoreError),
    Failed(ConflictableTransactionError<Abort>),
}

impl From<StoreError> for CheckError {
    fn from(conflict: StoreError) -> Self {
        Self::Conflict(conflict)
    }
}

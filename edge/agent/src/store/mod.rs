//! What the agent remembers, on disk: `tidegate-records`, which owns durability, damage and migration, and one writer.
//!
//! [`Store::commit`] returns when a batch is durable. Any error poisons the store: the process ends and starts again from
//! what is on disk. A damaged store is set aside with its name kept, and the agent starts empty: the cloud issues its rules
//! again. On a full disk it stays writable for a while from space that it holds in advance.
//!
//! ```text
//! {data}/store/                   see tidegate-records
//! tree meta        "meta" -> Meta
//! tree rules       rule (16 bytes) -> RuleRecord
//! tree tombstones  rule (16 bytes) -> Tombstone
//! {data}/store.damaged-…          set aside, the last three
//! ```
//!
//! Decides nothing: which writes belong together is the core's business.

mod early;
mod open;
mod writer;

use std::path::{Path, PathBuf};

use tidegate_edge_core::{Snapshot, Write};
use tidegate_records::{Layout, Step, Tree};
use tokio::sync::{mpsc, oneshot};

pub use open::Opened;

/// Batches that wait for the writer at the most; the agent's loop sends one at a time.
const MAX_WAITING_BATCHES: usize = 256;
const RULES: Tree = Tree(1);
const TOMBSTONES: Tree = Tree(2);
/// Key of the one record of the first tree.
const META_KEY: &[u8] = b"meta";

static LAYOUT: Layout = Layout {
    trees: &["meta", "rules", "tombstones"],
    schema: 2,
    steps: &[Step {
        to: 2,
        what: "values in the form of tidegate-records, sealed together",
        run: early::to_schema_2,
    }],
    early_schema: early::schema,
};

/// Why the store could not be opened or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused to open it.
    #[error("opening the store {}: {reason}", dir.display())]
    Open {
        /// Its directory.
        dir: PathBuf,
        /// Why.
        reason: String,
    },
    /// It was written by a later version of this software.
    #[error(
        "the store {} has schema {found}; this agent reads up to {known}. Run the agent that wrote it or a later one, or set the directory aside",
        dir.display()
    )]
    TooNew {
        /// Its directory.
        dir: PathBuf,
        /// Its schema.
        found: u32,
        /// The highest schema known.
        known: u32,
    },
    /// A batch could not be made durable. What is on disk is what was before it.
    #[error("writing the store: {0}; the agent stops, and starts again from what is on disk")]
    Write(String),
}

impl StoreError {
    fn from_disk(dir: &Path, error: tidegate_records::Error) -> Self {
        use tidegate_records::Error;
        let dir = dir.to_owned();
        match error {
            Error::TooNew { found, known, .. } => Self::TooNew { dir, found, known },
            Error::Failed { doing: "writing", why, .. } => Self::Write(why),
            Error::Failed { .. } | Error::Locked { .. } | Error::Damaged { .. } => {
                Self::Open { dir, reason: error.to_string() }
            }
        }
    }
}

/// The open store.
#[derive(Debug)]
pub struct Store {
    batches: mpsc::Sender<Batch>,
    writer: Option<std::thread::JoinHandle<()>>,
}

/// Writes that are committed together, and who waits for it.
struct Batch {
    writes: Vec<Write>,
    done: oneshot::Sender<Result<(), StoreError>>,
}

impl Store {
    /// Opens or makes the store in `dir`. `new_store` names a store that is made; `stamp` (wall clock, ms) goes into the name
    /// of a damaged one that is set aside. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Open`] when the directory cannot be used at all, [`StoreError::TooNew`] for a later schema.
    pub fn open(
        dir: &std::path::Path,
        new_store: tidegate_model::ids::StoreId,
        stamp: i64,
    ) -> Result<(Self, Snapshot, Opened), StoreError> {
        let (records, snapshot, opened) = open::open(dir, new_store, stamp)?;
        let at = dir.to_owned();
        let (batches, waiting) = mpsc::channel(MAX_WAITING_BATCHES);
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer::run(&at, records, waiting))
            .map_err(|e| StoreError::Open { dir: dir.to_owned(), reason: e.to_string() })?;
        Ok((Self { batches, writer: Some(writer) }, snapshot, opened))
    }

    /// Makes a batch durable, as a whole or not at all. Nothing to write returns at once.
    ///
    /// # Errors
    /// [`StoreError::Write`]; every later commit fails too.
    pub async fn commit(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        if writes.is_empty() {
            return Ok(());
        }
        let (done, answer) = oneshot::channel();
        let gone = || StoreError::Write("the writer has ended".to_owned());
        self.batches.send(Batch { writes, done }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Ends the writer and closes the database. Blocks until it is closed.
    pub fn close(mut self) {
        let (closed, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut self.batches, closed));
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the store's writer panicked");
        }
    }
}

#[cfg(test)]
mod tests;

//! What the agent remembers, on disk: one sled database, one writer.
//!
//! [`Store::commit`] returns when a batch is durable: one transaction over all trees, `flush`, and an own `fdatasync`,
//! because sled's flush is none on Linux. Any error poisons the store: the process ends and starts again from what is on
//! disk. A damaged store is set aside with its name kept, and the agent starts empty: the cloud issues its rules again.
//!
//! ```text
//! {data}/store/db            sled's file
//! tree meta        "meta" -> Meta,  "schema_version" -> u32
//! tree rules       rule (16 bytes), chunk (u16) -> RuleRecord
//! tree tombstones  rule (16 bytes), chunk (u16) -> Tombstone
//! ```
//!
//! Decides nothing: which writes belong together is the core's business.

mod open;
mod value;
mod writer;

use std::path::PathBuf;

use tidegate_edge_core::{Snapshot, Write};
use tokio::sync::{mpsc, oneshot};

pub use open::Opened;

/// Version of the layout; another one is not read.
const SCHEMA_VERSION: u32 = 1;
/// Batches that wait for the writer at the most; the agent's loop sends one at a time.
const MAX_WAITING_BATCHES: usize = 256;

/// Why the store could not be opened or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// sled or the operating system refused to open it.
    #[error("opening the store {}: {reason}", dir.display())]
    Open {
        /// Its directory.
        dir: PathBuf,
        /// Why.
        reason: String,
    },
    /// It was written by another version of this software.
    #[error(
        "the store {} has layout {found}; this agent reads layout {SCHEMA_VERSION}. Run the agent that wrote it, or set the directory aside",
        dir.display()
    )]
    Schema {
        /// Its directory.
        dir: PathBuf,
        /// Its layout.
        found: u32,
    },
    /// A batch could not be made durable. What is on disk is what was before it.
    #[error("writing the store: {0}; the agent stops, and starts again from what is on disk")]
    Write(String),
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
    /// [`StoreError::Open`] when the directory cannot be used at all, [`StoreError::Schema`] for another layout.
    pub fn open(
        dir: &std::path::Path,
        new_store: tidegate_model::ids::StoreId,
        stamp: i64,
    ) -> Result<(Self, Snapshot, Opened), StoreError> {
        let (trees, snapshot, opened) = open::open(dir, new_store, stamp)?;
        let (batches, waiting) = mpsc::channel(MAX_WAITING_BATCHES);
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer::run(&trees, waiting))
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

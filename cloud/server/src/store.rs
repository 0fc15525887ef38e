//! Keeps what the controller remembers. Speaks the domain: snapshots, writes, versions; no keys, no transactions.
//!
//! Two stores: [`Memory`], for trying out and for tests, and [`Sled`], on disk. One suite of tests holds both to the same
//! promises. A store over a database server fits the same trait.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use tidegate_cloud_core::{Snapshot, VersionRecord, Write};
use tidegate_model::ids::RuleId;
use tidegate_model::version::RuleVersion;

#[cfg(test)]
#[allow(clippy::wildcard_enum_match_arm, reason = "a test names what it wants; anything else fails it")]
mod conformance;
mod expect;
mod export;
mod import;
mod measured;
mod memory;
mod sled;

pub use export::{Counts, ExportSummary};
pub(crate) use export::{MAX_WAITING_CHUNKS, export, frozen, nothing_new};
pub(crate) use import::fill;
pub use import::{Check, check_file};
pub(crate) use measured::Measured;
pub use memory::Memory;
pub use sled::Sled;

/// What a method of a store returns.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Versions of a rule, or records of an export, that are read at once at the most.
pub const MAX_PAGE: usize = 500;

/// A place for the controller's records.
pub trait Store: Send + Sync + 'static {
    /// Everything that a controller is restored from.
    fn load(&self) -> Pending<'_, Snapshot>;

    /// Applies the writes in their order: all of them, durable when it returns, or none.
    ///
    /// Fails with [`StoreError::Conflict`] when a precondition does not hold; then nothing was applied and the store goes on.
    /// After any other error the store refuses everything: what is on disk is known only after it is opened again.
    fn apply(&self, writes: Vec<Write>) -> Pending<'_, ()>;

    /// Versions of a rule below `before` (`None`: from the newest on), newest first, at most `limit` and [`MAX_PAGE`].
    fn versions(
        &self,
        rule: RuleId,
        before: Option<RuleVersion>,
        limit: usize,
    ) -> Pending<'_, Vec<VersionRecord>>;

    /// One version of a rule.
    fn version(&self, rule: RuleId, version: RuleVersion) -> Pending<'_, Option<VersionRecord>>;

    /// Versions of all rules, those of deleted rules included, in a fixed order: the page after `after`.
    fn all_versions(
        &self,
        after: Option<(RuleId, RuleVersion)>,
        limit: usize,
    ) -> Pending<'_, Vec<VersionRecord>>;

    /// Whether it can still be read and written.
    fn health(&self) -> Pending<'_, ()>;
}

/// Why a store could not do something.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// A precondition does not hold; nothing was applied.
    #[error("rule {rule} is at {} in the store, not at {} as the write expects", version(.found), version(.expected))]
    Conflict {
        /// The rule.
        rule: RuleId,
        /// What the write expects.
        expected: Option<RuleVersion>,
        /// What is there.
        found: Option<RuleVersion>,
    },
    /// Another process has it open.
    #[error(
        "the store {} is open in another tidegate; stop that one, or choose another data directory (--data-dir)",
        .dir.display()
    )]
    Locked {
        /// The store's directory.
        dir: PathBuf,
    },
    /// What is on disk is not what was written.
    #[error(
        "{} is damaged: {what}; move the directory {} away and import the last export (tidegate import FILE), or start without it: edges go on running their rules meanwhile",
        .file.display(), .dir.display()
    )]
    Damaged {
        /// The store's directory.
        dir: PathBuf,
        /// The file in it.
        file: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A later version of the software wrote it.
    #[error(
        "the store {} has schema {found}, this version reads up to {known}; run the version that wrote it, or a later one",
        .dir.display()
    )]
    TooNew {
        /// The store's directory.
        dir: PathBuf,
        /// Its schema.
        found: u32,
        /// The highest schema known.
        known: u32,
    },
    /// Reading or writing failed.
    #[error("{doing} the store {} failed: {why}{}", .dir.display(), io_help(.why))]
    Failed {
        /// What was being done.
        doing: &'static str,
        /// The store's directory.
        dir: PathBuf,
        /// Why.
        why: String,
    },
    /// An earlier write failed.
    #[error("the store refuses to go on because an earlier write failed: {why}; start the process again")]
    Poisoned {
        /// Why that failed.
        why: String,
    },
    /// An export did not come to its end.
    #[error("the export did not come to its end: {why}")]
    Export {
        /// Why.
        why: String,
    },
    /// A file cannot be imported.
    #[error("{} cannot be imported: {why}", .file.display())]
    Transfer {
        /// The file.
        file: PathBuf,
        /// Why.
        why: String,
    },
}

impl StoreError {
    /// An error of the records on disk, with what to do about it.
    fn from_disk(dir: &Path, error: tidegate_records::Error) -> Self {
        use tidegate_records::Error;
        match error {
            Error::Locked { dir } => Self::Locked { dir },
            Error::Damaged { file, what } => Self::Damaged { dir: dir.to_owned(), file, what },
            Error::TooNew { dir, found, known } => Self::TooNew { dir, found, known },
            Error::Failed { doing, dir, why } => Self::Failed { doing, dir, why },
        }
    }
}

fn version(version: &Option<RuleVersion>) -> String {
    version.map_or_else(|| "no version".to_owned(), |v| v.to_string())
}

fn io_help(why: &str) -> &'static str {
    if why.contains("ermission denied") {
        "; make it owned by the user that runs tidegate"
    } else if why.contains("o space left") || why.contains("quota exceeded") {
        "; free space on that disk, then start again: nothing that was acknowledged is lost"
    } else if why.contains("ead-only file system") {
        "; mount that file system for writing"
    } else {
        ""
    }
}

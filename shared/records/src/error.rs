//! Why a store could not be opened, read or written.

use std::io;
use std::path::{Path, PathBuf};

use crate::db_file;

/// Why a store could not do something. What to do about it, the caller says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Somebody else has it open.
    #[error("the store {} is open in another process", .dir.display())]
    Locked {
        /// The store's directory.
        dir: PathBuf,
    },
    /// What is on disk is not what was written.
    #[error("{} is damaged: {what}", .file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A later version of the software wrote it.
    #[error("the store {} has schema {found}, this version reads up to {known}", .dir.display())]
    TooNew {
        /// The store's directory.
        dir: PathBuf,
        /// Its schema.
        found: u32,
        /// The highest schema known.
        known: u32,
    },
    /// The operating system refused.
    #[error("{doing} the store {} failed: {why}", .dir.display())]
    Failed {
        /// What was being done.
        doing: &'static str,
        /// The store's directory.
        dir: PathBuf,
        /// Why.
        why: String,
    },
}

impl Error {
    pub(crate) fn damaged(dir: &Path, what: impl Into<String>) -> Self {
        Self::Damaged { file: db_file(dir), what: what.into() }
    }

    pub(crate) fn failed(doing: &'static str, dir: &Path, why: impl ToString) -> Self {
        Self::Failed { doing, dir: dir.to_owned(), why: why.to_string() }
    }

    /// Puts an error of sled into our words.
    pub(crate) fn from_sled(doing: &'static str, dir: &Path, error: &sled::Error) -> Self {
        match error {
            // sled has no error of its own for it.
            sled::Error::Io(io) if io.to_string().contains("could not acquire lock") => {
                Self::Locked { dir: dir.to_owned() }
            }
            sled::Error::Io(io) if is_refusal(io) => Self::failed(doing, dir, io),
            sled::Error::Io(io) => Self::damaged(dir, format!("it cannot be read ({io})")),
            // What sled says of a `conf` file that it cannot read. No other version of sled ever wrote here.
            sled::Error::Unsupported(_) => {
                Self::Damaged { file: dir.join("conf"), what: "it is not what sled wrote".to_owned() }
            }
            sled::Error::Corruption { .. } => Self::damaged(dir, "a part of it has a wrong checksum"),
            sled::Error::CollectionNotFound(_) => Self::damaged(dir, "a tree is gone"),
            sled::Error::ReportableBug(what) => {
                Self::damaged(dir, format!("sled cannot make sense of it ({what})"))
            }
        }
    }
}

/// The operating system said no. Otherwise sled met bytes where it did not expect them, and calls that input and output
/// too. A copied error of sled has lost its number, but not its kind.
fn is_refusal(error: &io::Error) -> bool {
    error.raw_os_error().is_some()
        || [
            io::ErrorKind::PermissionDenied,
            io::ErrorKind::StorageFull,
            io::ErrorKind::ReadOnlyFilesystem,
            io::ErrorKind::QuotaExceeded,
            io::ErrorKind::FileTooLarge,
        ]
        .contains(&error.kind())
}

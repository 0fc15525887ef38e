//! The data directory: made private, held by one process at a time.
//!
//! Owns the directory itself, its lock and how its files are written. What is in the files is for others to know.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Name of the lock file; it holds the process id of who holds the lock.
const LOCK_FILE: &str = "lock";
/// Longest text that is read from the lock file, in bytes.
const MAX_PID_BYTES: u64 = 32;

/// A data directory that this process holds until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Somebody else holds it.
    #[error(
        "the data directory {} is in use by another tidegate{}; stop that one, or choose another directory \
         (--data-dir)",
        .path.display(), .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The other process, if it said so.
        pid: Option<u32>,
    },
    /// It is not ours to use.
    #[error(
        "{doing} {} is not permitted for this user; make it owned by the user that runs tidegate, or choose another \
         directory (--data-dir)", .path.display()
    )]
    Denied {
        /// What was being done.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
    },
    /// Something else.
    #[error("{doing} {} failed: {}", .path.display(), crate::os::plain(.source))]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl DataDirError {
    fn new(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        if source.kind() == io::ErrorKind::PermissionDenied {
            Self::Denied { doing, path }
        } else {
            Self::Io { doing, path, source }
        }
    }
}

impl DataDir {
    /// Makes the directory (mode 0700) if it is missing, and takes its lock.
    ///
    /// # Errors
    /// [`DataDirError`]: it is in use, not permitted or not possible.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        make_private(path)?;
        let lock_path = path.join(LOCK_FILE);
        let error = |source| DataDirError::new("writing the lock file", &lock_path, source);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut lock = options.open(&lock_path).map_err(error)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // The number only helps the reader; without it the sentence still holds.
                let read = (&mut lock).take(MAX_PID_BYTES).read_to_string(&mut text);
                let pid = read.ok().and_then(|_| text.trim().parse().ok());
                return Err(DataDirError::Locked { path: path.to_owned(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(error(source)),
        }
        lock.set_len(0).map_err(error)?;
        lock.write_all(std::process::id().to_string().as_bytes()).map_err(error)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// A file or directory in it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Makes a directory and its parents with mode 0700; one that is there is left as it is.
pub(crate) fn make_private(path: &Path) -> Result<(), DataDirError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| DataDirError::new("making the directory", path, source))
}

/// Reads a small text file; `None`: there is none.
pub(crate) fn read_text(path: &Path) -> Result<Option<String>, DataDirError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DataDirError::new("reading", path, source)),
    }
}

/// Writes a file that only its owner can read; it is whole and on disk when this returns.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), DataDirError> {
    let error = |source| DataDirError::new("writing", path, source);
    let part = path.with_extension("part");
    match std::fs::remove_file(&part) {
        Ok(()) => {}
        Err(source) if source.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(error(source)),
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part).map_err(error)?;
    file.write_all(text.as_bytes()).map_err(error)?;
    file.sync_all().map_err(error)?;
    std::fs::rename(&part, path).map_err(error)?;
    let parent = path.parent().unwrap_or(Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_directory_has_one_holder_and_the_second_is_told_who() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("a/b");
        let held = DataDir::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let error = DataDir::open(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(held);
        assert!(DataDir::open(&path).is_ok());
    }

    #[test]
    fn private_files_are_private_and_replaced_as_a_whole() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("x.token");
        assert_eq!(read_text(&path).unwrap(), None);
        write_private(&path, "one").unwrap();
        write_private(&path, "two").unwrap();
        assert_eq!(read_text(&path).unwrap().as_deref(), Some("two"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_in_place_of_the_directory_is_told() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("f");
        std::fs::write(&path, "").unwrap();
        assert!(DataDir::open(&path).unwrap_err().to_string().contains("making the directory"));
    }
}

//! The disk under the database: private directories, and space that is kept for the database itself.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

/// Makes a directory and its parents with mode 0700; one that is there is left as it is.
pub(crate) fn make_private(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Space behind the end of the database's file that belongs to it already: on a full disk the database can still grow by as
/// much. What is used of it comes back when there is space again.
#[derive(Debug)]
pub(crate) struct Reserve {
    bytes: u64,
    /// Length of the file when space behind it was last taken.
    kept_at: Option<u64>,
}

impl Reserve {
    pub(crate) fn new(bytes: u64) -> Self {
        Self { bytes, kept_at: None }
    }

    /// Whether there is space behind the end that belongs to the file.
    #[cfg(test)]
    pub(crate) fn bytes_kept(&self) -> bool {
        self.kept_at.is_some()
    }

    /// Takes the space, as far as there is any. Nothing depends on it but how long a full disk can be borne.
    pub(crate) fn keep(&mut self, file: &File) {
        if self.bytes == 0 {
            return;
        }
        // sled shortens its file, too, and with its end goes the space behind it.
        let Ok(len) = file.metadata().map(|m| m.len()) else { return };
        if self.kept_at == Some(len) {
            return;
        }
        self.kept_at = allocate(file, len, self.bytes).is_ok().then_some(len);
    }
}

/// Gives a file `bytes` behind `from` without changing its length.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "the standard library has no fallocate")]
fn allocate(file: &File, from: u64, bytes: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let offset = |n: u64| libc::off_t::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge));
    let (from, bytes) = (offset(from)?, offset(bytes)?);
    // SAFETY: the descriptor is open for the whole call, and no memory is passed.
    match unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, from, bytes) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Elsewhere there is no reserve.
#[cfg(not(target_os = "linux"))]
fn allocate(_file: &File, _from: u64, _bytes: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

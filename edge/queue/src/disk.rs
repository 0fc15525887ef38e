//! The operating system as the queue sees it: the files of one directory.
//!
//! Implementations: [`OsDisk`] and [`ReadOnlyDisk`] here, and the tests' disk, which forgets what was not synced and fails
//! on demand.

use std::{
    any::Any,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// The directory of one queue. Names are plain file names.
pub(crate) trait Disk: Send + Sync + 'static {
    /// Takes the lock that is held until the value is dropped; `None` when somebody else has it.
    fn lock(&self) -> io::Result<Option<Box<dyn Any + Send>>>;
    /// Names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes an empty file, or empties an existing one, and gives it `len` bytes of preallocated zeros.
    fn create(&self, name: &str, len: u64) -> io::Result<Box<dyn DiskFile>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Deletes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations and deletions durable.
    fn sync_dir(&self) -> io::Result<()>;
}

/// An open file.
pub(crate) trait DiskFile: Send + Sync {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Reads as much of `buf` as the file has at `pos`; returns how much.
    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize>;
    /// Writes all of `data` at `pos`.
    fn write_at(&self, data: &[u8], pos: u64) -> io::Result<()>;
    /// Makes contents and length durable (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
    /// Cuts the file.
    fn truncate(&self, len: u64) -> io::Result<()>;
}

/// Reads `len` bytes at `pos`, fewer at the end of the file.
pub(crate) fn read_chunk(file: &dyn DiskFile, pos: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut buf = vec![0; len];
    let mut have = 0;
    while have < len {
        match file.read_at(&mut buf[have..], pos + have as u64)? {
            0 => break,
            read => have += read,
        }
    }
    buf.truncate(have);
    Ok(buf)
}

/// A directory of the operating system.
pub(crate) struct OsDisk {
    dir: PathBuf,
}

impl OsDisk {
    /// Makes the directory, durably.
    pub(crate) fn create_dir(dir: &Path) -> io::Result<OsDisk> {
        fs::create_dir_all(dir)?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
        Ok(OsDisk { dir: dir.to_owned() })
    }

    /// Takes the directory as it is.
    pub(crate) fn existing(dir: &Path) -> OsDisk {
        OsDisk { dir: dir.to_owned() }
    }
}

impl Disk for OsDisk {
    fn lock(&self) -> io::Result<Option<Box<dyn Any + Send>>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.dir.join("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(self.dir.join(name))?;
        preallocate(&file, len)?;
        Ok(Box::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().read(true).write(true).open(self.dir.join(name))?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

impl DiskFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        FileExt::read_at(self, buf, pos)
    }

    fn write_at(&self, data: &[u8], pos: u64) -> io::Result<()> {
        self.write_all_at(data, pos)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}

/// A directory that is only looked at: whatever would change it fails.
pub(crate) struct ReadOnlyDisk(OsDisk);

impl ReadOnlyDisk {
    pub(crate) fn new(dir: &Path) -> ReadOnlyDisk {
        ReadOnlyDisk(OsDisk::existing(dir))
    }
}

impl Disk for ReadOnlyDisk {
    /// Shared with others who look.
    fn lock(&self) -> io::Result<Option<Box<dyn Any + Send>>> {
        let file = File::open(self.0.dir.join("lock"))?;
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn create(&self, _name: &str, _len: u64) -> io::Result<Box<dyn DiskFile>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(File::open(self.0.dir.join(name))?))
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

/// Gives an empty file `len` bytes that are already its own, so that a full disk shows here and not in the middle of a
/// batch. Where the file system cannot preallocate, the file only gets its length.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "the standard library has no fallocate")]
fn preallocate(file: &File, len: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let bytes = libc::off_t::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    // SAFETY: the descriptor is open for the whole call, and no memory is passed.
    match unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, bytes) } {
        0 => Ok(()),
        _ => {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL) => file.set_len(len),
                Some(_) | None => Err(error),
            }
        }
    }
}

/// Gives an empty file its length.
#[cfg(not(target_os = "linux"))]
fn preallocate(file: &File, len: u64) -> io::Result<()> {
    file.set_len(len)
}

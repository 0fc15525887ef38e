//! What a preloaded process is to suffer, told to it by its environment.

#![allow(unsafe_code, reason = "it ends its own process, and sets errno")]

use std::ffi::{OsString, c_long};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::hooks::Call;
use crate::record::Op;

const DIR: &str = "TIDEGATE_FAULTS_DIR";
const KILL: &str = "TIDEGATE_FAULTS_KILL";
const COUNT: &str = "TIDEGATE_FAULTS_COUNT";
const FULL: &str = "TIDEGATE_FAULTS_FULL";

/// A fault of a process's disk: of everything below one directory.
#[derive(Debug, Clone)]
pub struct Fault {
    dir: PathBuf,
    kind: (&'static str, OsString),
}

impl Fault {
    /// The process is killed before it does the `number`-th change of a file (counted from 1).
    #[must_use]
    pub fn kill_before(dir: &Path, number: u64) -> Self {
        Self { dir: dir.to_owned(), kind: (KILL, format!("before {number}").into()) }
    }

    /// The process is killed as soon as it has done its `number`-th change of a file (counted from 1).
    #[must_use]
    pub fn kill_after(dir: &Path, number: u64) -> Self {
        Self { dir: dir.to_owned(), kind: (KILL, format!("after {number}").into()) }
    }

    /// Nothing happens, but the changes are counted: `file` holds their number, one byte for each.
    #[must_use]
    pub fn count(dir: &Path, file: &Path) -> Self {
        Self { dir: dir.to_owned(), kind: (COUNT, file.into()) }
    }

    /// The disk is full as long as `flag` is a file: what needs space that the written file does not own yet fails.
    #[must_use]
    pub fn full_while(dir: &Path, flag: &Path) -> Self {
        Self { dir: dir.to_owned(), kind: (FULL, flag.into()) }
    }

    /// The environment of the process, with the shared object of this crate.
    #[must_use]
    pub fn environment(&self, object: &Path) -> Vec<(OsString, OsString)> {
        vec![
            ("LD_PRELOAD".into(), object.into()),
            (DIR.into(), self.dir.clone().into()),
            (self.kind.0.into(), self.kind.1.clone()),
        ]
    }
}

enum Plan {
    KillBefore(u64),
    KillAfter(u64),
    Count(std::ffi::CString),
    FullWhile(PathBuf),
}

static PLAN: OnceLock<Option<(PathBuf, Plan)>> = OnceLock::new();
static DONE: AtomicU64 = AtomicU64::new(0);

fn plan() -> Option<&'static (PathBuf, Plan)> {
    PLAN.get_or_init(|| {
        let dir = PathBuf::from(std::env::var_os(DIR)?);
        let plan = if let Ok(kill) = std::env::var(KILL) {
            match kill.split_once(' ')? {
                ("before", number) => Plan::KillBefore(number.parse().ok()?),
                (_, number) => Plan::KillAfter(number.parse().ok()?),
            }
        } else if let Some(file) = std::env::var_os(COUNT) {
            Plan::Count(std::ffi::CString::new(file.as_bytes()).ok()?)
        } else {
            Plan::FullWhile(std::env::var_os(FULL)?.into())
        };
        Some((dir, plan))
    })
    .as_ref()
}

pub(crate) fn is_armed() -> bool {
    plan().is_some()
}

/// Does the call, or what is to happen in its place.
pub(crate) fn around(call: &Call<'_>, go_on: impl FnOnce() -> c_long) -> c_long {
    let Some((dir, plan)) = plan() else { return go_on() };
    if !call.path.starts_with(dir) || call.op == Op::Nothing && !matches!(plan, Plan::FullWhile(_)) {
        return go_on();
    }
    let number = DONE.fetch_add(1, Ordering::SeqCst) + 1;
    match plan {
        Plan::KillBefore(at) if *at == number => die(),
        Plan::KillAfter(at) if *at == number => {
            go_on();
            die()
        }
        Plan::KillBefore(_) | Plan::KillAfter(_) => go_on(),
        Plan::Count(file) => {
            count(file);
            go_on()
        }
        Plan::FullWhile(flag) => {
            if flag.exists() && call.needs.is_some_and(|end| !owns(call.fd, end)) {
                // SAFETY: it is this thread's own.
                unsafe { *libc::__errno_location() = libc::ENOSPC };
                return -1;
            }
            go_on()
        }
    }
}

/// `kill -9` by its own hand.
fn die() -> c_long {
    // SAFETY: no memory is passed; the process ends.
    unsafe {
        libc::kill(libc::getpid(), libc::SIGKILL);
        loop {
            libc::pause();
        }
    }
}

/// Adds a byte to a file, past the hooks.
fn count(file: &std::ffi::CStr) {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC;
    // SAFETY: the name ends with a zero, and one byte is readable.
    unsafe {
        let fd = libc::syscall(libc::SYS_openat, libc::AT_FDCWD, file.as_ptr(), flags, 0o600);
        libc::syscall(libc::SYS_write, fd, c".".as_ptr(), 1);
        libc::syscall(libc::SYS_close, fd);
    }
}

/// Whether the blocks up to `end` belong to the file already.
fn owns(fd: std::ffi::c_int, end: u64) -> bool {
    // SAFETY: the structure is plain numbers, and is written by the kernel.
    let blocks = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        if fd < 0 || libc::fstat(fd, &raw mut stat) != 0 {
            return false;
        }
        stat.st_blocks
    };
    u64::try_from(blocks).unwrap_or(0) * 512 >= end
}

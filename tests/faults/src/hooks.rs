//! The functions of libc that change files, defined a second time: they ask [`crate::fault`], tell [`crate::record`], and
//! pass the call on to the kernel.

#![allow(unsafe_code, reason = "these are C functions, and they call the kernel")]

use std::ffi::{CStr, OsStr, c_char, c_int, c_long, c_uint, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use libc::{mode_t, off_t, size_t, ssize_t};

use crate::record::Op;
use crate::{fault, record};

/// What is being done to a file.
pub(crate) struct Call<'c> {
    /// The file's name.
    pub path: PathBuf,
    /// The operation, as it would be recorded.
    pub op: Op,
    /// The open file, where it has to be looked at.
    pub fd: c_int,
    /// The bytes on disk that it needs: up to this position.
    pub needs: Option<u64>,
    /// The call itself.
    pub call: &'c dyn Fn() -> c_long,
}

fn run(call: &Call<'_>) -> c_long {
    if !fault::is_armed() && !record::is_on() {
        return (call.call)();
    }
    fault::around(call, || record::around(call))
}

/// The name of an open file; `None` for what is no file, and for files that were deleted.
fn path_of(fd: c_int) -> Option<PathBuf> {
    if !fault::is_armed() && !record::is_on() {
        return Some(PathBuf::new());
    }
    let path = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
    (path.is_absolute() && !path.as_os_str().as_bytes().ends_with(b" (deleted)")).then_some(path)
}

fn path_at(path: *const c_char) -> PathBuf {
    // SAFETY: the caller of a function of libc passes a string that ends with a zero.
    let text = unsafe { CStr::from_ptr(path) };
    let path = Path::new(OsStr::from_bytes(text.to_bytes()));
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn offset(number: off_t) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn bytes(buf: *const c_void, count: size_t) -> Vec<u8> {
    if !record::is_on() || count == 0 {
        return Vec::new();
    }
    // SAFETY: the caller of `write` passes `count` readable bytes.
    unsafe { std::slice::from_raw_parts(buf.cast::<u8>(), count) }.to_vec()
}

/// Writes `count` bytes at `at`, through `call`.
fn on_write(
    fd: c_int,
    buf: *const c_void,
    count: size_t,
    at: Option<off_t>,
    call: &dyn Fn() -> c_long,
) -> ssize_t {
    let result = match path_of(fd) {
        Some(path) if record::is_on() || fault::is_armed() => {
            let at = offset(at.unwrap_or_else(|| position(fd)));
            let op = Op::Write { at, data: bytes(buf, count) };
            run(&Call { path, op, fd, needs: Some(at + count as u64), call })
        }
        Some(_) | None => call(),
    };
    ssize_t::try_from(result).unwrap_or(-1)
}

/// Where `write` would write.
fn position(fd: c_int) -> off_t {
    // SAFETY: no memory is passed.
    unsafe {
        let appends = libc::fcntl(fd, libc::F_GETFL) & libc::O_APPEND != 0;
        libc::lseek(fd, 0, if appends { libc::SEEK_END } else { libc::SEEK_CUR })
    }
}

fn on_file(fd: c_int, op: Op, needs: Option<u64>, call: &dyn Fn() -> c_long) -> c_int {
    let result = match path_of(fd) {
        Some(path) => run(&Call { path, op, fd, needs, call }),
        None => call(),
    };
    c_int::try_from(result).unwrap_or(-1)
}

macro_rules! hook {
    ($(fn $name:ident($($arg:ident: $type:ty),*) -> $result:ty $body:block)*) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $name($($arg: $type),*) -> $result $body
    )*};
}

/// Calls the kernel, which checks everything that it is given.
macro_rules! kernel {
    ($($arg:expr),*) => {
        // SAFETY: the arguments are those that libc's own function was given.
        unsafe { libc::syscall($($arg),*) }
    };
}

hook! {
    fn write(fd: c_int, buf: *const c_void, count: size_t) -> ssize_t {
        on_write(fd, buf, count, None, &|| kernel!(libc::SYS_write, fd, buf, count))
    }

    fn pwrite64(fd: c_int, buf: *const c_void, count: size_t, at: off_t) -> ssize_t {
        on_write(fd, buf, count, Some(at), &|| kernel!(libc::SYS_pwrite64, fd, buf, count, at))
    }

    fn ftruncate64(fd: c_int, len: off_t) -> c_int {
        on_file(fd, Op::Len(offset(len)), None, &|| kernel!(libc::SYS_ftruncate, fd, len))
    }

    fn fallocate(fd: c_int, mode: c_int, at: off_t, len: off_t) -> c_int {
        // Space that is kept without a change of the length leaves no trace in what can be read.
        let op = if mode & libc::FALLOC_FL_KEEP_SIZE != 0 { Op::Nothing } else { Op::AtLeast(offset(at + len)) };
        on_file(fd, op, Some(offset(at + len)), &|| kernel!(libc::SYS_fallocate, fd, mode, at, len))
    }

    fn fdatasync(fd: c_int) -> c_int {
        on_file(fd, Op::Sync, None, &|| kernel!(libc::SYS_fdatasync, fd))
    }

    fn fsync(fd: c_int) -> c_int {
        on_file(fd, Op::Sync, None, &|| kernel!(libc::SYS_fsync, fd))
    }

    fn rename(from: *const c_char, to: *const c_char) -> c_int {
        let call = || kernel!(libc::SYS_renameat, libc::AT_FDCWD, from, libc::AT_FDCWD, to);
        let op = Op::Rename { to: path_at(to) };
        c_int::try_from(run(&Call { path: path_at(from), op, fd: -1, needs: None, call: &call })).unwrap_or(-1)
    }

    fn unlink(path: *const c_char) -> c_int {
        let call = || kernel!(libc::SYS_unlinkat, libc::AT_FDCWD, path, 0);
        let op = Op::Remove;
        c_int::try_from(run(&Call { path: path_at(path), op, fd: -1, needs: None, call: &call })).unwrap_or(-1)
    }

    fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
        let call = || kernel!(libc::SYS_openat, libc::AT_FDCWD, path, flags, c_uint::from(mode));
        let changes = flags & (libc::O_CREAT | libc::O_TRUNC) != 0;
        if !changes || (!fault::is_armed() && !record::is_on()) {
            return c_int::try_from(call()).unwrap_or(-1);
        }
        let path = path_at(path);
        let op = match (path.exists(), flags & libc::O_TRUNC != 0) {
            (false, _) => Op::Create,
            (true, true) => Op::Len(0),
            (true, false) => return c_int::try_from(call()).unwrap_or(-1),
        };
        let needs = (op == Op::Create).then_some(1);
        c_int::try_from(run(&Call { path, op, fd: -1, needs, call: &call })).unwrap_or(-1)
    }
}

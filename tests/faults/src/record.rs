//! Records what this process writes below a directory, in its true order.

use std::ffi::c_long;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::hooks::Call;

/// A change of a file, or a note of the test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// It was made.
    Create,
    /// Bytes were written.
    Write {
        /// Where.
        at: u64,
        /// Which.
        data: Vec<u8>,
    },
    /// It got this length.
    Len(u64),
    /// It got at least this length.
    AtLeast(u64),
    /// It was synced; of a directory: its names were.
    Sync,
    /// It has another name.
    Rename {
        /// The new name.
        to: PathBuf,
    },
    /// It was deleted.
    Remove,
    /// Nothing that can be read changed.
    Nothing,
    /// The test says that it was told so far.
    Note(u64),
}

/// A recording under way; it ends when this is dropped.
#[derive(Debug)]
pub struct Recording {
    dir: PathBuf,
}

struct Tape {
    dir: PathBuf,
    ops: Vec<(PathBuf, Op)>,
}

static TAPES: Mutex<Vec<Tape>> = Mutex::new(Vec::new());
static RUNNING: AtomicUsize = AtomicUsize::new(0);

fn tapes() -> MutexGuard<'static, Vec<Tape>> {
    TAPES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Records from now on what is written below `dir`.
///
/// # Panics
/// When the directory cannot be found.
#[must_use]
pub fn record(dir: &Path) -> Recording {
    let dir = dir.canonicalize().expect("the directory exists");
    tapes().push(Tape { dir: dir.clone(), ops: Vec::new() });
    RUNNING.fetch_add(1, Ordering::SeqCst);
    Recording { dir }
}

impl Recording {
    /// Notes that the test was told so far: what a number means is its own business.
    pub fn note(&self, number: u64) {
        for tape in tapes().iter_mut().filter(|tape| tape.dir == self.dir) {
            tape.ops.push((PathBuf::new(), Op::Note(number)));
        }
    }

    /// What was recorded: names below the directory, and what was done.
    #[must_use]
    pub fn finish(self) -> Vec<(PathBuf, Op)> {
        let mut found = Vec::new();
        for tape in tapes().iter_mut().filter(|tape| tape.dir == self.dir) {
            found.append(&mut tape.ops);
        }
        found
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        tapes().retain(|tape| tape.dir != self.dir);
        RUNNING.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(crate) fn is_on() -> bool {
    RUNNING.load(Ordering::SeqCst) > 0
}

/// Does the call, and records it if it succeeds. One call at a time, so that the order is true.
pub(crate) fn around(call: &Call<'_>) -> c_long {
    if !is_on() {
        return (call.call)();
    }
    let mut tapes = tapes();
    let Some(tape) = tapes.iter_mut().find(|tape| call.path.starts_with(&tape.dir)) else {
        drop(tapes);
        return (call.call)();
    };
    let result = (call.call)();
    if result >= 0 {
        let below = |path: &Path| path.strip_prefix(&tape.dir).unwrap_or(path).to_owned();
        let op = match &call.op {
            Op::Write { at, data } => {
                // What was written may be less than what was to be.
                let len = usize::try_from(result).unwrap_or(0).min(data.len());
                Op::Write { at: *at, data: data[..len].to_vec() }
            }
            Op::Rename { to } => Op::Rename { to: below(to) },
            other @ (Op::Create
            | Op::Len(_)
            | Op::AtLeast(_)
            | Op::Sync
            | Op::Remove
            | Op::Nothing
            | Op::Note(_)) => other.clone(),
        };
        let name = below(&call.path);
        tape.ops.push((name, op));
    }
    result
}

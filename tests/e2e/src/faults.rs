//! Faults of a process's disk, given to the real binaries at their next start (see `tidegate-faults`).

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use tidegate_faults::Fault;

/// What a process will suffer after its next start. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<Option<Fault>>>);

impl Faults {
    /// From its next start on the process has this fault, or none.
    pub fn set(&self, fault: Option<Fault>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// Adds the fault to the environment of a process that is about to start.
    pub fn apply(&self, command: &mut Command) {
        if let Some(fault) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            let environment: Vec<(OsString, OsString)> = fault.environment(&object());
            command.envs(environment);
        }
    }
}

/// The shared object of `tidegate-faults`, which cargo makes for this crate.
///
/// # Panics
/// When it is not there.
fn object() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it is");
    let folder = test.parent().expect("tests are in target/PROFILE/deps");
    let newest = std::fs::read_dir(folder)
        .expect("the folder can be read")
        .flatten()
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with("libtidegate_faults") && name.ends_with(".so")
        })
        .max_by_key(|entry| entry.metadata().and_then(|m| m.modified()).ok());
    newest.unwrap_or_else(|| panic!("libtidegate_faults.so is not in {}", folder.display())).path()
}

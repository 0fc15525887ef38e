//! Keeps the state directory in step with the hub: sessions before a client hears of a change, retained messages in
//! the background.

use crate::hub::Hub;
use crate::stats::count;
use crate::store::{self, Loaded, Store};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The writer of one state directory.
#[derive(Debug)]
pub(crate) struct Keeper {
    dir: PathBuf,
    hub: Arc<Hub>,
    store: Arc<Mutex<Store>>,
    /// The revision of the sessions that is on disk; held while writing.
    saved: Arc<Mutex<u64>>,
    /// Lets those who wait to write wait here and not on a thread each.
    turn: tokio::sync::Mutex<()>,
}

impl Keeper {
    /// Opens `dir`, puts what it holds into `hub`, and writes the log anew. Blocking.
    pub fn open(dir: &Path, hub: Arc<Hub>) -> io::Result<Self> {
        let (mut store, Loaded { retained, sessions }) = Store::open(dir)?;
        let lost = retained.values().filter(|message| !hub.restore_retained(message)).count();
        let lost_sessions = sessions.iter().filter(|(id, filters)| !hub.restore_session(id, filters)).count();
        if lost + lost_sessions > 0 {
            tracing::warn!(
                retained = lost,
                sessions = lost_sessions,
                "saved state is beyond the limits and was left out"
            );
        }
        hub.retained_not_saved();
        store.save_retained(&hub.retained_changes())?;
        Ok(Self {
            dir: dir.to_owned(),
            hub,
            store: Arc::new(Mutex::new(store)),
            saved: Arc::new(Mutex::new(0)),
            turn: tokio::sync::Mutex::new(()),
        })
    }

    /// Returns when every change of persistent sessions made until now is on disk, or could not be written, which is
    /// logged and counted. Given up half-way, as when its connection ends, it does no harm: what it began goes on by
    /// itself, and nobody else writes meanwhile.
    pub async fn save_sessions(&self) {
        let wanted = self.hub.revision();
        let _turn = self.turn.lock().await;
        let (dir, hub, saved) = (self.dir.clone(), Arc::clone(&self.hub), Arc::clone(&self.saved));
        let written = tokio::task::spawn_blocking(move || {
            let mut saved = saved.lock().unwrap_or_else(PoisonError::into_inner);
            if *saved < wanted {
                let (revision, sessions) = hub.saved_sessions();
                store::save_sessions(&dir, &sessions)?;
                *saved = revision;
            }
            Ok(())
        });
        if let Err(error) = written.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            self.failed("sessions", &error);
        }
    }

    /// Writes the retained messages that changed.
    pub async fn save_retained(&self) {
        let live_bytes = self.hub.stats().retained_bytes;
        let store = Arc::clone(&self.store);
        let hub = Arc::clone(&self.hub);
        let written = tokio::task::spawn_blocking(move || {
            let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
            if store.wants_rewrite(live_bytes) {
                hub.retained_not_saved();
            }
            let changes = hub.retained_changes();
            if changes.topics.is_empty() && !changes.whole { Ok(()) } else { store.save_retained(&changes) }
        });
        if let Err(error) = written.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            self.hub.retained_not_saved();
            self.failed("retained messages", &error);
        }
    }

    fn failed(&self, what: &str, error: &io::Error) {
        count(&self.hub.counters.state_write_errors, 1);
        tracing::error!(line.kind = "state-not-written", dir = %self.dir.display(), %error, "writing {what} to the state directory failed, it is tried again");
    }
}

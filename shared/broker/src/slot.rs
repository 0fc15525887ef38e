//! A session behind its lock, and the way to end its connection from outside. Decides nothing.

use crate::session::Session;
use crate::watcher::DisconnectReason;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// A session as connections and fan-out share it.
#[derive(Debug)]
pub(crate) struct Slot {
    pub client_id: Arc<str>,
    pub key: u64,
    pub session: Mutex<Session>,
    /// Rung when the connection's writer has something to look at.
    pub wake: Notify,
}

impl Slot {
    pub fn session(&self) -> MutexGuard<'_, Session> {
        lock(&self.session)
    }
}

/// A way to end a connection from outside, with the reason.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kill {
    reason: Arc<OnceLock<DisconnectReason>>,
    token: CancellationToken,
}

impl Kill {
    /// Ends it; the first reason counts.
    pub fn because(&self, reason: DisconnectReason) {
        let _ = self.reason.set(reason);
        self.token.cancel();
    }

    /// Waits for the end.
    pub async fn killed(&self) -> DisconnectReason {
        self.token.cancelled().await;
        self.reason.get().cloned().unwrap_or(DisconnectReason::Stopped)
    }
}

/// Takes a lock of the broker's own.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic of a tap cannot happen under a lock; should one of ours, the state is still whole enough to go on.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

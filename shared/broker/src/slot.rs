//! A session behind its lock, and the way to end its connection from outside. Decides nothing.

use crate::pool::{Pool, Weight};
use crate::session::Session;
use crate::watcher::DisconnectReason;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// A session as connections and fan-out share it.
#[derive(Debug)]
pub(crate) struct Slot {
    pub client_id: Arc<str>,
    pub key: u64,
    session: Mutex<Session>,
    /// Where what the session holds is counted.
    pool: Arc<Pool>,
    /// Rung when the connection's writer has something to look at.
    pub wake: Notify,
}

impl Slot {
    pub fn new(client_id: Arc<str>, key: u64, session: Session, pool: Arc<Pool>) -> Self {
        Self { client_id, key, session: Mutex::new(session), pool, wake: Notify::new() }
    }

    pub fn session(&self) -> Held<'_> {
        let session = lock(&self.session);
        Held { before: session.weight(), session, pool: &self.pool }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let weight = lock(&self.session).weight();
        self.pool.reweigh(weight, Weight::default());
    }
}

/// A session under its lock. What changed in it is counted when it is let go, whatever was done.
pub(crate) struct Held<'a> {
    session: MutexGuard<'a, Session>,
    before: Weight,
    pool: &'a Pool,
}

impl Deref for Held<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.session
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.pool.reweigh(self.before, self.session.weight());
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

//! Which sessions there are, whose connection owns each, and what they subscribed to: the maps of the hub, kept in step
//! with one another. Knows no messages in motion.

use crate::gate::Permit;
use crate::hub::ConnectedClient;
use crate::message::Qos;
use crate::pool::Pool;
use crate::retained::Retained;
use crate::session::{Bounds, Session};
use crate::slot::{Kill, Slot};
use crate::tree::Tree;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// An open connection, as the hub knows it.
#[derive(Debug)]
pub(crate) struct Live {
    pub connection: u64,
    pub peer: SocketAddr,
    pub kill: Kill,
    pub ended: CancellationToken,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub slot: Arc<Slot>,
    pub persistent: bool,
    pub live: Option<Live>,
    pub offline_since: Option<Instant>,
    pub subscriptions: BTreeMap<Arc<str>, Qos>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub sessions: HashMap<Arc<str>, Entry>,
    pub slots: HashMap<u64, Arc<Slot>>,
    pub tree: Tree<u64>,
    pub retained: Retained,
    pub persistent: usize,
    pub last_key: u64,
    /// Grows with each change of what `saved_sessions` returns.
    pub revision: u64,
}

impl Entry {
    /// What the owner is told about it, if it is connected.
    pub fn connected(&self) -> Option<ConnectedClient> {
        let live = self.live.as_ref()?;
        Some(ConnectedClient {
            client_id: Arc::clone(&self.slot.client_id),
            connection: live.connection,
            peer: live.peer,
            subscriptions: self.subscriptions.iter().map(|(f, qos)| (Arc::clone(f), *qos)).collect(),
            waiting: self.slot.session().waiting(),
        })
    }
}

impl State {
    /// Makes a session; there must be none of this id.
    pub fn create(&mut self, client_id: &str, persistent: bool, bounds: Bounds, pool: &Arc<Pool>) {
        self.last_key += 1;
        let client_id: Arc<str> = client_id.into();
        let session = Session::new(bounds);
        let slot = Arc::new(Slot::new(Arc::clone(&client_id), self.last_key, session, Arc::clone(pool)));
        self.slots.insert(slot.key, Arc::clone(&slot));
        self.persistent += usize::from(persistent);
        let entry =
            Entry { slot, persistent, live: None, offline_since: None, subscriptions: BTreeMap::new() };
        self.sessions.insert(client_id, entry);
    }

    /// Ends a session with its subscriptions.
    pub fn remove(&mut self, client_id: &str) {
        let Some(entry) = self.sessions.remove(client_id) else { return };
        for filter in entry.subscriptions.keys() {
            self.tree.remove(filter, entry.slot.key);
        }
        self.slots.remove(&entry.slot.key);
        self.persistent -= usize::from(entry.persistent);
    }

    /// Drops subscriptions that are not permitted any more; true when there were any.
    pub fn drop_forbidden(&mut self, client_id: &str, permit: &Permit) -> bool {
        let Some(entry) = self.sessions.get_mut(client_id) else { return false };
        let before = entry.subscriptions.len();
        entry.subscriptions.retain(|filter, _| {
            let allowed = permit.allows_filter(filter);
            if !allowed {
                self.tree.remove(filter, entry.slot.key);
                tracing::info!(line.kind = "subscription-dropped", client.id = ?client_id, ?filter, "a subscription is no longer permitted and was dropped");
            }
            allowed
        });
        before != entry.subscriptions.len()
    }
}

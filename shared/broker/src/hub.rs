//! What all connections share: sessions, subscription tree, retained messages, behind one lock that is never held
//! over an await, a tap or a watcher. Moves messages; knows no sockets and parses nothing.
//!
//! Lock order: hub, then one session. A message is retained, matched and queued under the hub's lock, so a subscriber
//! never sees an older retained message after a newer live one.

use crate::codec;
use crate::config::Limits;
use crate::filter;
use crate::gate::Permit;
use crate::message::{Message, Qos};
use crate::pool::{Parcel, Pool};
use crate::retained::{Budget, Changes, Kept, Retained};
use crate::session::{Bounds, Enqueued, Send};
use crate::slot::{Kill, Slot, lock};
use crate::state::{Entry, Live, State};
use crate::stats::{Counters, Stats, count};
use crate::tree::Tree;
use crate::watcher::DisconnectReason;
use bytes::BytesMut;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Greatest in-flight window that leaves packet ids free to choose from.
const MAX_WINDOW: usize = 60_000;
/// One step of looking up retained messages for a new subscription.
const REPLAY_STEP: Budget = Budget { looks: 512, messages: 64, bytes: 256 * 1024 };

/// A client that is connected now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectedClient {
    /// Its id.
    pub client_id: Arc<str>,
    /// The connection, unique for the life of the broker.
    pub connection: u64,
    /// Address of the other end.
    pub peer: SocketAddr,
    /// Its subscriptions.
    pub subscriptions: Vec<(Arc<str>, Qos)>,
    /// Messages that wait for it, those in flight included.
    pub waiting: usize,
}

/// Why a message could not be sent to one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No such client is connected.
    #[error("the client is not connected")]
    NotConnected,
    /// It holds no subscription that matches the topic.
    #[error("the client holds no subscription that matches the topic")]
    NotSubscribed,
    /// Its queue is full.
    #[error("the queue of the client is full")]
    Full,
    /// The topic is not a valid topic name within the limits, or the message is larger than a packet may be.
    #[error("the message is not one that can be sent: topic or size is out of bounds")]
    Invalid,
}

/// To how many sessions a message went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Sessions that match, offline ones included.
    pub matched: usize,
    /// Sessions in whose queue it is.
    pub queued: usize,
}

/// What an attaching connection brings.
#[derive(Debug)]
pub(crate) struct Newcomer<'a> {
    pub client_id: &'a str,
    pub clean_session: bool,
    pub connection: u64,
    pub peer: SocketAddr,
    pub kill: Kill,
    pub subscribe: &'a Permit,
}

/// What attaching came to.
#[derive(Debug)]
pub(crate) enum Attach {
    /// The connection owns the session now.
    Done { slot: Arc<Slot>, ended: CancellationToken, resumed: bool, saved_sessions_changed: bool },
    /// Another connection owns it; end that one, wait, try again.
    Busy { kill: Kill, ended: CancellationToken },
    /// There are as many persistent sessions as may be.
    Full,
}

/// The shared state.
#[derive(Debug)]
pub(crate) struct Hub {
    state: Mutex<State>,
    bounds: Bounds,
    limits: Limits,
    pool: Arc<Pool>,
    pub counters: Counters,
}

impl Hub {
    pub fn new(limits: &Limits) -> Self {
        let bounds = Bounds {
            queued_messages: limits.max_queued_messages,
            queued_bytes: limits.max_queued_bytes,
            inflight: limits.max_inflight.clamp(1, MAX_WINDOW),
            unreleased: limits.max_unreleased,
        };
        let state = State {
            sessions: HashMap::new(),
            slots: HashMap::new(),
            tree: Tree::new(),
            retained: Retained::new(limits.max_retained_messages, limits.max_retained_bytes),
            persistent: 0,
            last_key: 0,
            revision: 0,
        };
        Self {
            state: Mutex::new(state),
            bounds,
            limits: limits.clone(),
            pool: Arc::new(Pool::new(limits.max_all_queued_bytes)),
            counters: Counters::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Gives the session of `newcomer.client_id` to its connection, making or clearing it as asked. Subscriptions that
    /// the newcomer has no right to any more are dropped.
    pub fn attach(&self, newcomer: Newcomer<'_>) -> Attach {
        let mut state = self.state();
        let mut changed = false;
        if let Some(entry) = state.sessions.get(newcomer.client_id) {
            if let Some(live) = &entry.live {
                return Attach::Busy { kill: live.kill.clone(), ended: live.ended.clone() };
            }
            if newcomer.clean_session || !entry.persistent {
                state.remove(newcomer.client_id);
                changed = true;
            }
        }
        let resumed = state.sessions.contains_key(newcomer.client_id);
        if !resumed {
            if !newcomer.clean_session && state.persistent >= self.limits.max_sessions {
                return Attach::Full;
            }
            changed |= !newcomer.clean_session;
            state.create(newcomer.client_id, !newcomer.clean_session, self.bounds, &self.pool);
        }
        changed |= state.drop_forbidden(newcomer.client_id, newcomer.subscribe);
        if changed {
            state.revision += 1;
        }
        let entry = state.sessions.get_mut(newcomer.client_id).expect("the session was found or made above");
        let ended = CancellationToken::new();
        let Newcomer { connection, peer, kill, .. } = newcomer;
        entry.live = Some(Live { connection, peer, kill, ended: ended.clone() });
        entry.offline_since = None;
        entry.slot.session().connect();
        Attach::Done { slot: Arc::clone(&entry.slot), ended, resumed, saved_sessions_changed: changed }
    }

    /// Takes the session from its connection; one that is not persistent ends.
    pub fn detach(&self, client_id: &str, connection: u64) {
        let mut state = self.state();
        let Some(entry) = state.sessions.get_mut(client_id) else { return };
        if entry.live.as_ref().is_none_or(|live| live.connection != connection) {
            return;
        }
        entry.live = None;
        entry.offline_since = Some(Instant::now());
        count(&self.counters.dropped_qos0, entry.slot.session().disconnect());
        if !entry.persistent {
            state.remove(client_id);
        }
    }

    /// Adds valid, permitted filters. An answer is `None` where the bound on subscriptions is reached. The second value
    /// tells whether the saved sessions changed. Retained messages are for [`Self::look_up`], after the SUBACK.
    pub fn subscribe(&self, slot: &Slot, filters: &[(Arc<str>, Qos)]) -> (Vec<Option<Qos>>, bool) {
        let mut state = self.state();
        let state = &mut *state;
        let Some(entry) = state.sessions.get_mut(&slot.client_id) else {
            return (vec![None; filters.len()], false);
        };
        let mut granted = Vec::with_capacity(filters.len());
        for (filter, qos) in filters {
            let known = entry.subscriptions.contains_key(filter);
            if !known && entry.subscriptions.len() >= self.limits.max_subscriptions_per_client {
                granted.push(None);
                continue;
            }
            entry.subscriptions.insert(Arc::clone(filter), *qos);
            state.tree.insert(filter, slot.key, *qos);
            granted.push(Some(*qos));
        }
        state.revision += u64::from(entry.persistent);
        (granted, entry.persistent)
    }

    /// Arranges for the retained messages of filters that were just added.
    pub fn look_up(&self, slot: &Slot, new: &[(&Arc<str>, Qos)]) {
        let state = self.state();
        let Some(entry) = state.sessions.get(&slot.client_id) else { return };
        if !new.is_empty() {
            slot.session().look_up(new, &entry.subscriptions);
            slot.wake.notify_one();
        }
    }

    /// Removes filters; true when the saved sessions changed.
    pub fn unsubscribe(&self, slot: &Slot, filters: &[String]) -> bool {
        let mut state = self.state();
        let state = &mut *state;
        let Some(entry) = state.sessions.get_mut(&*slot.client_id) else { return false };
        let mut removed = false;
        for filter in filters {
            if entry.subscriptions.remove(filter.as_str()).is_some() {
                removed = true;
                state.tree.remove(filter, slot.key);
            }
        }
        let changed = removed && entry.persistent;
        state.revision += u64::from(changed);
        changed
    }

    /// Retains `message` if it asks for it, and queues it for every session that matches.
    pub fn commit(&self, message: &Arc<Message>) -> Delivery {
        let mut state = self.state();
        if message.retain && state.retained.put(message) == Kept::NoRoom {
            let total = self.counters.not_retained.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::warn!(line.kind = "not-retained", topic = ?message.topic, total, "no room to retain a message, it is delivered only");
        }
        let mut delivery = Delivery::default();
        let matches = state.tree.matches(&message.topic);
        if matches.is_empty() {
            return delivery;
        }
        let parcel = Parcel::new(Arc::clone(message), &self.pool);
        for (key, qos) in matches {
            let Some(slot) = state.slots.get(&key) else { continue };
            let outcome = slot.session().enqueue(Arc::clone(&parcel), qos.min(message.qos));
            self.count_losses(slot, &outcome, &self.counters.dropped_queue_full);
            delivery.matched += 1;
            delivery.queued += usize::from(outcome.queued);
            slot.wake.notify_one();
        }
        drop(parcel);
        if self.pool.is_over() {
            self.relieve(&state);
        }
        delivery
    }

    /// Lets the sessions that hold the most lose an eighth of what waits for them, until all together hold no more than
    /// they may. By the eighth, so that the look at every session is rare.
    fn relieve(&self, state: &State) {
        while self.pool.is_over() {
            let largest = state.slots.values().map(|slot| slot.session().queued_bytes()).max().unwrap_or(0);
            if largest == 0 {
                // The rest is in flight, which is bounded by the window.
                return;
            }
            let level = largest - largest.div_ceil(8);
            for slot in state.slots.values() {
                let mut session = slot.session();
                if session.queued_bytes() > level {
                    let outcome = session.shrink(level);
                    drop(session);
                    self.count_losses(slot, &outcome, &self.counters.dropped_all_full);
                }
            }
        }
    }

    fn count_losses(&self, slot: &Slot, outcome: &Enqueued, counter: &AtomicU64) {
        count(&self.counters.dropped_qos0, outcome.dropped_qos0);
        count(counter, outcome.dropped);
        if outcome.first_loss {
            tracing::warn!(line.kind = "session-full", client.id = ?slot.client_id, "too much waits for a session, its oldest messages are dropped");
        }
    }

    /// Queues `message` for one connected client that subscribed to its topic; nothing gives way for it.
    pub fn send_to(&self, client_id: &str, message: Arc<Message>) -> Result<(), SendError> {
        let state = self.state();
        let entry =
            state.sessions.get(client_id).filter(|e| e.live.is_some()).ok_or(SendError::NotConnected)?;
        let matching = entry.subscriptions.iter().filter(|(f, _)| filter::matches(f, &message.topic));
        let qos = matching.map(|(_, qos)| *qos).max().ok_or(SendError::NotSubscribed)?.min(message.qos);
        let mut session = entry.slot.session();
        if !session.has_room(message.cost()) {
            return Err(SendError::Full);
        }
        session.enqueue(Parcel::new(message, &self.pool), qos);
        drop(session);
        entry.slot.wake.notify_one();
        if self.pool.is_over() {
            self.relieve(&state);
        }
        Ok(())
    }

    /// Appends packets of the session to `out` until it holds `max_bytes` or there is nothing to send. True when a
    /// lookup of retained messages is still going on, so that the caller asks again at once.
    pub fn fill(&self, slot: &Slot, out: &mut BytesMut, max_bytes: usize) -> bool {
        if slot.session().wants_refill() {
            self.refill(slot);
        }
        let mut session = slot.session();
        session.set_narrow(self.pool.is_narrow());
        let mut published = 0;
        while out.len() < max_bytes {
            let Some(send) = session.next() else { break };
            published += u64::from(matches!(send, Send::Publish(_)));
            codec::encode(&send, out);
        }
        count(&self.counters.sent, published);
        session.wants_refill()
    }

    fn refill(&self, slot: &Slot) {
        let state = self.state();
        let mut session = slot.session();
        let Some(mut replay) = session.replays.pop_front() else { return };
        let stage = |message, qos| session.stage(Parcel::of_retained(message), qos);
        if !state.retained.replay(&mut replay, REPLAY_STEP, stage) {
            session.replays.push_front(replay);
        }
    }

    /// Ends the connection of a client, if it has one.
    pub fn disconnect(&self, client_id: &str, reason: DisconnectReason) -> bool {
        let state = self.state();
        let live = state.sessions.get(client_id).and_then(|e| e.live.as_ref());
        if let Some(live) = live {
            live.kill.because(reason);
        }
        live.is_some()
    }

    /// Ends every connection.
    pub fn disconnect_all(&self, reason: &DisconnectReason) {
        for live in self.state().sessions.values().filter_map(|e| e.live.as_ref()) {
            live.kill.because(reason.clone());
        }
    }

    /// The clients that are connected.
    pub fn connected(&self) -> Vec<ConnectedClient> {
        let state = self.state();
        let mut clients: Vec<_> = state.sessions.values().filter_map(Entry::connected).collect();
        clients.sort_by(|a, b| a.client_id.cmp(&b.client_id));
        clients
    }

    /// Ends sessions that were offline for longer than `expiry`; true when there were any.
    pub fn expire(&self, now: Instant, expiry: Duration) -> bool {
        let mut state = self.state();
        let old = |e: &Entry| e.offline_since.is_some_and(|since| now.duration_since(since) >= expiry);
        let expired: Vec<_> =
            state.sessions.iter().filter(|(_, e)| old(e)).map(|(id, _)| Arc::clone(id)).collect();
        for client_id in &expired {
            tracing::info!(line.kind = "session-expired", client.id = ?client_id, "a session expired");
            state.remove(client_id);
        }
        state.revision += u64::from(!expired.is_empty());
        !expired.is_empty()
    }

    /// Counters and sizes.
    pub fn stats(&self) -> Stats {
        let state = self.state();
        Stats {
            connected: state.sessions.values().filter(|e| e.live.is_some()).count(),
            sessions: state.sessions.len(),
            subscriptions: state.tree.len(),
            retained_messages: state.retained.len(),
            retained_bytes: state.retained.bytes(),
            waiting_bytes: self.pool.bytes(),
            ..self.counters.snapshot()
        }
    }

    /// Proof of life for the watchdog: takes the locks and the path that a publish takes.
    pub fn canary(&self) {
        let state = self.state();
        let waiting = |key| state.slots.get(&key).map_or(0, |slot| slot.session().waiting());
        let total: usize = state.tree.matches("$tidegate/canary").into_keys().map(waiting).sum();
        tracing::trace!(waiting = total, "the canary passed");
    }

    /// What the disk copy of the retained messages lacks.
    pub fn retained_changes(&self) -> Changes {
        self.state().retained.take_changes()
    }

    /// The disk copy of the retained messages is to be written anew.
    pub fn retained_not_saved(&self) {
        self.state().retained.changed_entirely();
    }

    /// Puts a retained message read from disk in its place.
    pub fn restore_retained(&self, message: &Arc<Message>) -> bool {
        self.state().retained.put(message) != Kept::NoRoom
    }

    /// Puts a session read from disk in its place; false when there is no room for it.
    pub fn restore_session(&self, client_id: &str, subscriptions: &[(String, Qos)]) -> bool {
        let mut state = self.state();
        let state = &mut *state;
        if state.persistent >= self.limits.max_sessions || state.sessions.contains_key(client_id) {
            return false;
        }
        state.create(client_id, true, self.bounds, &self.pool);
        let entry = state.sessions.get_mut(client_id).expect("the session was made above");
        entry.offline_since = Some(Instant::now());
        for (filter, qos) in subscriptions.iter().take(self.limits.max_subscriptions_per_client) {
            entry.subscriptions.insert(filter.as_str().into(), *qos);
            state.tree.insert(filter, entry.slot.key, *qos);
        }
        true
    }

    /// Persistent sessions with their subscriptions, and the revision of that.
    pub fn saved_sessions(&self) -> (u64, SavedSessions) {
        let state = self.state();
        let saved = |(id, e): (&Arc<str>, &Entry)| (Arc::clone(id), e.subscriptions.clone());
        (state.revision, state.sessions.iter().filter(|(_, e)| e.persistent).map(saved).collect())
    }

    /// The revision of [`Self::saved_sessions`].
    pub fn revision(&self) -> u64 {
        self.state().revision
    }
}

/// Subscriptions of persistent sessions by client id.
pub(crate) type SavedSessions = BTreeMap<Arc<str>, BTreeMap<Arc<str>, Qos>>;

//! One client's session: what waits for it, what it has not acknowledged, which packet ids are taken, and which
//! QoS 2 publishes of its own it has not released. Pure: no socket, no clock, no lock.
//!
//! ```text
//! enqueue -> queue -> next -> in flight --PUBACK-------------------> gone
//!                               |  '-----PUBREC -> released --PUBCOMP-> gone
//!                               '- reconnect: sent again in the same order, PUBLISH with DUP
//! ```

use crate::filter;
use crate::message::Qos;
use crate::pool::{Parcel, Weight};
use crate::tree::FilterSet;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// SUBSCRIBEs of one session whose retained messages are still being looked up one by one.
const MAX_REPLAYS: usize = 16;

/// What a session may hold; see [`crate::Limits`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub queued_messages: usize,
    pub queued_bytes: usize,
    pub inflight: usize,
    pub unreleased: usize,
}

/// A PUBLISH to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outgoing {
    /// 0 for QoS 0.
    pub packet_id: u16,
    pub qos: Qos,
    pub retain: bool,
    pub dup: bool,
    pub message: Arc<Parcel>,
}

/// The next thing to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Send {
    Publish(Outgoing),
    Release(u16),
}

/// How a message went into the queue.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Enqueued {
    /// It is in the queue.
    pub queued: bool,
    /// QoS 0 messages that gave way or found no room.
    pub dropped_qos0: u64,
    /// QoS 1 and 2 messages that gave way or found no room.
    pub dropped: u64,
    /// The first loss of QoS 1 or 2 since the queue was last empty: worth a line in the log.
    pub first_loss: bool,
}

/// What a QoS 2 publish with this packet id is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// Not seen: to be processed.
    New,
    /// Being processed: its PUBREC will follow.
    Pending,
    /// Processed already: only its PUBREC is missing.
    Done,
    /// One more than [`Bounds::unreleased`].
    TooMany,
}

#[derive(Debug)]
struct Queued {
    message: Arc<Parcel>,
    qos: Qos,
    retain: bool,
}

#[derive(Debug)]
struct InFlight {
    packet_id: u16,
    state: FlightState,
}

#[derive(Debug)]
enum FlightState {
    Publish { queued: Queued, sent_before: bool },
    Released,
}

/// Retained messages still to be found for one SUBSCRIBE.
#[derive(Debug)]
pub(crate) struct Replay {
    /// Topics subscribed without a wildcard.
    pub exact: VecDeque<(Arc<str>, Qos)>,
    /// Filters with a wildcard.
    pub wild: Option<FilterSet>,
    /// The last topic looked at.
    pub cursor: Option<Arc<str>>,
}

impl Replay {
    fn of<'a>(filters: impl Iterator<Item = (&'a Arc<str>, Qos)>) -> Self {
        let (wild, exact): (Vec<_>, Vec<_>) = filters.partition(|(f, _)| filter::has_wildcard(f));
        let exact = exact.into_iter().map(|(f, qos)| (Arc::clone(f), qos)).collect();
        Self { exact, wild: FilterSet::new(wild.into_iter().map(|(f, qos)| (&**f, qos))), cursor: None }
    }
}

/// One client's session.
#[derive(Debug)]
pub(crate) struct Session {
    bounds: Bounds,
    online: bool,
    /// Retained messages found for subscriptions; sent before the queue, refilled in small batches.
    staged: VecDeque<Queued>,
    pub replays: VecDeque<Replay>,
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    queued_qos0: usize,
    /// No QoS 0 message is in the queue before this place.
    qos0_from: usize,
    losing: bool,
    inflight: VecDeque<InFlight>,
    /// What `inflight` costs, by the messages it still holds.
    inflight_bytes: usize,
    /// How many of `inflight`, from the front, were sent on this connection.
    sent: usize,
    /// So much is in flight to all sessions that this one may have only one message there.
    narrow: bool,
    last_id: u16,
    /// QoS 2 packet ids of the client's own publishes; true when processed.
    received: BTreeMap<u16, bool>,
}

impl Session {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            online: false,
            staged: VecDeque::new(),
            replays: VecDeque::new(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            queued_qos0: 0,
            qos0_from: 0,
            losing: false,
            inflight: VecDeque::new(),
            inflight_bytes: 0,
            sent: 0,
            narrow: false,
            last_id: 0,
            received: BTreeMap::new(),
        }
    }

    /// A connection begins: everything in flight is to be sent again, in its order.
    pub fn connect(&mut self) {
        self.online = true;
        self.sent = 0;
    }

    /// The connection ended: QoS 0 messages have nobody to go to, and what was being processed without an answer
    /// will be sent again. Returns how many QoS 0 messages were thrown away.
    pub fn disconnect(&mut self) -> u64 {
        self.online = false;
        self.received.retain(|_, processed| *processed);
        let before = self.queue.len() + self.staged.len();
        self.queue.retain(|q| q.qos != Qos::AtMostOnce);
        self.staged.retain(|q| q.qos != Qos::AtMostOnce);
        self.queued_qos0 = 0;
        self.qos0_from = 0;
        self.queued_bytes = self.queue.iter().map(|q| q.message.cost()).sum();
        (before - self.queue.len() - self.staged.len()) as u64
    }

    /// Puts a live message at the end of the queue at level `qos`. Offline sessions do not keep QoS 0.
    pub fn enqueue(&mut self, message: Arc<Parcel>, qos: Qos) -> Enqueued {
        let mut outcome = Enqueued::default();
        let (cost, is_qos0) = (message.cost(), qos == Qos::AtMostOnce);
        if !self.online && is_qos0 {
            return outcome;
        }
        let fits_at_all = cost <= self.bounds.queued_bytes && self.bounds.queued_messages > 0;
        while fits_at_all && !self.has_room(cost) && !(is_qos0 && self.queued_qos0 == 0) {
            self.make_way(&mut outcome);
        }
        if fits_at_all && self.has_room(cost) {
            self.queued_bytes += cost;
            if is_qos0 {
                if self.queued_qos0 == 0 {
                    self.qos0_from = self.queue.len();
                }
                self.queued_qos0 += 1;
            }
            self.queue.push_back(Queued { message, qos, retain: false });
            outcome.queued = true;
        } else if is_qos0 {
            outcome.dropped_qos0 += 1;
        } else {
            outcome.dropped += 1;
        }
        if outcome.dropped > 0 {
            outcome.first_loss = !self.losing;
            self.losing = true;
        }
        outcome
    }

    /// True when a message of `cost` bytes fits without anything giving way.
    pub fn has_room(&self, cost: usize) -> bool {
        self.queue.len() < self.bounds.queued_messages && self.queued_bytes + cost <= self.bounds.queued_bytes
    }

    /// Throws away the oldest QoS 0 message or, where there is none, the oldest message.
    fn make_way(&mut self, outcome: &mut Enqueued) {
        let at = if self.queued_qos0 == 0 {
            0
        } else {
            // Looking from where the last one was: a queue full of others is not searched for each message.
            let is_qos0 = |q: &Queued| q.qos == Qos::AtMostOnce;
            self.queue.range(self.qos0_from..).position(is_qos0).map_or(0, |at| self.qos0_from + at)
        };
        let Some(gone) = self.queue.remove(at) else { return };
        self.queued_bytes -= gone.message.cost();
        if gone.qos == Qos::AtMostOnce {
            self.queued_qos0 -= 1;
            self.qos0_from = at;
            outcome.dropped_qos0 += 1;
        } else {
            outcome.dropped += 1;
        }
    }

    /// Throws messages of the queue away as [`Self::make_way`] does until it holds no more than `max_bytes`.
    pub fn shrink(&mut self, max_bytes: usize) -> Enqueued {
        let mut outcome = Enqueued::default();
        while self.queued_bytes > max_bytes {
            self.make_way(&mut outcome);
        }
        if outcome.dropped > 0 {
            outcome.first_loss = !self.losing;
            self.losing = true;
        }
        outcome
    }

    /// Bytes in the queue, as the bound on them counts.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// What it counts against the bound on all sessions.
    pub fn weight(&self) -> Weight {
        Weight { entries: self.waiting(), inflight_bytes: self.inflight_bytes }
    }

    /// Whether no more than one message may be in flight from now on.
    pub fn set_narrow(&mut self, narrow: bool) {
        self.narrow = narrow;
    }

    /// Arranges for the retained messages of new subscriptions. A client that subscribes faster than it reads gets
    /// those of all its subscriptions in one pass instead of ever more passes.
    pub fn look_up(&mut self, new: &[(&Arc<str>, Qos)], all: &BTreeMap<Arc<str>, Qos>) {
        let replay = if self.replays.len() < MAX_REPLAYS {
            Replay::of(new.iter().map(|(filter, qos)| (*filter, *qos)))
        } else {
            self.replays.clear();
            Replay::of(all.iter().map(|(filter, qos)| (filter, *qos)))
        };
        self.replays.push_back(replay);
    }

    /// Adds a retained message found for a subscription; the caller keeps batches small.
    pub fn stage(&mut self, message: Arc<Parcel>, qos: Qos) {
        self.staged.push_back(Queued { message, qos, retain: true });
    }

    /// True when retained messages are to be looked up before anything else is sent.
    pub fn wants_refill(&self) -> bool {
        self.staged.is_empty() && !self.replays.is_empty()
    }

    /// The next packet to send, if the in-flight window has room for it.
    pub fn next(&mut self) -> Option<Send> {
        if let Some(again) = self.inflight.get_mut(self.sent) {
            self.sent += 1;
            return Some(again.send());
        }
        if self.wants_refill() {
            return None;
        }
        let source = if self.staged.is_empty() { &self.queue } else { &self.staged };
        let needs_window = source.front()?.qos != Qos::AtMostOnce;
        if needs_window && !self.window_is_open() {
            return None;
        }
        let queued = self.take_front()?;
        if !needs_window {
            let Queued { message, qos, retain } = queued;
            return Some(Send::Publish(Outgoing { packet_id: 0, qos, retain, dup: false, message }));
        }
        let packet_id = self.free_id();
        self.inflight_bytes += queued.message.cost();
        let mut flight = InFlight { packet_id, state: FlightState::Publish { queued, sent_before: false } };
        let send = flight.send();
        self.inflight.push_back(flight);
        self.sent = self.inflight.len();
        Some(send)
    }

    /// One message may pass the bound on bytes, so that the largest gets through.
    fn window_is_open(&self) -> bool {
        let max_bytes = if self.narrow { 1 } else { self.bounds.queued_bytes };
        self.inflight.len() < self.bounds.inflight && self.inflight_bytes < max_bytes
    }

    fn take_front(&mut self) -> Option<Queued> {
        if let Some(staged) = self.staged.pop_front() {
            return Some(staged);
        }
        let queued = self.queue.pop_front()?;
        self.qos0_from = self.qos0_from.saturating_sub(1);
        self.queued_bytes -= queued.message.cost();
        self.queued_qos0 -= usize::from(queued.qos == Qos::AtMostOnce);
        self.losing &= !self.queue.is_empty();
        Some(queued)
    }

    fn free_id(&mut self) -> u16 {
        loop {
            self.last_id = if self.last_id == u16::MAX { 1 } else { self.last_id + 1 };
            if self.inflight.iter().all(|f| f.packet_id != self.last_id) {
                return self.last_id;
            }
        }
    }

    /// PUBACK: the QoS 1 message is done. Unknown ids are ignored, as after a lost session.
    pub fn puback(&mut self, packet_id: u16) {
        self.finish(packet_id, |state| match state {
            FlightState::Publish { queued, .. } => queued.qos == Qos::AtLeastOnce,
            FlightState::Released => false,
        });
    }

    /// PUBREC: the QoS 2 message is at the other side. The caller answers PUBREL, for unknown ids as well.
    pub fn pubrec(&mut self, packet_id: u16) {
        let Some(flight) = self.inflight.iter_mut().find(|f| f.packet_id == packet_id) else { return };
        if let FlightState::Publish { queued: Queued { qos: Qos::ExactlyOnce, message, .. }, .. } =
            &flight.state
        {
            self.inflight_bytes -= message.cost();
            flight.state = FlightState::Released;
        }
    }

    /// PUBCOMP: the QoS 2 message is done.
    pub fn pubcomp(&mut self, packet_id: u16) {
        self.finish(packet_id, |state| matches!(state, FlightState::Released));
    }

    fn finish(&mut self, packet_id: u16, due: impl Fn(&FlightState) -> bool) {
        let at = self.inflight.iter().position(|f| f.packet_id == packet_id && due(&f.state));
        if let Some(flight) = at.and_then(|at| self.inflight.remove(at)) {
            self.sent -= usize::from(at < Some(self.sent));
            if let FlightState::Publish { queued, .. } = flight.state {
                self.inflight_bytes -= queued.message.cost();
            }
        }
    }

    /// A QoS 2 publish of the client's own arrived.
    pub fn receive(&mut self, packet_id: u16) -> Received {
        match self.received.get(&packet_id) {
            Some(true) => Received::Done,
            Some(false) => Received::Pending,
            None if self.received.len() >= self.bounds.unreleased => Received::TooMany,
            None => {
                self.received.insert(packet_id, false);
                Received::New
            }
        }
    }

    /// It was processed: from now on the id is a duplicate until it is released.
    pub fn processed(&mut self, packet_id: u16) {
        self.received.insert(packet_id, true);
    }

    /// It was not processed: when it comes again it is new.
    pub fn not_processed(&mut self, packet_id: u16) {
        self.received.remove(&packet_id);
    }

    /// PUBREL: the id may be used for another message. The caller answers PUBCOMP, for unknown ids as well. An id
    /// that is still being processed is not released: its PUBREC has not been sent.
    pub fn release(&mut self, packet_id: u16) {
        if self.received.get(&packet_id) == Some(&true) {
            self.received.remove(&packet_id);
        }
    }

    /// Messages waiting, those in flight included.
    pub fn waiting(&self) -> usize {
        self.queue.len() + self.staged.len() + self.inflight.len()
    }
}

#[cfg(feature = "fuzzing")]
impl Session {
    /// Messages waiting, those in flight included: of QoS 1 and 2, and of QoS 0.
    pub fn waiting_by_level(&self) -> (usize, usize) {
        let queued = self.queue.iter().chain(&self.staged);
        let qos0 = queued.filter(|q| q.qos == Qos::AtMostOnce).count();
        assert_eq!(qos0, self.queued_qos0, "the count of QoS 0 messages is right where nothing is staged");
        (self.waiting() - qos0, qos0)
    }
}

impl InFlight {
    fn send(&mut self) -> Send {
        match &mut self.state {
            FlightState::Released => Send::Release(self.packet_id),
            FlightState::Publish { queued, sent_before } => {
                let dup = std::mem::replace(sent_before, true);
                let message = Arc::clone(&queued.message);
                Send::Publish(Outgoing {
                    packet_id: self.packet_id,
                    qos: queued.qos,
                    retain: queued.retain,
                    dup,
                    message,
                })
            }
        }
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;

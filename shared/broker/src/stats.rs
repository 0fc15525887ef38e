//! Counters of one broker. Every message that is dropped is counted here by its reason.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since start, and sizes now.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    /// Connections that were let in and are open.
    pub connected: usize,
    /// Sessions, online and offline.
    pub sessions: usize,
    /// Subscriptions of all sessions.
    pub subscriptions: usize,
    /// Retained messages.
    pub retained_messages: usize,
    /// Bytes of retained messages.
    pub retained_bytes: usize,
    /// TCP connections accepted since start.
    pub accepted: u64,
    /// CONNECTs answered with a code other than 0, or connections closed before one.
    pub refused: u64,
    /// Connections closed because another one took their client id over.
    pub taken_over: u64,
    /// Publishes received from clients.
    pub received: u64,
    /// Publishes sent to clients.
    pub sent: u64,
    /// QoS 0 messages dropped because a session's queue was full or its connection ended.
    pub dropped_qos0: u64,
    /// QoS 1 and 2 messages dropped because a session's queue was full.
    pub dropped_queue_full: u64,
    /// Messages that were delivered but not retained for lack of room.
    pub not_retained: u64,
    /// QoS 0 messages and wills that a tap refused.
    pub dropped_by_tap: u64,
    /// Wills published.
    pub wills: u64,
    /// Wills discarded because the broker stopped.
    pub wills_discarded: u64,
    /// Failed writes of the state directory; the next write tries everything again.
    pub state_write_errors: u64,
}

/// The counters behind [`Stats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub accepted: AtomicU64,
    pub refused: AtomicU64,
    pub taken_over: AtomicU64,
    pub received: AtomicU64,
    pub sent: AtomicU64,
    pub dropped_qos0: AtomicU64,
    pub dropped_queue_full: AtomicU64,
    pub not_retained: AtomicU64,
    pub dropped_by_tap: AtomicU64,
    pub wills: AtomicU64,
    pub wills_discarded: AtomicU64,
    pub state_write_errors: AtomicU64,
}

/// Adds to a counter; counters order nothing.
pub(crate) fn count(counter: &AtomicU64, by: u64) {
    if by > 0 {
        counter.fetch_add(by, Ordering::Relaxed);
    }
}

impl Counters {
    /// A copy of the counters, sizes left at 0.
    pub fn snapshot(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            accepted: read(&self.accepted),
            refused: read(&self.refused),
            taken_over: read(&self.taken_over),
            received: read(&self.received),
            sent: read(&self.sent),
            dropped_qos0: read(&self.dropped_qos0),
            dropped_queue_full: read(&self.dropped_queue_full),
            not_retained: read(&self.not_retained),
            dropped_by_tap: read(&self.dropped_by_tap),
            wills: read(&self.wills),
            wills_discarded: read(&self.wills_discarded),
            state_write_errors: read(&self.state_write_errors),
            ..Stats::default()
        }
    }
}

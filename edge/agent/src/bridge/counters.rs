//! What a bridge has moved.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tidegate_edge_queue::{DropCounts, QueueStats};
use tidegate_model::wire::{Counters, Dropped};

/// Why a message was dropped: no topic of the rule's names it at the target.
pub(crate) const UNMAPPED: &str = "unmapped";
/// Why a message was dropped: the local broker never takes it.
pub(crate) const REFUSED: &str = "refused";

/// Why a message was dropped: no packet, or no queue of the rule's, takes it.
pub(crate) const TOO_LARGE: &str = "too_large";

/// Counters shared by the tasks of a bridge, since it was started.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Acknowledged by the remote broker, or QoS 0 and written to it.
    pub forwarded: AtomicU64,
    /// Messages of the remote broker that are on disk here.
    pub received: AtomicU64,
    /// Messages that came for the rule and have no topic at the target.
    pub unmapped: AtomicU64,
    /// Messages that are larger than any packet we take.
    pub oversized: AtomicU64,
    /// Messages that the local broker will never take.
    pub refused: AtomicU64,
    /// Accepted connections.
    pub connections: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl Tally {
    /// Adds to a counter.
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Relaxed);
    }

    /// Keeps an error for people.
    pub fn error(&self, text: &str) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(text.to_owned());
    }

    /// Of the connection to a local broker: messages without a topic, messages that are too large, the last error.
    pub fn troubles(&self) -> (u64, u64, Option<String>) {
        let last_error = self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (self.unmapped.load(Relaxed), self.oversized.load(Relaxed), last_error)
    }

    pub fn counters(&self, outgoing: &QueueStats, incoming: &QueueStats, now_ms: i64) -> Counters {
        let mut dropped = BTreeMap::new();
        for drops in [outgoing.dropped, incoming.dropped] {
            let DropCounts { full, age, corrupt, too_large, disk, by_hand, aside } = drops;
            for (reason, count) in [
                ("full", full),
                ("age", age),
                ("corrupt", corrupt),
                (TOO_LARGE, too_large),
                ("disk", disk),
                ("by_hand", by_hand),
                ("aside", aside),
            ] {
                *dropped.entry(reason.to_owned()).or_insert(0) += count;
            }
        }
        *dropped.entry(TOO_LARGE.to_owned()).or_insert(0) += self.oversized.load(Relaxed);
        dropped.insert(UNMAPPED.to_owned(), self.unmapped.load(Relaxed));
        dropped.insert(REFUSED.to_owned(), self.refused.load(Relaxed));
        dropped.retain(|_, count| *count > 0);
        let oldest = [outgoing.oldest_at_ms, incoming.oldest_at_ms].into_iter().flatten().min();
        Counters {
            forwarded: self.forwarded.load(Relaxed),
            received: self.received.load(Relaxed),
            queued: outgoing.queued + incoming.queued,
            queued_bytes: outgoing.bytes + incoming.bytes,
            oldest_age_ms: oldest.map_or(0, |at| u64::try_from(now_ms.saturating_sub(at)).unwrap_or(0)),
            set_aside: outgoing.aside + incoming.aside,
            dropped: Dropped(dropped),
            reconnects: self.connections.load(Relaxed).saturating_sub(1),
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

//! What waits for all sessions together, in bytes, against one bound. A message counts once however many sessions wait for
//! it; each place in a session counts a little more. Counts only; who gives way is the hub's to say.

use crate::message::{ENTRY_BYTES, Message};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The counts.
#[derive(Debug)]
pub(crate) struct Pool {
    max_bytes: usize,
    bytes: AtomicUsize,
    inflight_bytes: AtomicUsize,
}

/// What one session holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Weight {
    /// Messages queued, staged and in flight.
    pub entries: usize,
    /// Bytes of those in flight.
    pub inflight_bytes: usize,
}

impl Pool {
    pub fn new(max_bytes: usize) -> Self {
        Self { max_bytes, bytes: AtomicUsize::new(0), inflight_bytes: AtomicUsize::new(0) }
    }

    /// Bytes that wait now.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// True when somebody has to give way.
    pub fn is_over(&self) -> bool {
        self.bytes() > self.max_bytes
    }

    /// True when so much is in flight that no session should begin more than it must.
    pub fn is_narrow(&self) -> bool {
        self.inflight_bytes.load(Ordering::Relaxed) > self.max_bytes / 2
    }

    /// A session that weighed `before` now weighs `after`.
    pub fn reweigh(&self, before: Weight, after: Weight) {
        // The counter wraps around as the difference does, so that one addition serves both ways.
        if before.entries != after.entries {
            let change = after.entries.wrapping_sub(before.entries).wrapping_mul(ENTRY_BYTES);
            self.bytes.fetch_add(change, Ordering::Relaxed);
        }
        if before.inflight_bytes != after.inflight_bytes {
            let change = after.inflight_bytes.wrapping_sub(before.inflight_bytes);
            self.inflight_bytes.fetch_add(change, Ordering::Relaxed);
        }
    }
}

/// A message on its way to sessions, counted as long as one of them holds it.
#[derive(Debug)]
pub(crate) struct Parcel {
    message: Arc<Message>,
    pool: Option<Arc<Pool>>,
}

impl Parcel {
    /// A live message, which only the sessions keep.
    pub fn new(message: Arc<Message>, pool: &Arc<Pool>) -> Arc<Self> {
        pool.bytes.fetch_add(message.bytes(), Ordering::Relaxed);
        Arc::new(Self { message, pool: Some(Arc::clone(pool)) })
    }

    /// A retained message, which is counted where it is retained.
    pub fn of_retained(message: Arc<Message>) -> Arc<Self> {
        Arc::new(Self { message, pool: None })
    }
}

impl Deref for Parcel {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

impl PartialEq for Parcel {
    fn eq(&self, other: &Self) -> bool {
        self.message == other.message
    }
}

impl Eq for Parcel {}

impl Drop for Parcel {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            pool.bytes.fetch_sub(self.message.bytes(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Qos;

    #[test]
    fn a_message_counts_once_and_until_the_last_session_let_it_go() {
        let pool = Arc::new(Pool::new(1_000));
        let parcel = Parcel::new(Arc::new(Message::new("topic", vec![0; 995], Qos::AtLeastOnce)), &pool);
        let other = Arc::clone(&parcel);
        assert_eq!((pool.bytes(), pool.is_over()), (1_000, false));
        pool.reweigh(Weight::default(), Weight { entries: 2, inflight_bytes: 501 });
        assert_eq!(pool.bytes(), 1_000 + 2 * ENTRY_BYTES);
        assert!(pool.is_over() && pool.is_narrow());
        drop(parcel);
        assert!(pool.is_over());
        drop(other);
        pool.reweigh(Weight { entries: 2, inflight_bytes: 501 }, Weight::default());
        assert_eq!((pool.bytes(), pool.is_narrow()), (0, false));
    }
}

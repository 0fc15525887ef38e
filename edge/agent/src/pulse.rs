//! Whether a loop goes round: somebody asks, the loop answers by having gone round once more.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// The pulse of one loop.
#[derive(Debug, Default)]
pub struct Pulse {
    asked: Notify,
    beats: AtomicU64,
}

impl Pulse {
    /// Makes the loop go round once, if it can.
    pub fn ask(&self) {
        self.asked.notify_one();
    }

    /// How often the loop went round.
    #[must_use]
    pub fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// Somebody asks.
    pub(crate) async fn wanted(&self) {
        self.asked.notified().await;
    }

    /// The loop went round.
    pub(crate) fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }
}

//! What edges say, and the presence of controllers, on their way from the broker to the loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rumqttc::{Publish, QoS, SubscribeFilter};
use tidegate_broker::TapResult;
use tidegate_model::limits::MAX_ENVELOPE_BYTES;
use tidegate_model::wire::{ControllerPresence, EdgeTopic, Topics};
use tokio::sync::{Semaphore, oneshot};

use super::reader::Inbox;
use crate::run::{CoreLink, FromEdge};

/// Bytes of edges' messages that wait for the loop at the most; then the broker is not read.
const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;
/// Bytes that a message counts at the least.
const MIN_COST_BYTES: usize = 256;

/// Hands messages of edges to the loop.
pub(super) struct Edges {
    topics: Topics,
    core: CoreLink,
    bytes: Arc<Semaphore>,
    dropped: Arc<AtomicU64>,
}

impl Edges {
    pub(super) fn new(topics: Topics, core: CoreLink, dropped: Arc<AtomicU64>) -> Self {
        Self { topics, core, bytes: Arc::new(Semaphore::new(MAX_WAITING_BYTES)), dropped }
    }

    fn drop_it(&self, publish: &Publish, why: &str) {
        let total = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = publish.payload.len();
        tracing::warn!(line.kind = "message-dropped", topic = ?publish.topic, bytes, total, "a message was dropped: {why}");
    }

    /// Somebody wrote on the controller's topic. What cannot be read is a lie that people would see: the core answers
    /// it with the true presence, as it does for an older controller.
    async fn controller(&self, publish: &Publish) {
        let unreadable = || {
            if !publish.payload.is_empty() {
                self.drop_it(publish, "it is no presence of a controller");
            }
            ControllerPresence { epoch: 0, version: tidegate_cloud_core::software_version(), alive: false }
        };
        let presence = match publish.payload.len() <= MAX_ENVELOPE_BYTES {
            true => serde_json::from_slice(&publish.payload).unwrap_or_else(|_| unreadable()),
            false => unreadable(),
        };
        // The loop ended: the process is going down.
        let _ = self.core.other_controller(presence).await;
    }
}

impl Inbox for Edges {
    fn filters(&self) -> Vec<SubscribeFilter> {
        let every = [EdgeTopic::Up, EdgeTopic::Presence].map(|topic| self.topics.every_edge(topic));
        let all = every.into_iter().chain([self.topics.controller()]);
        all.map(|filter| SubscribeFilter::new(filter, QoS::AtLeastOnce)).collect()
    }

    async fn take(&self, publish: Publish) -> Option<oneshot::Receiver<TapResult>> {
        if publish.topic == self.topics.controller() {
            self.controller(&publish).await;
            return None;
        }
        let (edge, presence) = match self.topics.parse(&publish.topic) {
            Some((edge, EdgeTopic::Up)) => (edge, false),
            Some((edge, EdgeTopic::Presence)) => (edge, true),
            Some((_, EdgeTopic::Down)) | None => {
                self.drop_it(&publish, "it is on no topic of an edge");
                return None;
            }
        };
        if presence && publish.payload.is_empty() {
            // Somebody cleared what was retained; the edge publishes its presence again.
            return None;
        }
        if publish.payload.len() > MAX_ENVELOPE_BYTES {
            self.drop_it(&publish, "it is larger than a message may be");
            return None;
        }
        let cost = u32::try_from(publish.payload.len().max(MIN_COST_BYTES)).unwrap_or(u32::MAX);
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(cost).await.ok()?;
        let (taken, then) = oneshot::channel();
        let payload = publish.payload.to_vec();
        // If the loop ended, `taken` is dropped, and the message is not acknowledged.
        let _ = self.core.hand_over(FromEdge { edge, presence, payload, taken, _bytes: bytes }).await;
        Some(then)
    }
}

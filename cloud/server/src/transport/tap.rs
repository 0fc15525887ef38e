//! Takes what edges say, and commands of other systems, off the broker; whoever said it gets its PUBACK when what it caused
//! is durable.

use std::sync::Arc;

use tidegate_broker::{Message, Offer, Source, Tap};
use tidegate_model::ids::EdgeId;
use tidegate_model::wire::{EdgeTopic, Topics};
use tokio::sync::{Semaphore, oneshot};

use crate::run::{CoreLink, FromEdge};
use crate::systems::{FromSystem, Intake};

/// Bytes of edges' messages that wait for the loop at the most; those beyond it are refused, and sent again.
const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;
/// Bytes that a message counts at the least.
const MIN_COST_BYTES: usize = 256;

/// Sees every publish of the controller's broker.
pub(super) struct EdgeTap {
    topics: Topics,
    core: CoreLink,
    commands: Intake,
    command: String,
    bytes: Arc<Semaphore>,
}

impl EdgeTap {
    pub(super) fn new(topics: Topics, core: CoreLink, commands: Intake) -> Self {
        let command = topics.command();
        Self { topics, core, commands, command, bytes: Arc::new(Semaphore::new(MAX_WAITING_BYTES)) }
    }

    fn author(&self, source: &Source) -> Option<EdgeId> {
        match source {
            Source::Client { client_id, .. } | Source::Will { client_id, .. } => {
                self.topics.edge_of_client_id(client_id)
            }
            Source::Local { .. } => None,
        }
    }
}

impl EdgeTap {
    /// A command of another system. It is for the controller alone, and never retained.
    fn command(&self, message: &Message) -> Offer {
        let (taken, then) = oneshot::channel();
        let command = FromSystem::new(&message.payload, message.retain, taken);
        if self.commands.try_send(command).is_err() {
            // Dropping `taken` refuses it: its sender has no acknowledgement, and sends it again.
            tracing::warn!(line.kind = "command-refused", "too many commands wait; one is refused");
        }
        Offer::Hold { then, fan_out: false }
    }
}

impl Tap for EdgeTap {
    fn offer(&self, message: &Arc<Message>, source: &Source) -> Offer {
        if *message.topic == *self.command && !matches!(source, Source::Local { .. }) {
            return self.command(message);
        }
        let (Some(author), Some((edge, topic))) = (self.author(source), self.topics.parse(&message.topic))
        else {
            return Offer::Pass;
        };
        let presence = match topic {
            EdgeTopic::Up => false,
            EdgeTopic::Presence => true,
            EdgeTopic::Down => return Offer::Pass,
        };
        let (taken, then) = oneshot::channel();
        // People may see presence. What an edge says on `up` is for the controller alone.
        let hold = Offer::Hold { then, fan_out: presence };
        if author != edge {
            // The gate's rights exclude it; here it costs nothing to be sure. Dropping `taken` refuses it.
            return hold;
        }
        let cost = u32::try_from(message.payload.len().max(MIN_COST_BYTES)).unwrap_or(u32::MAX);
        let Ok(bytes) = Arc::clone(&self.bytes).try_acquire_many_owned(cost) else {
            tracing::warn!(line.kind = "message-refused", edge.id = %edge, "too much waits for the controller; a message is refused and will be sent again");
            return hold;
        };
        let message = FromEdge { edge, presence, payload: message.payload.to_vec(), taken, _bytes: bytes };
        if let Err(message) = self.core.offer(message) {
            tracing::warn!(line.kind = "message-refused", edge.id = %message.edge, "too much waits for the controller; a message is refused and will be sent again");
        }
        hold
    }
}

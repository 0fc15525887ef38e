//! One application message and its quality of service, as taps, retained store and sessions share it.

use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// Bytes that a message's place in a queue costs beyond its topic and payload.
pub(crate) const ENTRY_BYTES: usize = 64;

/// Quality of service of a publish or a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Qos {
    /// Fire and forget.
    AtMostOnce = 0,
    /// Acknowledged with PUBACK.
    AtLeastOnce = 1,
    /// Acknowledged with PUBREC, PUBREL, PUBCOMP.
    ExactlyOnce = 2,
}

impl Qos {
    /// The level for its number on the wire; `None` above 2.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Qos::AtMostOnce),
            1 => Some(Qos::AtLeastOnce),
            2 => Some(Qos::ExactlyOnce),
            _ => None,
        }
    }
}

/// A published message. Cheap to share behind an `Arc`; never changed once offered to a tap.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Topic name: valid UTF-8, no wildcards, at most [`crate::Limits::max_topic_bytes`].
    pub topic: Arc<str>,
    /// Payload, its own allocation: keeping it keeps nothing else alive.
    pub payload: Bytes,
    /// Level at which it was published; a subscriber gets the lower of this and its own.
    pub qos: Qos,
    /// Published to be retained. Subscribers that are there already get it with the flag cleared.
    pub retain: bool,
    /// The publisher marked it as sent before.
    pub dup: bool,
}

impl Message {
    /// A message that is neither retained nor a duplicate.
    pub fn new(topic: impl Into<Arc<str>>, payload: impl Into<Bytes>, qos: Qos) -> Self {
        Self { topic: topic.into(), payload: payload.into(), qos, retain: false, dup: false }
    }

    /// The same message, to be retained.
    pub fn retained(mut self) -> Self {
        self.retain = true;
        self
    }

    /// Remaining length of the largest PUBLISH that carries it.
    pub(crate) fn packet_bytes(&self) -> usize {
        2 + self.topic.len() + 2 + self.payload.len()
    }

    /// Its topic and payload.
    pub(crate) fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len()
    }

    /// What it counts against the byte bounds of a queue.
    pub(crate) fn cost(&self) -> usize {
        self.bytes() + ENTRY_BYTES
    }
}

/// Shows the size of the payload, not the payload: it may be a secret, and it may be large.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic)
            .field("payload_bytes", &self.payload.len())
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("dup", &self.dup)
            .finish()
    }
}

//! Where messages from the remote broker go: the local broker, as the bridge sees it.

use std::{future::Future, pin::Pin};

use bytes::Bytes;

/// A message for the local broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalMessage {
    /// The local topic.
    pub topic: String,
    /// The payload as it came.
    pub payload: Bytes,
    /// 0 or 1.
    pub qos: u8,
    /// Retain it.
    pub retain: bool,
}

/// The local broker did not take a message; it is offered again.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the local broker did not take a message: {reason}")]
pub struct SinkError {
    /// Why, for people.
    pub reason: String,
}

/// Ends when the local broker answers for the message.
pub type SinkFuture<'a> = Pin<Box<dyn Future<Output = Result<(), SinkError>> + Send + 'a>>;

/// Takes messages for the local broker, one after the other. `Ok` is the message's end for the bridge.
pub trait LocalSink: Send + Sync + 'static {
    /// Hands over one message.
    fn publish(&self, message: LocalMessage) -> SinkFuture<'_>;
}

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

/// The local broker did not take a message.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SinkError {
    /// Not now: the message is offered again, and nothing behind it before.
    #[error("the local broker took no message: {0}")]
    Unavailable(String),
    /// Never this one, say because it is too large: it is dropped and counted.
    #[error("the local broker refused a message for good: {0}")]
    Refused(String),
}

/// Ends when the local broker answers for the message.
pub type SinkFuture<'a> = Pin<Box<dyn Future<Output = Result<(), SinkError>> + Send + 'a>>;

/// Takes messages for the local broker, one after the other. `Ok` is the message's end for the bridge.
pub trait LocalSink: Send + Sync + 'static {
    /// Hands over one message.
    fn publish(&self, message: LocalMessage) -> SinkFuture<'_>;
}

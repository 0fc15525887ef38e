//! What the owner is told about sessions. Called in order per client, never lost: it is a plain function call.

use crate::message::Qos;
use std::net::SocketAddr;
use std::sync::Arc;

/// Is told of each event by a direct call from the task that causes it; it must not block.
pub trait Watcher: Send + Sync + 'static {
    /// One event. `Connected` comes before the client gets its CONNACK; `Disconnected` after its will was
    /// published and before another connection of the same client id is let in.
    fn event(&self, event: &Event);
}

/// Something that happened to a session, or to the broker itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A client was let in.
    Connected {
        /// Its id.
        client_id: Arc<str>,
        /// The connection, unique for the life of the broker.
        connection: u64,
        /// Address of the other end.
        peer: SocketAddr,
        /// State from before was found (session present).
        resumed: bool,
    },
    /// A client subscribed, perhaps to what it held before. The subscriptions that a resumed session brings are not told
    /// one by one; see [`crate::Broker::connected`].
    Subscribed {
        /// Its id.
        client_id: Arc<str>,
        /// The connection.
        connection: u64,
        /// The filter.
        filter: Arc<str>,
        /// The level granted.
        qos: Qos,
    },
    /// A connection that was let in is gone.
    Disconnected {
        /// The client's id.
        client_id: Arc<str>,
        /// The connection.
        connection: u64,
        /// Why.
        reason: DisconnectReason,
    },
    /// The watchdog's canary did not come back: the port is open, but the broker behind it no longer works.
    /// Called from the watchdog's own thread, so that it arrives when the runtime is stuck. The owner logs it
    /// and ends the process for its supervisor to start again.
    Unhealthy {
        /// What did not answer, and for how long.
        why: String,
    },
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DisconnectReason {
    /// It sent DISCONNECT; its will is discarded.
    #[error("the client disconnected")]
    Client,
    /// The other end closed, or the network failed.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// Nothing came for one and a half keep-alive times.
    #[error("nothing was received for 1.5 keep-alive times")]
    KeepAlive,
    /// It did not read what was sent to it.
    #[error("no byte could be sent for the write timeout")]
    WriteTimeout,
    /// Another connection came with its client id.
    #[error("another connection took over the client id")]
    TakenOver,
    /// It broke the protocol or passed a limit.
    #[error("protocol violation: {0}")]
    Protocol(String),
    /// It published where it may not.
    #[error("publish to {topic:?} is not permitted")]
    NotPermitted {
        /// The topic.
        topic: Arc<str>,
    },
    /// A tap could not keep one of its messages; it will send it again.
    #[error("a message could not be taken and must be sent again")]
    TapRefused,
    /// The owner called [`crate::Broker::disconnect`].
    #[error("closed by the owner of the broker")]
    ByOwner,
    /// The broker stops; wills are discarded, since it is not the clients that went away.
    #[error("the broker stops")]
    Stopped,
}

/// A watcher that ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Watcher for Quiet {
    fn event(&self, _event: &Event) {}
}

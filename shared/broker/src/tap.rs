//! Taps: the owner sees each publish before it is acknowledged and before anybody else gets it, and may make
//! the acknowledgement wait until the message is safe.

use crate::message::Message;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Sees every publish of clients, of wills and of [`crate::Broker::publish`].
///
/// `offer` is called in the order of arrival per client, without any lock of the broker held. It must not
/// block: what takes time is answered with [`Offer::Hold`].
pub trait Tap: Send + Sync + 'static {
    /// Decides what happens to one message.
    fn offer(&self, message: &Arc<Message>, source: &Source) -> Offer;
}

/// A tap's answer. Messages of one client keep their order: what is passed behind a held message waits for it.
#[derive(Debug)]
pub enum Offer {
    /// Not interested: retained and delivered at once, then acknowledged.
    Pass,
    /// Interested: delivery and PUBACK (PUBREC for QoS 2) wait for `then`.
    Hold {
        /// Tells whether the message is safe. A dropped sender counts as [`TapResult::Refused`]. The broker drops
        /// the receiver when it gives up waiting (see [`crate::Limits::tap_grace`]): the client has no
        /// acknowledgement and will send the message again.
        then: oneshot::Receiver<TapResult>,
        /// False when the tap consumes the message: it is neither retained nor delivered.
        fan_out: bool,
    },
}

/// How a held message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TapResult {
    /// It is safe: deliver and acknowledge.
    Taken,
    /// It was not kept. A QoS 1 or 2 client is closed without acknowledgement so that it sends the message
    /// again; a QoS 0 message or a will is dropped and counted.
    Refused,
}

/// Where a message comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A connected client.
    Client {
        /// Its id.
        client_id: Arc<str>,
        /// The connection, unique for the life of the broker.
        connection: u64,
    },
    /// The will of a client that is gone.
    Will {
        /// Its id.
        client_id: Arc<str>,
        /// The connection that left the will.
        connection: u64,
    },
    /// [`crate::Broker::publish`].
    Local {
        /// The caller's own number, so that a tap can recognise what its own side publishes.
        origin: u64,
    },
}

/// A tap that passes everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct PassAll;

impl Tap for PassAll {
    fn offer(&self, _message: &Arc<Message>, _source: &Source) -> Offer {
        Offer::Pass
    }
}

//! How messages travel between the controller and its edges.
//!
//! Owns the connection between MQTT and the loop: what comes from an edge is vouched for and handed to the loop, what
//! the core wants sent is sent. Decides nothing about what the messages mean.
//!
//! [`Door`] is the embedded broker. A transport over a broker of somebody else comes beside it.

use std::future::Future;
use std::pin::Pin;

use tidegate_model::ids::EdgeId;
use tidegate_model::wire::ControllerPresence;

mod door;
mod gate;
#[cfg(test)]
mod nowhere;
mod tap;

pub(crate) use door::Door;
#[cfg(test)]
pub(crate) use nowhere::Nowhere;

/// What the loop needs of a transport. Messages of edges come in through [`crate::run::CoreLink::offer`].
pub(crate) trait Transport: Send {
    /// Sends an envelope on the edge's `down` topic, QoS 1. It does not wait, and may lose the message: the core sends it
    /// again until the edge answers.
    fn send(&self, edge: &EdgeId, payload: Vec<u8>);

    /// Publishes the controller's presence, retained.
    fn announce<'a>(
        &'a self,
        presence: &'a ControllerPresence,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

    /// Ends the edge's connection, where the transport holds it.
    fn disconnect(&self, edge: &EdgeId);

    /// Ends everything within a second.
    fn stop(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

//! How messages travel between the controller and its edges.
//!
//! Owns the connection between MQTT and the loop: what comes from an edge is vouched for and handed to the loop, what
//! the core wants sent is sent. Decides nothing about what the messages mean.
//!
//! [`Door`] is the embedded broker; [`External`] is a client of a broker of somebody else. Both give the loop the same
//! inputs.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;

use serde::Serialize;
use tidegate_broker::Health;
use tidegate_model::ids::EdgeId;
use tidegate_model::wire::ControllerPresence;
use tokio::sync::watch;

mod door;
mod external;
mod gate;
#[cfg(test)]
mod nowhere;
mod tap;

pub(crate) use door::{Admission, Door};
pub(crate) use external::{External, Lines};
#[cfg(test)]
pub(crate) use nowhere::Nowhere;

/// What the loop needs of a transport. Messages of edges come in through [`crate::run::CoreLink`].
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

/// A message that is for whoever may read it.
#[derive(Debug, Clone)]
pub(crate) struct Publication {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) retain: bool,
}

/// Publishes with QoS 1, beside the loop.
pub(crate) trait Outlet: Send + Sync {
    /// Hands a message to the broker, or to what sends it there; waits while too many wait. `false`: the broker is not
    /// there, or does not take it.
    fn publish(&self, publication: Publication) -> Pin<Box<dyn Future<Output = bool> + Send + '_>>;
}

/// How the broker is, for whoever asks.
#[derive(Clone)]
pub(crate) enum BrokerWatch {
    /// The controller's own.
    Embedded {
        /// Where it listens.
        at: SocketAddr,
        /// As its watchdog sees it.
        health: watch::Receiver<Health>,
    },
    /// One of somebody else.
    External {
        /// Its URL, without the controller's login.
        url: String,
        /// The connections to it.
        lines: watch::Receiver<Lines>,
    },
}

/// The broker as people are shown it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(crate) struct BrokerView {
    /// `embedded` or `external`.
    pub(crate) kind: &'static str,
    /// Where it is: an address, or a URL without a login.
    pub(crate) address: String,
    /// Whether messages can pass.
    pub(crate) up: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
    /// Messages that were not for us or unreadable, and were dropped; only a broker of somebody else lets them pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dropped_messages: Option<u64>,
}

impl BrokerWatch {
    /// How it is now.
    pub(crate) fn view(&self) -> BrokerView {
        match self {
            Self::Embedded { at, health } => {
                let detail = match &*health.borrow() {
                    Health::Healthy => None,
                    Health::Unhealthy(why) => Some(why.clone()),
                };
                let (up, address) = (detail.is_none(), at.to_string());
                BrokerView { kind: "embedded", address, up, detail, dropped_messages: None }
            }
            Self::External { url, lines } => {
                let lines = lines.borrow();
                let detail = lines.down().map(str::to_owned);
                let (up, address) = (detail.is_none(), url.clone());
                BrokerView { kind: "external", address, up, detail, dropped_messages: Some(lines.dropped()) }
            }
        }
    }

    /// Waits until the broker was reached once more than `seen` times, and counts on: what was published before may be
    /// forgotten. The embedded broker lives as long as the process.
    pub(crate) async fn reached_again(&mut self, seen: &mut u64) {
        let times = match self {
            Self::Embedded { .. } => None,
            Self::External { lines, .. } => {
                let again = lines.wait_for(|lines| lines.times_reached() != *seen).await;
                again.ok().map(|lines| lines.times_reached())
            }
        };
        match times {
            Some(times) => *seen = times,
            // None will come; where the transport is gone the loop ended, which says why.
            None => std::future::pending().await,
        }
    }

    /// Where gateways find it: the port of the embedded one, or the URL of the other.
    pub(crate) fn for_gateways(&self) -> ForGateways {
        match self {
            Self::Embedded { at, .. } => ForGateways { mqtt_port: Some(at.port()), broker_url: None },
            Self::External { url, .. } => ForGateways { mqtt_port: None, broker_url: Some(url.clone()) },
        }
    }
}

/// Where a gateway finds the broker, as the answer that makes an edge tells it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(crate) struct ForGateways {
    /// Port of the controller's own broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mqtt_port: Option<u16>,
    /// URL of a broker of somebody else, where the edge needs an account of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) broker_url: Option<String>,
}

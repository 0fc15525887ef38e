//! The embedded broker as a transport: nothing between edge and controller passes through anybody else.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tidegate_broker::{
    Broker, BrokerConfig, Event, Health, Limits, Message, Qos, SendError, StartError, Stats, Watcher,
};
use tidegate_model::ids::EdgeId;
use tidegate_model::limits::{MAX_ENVELOPE_BYTES, MAX_TOPIC_BYTES};
use tidegate_model::wire::{ControllerPresence, EdgeTopic, Topics};
use tokio::sync::watch;

use super::gate::EdgeGate;
use super::tap::EdgeTap;
use super::{Outlet, Publication, Transport};
use crate::auth::{AdminAuth, Credentials, RefusedLogins};
use crate::run::{Clock, CoreLink};
use crate::systems::Intake;

/// Edges and onlookers that are connected at the same time at the most. What the system allows in open files may be less.
const MAX_CONNECTIONS: usize = 16_384;
/// Room for topic and headers beside the largest envelope, in bytes.
const PACKET_OVERHEAD_BYTES: usize = MAX_TOPIC_BYTES + 1_024;
/// Messages of one edge that wait for the loop at the most; then the edge is not read.
const MAX_UNACKED_PER_EDGE: usize = 64;
/// Retained messages at the most: the presence of each edge, the state of each placement.
const MAX_RETAINED: usize = 300_000;
/// Bytes of all of them together at the most.
const MAX_RETAINED_BYTES: usize = 256 * 1024 * 1024;
/// Number of what this side publishes locally.
const ORIGIN: u64 = 1;

/// How long the process has, once the broker does not answer, to end in good order. If the runtime itself is stuck it
/// cannot; then it is ended without order, for its supervisor to start it again.
const STUCK_GRACE: Duration = Duration::from_secs(10);
/// How often, and for how long each time, a stop waits for the last local publish.
const LAST_PUBLISHES: u32 = 50;
const LAST_PUBLISH: Duration = Duration::from_millis(5);
/// Exit code of a process that was stuck (EX_SOFTWARE).
const STUCK_EXIT: i32 = 70;

/// What the gate asks of who wants in.
pub(crate) struct Admission {
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) admin: AdminAuth,
    pub(crate) refused: Arc<RefusedLogins>,
    pub(crate) clock: Clock,
}

/// The embedded broker, with our gate and tap.
pub(crate) struct Door {
    broker: Arc<Broker>,
    topics: Topics,
    ended: Arc<AtomicBool>,
}

impl Door {
    /// Opens the broker. Its first client may come before this returns; it waits for the loop.
    pub(crate) async fn start(
        listen: SocketAddr,
        topics: Topics,
        admission: Admission,
        core: CoreLink,
        commands: Intake,
    ) -> Result<Self, StartError> {
        let mut config = BrokerConfig::new(listen);
        config.limits = Limits {
            max_connections: MAX_CONNECTIONS,
            max_packet_bytes: MAX_ENVELOPE_BYTES + PACKET_OVERHEAD_BYTES,
            max_unacked_taps_per_client: MAX_UNACKED_PER_EDGE,
            max_retained_messages: MAX_RETAINED,
            max_retained_bytes: MAX_RETAINED_BYTES,
            ..Limits::default()
        };
        let gate = EdgeGate { topics: topics.clone(), core: core.clone(), admission };
        let tap = EdgeTap::new(topics.clone(), core, commands);
        let ended = Arc::new(AtomicBool::new(false));
        let watcher = Watch { ended: Arc::clone(&ended) };
        let broker = Broker::start(config, Arc::new(gate), Arc::new(tap), Arc::new(watcher)).await?;
        Ok(Self { broker: Arc::new(broker), topics, ended })
    }

    /// Where it listens.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.broker.local_addr()
    }

    /// Reads its counters, for metrics.
    pub(crate) fn stats_reader(&self) -> impl Fn() -> Stats + Send + Sync + use<> {
        self.broker.stats_reader()
    }

    /// Publishes for others. It does not keep the broker from being stopped.
    pub(crate) fn outlet(&self) -> Arc<dyn Outlet> {
        Arc::new(DoorOutlet(Arc::downgrade(&self.broker)))
    }

    /// How it is, as its watchdog sees it.
    pub(crate) fn health(&self) -> watch::Receiver<Health> {
        self.broker.health()
    }
}

impl Transport for Door {
    fn send(&self, edge: &EdgeId, payload: Vec<u8>) {
        let message = Message::new(self.topics.edge(edge, EdgeTopic::Down), payload, Qos::AtLeastOnce);
        match self.broker.send_to(&self.topics.client_id(edge), message) {
            Ok(()) => {}
            Err(error @ (SendError::NotConnected | SendError::NotSubscribed)) => {
                tracing::debug!(edge.id = %edge, %error, "a message was not sent; it is sent again when the edge is back");
            }
            Err(error @ (SendError::Full | SendError::Invalid)) => {
                tracing::warn!(line.kind = "message-not-sent", edge.id = %edge, %error, "a message was not sent");
            }
        }
    }

    fn announce<'a>(
        &'a self,
        presence: &'a ControllerPresence,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            let payload = match serde_json::to_vec(presence) {
                Ok(payload) => payload,
                Err(error) => return tracing::error!(%error, "the controller's presence cannot be written"),
            };
            let message = Message::new(self.topics.controller(), payload, Qos::AtLeastOnce).retained();
            if let Err(error) = self.broker.publish(message, ORIGIN).await {
                tracing::error!(%error, "the controller's presence was not published");
            }
        })
    }

    fn disconnect(&self, edge: &EdgeId) {
        self.broker.disconnect(&self.topics.client_id(edge));
    }

    fn stop(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            self.ended.store(true, Ordering::SeqCst);
            let mut broker = self.broker;
            // Somebody may be publishing through an outlet, which takes a moment and no longer.
            for _ in 0..LAST_PUBLISHES {
                match Arc::try_unwrap(broker) {
                    Ok(broker) => return broker.stop().await,
                    Err(shared) => broker = shared,
                }
                tokio::time::sleep(LAST_PUBLISH).await;
            }
            tracing::warn!("the broker is closed while something is still being published");
        })
    }
}

/// Publishes on the embedded broker.
struct DoorOutlet(Weak<Broker>);

impl Outlet for DoorOutlet {
    fn publish(&self, publication: Publication) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(async move {
            let Some(broker) = self.0.upgrade() else { return false };
            let Publication { topic, payload, retain } = publication;
            let message = Message::new(topic, payload, Qos::AtLeastOnce);
            let message = if retain { message.retained() } else { message };
            let published = broker.publish(message, ORIGIN).await;
            published.inspect_err(|error| tracing::warn!(line.kind = "message-not-published", %error, "a message was not published")).is_ok()
        })
    }
}

/// Tells the log of clients that come and go. That an edge is there is for its own messages to say.
struct Watch {
    ended: Arc<AtomicBool>,
}

impl Watch {
    /// Called on the watchdog's own thread, so that it works when nothing else does.
    fn end_if_stuck(&self, why: &str) {
        tracing::error!(why, "the controller's broker does not answer");
        let ended = Arc::clone(&self.ended);
        let last_resort = move || {
            std::thread::sleep(STUCK_GRACE);
            if !ended.load(Ordering::SeqCst) {
                tracing::error!("the process is stuck and ends without order");
                std::process::exit(STUCK_EXIT);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("tidegate-stuck".to_owned()).spawn(last_resort) {
            tracing::error!(%error, "no thread could be started to end a stuck process");
        }
    }
}

impl Watcher for Watch {
    fn event(&self, event: &Event) {
        match event {
            Event::Connected { client_id, peer, .. } => {
                tracing::debug!(client = %client_id, %peer, "a client connected")
            }
            Event::Subscribed { client_id, filter, .. } => {
                tracing::debug!(client = %client_id, %filter, "a client subscribed")
            }
            Event::Disconnected { client_id, reason, .. } => {
                tracing::debug!(client = %client_id, %reason, "a client's connection ended");
            }
            Event::Unhealthy { why } => self.end_if_stuck(why),
        }
    }
}

//! The broker as its owner holds it: start, publish, send, look, stop. Owns the listener and the tasks.

use crate::config::{BrokerConfig, Limits};
use crate::connect::NotAdmitted;
use crate::connection;
use crate::files;
use crate::filter::{self, TopicError};
use crate::gate::Gate;
use crate::hub::{ConnectedClient, Delivery, Hub, SendError};
use crate::keeper::Keeper;
use crate::lobby::Lobby;
use crate::message::Message;
use crate::stats::{Stats, count};
use crate::tap::{Offer, Source, Tap, TapResult};
use crate::watchdog::{self, Canary, Health};
use crate::watcher::{DisconnectReason, Watcher};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// Time that connections have to end when the broker stops; then they are dropped.
const STOP_TIMEOUT: Duration = Duration::from_millis(600);
/// How often retained messages are written and sessions looked at for expiry.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Pause of the accept loop after an error such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Largest packet a client can send, whatever the limit says.
const MQTT_MAX_PACKET_BYTES: usize = 268_435_455;
/// Longest topic that fits its two-byte length.
const MQTT_MAX_TOPIC_BYTES: usize = 65_535;

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The listener could not be opened.
    #[error(
        "listening for MQTT clients on {address}: {source}; choose another address, or stop what uses this one"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The state directory could not be used.
    #[error("opening the broker's state directory {}: {source}; make it readable and writable, or set it aside", dir.display())]
    State {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The watchdog's thread could not be started.
    #[error("starting the broker's watchdog thread: {0}")]
    Watchdog(io::Error),
}

/// Why a local publish was not delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The topic is not valid.
    #[error("publishing locally to {topic:?}: {source}")]
    Topic {
        /// The topic.
        topic: Arc<str>,
        /// What is wrong with it.
        source: TopicError,
    },
    /// The message is larger than a packet may be.
    #[error(
        "publishing locally: a message of {bytes} bytes is larger than the {limit} bytes a packet may have"
    )]
    TooLarge {
        /// Bytes of its packet.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// A tap did not keep it; it went nowhere.
    #[error("publishing locally: the message was refused by the tap of the broker")]
    Refused,
}

/// What every connection needs.
pub(crate) struct Context {
    pub hub: Arc<Hub>,
    pub limits: Limits,
    pub gate: Arc<dyn Gate>,
    pub tap: Arc<dyn Tap>,
    pub watcher: Arc<dyn Watcher>,
    pub stopping: CancellationToken,
    lobby: Arc<Lobby>,
    seats: Arc<Semaphore>,
    /// The last connection found no seat: the log says so once.
    is_full: AtomicBool,
    keeper: Option<Keeper>,
    connections: AtomicU64,
}

impl Context {
    /// A number that no other connection has.
    pub fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Counters and sizes.
    fn stats(&self) -> Stats {
        Stats { connecting: self.lobby.len(), ..self.hub.stats() }
    }

    /// A share of the bound on connections; `None` when there is none left.
    pub fn seat(&self) -> Option<OwnedSemaphorePermit> {
        let seat = Arc::clone(&self.seats).try_acquire_owned().ok();
        if seat.is_none() != self.is_full.swap(seat.is_none(), Ordering::Relaxed) && seat.is_none() {
            let limit = self.limits.max_connections;
            tracing::warn!(
                line.kind = "broker-full",
                limit,
                "too many connections, new ones are told to come back later"
            );
        }
        seat
    }

    /// Returns when changes of persistent sessions are on disk, if they are kept there.
    pub async fn save_sessions(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.save_sessions().await;
        }
    }
}

/// A running broker. Dropping it closes everything at once, without waiting and without a last write of retained
/// messages; [`Broker::stop`] is the orderly way.
pub struct Broker {
    context: Arc<Context>,
    local_addr: SocketAddr,
    accepting: Option<JoinHandle<()>>,
    housekeeping: JoinHandle<()>,
    health: watch::Receiver<Health>,
    /// Dropped first, so that the watchdog does not take a stop for a death.
    watchdog: Option<std::sync::mpsc::SyncSender<()>>,
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.watchdog = None;
        self.context.stopping.cancel();
        self.housekeeping.abort();
    }
}

impl Broker {
    /// Reads the state directory, opens the listener, and serves. Call it when the taps stand: the first client may
    /// come before it returns.
    pub async fn start(
        config: BrokerConfig,
        gate: Arc<dyn Gate>,
        tap: Arc<dyn Tap>,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Self, StartError> {
        let BrokerConfig { listen, mut limits, state_dir } = config;
        limits.max_topic_bytes = limits.max_topic_bytes.min(MQTT_MAX_TOPIC_BYTES);
        limits.max_packet_bytes = limits.max_packet_bytes.min(MQTT_MAX_PACKET_BYTES);
        files::fit_to_open_files(&mut limits);
        let hub = Arc::new(Hub::new(&limits));
        let bind = |source| StartError::Bind { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(bind)?;
        let local_addr = listener.local_addr().map_err(bind)?;
        let keeper = match state_dir {
            Some(dir) => Some(open_state(dir, Arc::clone(&hub)).await?),
            None => None,
        };
        let (stop_watchdog, stopped) = std::sync::mpsc::sync_channel(1);
        let (canaries, canary) = mpsc::channel(1);
        let (health_sender, health) = watch::channel(Health::Healthy);
        watchdog::start(limits.watchdog_interval, canaries, health_sender, Arc::clone(&watcher), stopped)
            .map_err(StartError::Watchdog)?;
        let stopping = CancellationToken::new();
        let connections = AtomicU64::new(0);
        let lobby = Arc::new(Lobby::new(&limits));
        let seats = Arc::new(Semaphore::new(limits.max_connections.min(Semaphore::MAX_PERMITS)));
        let is_full = AtomicBool::new(false);
        let context = Arc::new(Context {
            hub,
            limits,
            gate,
            tap,
            watcher,
            stopping,
            lobby,
            seats,
            is_full,
            keeper,
            connections,
        });
        let accepting = tokio::spawn(accept_loop(listener, Arc::clone(&context), canary));
        let housekeeping = tokio::spawn(keep_house(Arc::clone(&context)));
        tracing::info!(%local_addr, "the embedded broker listens");
        Ok(Self {
            context,
            local_addr,
            accepting: Some(accepting),
            housekeeping,
            health,
            watchdog: Some(stop_watchdog),
        })
    }

    /// The address it listens on, with the port the system chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Publishes a message of the owner's: offered to the tap, retained, delivered. Returns when the tap has taken it and
    /// it is in the queues of the sessions; dropping the future before that may leave it delivered or not.
    pub async fn publish(&self, message: Message, origin: u64) -> Result<Delivery, PublishError> {
        let limits = &self.context.limits;
        filter::check_name(&message.topic, limits.max_topic_bytes, limits.max_topic_levels)
            .map_err(|source| PublishError::Topic { topic: Arc::clone(&message.topic), source })?;
        let bytes = message.packet_bytes();
        if bytes > limits.max_packet_bytes {
            return Err(PublishError::TooLarge { bytes, limit: limits.max_packet_bytes });
        }
        let message = Arc::new(message);
        let fan_out = match self.context.tap.offer(&message, &Source::Local { origin }) {
            Offer::Pass => true,
            Offer::Hold { then, fan_out } => match then.await {
                Ok(TapResult::Taken) => fan_out,
                Ok(TapResult::Refused) | Err(_) => return Err(PublishError::Refused),
            },
        };
        Ok(if fan_out { self.context.hub.commit(&message) } else { Delivery::default() })
    }

    /// Queues a message for one connected client that holds a subscription matching its topic, past taps, retained
    /// messages and everybody else.
    pub fn send_to(&self, client_id: &str, message: Message) -> Result<(), SendError> {
        let limits = &self.context.limits;
        let topic = filter::check_name(&message.topic, limits.max_topic_bytes, limits.max_topic_levels);
        if topic.is_err() || message.packet_bytes() > limits.max_packet_bytes {
            return Err(SendError::Invalid);
        }
        self.context.hub.send_to(client_id, Arc::new(message))
    }

    /// The clients that are connected now, by client id.
    pub fn connected(&self) -> Vec<ConnectedClient> {
        self.context.hub.connected()
    }

    /// Closes a client's connection; its will is published, its session stays if it is persistent. False when it is not
    /// connected.
    pub fn disconnect(&self, client_id: &str) -> bool {
        self.context.hub.disconnect(client_id, DisconnectReason::ByOwner)
    }

    /// Counters and sizes.
    pub fn stats(&self) -> Stats {
        self.context.stats()
    }

    /// Reads [`Broker::stats`] from elsewhere, also after the broker stopped.
    pub fn stats_reader(&self) -> impl Fn() -> Stats + Send + Sync + use<> {
        let context = Arc::clone(&self.context);
        move || context.stats()
    }

    /// How the broker is, as its watchdog sees it; see also [`crate::Event::Unhealthy`].
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Closes the listener and all connections within a second, then writes what the state directory lacks. MQTT 3.1.1
    /// has no word for it: clients see their connection close. Wills are discarded and counted: it is not the clients that
    /// went away.
    pub async fn stop(mut self) {
        self.watchdog = None;
        self.context.stopping.cancel();
        if let Some(accepting) = self.accepting.take() {
            // It bounds its own time.
            if let Err(error) = accepting.await {
                tracing::error!(%error, "the accept loop of the broker ended badly");
            }
        }
        self.housekeeping.abort();
        if let Some(keeper) = &self.context.keeper {
            keeper.save_sessions().await;
            keeper.save_retained().await;
        }
        tracing::info!(local_addr = %self.local_addr, "the embedded broker stopped");
    }
}

async fn open_state(dir: PathBuf, hub: Arc<Hub>) -> Result<Keeper, StartError> {
    let path = dir.clone();
    let opened = tokio::task::spawn_blocking(move || Keeper::open(&path, hub)).await;
    opened
        .unwrap_or_else(|error| Err(io::Error::other(error)))
        .map_err(|source| StartError::State { dir, source })
}

async fn accept_loop(listener: TcpListener, context: Arc<Context>, mut canaries: mpsc::Receiver<Canary>) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = context.stopping.cancelled() => break,
            Some(canary) = canaries.recv() => {
                context.hub.canary();
                let _ = canary.try_send(());
            }
            Some(ended) = tasks.join_next() => log_panic(ended, &context),
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => welcome(socket, peer, &context, &mut tasks),
                Err(error) => {
                    let total = context.hub.counters.accept_errors.fetch_add(1, Ordering::Relaxed) + 1;
                    tracing::warn!(line.kind = "accept-failed", %error, total, "accepting a connection failed, it is tried again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    context.hub.disconnect_all(&DisconnectReason::Stopped);
    let all_ended = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_TIMEOUT, all_ended).await.is_err() {
        tasks.shutdown().await;
    }
}

/// Serves a new connection, or closes it when too many wait for their CONNECT.
fn welcome(socket: TcpStream, peer: SocketAddr, context: &Arc<Context>, tasks: &mut JoinSet<()>) {
    count(&context.hub.counters.accepted, 1);
    let Some(pass) = context.lobby.enter(peer, Instant::now()) else {
        tracing::debug!(%peer, "too many connections wait for their CONNECT, a new one was closed");
        return context.hub.counters.refuse(&NotAdmitted::Crowded);
    };
    if let Err(error) = socket.set_nodelay(true) {
        context.hub.counters.refuse(&NotAdmitted::Ended);
        return tracing::debug!(%peer, %error, "a connection was gone before it was served");
    }
    tasks.spawn(connection::serve(socket, peer, Arc::clone(context), pass));
}

fn log_panic(ended: Result<(), tokio::task::JoinError>, context: &Context) {
    if let Err(error) = ended
        && error.is_panic()
    {
        count(&context.hub.counters.panics, 1);
        tracing::error!(line.kind = "connection-panicked", %error, "a connection's task panicked, its client was closed");
    }
}

async fn keep_house(context: Arc<Context>) {
    loop {
        tokio::time::sleep(HOUSEKEEPING).await;
        if context.hub.expire(Instant::now(), context.limits.session_expiry) {
            context.save_sessions().await;
        }
        if let Some(keeper) = &context.keeper {
            keeper.save_retained().await;
        }
    }
}

//! Puts the controller together, runs it until it is told to stop, and takes it apart.
//!
//! Owns the order of starting and stopping. The loop itself is in [`core_loop`], the way into it in [`core_link`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidegate_broker::Health;
use tidegate_cloud_core::Controller;
use tidegate_model::ids::AccountId;
use tidegate_model::wire::Topics;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::auth::{AdminAuth, Credentials, RefusedLogins, Token};
use crate::data_dir::{DataDir, DataDirError};
use crate::events::Events;
use crate::http::{self, Access, App, Bounded, BrokerStats, Parts};
use crate::metrics::Metrics;
use crate::settings::{Settings, StoreKind};
use crate::store::{Measured, Memory, Sled, Store, StoreError};
use crate::systems::{self, Changed, Commander, StateKeeper};
use crate::transport::{Admission, BrokerWatch, Door, External, Outlet, Transport};

mod clock;
mod core_link;
mod core_loop;
#[cfg(test)]
#[allow(clippy::wildcard_enum_match_arm, reason = "a test names what it wants; anything else fails it")]
mod tests;

pub(crate) use clock::Clock;
#[cfg(test)]
pub(crate) use core_link::channel as core_channel;
pub(crate) use core_link::{CoreLink, FromEdge, Stopped};
pub(crate) use core_loop::CoreLoop;

/// How long HTTP answers that are under way may take when the controller stops.
const HTTP_STOP_TIMEOUT: Duration = Duration::from_millis(500);
/// How often the store is asked how it is; a write that fails is noticed at once.
const HEALTH_EVERY: Duration = Duration::from_secs(5);
/// Name of the store's directory in the data directory.
pub(crate) const STORE_DIR: &str = "store";

/// What a caller learns when the controller serves.
#[derive(Debug, Clone)]
pub struct Ready {
    /// Where the API listens.
    pub http: SocketAddr,
    /// Where the controller's broker listens; `None`: it uses one of somebody else.
    pub mqtt: Option<SocketAddr>,
    /// The broker in words: the address above, or the URL of the other one without its password.
    pub broker: String,
    /// The administrator's token, where the data directory still holds it in clear.
    pub admin_token: Option<Token>,
    /// The file that holds it.
    pub admin_token_file: PathBuf,
    /// Tells whether the loop goes round.
    pub alive: Alive,
}

/// A way to ask the loop whether it goes round.
#[derive(Clone)]
pub struct Alive(CoreLink);

impl std::fmt::Debug for Alive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Alive")
    }
}

impl Alive {
    /// Returns when the loop has answered, after everything that waited before is durable; `false`: it ended.
    pub async fn answers(&self) -> bool {
        self.0.read(|_, _| ()).await.is_ok()
    }
}

/// Why the controller did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// There is nothing to export.
    #[error("there is no store in {}; choose the data directory of a controller (--data-dir)", .dir.display())]
    NoStore {
        /// The data directory.
        dir: PathBuf,
    },
    /// The store cannot be used, or a write failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The API's address cannot be used.
    #[error("listening for HTTP clients on {address}: {}; {}", crate::os::plain(.source), bind_help(.source))]
    Http {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The API ended.
    #[error("serving the API failed: {0}")]
    HttpServe(std::io::Error),
    /// The controller's broker cannot start.
    #[error("the controller's broker: {0}")]
    Broker(#[from] tidegate_broker::StartError),
    /// The broker's watchdog raised the alarm.
    #[error("the controller's broker does not answer any more ({0}); the process ends to be started again")]
    BrokerUnhealthy(String),
    /// A defect: the loop ended in a panic.
    #[error("the controller's loop failed: {0}; this is a defect of tidegate, please report it")]
    Loop(String),
}

fn bind_help(source: &std::io::Error) -> &'static str {
    if source.kind() == std::io::ErrorKind::AddrInUse {
        "stop what uses this address, or choose another one (--http)"
    } else if source.kind() == std::io::ErrorKind::PermissionDenied {
        "ports below 1024 need a privilege; choose another one (--http)"
    } else {
        "choose another address (--http)"
    }
}

/// What carries messages, and what is known of it.
struct Carrier {
    transport: Box<dyn Transport>,
    outlet: Arc<dyn Outlet>,
    broker: BrokerWatch,
    broker_stats: Option<BrokerStats>,
}

/// Runs the controller until `stop` is cancelled, then ends within 2 seconds. `ready` is sent once API and broker serve.
///
/// # Errors
/// [`RunError`]: it could not start, or had to stop by itself: after a failed write nothing that it says could be
/// trusted, so the process has to end and to be started again.
pub async fn run(
    settings: Settings,
    stop: CancellationToken,
    ready: oneshot::Sender<Ready>,
) -> Result<(), RunError> {
    let dir = DataDir::open(&settings.data_dir)?;
    let (admin, admin_token) = AdminAuth::open(&dir)?;
    let bind = |source| RunError::Http { address: settings.http, source };
    let listener = TcpListener::bind(settings.http).await.map_err(bind)?;
    let http_addr = listener.local_addr().map_err(bind)?;

    let metrics = Metrics::default();
    let store = open_store(&settings, &dir).await?;
    let store: Arc<dyn Store> = Arc::new(Measured::new(store, metrics.clone()));
    let clock = Clock::start();
    let account = AccountId::default_account();
    let snapshot = store.load().await?;
    let core_settings = tidegate_cloud_core::Settings { account: account.clone(), ..Default::default() };
    let (controller, first) =
        Controller::restore(core_settings, snapshot, getrandom::u64().unwrap_or_default(), clock.now());
    store.apply(first.writes).await?;

    let (link, inbox) = core_link::channel();
    let alive = Alive(link.clone());
    let credentials = Arc::new(Credentials::default());
    let events = Arc::new(Events::new(controller.epoch()));
    let refused = Arc::new(RefusedLogins::new(Arc::clone(&events)));
    let topics = Topics::new(account);
    let (commands, commands_in) = systems::intake();
    let (strays, strays_in) = systems::strays();
    let Carrier { transport, outlet, broker, broker_stats } = match &settings.broker {
        None => {
            let (credentials, admin, refused) =
                (Arc::clone(&credentials), admin.clone(), Arc::clone(&refused));
            let admission = Admission { credentials, admin, refused, clock };
            let door = Door::start(settings.mqtt, topics.clone(), admission, link.clone(), commands).await?;
            Carrier {
                outlet: door.outlet(),
                broker: BrokerWatch::Embedded { at: door.local_addr(), health: door.health() },
                broker_stats: Some(Arc::new(door.stats_reader())),
                transport: Box::new(door),
            }
        }
        Some(external) => {
            let epoch = controller.epoch();
            let transport = External::start(external, topics.clone(), epoch, link.clone(), commands, strays);
            Carrier {
                outlet: transport.outlet(),
                broker: BrokerWatch::External { url: external.public_url(), lines: transport.lines() },
                broker_stats: None,
                transport: Box::new(transport),
            }
        }
    };
    let changed = Arc::new(Changed::default());
    let commander = Commander::new(link.clone(), topics.clone(), Arc::clone(&outlet));
    let states = StateKeeper::new(link.clone(), topics, outlet, Arc::clone(&changed), broker.clone());
    let closing = stop.child_token();
    let app = App::new(Parts {
        core: link,
        store: Arc::clone(&store),
        admin,
        events: Arc::clone(&events),
        broker: broker.clone(),
        refused: settings.broker.is_none().then_some(refused),
        broker_stats,
        metrics: metrics.clone(),
        access: Access { rate: settings.http_rate, metrics_public: settings.metrics_public },
        stopping: closing.clone(),
    });
    let core_loop = CoreLoop {
        controller,
        inbox,
        store: Arc::clone(&store),
        transport,
        credentials,
        events,
        changed,
        clock,
        metrics,
    };

    let serving = http::serve(Bounded::new(listener), http::router(app), closing.clone());
    let mut http_task = tokio::spawn(serving);
    let loop_stop = CancellationToken::new();
    let mut loop_task = tokio::spawn(core_loop.run(first.effects, loop_stop.clone()));
    // They end with the loop: without it there is nothing to tell.
    let beside = [tokio::spawn(commander.run(commands_in)), tokio::spawn(states.run(strays_in))];

    let (mqtt, shown) = match (&broker, &settings.broker) {
        (_, Some(external)) => (None, external.to_string()),
        (BrokerWatch::Embedded { at, .. }, None) => (Some(*at), at.to_string()),
        (BrokerWatch::External { url, .. }, None) => (None, url.clone()),
    };
    tracing::info!(http = %http_addr, broker = %shown, store = %settings.store, "the controller serves");
    let told = Ready {
        http: http_addr,
        mqtt,
        broker: shown,
        admin_token,
        admin_token_file: settings.admin_token_file(),
        alive,
    };
    // A caller that does not wait for it has no use for it.
    let _ = ready.send(told);

    let (ended, loop_ended) = tokio::select! {
        biased;
        () = stop.cancelled() => (Ok(()), false),
        ended = &mut loop_task => (loop_result(ended), true),
        error = ailing(&*store, HEALTH_EVERY) => (Err(error.into()), false),
        why = unhealthy(broker) => (Err(RunError::BrokerUnhealthy(why)), false),
        ended = &mut http_task => (Err(http_error(ended)), false),
    };
    closing.cancel();
    if !http_task.is_finished() && tokio::time::timeout(HTTP_STOP_TIMEOUT, &mut http_task).await.is_err() {
        http_task.abort();
    }
    loop_stop.cancel();
    let stopped = if loop_ended { Ok(()) } else { loop_result(loop_task.await) };
    for task in beside {
        task.abort();
    }
    tracing::info!("the controller stopped");
    ended.and(stopped)
}

fn http_error(ended: Result<(), tokio::task::JoinError>) -> RunError {
    let error = match ended {
        Ok(()) => std::io::Error::other("it ended by itself"),
        Err(error) => std::io::Error::other(error),
    };
    RunError::HttpServe(error)
}

pub(crate) async fn open_store(settings: &Settings, dir: &DataDir) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match settings.store {
        StoreKind::Memory => Arc::new(Memory::default()),
        StoreKind::Sled => Arc::new(Sled::open(dir.join(STORE_DIR), settings.cache_mib).await?),
    })
}

/// Waits until the store is not well any more: its disk fails, its file is gone.
async fn ailing(store: &dyn Store, every: Duration) -> StoreError {
    loop {
        tokio::time::sleep(every).await;
        if let Err(error) = store.health().await {
            tracing::error!(%error, "the store is not well; the controller stops");
            return error;
        }
    }
}

/// Waits until the watchdog raises the alarm. A broker of somebody else is waited for, however long it is away.
async fn unhealthy(broker: BrokerWatch) -> String {
    let mut health = match broker {
        BrokerWatch::Embedded { health, .. } => health,
        BrokerWatch::External { .. } => return std::future::pending().await,
    };
    loop {
        if let Health::Unhealthy(why) = &*health.borrow_and_update() {
            return why.clone();
        }
        if health.changed().await.is_err() {
            // The broker is gone because the loop ended, which says why.
            std::future::pending::<()>().await;
        }
    }
}

fn loop_result(ended: Result<Result<(), StoreError>, tokio::task::JoinError>) -> Result<(), RunError> {
    match ended {
        Ok(result) => Ok(result?),
        Err(error) => Err(RunError::Loop(error.to_string())),
    }
}

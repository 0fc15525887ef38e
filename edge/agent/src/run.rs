//! The one loop: turns what happens into inputs of the core, commits what it decides, performs its effects. It takes no
//! decision.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidegate_broker::{Broker, Health, StartError};
use tidegate_edge_core::{Agent, BridgeEvent, Effect, Input, LocalAnswer, Output, ReplyId, Setup};
use tidegate_model::ids::{SessionId, StoreId};
use tidegate_model::rule::Feature;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::bridge::Notice;
use crate::bridges::Bridges;
use crate::clock::{self, Clock};
use crate::cloud::{CloudEvent, CloudSession, Inbox};
use crate::control::{self, Ask, Reply, Status};
use crate::intake::Intake;
use crate::local::{self, BrokerSlot};
use crate::settings::AgentConfig;
use crate::store::{Opened, Store, StoreError};

/// Notices of bridges that wait for the loop.
const MAX_NOTICES: usize = 1_024;
/// Messages of the controller's broker that wait for the loop.
const MAX_CLOUD_EVENTS: usize = 64;
/// Local requests that wait for the loop.
const MAX_ASKS: usize = 16;
/// How often counters are looked at.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// How long the goodbye to the controller may take.
const GOODBYE: Duration = Duration::from_millis(900);

/// Why the agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data directory cannot be used.
    #[error("using the data directory {}: {source}", dir.display())]
    DataDir {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another agent uses the data directory.
    #[error("the data directory {} is in use by process {holder}; stop it, or give this agent a directory of its own", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// Who holds it, as it wrote itself down.
        holder: String,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The local broker.
    #[error(transparent)]
    Broker(#[from] StartError),
    /// The control socket.
    #[error("opening the control socket {}: {source}", path.display())]
    Control {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
    /// The local broker does not answer any more.
    #[error(
        "the local broker does not answer any more: {0}; the agent stops for its supervisor to start it again"
    )]
    Unhealthy(String),
}

/// An agent whose rules run and whose local broker is open.
pub struct Gateway {
    config: AgentConfig,
    clock: Clock,
    agent: Agent,
    store: Store,
    bridges: Bridges,
    broker: Arc<Broker>,
    session: Option<CloudSession>,
    /// Why the last session ended, for the log.
    last_reason: Option<String>,
    notices: mpsc::Receiver<Notice>,
    cloud: mpsc::Receiver<(SessionId, CloudEvent)>,
    cloud_events: mpsc::Sender<(SessionId, CloudEvent)>,
    asks: mpsc::Receiver<Ask>,
    replies: BTreeMap<ReplyId, oneshot::Sender<Reply>>,
    last_reply: u64,
    control: control::Server,
    _lock: File,
}

/// Runs an agent until `stop`, or until it cannot go on. Ends within 2 s of `stop`.
///
/// # Errors
/// [`RunError`]: what could not be opened or written, and what to do.
pub async fn run(config: AgentConfig, stop: CancellationToken) -> Result<(), RunError> {
    Box::pin(Gateway::open(config)).await?.run(stop).await
}

impl Gateway {
    /// Opens store, queues, bridges and local broker: devices can connect when it returns, and every rule that should
    /// run was started from disk.
    ///
    /// # Errors
    /// [`RunError`]: what could not be opened, and what to do.
    pub async fn open(config: AgentConfig) -> Result<Self, RunError> {
        let clock = Clock::new();
        let lock = prepare(&config.data_dir)?;
        let [store_hi, store_lo, boot, seed] = random()?;
        let new_store = StoreId(u128::from(store_hi) << 64 | u128::from(store_lo));
        let dir = config.data_dir.join("store");
        let opened = tokio::task::spawn_blocking(move || Store::open(&dir, new_store, clock::wall().0));
        let (store, snapshot, found) =
            opened.await.map_err(|e| StoreError::Write(format!("the opening did not end well: {e}")))??;
        if let Opened::SetAside { kept, reason } = &found {
            tracing::error!(
                %reason,
                "the store was damaged; it was set aside as {} and this agent starts empty: the cloud issues its rules again",
                kept.display()
            );
        }
        let setup = Setup {
            agent: semver::Version::parse(env!("CARGO_PKG_VERSION"))
                .expect("cargo checks the version of a package"),
            features: Feature::ALL.iter().map(|feature| feature.as_str().to_owned()).collect(),
            policy: config.policy.clone(),
            boot,
            seed,
        };
        let mut agent = Agent::restore(setup, snapshot);

        let intake = Arc::new(Intake::default());
        let slot = BrokerSlot::default();
        let (notice_sender, notices) = mpsc::channel(MAX_NOTICES);
        let mut bridges =
            Bridges::new(config.data_dir.join("queues"), Arc::clone(&intake), slot.clone(), notice_sender);
        // Queues and taps stand before the first device can connect.
        let Output { writes, effects } = agent.handle(clock.now(), Input::Boot);
        store.commit(writes).await?;
        let mut later = Vec::new();
        let mut inputs = VecDeque::new();
        for effect in effects {
            match perform_on_bridges(&mut bridges, effect).await {
                Performed::Done(input) => inputs.extend(input),
                Performed::NotMine(effect) => later.push(effect),
            }
        }
        bridges.open_idle(agent.rules().map(|view| view.rule)).await;
        let state = config.data_dir.join("broker");
        let broker = Arc::new(local::start(config.listen, &config.local, &state, intake).await?);
        slot.fill(&broker);
        let (cloud_events, cloud) = mpsc::channel(MAX_CLOUD_EVENTS);
        let (ask_sender, asks) = mpsc::channel(MAX_ASKS);
        let path = control::socket_path(&config.data_dir);
        let control =
            control::Server::start(&path, ask_sender).map_err(|source| RunError::Control { path, source })?;
        let mut gateway = Self {
            config,
            clock,
            agent,
            store,
            bridges,
            broker,
            session: None,
            last_reason: None,
            notices,
            cloud,
            cloud_events,
            asks,
            replies: BTreeMap::new(),
            last_reply: 0,
            control,
            _lock: lock,
        };
        for effect in later {
            inputs.extend(gateway.perform(effect).await);
        }
        gateway.handle_all(inputs).await?;
        Ok(gateway)
    }

    /// Where devices connect.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.broker.local_addr()
    }

    /// Runs until `stop`, or until it cannot go on.
    ///
    /// # Errors
    /// [`RunError::Store`] when a decision cannot be made durable, [`RunError::Unhealthy`] when the local broker is stuck.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), RunError> {
        let ended = self.work(&stop).await;
        self.shut_down(ended.is_ok()).await;
        ended
    }

    async fn work(&mut self, stop: &CancellationToken) -> Result<(), RunError> {
        let mut health = self.broker.health();
        let mut sampling = tokio::time::interval(SAMPLE_EVERY);
        sampling.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let deadline = self.agent.next_deadline().map(|at| self.clock.instant(at));
            let inputs: Vec<Input> = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep_until(deadline) => vec![Input::Tick],
                Some((sid, event)) = self.cloud.recv() => self.on_cloud(sid, event),
                Some(notice) = self.notices.recv() => self.on_notice(notice),
                Some(ask) = self.asks.recv() => self.on_ask(ask),
                _ = sampling.tick() => self.sample(),
                Ok(()) = health.changed() => {
                    if let Health::Unhealthy(why) = &*health.borrow_and_update() {
                        return Err(RunError::Unhealthy(why.clone()));
                    }
                    continue;
                }
            };
            self.handle_all(inputs.into()).await?;
        }
    }

    /// What every rule has moved until now: before anything that may report a run state.
    fn sample(&self) -> Vec<Input> {
        let all = self.bridges.counters();
        all.into_iter().map(|(rule, counters)| Input::Counters { rule, counters }).collect()
    }

    fn on_cloud(&mut self, sid: SessionId, event: CloudEvent) -> Vec<Input> {
        // What an earlier connection still had to say is of no interest.
        if self.session.as_ref().is_none_or(|session| session.sid != sid) {
            return Vec::new();
        }
        let input = match event {
            CloudEvent::Connected => {
                tracing::info!(session = %sid, "connected to the controller's broker");
                self.last_reason = None;
                Input::Connected { sid }
            }
            CloudEvent::Message(Inbox::Down, payload) => Input::Down(payload),
            CloudEvent::Message(Inbox::OwnPresence, payload) => Input::OwnPresence(payload),
            CloudEvent::Message(Inbox::Controller, payload) => Input::ControllerPresence(payload),
            CloudEvent::Ended(reason) => {
                // The same again is no news.
                if self.last_reason.as_deref() == Some(reason.as_str()) {
                    tracing::debug!(session = %sid, %reason, "still no connection to the controller's broker");
                } else {
                    tracing::warn!(session = %sid, %reason, "no connection to the controller's broker");
                    self.last_reason = Some(reason);
                }
                self.session = None;
                Input::Disconnected { sid }
            }
        };
        self.sample().into_iter().chain([input]).collect()
    }

    fn on_notice(&mut self, Notice { rule, order, event }: Notice) -> Vec<Input> {
        let counters = self.bridges.counters_of(rule).map(|counters| Input::Counters { rule, counters });
        match &event {
            BridgeEvent::Running => tracing::info!(rule.id = %rule, "the rule runs"),
            BridgeEvent::Faulted(fault) => {
                tracing::warn!(rule.id = %rule, fault = %fault.code, detail = %fault.detail, "the rule is paused by a fault");
            }
            BridgeEvent::Ended { detail } => {
                tracing::error!(rule.id = %rule, %detail, "the rule's bridge ended")
            }
        }
        counters.into_iter().chain([Input::Bridge { rule, order, event }]).collect()
    }

    fn on_ask(&mut self, ask: Ask) -> Vec<Input> {
        match ask {
            Ask::Status(reply) => {
                let status = Status {
                    edge: self.config.name.clone(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    link: self.agent.link(),
                    session: self.agent.session(),
                    controller: self.config.controller.to_string(),
                    controller_epoch: self.agent.highest_ce(),
                    local: self.local_addr(),
                    rules: self.agent.rules().count(),
                    drops: self.agent.drops(),
                };
                // Whoever asked may be gone.
                let _ = reply.send(Reply::Status(status));
                Vec::new()
            }
            Ask::Rules(reply) => {
                let mut rules: Vec<_> = self.agent.rules().collect();
                rules.sort_by(|a, b| a.name.cmp(&b.name));
                for view in &mut rules {
                    if let Some(counters) = self.bridges.counters_of(view.rule) {
                        view.counters = counters;
                    }
                }
                let _ = reply.send(Reply::Rules(rules));
                Vec::new()
            }
            Ask::Act { rule, action, reply } => match self.agent.rule_named(&rule) {
                Some(id) => {
                    self.last_reply += 1;
                    let number = ReplyId(self.last_reply);
                    self.replies.insert(number, reply);
                    self.sample()
                        .into_iter()
                        .chain([Input::Local { rule: id, action, reply: number }])
                        .collect()
                }
                None => {
                    let refusal = tidegate_edge_core::LocalRefusal::UnknownRule;
                    let _ = reply.send(Reply::Acted(LocalAnswer::Refused(refusal)));
                    Vec::new()
                }
            },
        }
    }

    /// Handles inputs, and those that their effects bring about.
    async fn handle_all(&mut self, mut inputs: VecDeque<Input>) -> Result<(), RunError> {
        while let Some(input) = inputs.pop_front() {
            let Output { writes, effects } = self.agent.handle(self.clock.now(), input);
            self.store.commit(writes).await?;
            for effect in effects {
                inputs.extend(self.perform(effect).await);
            }
            if let Some(session) = self.session.take_if(|session| session.is_given_up()) {
                inputs.push_back(Input::Disconnected { sid: session.sid });
            }
        }
        Ok(())
    }

    async fn perform(&mut self, effect: Effect) -> Vec<Input> {
        let effect = match perform_on_bridges(&mut self.bridges, effect).await {
            Performed::Done(input) => return input,
            Performed::NotMine(effect) => effect,
        };
        match effect {
            Effect::Dial { sid, will } => {
                self.session = Some(CloudSession::dial(&self.config, sid, will, self.cloud_events.clone()));
            }
            Effect::HangUp { sid } => {
                self.session.take_if(|session| session.sid == sid);
            }
            Effect::PublishUp(payload) => {
                if let Some(session) = &self.session {
                    session.up(payload);
                }
            }
            Effect::PublishPresence(payload) => {
                if let Some(session) = &self.session {
                    session.presence(payload);
                }
            }
            Effect::Reply { reply, answer } => {
                if let Some(waiting) = self.replies.remove(&reply) {
                    let _ = waiting.send(Reply::Acted(answer));
                }
            }
            Effect::TakeIn { .. }
            | Effect::TakeInNothing { .. }
            | Effect::StartBridge { .. }
            | Effect::ReconfigureBridge { .. }
            | Effect::StopBridge { .. }
            | Effect::DestroyQueue { .. } => {}
        }
        Vec::new()
    }

    async fn shut_down(mut self, says_bye: bool) {
        if says_bye {
            let bye = Input::Shutdown { reason: "the agent is stopped".to_owned() };
            if let Err(error) = self.handle_all([bye].into()).await {
                tracing::error!(%error, "the last state was not written");
            }
        }
        let Self { session, mut bridges, broker, store, control, .. } = self;
        drop(control);
        let goodbye = async {
            if let Some(session) = session {
                session.close(GOODBYE).await;
            }
        };
        tokio::join!(goodbye, bridges.stop_all());
        // No bridge publishes any more; if one still held it, dropping the rest ends it without a last goodbye.
        if let Ok(broker) = Arc::try_unwrap(broker) {
            broker.stop().await;
        }
        let closed = tokio::task::spawn_blocking(move || {
            bridges.close();
            store.close();
        });
        if let Err(error) = closed.await {
            tracing::error!(%error, "queues and store were not closed well");
        }
    }
}

enum Performed {
    Done(Vec<Input>),
    NotMine(Effect),
}

/// Effects on bridges and queues; the others come back.
async fn perform_on_bridges(bridges: &mut Bridges, effect: Effect) -> Performed {
    let (rule, order, event) = match effect {
        Effect::TakeIn { rule, config } => {
            bridges.take_in(rule, config).await;
            return Performed::Done(Vec::new());
        }
        Effect::TakeInNothing { rule } => {
            bridges.take_in_nothing(rule);
            return Performed::Done(Vec::new());
        }
        Effect::StartBridge { rule, order, config, secrets } => {
            (rule, order, bridges.start(rule, order, config, &secrets).await)
        }
        Effect::ReconfigureBridge { rule, order, config, secrets, change: _ } => {
            (rule, order, bridges.reconfigure(rule, order, config, &secrets).await)
        }
        Effect::StopBridge { rule } => {
            bridges.stop(rule);
            return Performed::Done(Vec::new());
        }
        Effect::DestroyQueue { rule } => {
            bridges.destroy(rule).await;
            return Performed::Done(Vec::new());
        }
        effect @ (Effect::Dial { .. }
        | Effect::HangUp { .. }
        | Effect::PublishUp(_)
        | Effect::PublishPresence(_)
        | Effect::Reply { .. }) => return Performed::NotMine(effect),
    };
    // No bridge is there that could try again by itself: the core orders another one later.
    let ended = |detail: &str| BridgeEvent::Ended { detail: detail.to_owned() };
    let events = event.map_or_else(Vec::new, |event| vec![event, ended("its queue cannot be used")]);
    Performed::Done(events.into_iter().map(|event| Input::Bridge { rule, order, event }).collect())
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn random<const N: usize>() -> Result<[u64; N], RunError> {
    let mut out = [0; N];
    for number in &mut out {
        *number = getrandom::u64().map_err(|e| RunError::Random(e.to_string()))?;
    }
    Ok(out)
}

/// Makes the data directory, closes it to others and locks it.
fn prepare(dir: &Path) -> Result<File, RunError> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |source| RunError::DataDir { dir: dir.to_owned(), source };
    std::fs::create_dir_all(dir).map_err(failed)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
    let path = dir.join("lock");
    let mut lock =
        File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Only for people: an unreadable note is an unknown holder.
            let _ = lock.take(32).read_to_string(&mut holder);
            let holder =
                if holder.trim().is_empty() { "unknown".to_owned() } else { holder.trim().to_owned() };
            return Err(RunError::Locked { dir: dir.to_owned(), holder });
        }
        Err(std::fs::TryLockError::Error(source)) => return Err(failed(source)),
    }
    lock.set_len(0).map_err(failed)?;
    lock.seek(SeekFrom::Start(0)).map_err(failed)?;
    writeln!(lock, "{}", std::process::id()).map_err(failed)?;
    Ok(lock)
}

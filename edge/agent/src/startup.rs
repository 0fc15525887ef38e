//! From settings to a gateway that devices can connect to, in the one order that loses nothing: the directory's lock, the
//! store, queues and taps, and only then the local broker.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_edge_core::{Agent, Input, Output, Setup};
use tidegate_model::ids::StoreId;
use tidegate_model::rule::Feature;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::bridge::Sessions;
use crate::bridges::{Bridges, LocalBroker};
use crate::clock::{self, Clock};
use crate::control;
use crate::effects::{Performed, perform_on_bridges};
use crate::error::RunError;
use crate::intake::Intake;
use crate::local::{self, BrokerSlot};
use crate::metrics;
use crate::pulse::Pulse;
use crate::rules_dir::{self, Change, Reload};
use crate::run::Gateway;
use crate::settings::{AgentConfig, LocalSide};
use crate::store::{Opened, Store, StoreError};

/// Notices of bridges that wait for the loop.
const MAX_NOTICES: usize = 1_024;
/// Messages of the controller's broker that wait for the loop.
const MAX_CLOUD_EVENTS: usize = 64;
/// Local requests that wait for the loop.
const MAX_ASKS: usize = 16;

/// Where the queues of all rules are.
pub(crate) fn queues_dir(data_dir: &std::path::Path) -> std::path::PathBuf {
    data_dir.join("queues")
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
            edge: config.name.clone(),
            account: config.account.clone(),
            has_controller: config.controller.is_some(),
            agent: software(),
            features: features(),
            policy: config.policy.clone(),
            subscribes_locally: matches!(config.local, LocalSide::External(_)),
            boot,
            seed,
        };
        let mut agent = Agent::restore(setup, snapshot);

        let intake = Arc::new(Intake::default());
        let slot = BrokerSlot::default();
        let (notice_sender, notices) = mpsc::channel(MAX_NOTICES);
        let cancel = CancellationToken::new();
        let local = local_broker(&config, &intake, &slot, &cancel)?;
        let mut bridges = Bridges::new(queues_dir(&config.data_dir), local, notice_sender, cancel);
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
        bridges.end_stray_sessions();
        let broker = match &config.local {
            LocalSide::Embedded { listen, access } => {
                let state = config.data_dir.join("broker");
                let broker = Arc::new(local::start(*listen, access, &state, intake).await?);
                slot.fill(&broker);
                Some(broker)
            }
            LocalSide::External(_) => None,
        };
        let (cloud_events, cloud) = mpsc::channel(MAX_CLOUD_EVENTS);
        let (rule_changes_sender, rule_changes) = mpsc::channel(1);
        let (ask_sender, asks) = mpsc::channel(MAX_ASKS);
        let metrics = match config.metrics {
            Some(address) => Some(
                metrics::Server::start(address, ask_sender.clone())
                    .await
                    .map_err(|source| RunError::Metrics { address, source })?,
            ),
            None => None,
        };
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
            metrics,
            rule_changes,
            rules_dir_trouble: None,
            reload: Arc::new(Reload::default()),
            pulse: Arc::new(Pulse::default()),
            lock,
        };
        for effect in later {
            inputs.extend(gateway.perform(effect).await);
        }
        gateway.handle_all(inputs).await?;
        if let Some(dir) = gateway.config.rules_dir.clone() {
            gateway.open_rules_dir(dir, rule_changes_sender).await?;
        }
        Ok(gateway)
    }
}

impl Gateway {
    /// Takes up the rules directory as it is, and watches it from now on.
    async fn open_rules_dir(&mut self, dir: PathBuf, changes: mpsc::Sender<Change>) -> Result<(), RunError> {
        let place = dir.clone();
        let read = tokio::task::spawn_blocking(move || rules_dir::read(&place)).await;
        let first = match read.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(contents) => {
                let files = contents.files.clone();
                let inputs = self.sample().into_iter().chain([Input::RuleFiles { files, again: true }]);
                self.handle_all(inputs.collect()).await?;
                Some(contents)
            }
            Err(why) => {
                tracing::error!(%why, "the rules stay as they were");
                self.rules_dir_trouble = Some(why);
                None
            }
        };
        tokio::spawn(rules_dir::watch(dir, first, Arc::clone(&self.reload), changes));
        Ok(())
    }
}

/// Version of this software.
pub(crate) fn software() -> semver::Version {
    semver::Version::parse(env!("CARGO_PKG_VERSION")).expect("cargo checks the version of a package")
}

/// Rule features that this agent runs.
pub(crate) fn features() -> BTreeSet<String> {
    Feature::ALL.iter().map(|feature| feature.as_str().to_owned()).collect()
}

/// What bridges know of the local side.
fn local_broker(
    config: &AgentConfig,
    intake: &Arc<Intake>,
    slot: &BrokerSlot,
    cancel: &CancellationToken,
) -> Result<LocalBroker, RunError> {
    let dir = config.data_dir.join("local-sessions");
    match &config.local {
        LocalSide::Embedded { .. } => {
            for session in Sessions::left_behind(&dir) {
                tracing::warn!(
                    %session,
                    "a session was left at a local broker that is not used any more; remove it there, and its note in {}",
                    dir.display()
                );
            }
            Ok(LocalBroker::Embedded(Arc::clone(intake), slot.clone()))
        }
        LocalSide::External(broker) => {
            let sessions =
                Sessions::open(dir.clone(), config.name.clone(), broker.clone(), cancel.child_token());
            Ok(LocalBroker::External(sessions.map_err(|source| RunError::DataDir { dir, source })?))
        }
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

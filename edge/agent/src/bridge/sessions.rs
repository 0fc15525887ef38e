//! Which sessions we may have at the external local broker, on disk before the broker hears of them. A session that is not
//! wanted any more is ended there: at once, or when the broker can be reached again, also by a later process.
//!
//! A rule that runs keeps its session over restarts. One that was stopped or removed must not: the broker would keep messages
//! for it without end, and a start would bring what was published in between.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tidegate_edge_core::backoff::Backoff;
use tidegate_model::ids::{EdgeId, RuleId};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    dial::{Endpoint, end_session},
    fault::LinkError,
    route::Way,
    run::random,
};
use crate::settings::LocalBroker;

/// Keep-alive of our sessions.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// From the start of an attempt to end a session to its CONNACK.
const CONNECT: Duration = Duration::from_secs(10);

/// A session that the broker may know, as it is on disk: one file per rule, at most as many as there are rules and
/// tombstones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Session {
    /// The broker, without a login.
    broker: String,
    client_id: String,
    /// It is to be ended.
    ended: bool,
}

/// The sessions of all rules at one external local broker.
pub(crate) struct Sessions {
    dir: PathBuf,
    edge: EdgeId,
    broker: LocalBroker,
    known: Mutex<BTreeMap<RuleId, Session>>,
    /// Held while a session is being ended: its client id must not be in use.
    turn: tokio::sync::Mutex<()>,
    work: Notify,
}

impl Sessions {
    /// Reads what an earlier process wrote, and begins to end what is to be ended.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn open(
        dir: PathBuf,
        edge: EdgeId,
        broker: LocalBroker,
        cancel: CancellationToken,
    ) -> io::Result<Arc<Self>> {
        std::fs::create_dir_all(&dir)?;
        let mut known = BTreeMap::new();
        for (rule, session) in read_dir(&dir)? {
            if session.broker == broker.to_string() {
                known.insert(rule, session);
            } else {
                let Session { broker, client_id, .. } = session;
                tracing::warn!(
                    rule.id = %rule, %broker, client.id = %client_id,
                    "a session was left at another local broker, which is not ours to log in to any more; remove it there"
                );
                std::fs::remove_file(dir.join(rule.to_string()))?;
            }
        }
        let turn = tokio::sync::Mutex::new(());
        let sessions =
            Arc::new(Self { dir, edge, broker, known: Mutex::new(known), turn, work: Notify::new() });
        let worker = Arc::clone(&sessions);
        tokio::spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = Box::pin(worker.work()) => {}
            }
        });
        Ok(sessions)
    }

    /// Who else has sessions in a directory: for an agent that has no external local broker (any more).
    pub fn left_behind(dir: &Path) -> Vec<String> {
        let sessions = read_dir(dir).unwrap_or_default();
        sessions.into_values().map(|session| format!("{} at {}", session.client_id, session.broker)).collect()
    }

    /// The broker, for people.
    pub fn address(&self) -> String {
        self.broker.to_string()
    }

    /// Where a rule's session is.
    pub(super) fn endpoint(&self, rule: RuleId) -> Endpoint {
        Endpoint {
            way: Way::plain(self.broker.host.clone(), self.broker.port),
            client_id: format!("tidegate.{}.{rule}", self.edge),
            username: self.broker.username.clone(),
            password: self.broker.password.clone(),
            keep_alive: KEEP_ALIVE,
            clean_session: false,
            as_bridge: true,
        }
    }

    /// The rule is about to have a session. One that should have been ended is ended first.
    pub(super) async fn claim(&self, rule: RuleId) -> Result<(), LinkError> {
        let _turn = self.turn.lock().await;
        if self.is_ended(rule) {
            end_session(&self.endpoint(rule), CONNECT).await?;
        }
        self.note(rule, false).map_err(LinkError::Session)
    }

    /// The rule's session is not wanted any more. Nobody may be connected with it.
    pub fn end(&self, rule: RuleId) {
        if !self.known().contains_key(&rule) {
            return;
        }
        if let Err(error) = self.note(rule, true) {
            // It is done by this process if it lives; the next one finds a session without a rule.
            tracing::error!(rule.id = %rule, %error, "cannot write down that a local session is to be ended");
        }
        self.work.notify_one();
    }

    /// Ends the sessions of rules that do not run.
    pub fn end_all_but(&self, runs: impl Fn(RuleId) -> bool) {
        let strays: Vec<RuleId> = self.known().keys().copied().filter(|rule| !runs(*rule)).collect();
        for rule in strays {
            self.end(rule);
        }
    }

    /// Ends one session after the other, for ever.
    async fn work(&self) {
        let mut backoff = Backoff::new();
        loop {
            let next = self.known().iter().find(|(_, session)| session.ended).map(|(rule, _)| *rule);
            let Some(rule) = next else {
                self.work.notified().await;
                continue;
            };
            let turn = self.turn.lock().await;
            if !self.is_ended(rule) {
                continue; // it runs again
            }
            match end_session(&self.endpoint(rule), CONNECT).await {
                Ok(()) => {
                    self.forget(rule);
                    backoff.reset();
                }
                Err(error) => {
                    drop(turn);
                    tracing::debug!(rule.id = %rule, %error, "a session at the local broker is not ended yet");
                    let pause = u64::try_from(backoff.failed(random())).unwrap_or(0);
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
            }
        }
    }

    fn is_ended(&self, rule: RuleId) -> bool {
        self.known().get(&rule).is_some_and(|session| session.ended)
    }

    fn note(&self, rule: RuleId, ended: bool) -> io::Result<()> {
        let Endpoint { client_id, .. } = self.endpoint(rule);
        let session = Session { broker: self.address(), client_id, ended };
        let mut known = self.known();
        if known.get(&rule) == Some(&session) {
            return Ok(());
        }
        let written = write(&self.dir.join(rule.to_string()), &session);
        known.insert(rule, session);
        written
    }

    fn forget(&self, rule: RuleId) {
        let mut known = self.known();
        known.remove(&rule);
        if let Err(error) = std::fs::remove_file(self.dir.join(rule.to_string())) {
            tracing::warn!(rule.id = %rule, %error, "the note of a local session that was ended stays on disk");
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<RuleId, Session>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_dir(dir: &Path) -> io::Result<BTreeMap<RuleId, Session>> {
    let mut sessions = BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(rule) = name.to_str().and_then(|name| Uuid::parse_str(name).ok()).map(RuleId) else {
            continue;
        };
        match serde_json::from_slice(&std::fs::read(entry.path())?) {
            Ok(session) => {
                sessions.insert(rule, session);
            }
            Err(error) => tracing::warn!(rule.id = %rule, %error, "the note of a local session is damaged"),
        }
    }
    Ok(sessions)
}

/// Durable when it returns.
fn write(path: &Path, session: &Session) -> io::Result<()> {
    use std::io::Write as _;
    let new = path.with_extension("new");
    let mut file = std::fs::File::create(&new)?;
    file.write_all(&serde_json::to_vec(session).map_err(io::Error::other)?)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    match path.parent() {
        Some(dir) => std::fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

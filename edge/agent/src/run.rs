//! The one loop: turns what happens into inputs of the core, commits what it decides, performs its effects. It takes no
//! decision.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidegate_broker::{Broker, Health};
use tidegate_edge_core::{Agent, BridgeEvent, Effect, Input, Output, ReplyId};
use tidegate_model::ids::{RuleId, SessionId};
use tidegate_model::wire::Counters;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::bridge::Notice;
use crate::bridges::Bridges;
use crate::clock::Clock;
use crate::cloud::{CloudEvent, CloudSession, Inbox};
use crate::control::{self, Ask, Reply};
use crate::effects::{Performed, perform_on_bridges};
use crate::error::RunError;
use crate::metrics;
use crate::pulse::Pulse;
use crate::rules_dir::{Change, Reload};
use crate::settings::{AgentConfig, LocalSide};
use crate::store::Store;

/// How often counters are looked at.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// How long the goodbye to the controller may take.
const GOODBYE: Duration = Duration::from_millis(900);

/// An agent whose rules run and whose local broker is open.
pub struct Gateway {
    pub(crate) config: AgentConfig,
    pub(crate) clock: Clock,
    pub(crate) agent: Agent,
    pub(crate) store: Store,
    pub(crate) bridges: Bridges,
    /// Our own local broker; `None` where the local side is an external one.
    pub(crate) broker: Option<Arc<Broker>>,
    pub(crate) session: Option<CloudSession>,
    /// Why the last session ended, for the log.
    pub(crate) last_reason: Option<String>,
    pub(crate) notices: mpsc::Receiver<Notice>,
    pub(crate) cloud: mpsc::Receiver<(SessionId, CloudEvent)>,
    pub(crate) cloud_events: mpsc::Sender<(SessionId, CloudEvent)>,
    pub(crate) asks: mpsc::Receiver<Ask>,
    pub(crate) replies: BTreeMap<ReplyId, oneshot::Sender<Reply>>,
    pub(crate) last_reply: u64,
    pub(crate) control: control::Server,
    pub(crate) metrics: Option<metrics::Server>,
    /// Changes of the rules directory; of no directory there are none.
    pub(crate) rule_changes: mpsc::Receiver<Change>,
    /// Why the rules directory cannot be read, if so.
    pub(crate) rules_dir_trouble: Option<String>,
    pub(crate) reload: Arc<Reload>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) lock: File,
}

impl Gateway {
    /// Where devices connect; `None` where that is an external broker.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.broker.as_ref().map(|broker| broker.local_addr())
    }

    /// Where devices connect, for people: an address of the agent, or the URL of an external broker.
    #[must_use]
    pub fn local_side(&self) -> String {
        match (&self.config.local, self.local_addr()) {
            (LocalSide::External(broker), _) => broker.to_string(),
            (LocalSide::Embedded { .. }, Some(address)) => address.to_string(),
            (LocalSide::Embedded { listen, .. }, None) => listen.to_string(),
        }
    }

    /// Reads the rules directory at once, and tries again what failed there; `None`: there is no such directory.
    #[must_use]
    pub fn reload(&self) -> Option<Arc<Reload>> {
        self.config.rules_dir.as_ref().map(|_| Arc::clone(&self.reload))
    }

    /// Whether its loop goes round.
    #[must_use]
    pub fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }

    /// Where counters are served, if they are.
    #[must_use]
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(metrics::Server::address)
    }

    /// Runs until `stop`, or until it cannot go on. Ends within 2 s of `stop`.
    ///
    /// # Errors
    /// [`RunError::Store`] when a decision cannot be made durable, [`RunError::Unhealthy`] when the local broker is stuck.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), RunError> {
        let ended = self.work(&stop).await;
        self.shut_down(ended.is_ok()).await;
        ended
    }

    async fn work(&mut self, stop: &CancellationToken) -> Result<(), RunError> {
        let mut health = self.broker.as_ref().map(|broker| broker.health());
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
                Some(change) = self.rule_changes.recv() => self.on_rules_dir(change),
                () = self.pulse.wanted() => Vec::new(),
                _ = sampling.tick() => self.sample(),
                why = unhealthy(&mut health) => return Err(RunError::Unhealthy(why)),
            };
            let is_reload = inputs.iter().any(|input| matches!(input, Input::RuleFiles { again: true, .. }));
            self.handle_all(inputs.into()).await?;
            if is_reload {
                self.reload.done();
            }
            self.pulse.beat();
        }
    }

    /// What every rule has moved until now: before anything that may report a run state.
    pub(crate) fn sample(&self) -> Vec<Input> {
        let all = self.bridges.counters();
        all.into_iter().map(|(rule, counters)| self.counted(rule, counters)).collect()
    }

    fn counted(&self, rule: RuleId, counters: Counters) -> Input {
        Input::Counters { rule, counters, full: self.bridges.full(rule) }
    }

    fn on_cloud(&mut self, sid: SessionId, event: CloudEvent) -> Vec<Input> {
        // What an earlier connection still had to say is of no interest.
        if self.session.as_ref().is_none_or(|session| session.sid != sid) {
            return Vec::new();
        }
        let input = match event {
            CloudEvent::Connected => {
                tracing::info!(line.kind = "controller-session", session = %sid, "connected to the controller's broker");
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
                    tracing::warn!(line.kind = "controller-session", session = %sid, %reason, "no connection to the controller's broker");
                    self.last_reason = Some(reason);
                }
                self.session = None;
                Input::Disconnected { sid }
            }
        };
        self.sample().into_iter().chain([input]).collect()
    }

    fn on_notice(&mut self, Notice { rule, order, event }: Notice) -> Vec<Input> {
        let counters = self.bridges.counters_of(rule).map(|counters| self.counted(rule, counters));
        let name = self.bridges.name_of(rule);
        match &event {
            BridgeEvent::Running => {
                tracing::info!(line.kind = "rule-state", rule.id = %rule, rule.name = name, "the rule runs")
            }
            BridgeEvent::Faulted(fault) => {
                tracing::warn!(line.kind = "rule-state", rule.id = %rule, rule.name = name, fault = %fault.code, detail = %fault.detail, "the rule is paused by a fault");
            }
            BridgeEvent::Ended { detail } => {
                tracing::error!(line.kind = "rule-state", rule.id = %rule, rule.name = name, %detail, "the rule's bridge ended")
            }
        }
        counters.into_iter().chain([Input::Bridge { rule, order, event }]).collect()
    }

    /// What the rules directory holds now.
    fn on_rules_dir(&mut self, change: Change) -> Vec<Input> {
        match change {
            Change::Read { contents, again } => {
                let count = contents.files.len();
                tracing::info!(files = count, "the rules directory is taken up");
                self.rules_dir_trouble = None;
                let files = Input::RuleFiles { files: contents.files, again };
                self.sample().into_iter().chain([files]).collect()
            }
            Change::Unreadable(why) => {
                tracing::error!(%why, "the rules stay as they are");
                self.rules_dir_trouble = Some(why);
                self.reload.done();
                Vec::new()
            }
        }
    }

    /// Handles inputs, and those that their effects bring about.
    pub(crate) async fn handle_all(&mut self, mut inputs: VecDeque<Input>) -> Result<(), RunError> {
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

    pub(crate) async fn perform(&mut self, effect: Effect) -> Vec<Input> {
        let effect = match perform_on_bridges(&mut self.bridges, effect).await {
            Performed::Done(input) => return input,
            Performed::NotMine(effect) => effect,
        };
        match effect {
            Effect::Dial { sid, will } => {
                let events = self.cloud_events.clone();
                self.session = self
                    .config
                    .controller
                    .as_ref()
                    .map(|controller| CloudSession::dial(&self.config, controller, sid, will, events));
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
        let Self { session, mut bridges, broker, store, control, lock, .. } = self;
        drop(control);
        let goodbye = async {
            if let Some(session) = session {
                session.close(GOODBYE).await;
            }
        };
        tokio::join!(goodbye, bridges.stop_all());
        // No bridge publishes any more; if one still held it, dropping the rest ends it without a last goodbye.
        if let Some(Ok(broker)) = broker.map(Arc::try_unwrap) {
            broker.stop().await;
        }
        let closed = tokio::task::spawn_blocking(move || {
            bridges.close();
            store.close();
        });
        if let Err(error) = closed.await {
            tracing::error!(%error, "queues and store were not closed well");
        }
        // Only now may another agent use the directory.
        drop(lock);
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Waits until our own local broker is stuck; for ever where there is none.
async fn unhealthy(health: &mut Option<watch::Receiver<Health>>) -> String {
    let Some(health) = health else { return std::future::pending().await };
    loop {
        if let Health::Unhealthy(why) = &*health.borrow_and_update() {
            return why.clone();
        }
        if health.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

//! The bridges and queues of all rules: does what the core orders, and says what came of it. Decides nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_edge_core::{BridgeEvent, Order, QueuesFull};
use tidegate_edge_queue::{Queue, QueueConfig, QueueError, Source, WhenFull};
use tidegate_model::code::FaultCode;
use tidegate_model::ids::{RuleId, RuleName};
use tidegate_model::rule::{EdgeRule, Secret, SecretRef, Secrets};
use tidegate_model::wire::{Counters, Fault, SecretValue};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::bridge::{
    Bridge, LocalEnd, LocalLink, LocalParts, Notice, Parts, REFUSED, Sessions, TOO_LARGE, Task, Timing,
    UNMAPPED, queue_config, waiting,
};
use crate::clock;
use crate::intake::Intake;
use crate::local::{BrokerSlot, RuleSink};
use crate::queues::{Direction, at_rest};

/// The broker on the local side.
pub(crate) enum LocalBroker {
    /// Our own, with the tap that fills the queues.
    Embedded(Arc<Intake>, BrokerSlot),
    /// One that is there already.
    External(Arc<Sessions>),
}

/// What every rule has a share in.
pub(crate) struct Bridges {
    dir: PathBuf,
    local: LocalBroker,
    events: mpsc::Sender<Notice>,
    cancel: CancellationToken,
    rules: BTreeMap<RuleId, Entry>,
    last_origin: u64,
}

/// The name of a rule that has not run since the agent began.
const UNNAMED: &str = "-";

/// What there is of one rule.
struct Entry {
    /// Its name, for the log; `None`: it has not run since the agent began.
    name: Option<RuleName>,
    outgoing: Queue,
    incoming: Queue,
    origin: u64,
    /// The sources of the newest outgoing records, until there is a connection to an external local broker.
    held: Vec<Source>,
    bridge: Option<Bridge>,
    /// The connection to an external local broker.
    link: Option<LocalLink>,
    /// An earlier bridge, and its connection to an external local broker, that are saying goodbye.
    ending: Option<JoinHandle<()>>,
    /// What earlier bridges of this process moved.
    before: Counters,
    /// Messages that earlier connections to an external local broker dropped: without a topic, too large.
    dropped_before: (u64, u64),
}

impl Bridges {
    pub fn new(
        dir: PathBuf,
        local: LocalBroker,
        events: mpsc::Sender<Notice>,
        cancel: CancellationToken,
    ) -> Self {
        Self { dir, local, events, cancel, rules: BTreeMap::new(), last_origin: 0 }
    }

    /// Takes in under these forwards. Where the queue cannot be used, what devices publish there is refused, or stays with
    /// the external local broker.
    pub async fn take_in(&mut self, rule: RuleId, config: Arc<EdgeRule>) {
        if let Err(error) = self.entry(rule, queue_config(&config.queue)).await {
            tracing::error!(rule.id = %rule, error = %words(&error), "a queue cannot be used");
            if let LocalBroker::Embedded(intake, _) = &self.local {
                intake.set_without_queue(rule, config);
            }
            return;
        }
        self.link(rule).await;
        let Some(entry) = self.rules.get_mut(&rule) else { return };
        entry.name = Some(config.name.clone());
        at_rest::note_name(&self.dir, rule, config.name.as_str());
        entry.outgoing.reconfigure(queue_config(&config.queue));
        entry.incoming.reconfigure(queue_config(&config.queue));
        match (&self.local, &entry.link) {
            (LocalBroker::Embedded(intake, _), _) => {
                intake.set(rule, entry.origin, config, entry.outgoing.clone());
            }
            (LocalBroker::External(_), Some(link)) => link.want(|wishes| wishes.taking = Some(config)),
            (LocalBroker::External(_), None) => {}
        }
    }

    pub fn take_in_nothing(&self, rule: RuleId) {
        match &self.local {
            LocalBroker::Embedded(intake, _) => intake.remove(rule),
            LocalBroker::External(_) => {
                if let Some(link) = self.rules.get(&rule).and_then(|entry| entry.link.as_ref()) {
                    link.want(|wishes| wishes.taking = None);
                }
            }
        }
    }

    /// Runs a bridge from scratch. `Some`: it cannot be.
    pub async fn start(
        &mut self,
        rule: RuleId,
        order: Order,
        config: Arc<EdgeRule>,
        secrets: &[SecretValue],
    ) -> Option<BridgeEvent> {
        let (events, cancel) = (self.events.clone(), self.cancel.clone());
        match self.entry(rule, queue_config(&config.queue)).await {
            Ok(entry) => entry.end_bridge(),
            Err(error) => return Some(disk_fault(&error)),
        }
        self.link(rule).await;
        let entry = self.rules.get_mut(&rule)?;
        entry.name = Some(config.name.clone());
        at_rest::note_name(&self.dir, rule, config.name.as_str());
        // The remote broker must not see both: they bear the same client id.
        if let Some(ending) = entry.ending.take() {
            let _ = ending.await;
        }
        let local = match (&self.local, &entry.link) {
            (LocalBroker::External(_), Some(link)) => {
                link.want(|wishes| wishes.running = Some((order, Arc::clone(&config))));
                LocalEnd::Link(link.state())
            }
            (LocalBroker::Embedded(_, broker), _) => {
                LocalEnd::Sink(Arc::new(RuleSink { broker: broker.clone(), origin: entry.origin }))
            }
            (LocalBroker::External(_), None) => return None,
        };
        let parts = Parts {
            rule,
            outgoing: entry.outgoing.clone(),
            incoming: entry.incoming.clone(),
            local,
            events,
            timing: Timing::default(),
        };
        entry.bridge = Some(Bridge::start(parts, task(order, config, secrets), &cancel));
        None
    }

    /// Changes a bridge that is there, or starts it.
    pub async fn reconfigure(
        &mut self,
        rule: RuleId,
        order: Order,
        config: Arc<EdgeRule>,
        secrets: &[SecretValue],
    ) -> Option<BridgeEvent> {
        let Some(Entry { bridge: Some(bridge), link, .. }) = self.rules.get(&rule) else {
            return self.start(rule, order, config, secrets).await;
        };
        if let Some(link) = link {
            link.want(|wishes| wishes.running = Some((order, Arc::clone(&config))));
        }
        bridge.reconfigure(task(order, config, secrets));
        None
    }

    /// Ends a bridge, if there is one; its queue stays.
    pub fn stop(&mut self, rule: RuleId) {
        if let Some(entry) = self.rules.get_mut(&rule) {
            if entry.bridge.is_some() {
                tracing::info!(line.kind = "rule-order", rule.id = %rule, rule.name = entry.name(), "the rule is stopped; what waits in its queue stays");
            }
            entry.end_bridge();
            if let LocalBroker::External(sessions) = &self.local {
                entry.end_link(rule, sessions);
            }
        }
    }

    /// Deletes what is queued for a rule that was removed.
    pub async fn destroy(&mut self, rule: RuleId) {
        self.stop(rule);
        match &self.local {
            LocalBroker::Embedded(intake, _) => intake.forget(rule),
            // It may be one of an earlier process.
            LocalBroker::External(sessions) => {
                if !self.rules.contains_key(&rule) {
                    sessions.end(rule);
                }
            }
        }
        let mut entry = self.rules.remove(&rule);
        let name = entry.as_ref().map_or(UNNAMED, Entry::name);
        tracing::info!(line.kind = "rule-order", rule.id = %rule, rule.name = name, "the rule is removed, with what waited in its queue");
        if let Some(ending) = entry.as_mut().and_then(|entry| entry.ending.take()) {
            // However it ended, its queue is free now.
            let _ = ending.await;
        }
        let dir = self.dir.join(rule.to_string());
        let removed = tokio::task::spawn_blocking(move || {
            if let Some(entry) = entry {
                entry.outgoing.close();
                entry.incoming.close();
            }
            for queue in [queue_dir(&dir, Direction::Forwards), queue_dir(&dir, Direction::Subscriptions)] {
                Queue::destroy(&queue)?;
            }
            at_rest::forget_name(&dir);
            match std::fs::remove_dir(&dir) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    Err(QueueError::Io { dir, doing: "remove the directory", source: e })
                }
                Ok(()) | Err(_) => Ok(()),
            }
        });
        match removed.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(rule.id = %rule, %error, "the queue of a removed rule stays on disk")
            }
            Err(error) => {
                tracing::error!(rule.id = %rule, %error, "deleting the queue of a removed rule panicked")
            }
        }
    }

    /// Opens the queues that these rules have on disk, so that what waits in them is counted although nothing moves it.
    /// Their bounds come when the rule runs: nothing is dropped before.
    pub async fn open_idle(&mut self, rules: impl IntoIterator<Item = RuleId>) {
        let unbounded = QueueConfig {
            max_bytes: u64::MAX,
            max_age: None,
            when_full: WhenFull::Block,
            ..QueueConfig::default()
        };
        for rule in rules {
            if queue_dir(&self.dir.join(rule.to_string()), Direction::Forwards).is_dir()
                && let Err(error) = self.entry(rule, unbounded.clone()).await
            {
                tracing::error!(rule.id = %rule, %error, "the queue of a rule that does not run cannot be read");
            }
        }
    }

    /// The name of a rule, for the log.
    pub fn name_of(&self, rule: RuleId) -> &str {
        self.rules.get(&rule).map_or(UNNAMED, Entry::name)
    }

    /// Ends the sessions at an external local broker that no rule uses.
    pub fn end_stray_sessions(&self) {
        if let LocalBroker::External(sessions) = &self.local {
            sessions.end_all_but(|rule| self.rules.get(&rule).is_some_and(|entry| entry.link.is_some()));
        }
    }

    /// What every rule has moved, and what waits.
    pub fn counters(&self) -> Vec<(RuleId, Counters)> {
        self.rules.keys().filter_map(|rule| Some((*rule, self.counters_of(*rule)?))).collect()
    }

    /// What one rule has moved, and what waits; `None`: it has no queue.
    pub fn counters_of(&self, rule: RuleId) -> Option<Counters> {
        let entry = self.rules.get(&rule)?;
        let now = match &entry.bridge {
            Some(bridge) => bridge.counters(clock::wall().0),
            None => waiting(&entry.outgoing, &entry.incoming, clock::wall().0),
        };
        let mut counters = sum(&entry.before, now);
        let (unmapped, too_large, last_error) = match &self.local {
            LocalBroker::Embedded(intake, _) => (intake.unmapped(rule), 0, None),
            LocalBroker::External(_) => entry.dropped_locally(),
        };
        for (reason, count) in [(UNMAPPED, unmapped), (TOO_LARGE, too_large)] {
            if count > 0 {
                *counters.dropped.0.entry(reason.to_owned()).or_insert(0) += count;
            }
        }
        counters.last_error = counters.last_error.or(last_error);
        Some(counters)
    }

    /// The queues of a rule, the outgoing one first; `None`: it has none.
    pub fn queues(&self, rule: RuleId) -> Option<(Queue, Queue)> {
        let entry = self.rules.get(&rule)?;
        // Where nobody reads, nothing is on its way.
        if entry.bridge.is_none() {
            entry.outgoing.rewind(0);
            if entry.link.is_none() {
                entry.incoming.rewind(0);
            }
        }
        Some((entry.outgoing.clone(), entry.incoming.clone()))
    }

    /// Whether the queues of a rule are full and make whoever sends wait.
    pub fn full(&self, rule: RuleId) -> QueuesFull {
        self.rules.get(&rule).map_or_else(QueuesFull::default, |entry| QueuesFull {
            forwards: entry.outgoing.is_full(),
            subscriptions: entry.incoming.is_full(),
        })
    }

    /// Ends every bridge, at the same time.
    pub async fn stop_all(&mut self) {
        self.cancel.cancel();
        for entry in self.rules.values_mut() {
            entry.end_bridge();
            entry.leave();
        }
        for entry in self.rules.values_mut() {
            if let Some(ending) = entry.ending.take() {
                let _ = ending.await;
            }
        }
    }

    /// Closes every queue. Blocks until what was handed over is on disk.
    pub fn close(self) {
        for entry in self.rules.into_values() {
            entry.outgoing.close();
            entry.incoming.close();
        }
    }

    /// Makes sure that a rule has its connection to an external local broker.
    async fn link(&mut self, rule: RuleId) {
        let LocalBroker::External(sessions) = &self.local else { return };
        let Some(entry) = self.rules.get_mut(&rule) else { return };
        if entry.link.as_ref().is_some_and(|link| !link.is_over()) {
            return;
        }
        // One that ended by itself keeps its session.
        entry.leave();
        if let Some(ending) = entry.ending.take() {
            let _ = ending.await;
        }
        let parts = LocalParts {
            rule,
            outgoing: entry.outgoing.clone(),
            incoming: entry.incoming.clone(),
            held: std::mem::take(&mut entry.held),
            sessions: Arc::clone(sessions),
            events: self.events.clone(),
            timing: Timing::default(),
        };
        entry.link = Some(LocalLink::start(parts, &self.cancel));
    }

    async fn entry(&mut self, rule: RuleId, config: QueueConfig) -> Result<&mut Entry, QueueError> {
        if !self.rules.contains_key(&rule) {
            let dir = self.dir.join(rule.to_string());
            let opened = tokio::task::spawn_blocking(move || {
                let open = |direction| open_queue(&queue_dir(&dir, direction), config.clone());
                Ok((open(Direction::Forwards)?, open(Direction::Subscriptions)?))
            });
            let ((outgoing, held), (incoming, _)) = opened.await.unwrap_or_else(|error| {
                let dir = self.dir.join(rule.to_string());
                Err(QueueError::Io { dir, doing: "finish the opening", source: std::io::Error::other(error) })
            })?;
            self.last_origin += 1;
            let (origin, before) = (self.last_origin, Counters::default());
            let entry = Entry {
                name: None,
                outgoing,
                incoming,
                origin,
                held,
                bridge: None,
                link: None,
                ending: None,
                before,
                dropped_before: (0, 0),
            };
            self.rules.insert(rule, entry);
        }
        Ok(self.rules.get_mut(&rule).expect("it was there, or was inserted just now"))
    }
}

impl Entry {
    fn name(&self) -> &str {
        self.name.as_ref().map_or(UNNAMED, RuleName::as_str)
    }

    fn end_bridge(&mut self) {
        let Some(bridge) = self.bridge.take() else { return };
        self.before = sum(&self.before, bridge.counters(clock::wall().0));
        self.then(async move { bridge.stop().await });
    }

    /// Ends the connection to an external local broker, and the session there: what is published from now on is not for
    /// this rule.
    fn end_link(&mut self, rule: RuleId, sessions: &Arc<Sessions>) {
        self.leave();
        let sessions = Arc::clone(sessions);
        self.then(async move { sessions.end(rule) });
    }

    /// Ends the connection to an external local broker; the session stays.
    fn leave(&mut self) {
        let Some(link) = self.link.take() else { return };
        let (unmapped, too_large, _) = link.troubles();
        self.dropped_before = (self.dropped_before.0 + unmapped, self.dropped_before.1 + too_large);
        self.then(async move { link.stop().await });
    }

    /// Does something after what is ending already.
    fn then(&mut self, next: impl Future<Output = ()> + Send + 'static) {
        let earlier = self.ending.take();
        self.ending = Some(tokio::spawn(async move {
            if let Some(earlier) = earlier {
                let _ = earlier.await;
            }
            next.await;
        }));
    }

    fn dropped_locally(&self) -> (u64, u64, Option<String>) {
        let (unmapped, too_large, last_error) = self.link.as_ref().map_or((0, 0, None), LocalLink::troubles);
        (self.dropped_before.0 + unmapped, self.dropped_before.1 + too_large, last_error)
    }
}

fn queue_dir(rule: &Path, direction: Direction) -> PathBuf {
    rule.join(direction.folder())
}

/// The queue, and the sources of its newest records.
fn open_queue(dir: &Path, config: QueueConfig) -> Result<(Queue, Vec<Source>), QueueError> {
    std::fs::create_dir_all(dir).map_err(|source| QueueError::Io {
        dir: dir.to_owned(),
        doing: "make the directory",
        source,
    })?;
    let (queue, recovery) = Queue::open(dir, config, clock::wall().0)?;
    if recovery.skipped_bad > 0 || recovery.cursor_lost {
        tracing::warn!(
            queue.dir = %dir.display(),
            queue.skipped = recovery.skipped_bad,
            queue.cursor_lost = recovery.cursor_lost,
            "a queue was damaged"
        );
    }
    Ok((queue, recovery.sources.into()))
}

fn words(error: &QueueError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn disk_fault(error: &QueueError) -> BridgeEvent {
    BridgeEvent::Faulted(Fault { code: FaultCode::Disk, detail: words(error) })
}

fn task(order: Order, rule: Arc<EdgeRule>, secrets: &[SecretValue]) -> Task {
    let value = |name: &SecretRef| {
        let secret = secrets.iter().find(|secret| secret.id == name.id && secret.version == name.version)?;
        Some(Secret::new(secret.value.clone()))
    };
    let password = rule.remote.password.as_ref().and_then(value);
    let key = rule.remote.tls.as_ref().and_then(|tls| tls.key.as_ref()).and_then(value);
    Task { order, rule, secrets: Secrets { password, key } }
}

/// What earlier bridges moved and what this one moved; what waits is not a sum, and the queue keeps its own drops. Those
/// that only a bridge counts are a sum as well.
fn sum(before: &Counters, mut now: Counters) -> Counters {
    for reason in [UNMAPPED, REFUSED] {
        if let Some(count) = before.dropped.0.get(reason) {
            *now.dropped.0.entry(reason.to_owned()).or_insert(0) += count;
        }
    }
    Counters {
        forwarded: before.forwarded + now.forwarded,
        received: before.received + now.received,
        reconnects: before.reconnects + now.reconnects,
        last_error: now.last_error.or_else(|| before.last_error.clone()),
        ..now
    }
}

#[cfg(test)]
mod tests {
    use tidegate_model::wire::Dropped;

    use super::*;

    fn dropped(reasons: &[(&str, u64)]) -> Counters {
        let dropped = reasons.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
        Counters { dropped: Dropped(dropped), ..Counters::default() }
    }

    #[test]
    fn what_only_a_bridge_counts_outlives_it_and_what_the_queue_counts_is_not_doubled() {
        let before = dropped(&[(UNMAPPED, 2), (REFUSED, 1), ("full", 7)]);
        let both = sum(&before, dropped(&[(UNMAPPED, 3), ("full", 9)]));
        assert_eq!(both, dropped(&[(UNMAPPED, 5), (REFUSED, 1), ("full", 9)]));
    }
}

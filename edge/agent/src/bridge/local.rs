//! The half towards a local broker that is not our own: what the rule forwards comes from a session there into the
//! outgoing queue, and the incoming queue is published there. It runs from the moment at which the rule takes in or is
//! started until it is stopped, whatever becomes of the remote connection.

use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc, time::Instant};

use bytes::BytesMut;
use rumqttc::mqttbytes::v4::Publish;
use tidegate_edge_core::{BridgeEvent, Order};
use tidegate_edge_queue::{Queue, Source as Sent};
use tidegate_model::{
    code::FaultCode,
    ids::RuleId,
    rule::{DrainSpec, EdgeRule, Qos, Route},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Duration,
};
use tokio_util::sync::CancellationToken;

use super::{
    Notice, Timing,
    counters::Tally,
    dial::{Dialled, Endpoint},
    fault::{LinkError, fault},
    half::{Change, Half},
    outgoing::Outgoing,
    remote::LocalState,
    run::{AbortOnDrop, run},
    sessions::Sessions,
    source::{Source, Takers},
    subscriptions::filters_of,
};

/// What a rule wants of the local broker.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wishes {
    /// Messages are taken in under its forwards.
    pub taking: Option<Arc<EdgeRule>>,
    /// The order of the rule's bridge, and what it runs: the same, or what is being tried.
    pub running: Option<(Order, Arc<EdgeRule>)>,
}

/// What the connection of one rule works with.
pub(crate) struct LocalParts {
    /// Whose it is.
    pub rule: RuleId,
    /// Where messages of the local broker go.
    pub outgoing: Queue,
    /// Records for the local broker.
    pub incoming: Queue,
    /// The sources of the newest records of `outgoing`.
    pub held: Vec<Sent>,
    /// Where the rule's session is.
    pub sessions: Arc<Sessions>,
    /// Where it says that it ended as it should not.
    pub events: mpsc::Sender<Notice>,
    /// How long it waits for what.
    pub timing: Timing,
}

/// The connection of one rule to the local broker. Dropping it ends it without waiting; the session stays.
pub(crate) struct LocalLink {
    wishes: watch::Sender<Wishes>,
    state: watch::Receiver<LocalState>,
    tally: Arc<Tally>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl LocalLink {
    /// Begins; ends with `cancel`, or when it is stopped.
    pub fn start(parts: LocalParts, cancel: &CancellationToken) -> Self {
        let cancel = cancel.child_token();
        let tally = Arc::new(Tally::default());
        let (wishes, wanted) = watch::channel(Wishes::default());
        let (told, state) = watch::channel(LocalState::NotYet);
        let task = tokio::spawn(supervise(parts, wanted, told, Arc::clone(&tally), cancel.clone()));
        Self { wishes, state, tally, cancel, task }
    }

    /// Wants something else. Never waits.
    pub fn want(&self, change: impl FnOnce(&mut Wishes)) {
        self.wishes.send_modify(change);
    }

    /// How it fares, for the other half.
    pub fn state(&self) -> watch::Receiver<LocalState> {
        self.state.clone()
    }

    /// It ended by itself, which it should not.
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// Messages that were dropped because the rule has no topic for them, and because they were too large; the last error.
    pub fn troubles(&self) -> (u64, u64, Option<String>) {
        self.tally.troubles()
    }

    /// Says goodbye to the local broker and ends. Takes at most a second.
    pub async fn stop(mut self) {
        self.cancel.cancel();
        if let Err(error) = (&mut self.task).await {
            tracing::error!(line.kind = "local-broker", %error, "the connection to the local broker did not end well");
        }
    }
}

impl Drop for LocalLink {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Runs the half and tells if it ends in a way it should not.
async fn supervise(
    parts: LocalParts,
    wishes: watch::Receiver<Wishes>,
    state: watch::Sender<LocalState>,
    tally: Arc<Tally>,
    cancel: CancellationToken,
) {
    let LocalParts { rule, outgoing, incoming, held, sessions, events, timing } = parts;
    let wanted = wishes.clone();
    let state = Arc::new(state);
    let half = Local {
        rule,
        address: sessions.address(),
        sessions,
        wishes,
        order: Order(0),
        source: Source::new(outgoing, Arc::clone(&tally), held),
        state: Arc::clone(&state),
        tally: Arc::clone(&tally),
        replay: timing.replay,
    };
    let sending = Outgoing::new(rule, incoming, tally);
    let mut running = tokio::spawn(Box::pin(run(rule, half, sending, timing, cancel)));
    let _ends = AbortOnDrop(running.abort_handle());
    let Err(error) = (&mut running).await else { return };
    tracing::error!(line.kind = "local-broker", rule.id = %rule, %error, "the connection to the local broker panicked");
    let detail = "internal error, see the agent's log".to_owned();
    state.send_replace(LocalState::Trouble(fault(FaultCode::LocalBroker, &detail)));
    let order = wanted.borrow().running.as_ref().map(|(order, _)| *order);
    if let Some(order) = order {
        // Nobody listens any more: the agent is going down.
        let _ = events.send(Notice { rule, order, event: BridgeEvent::Ended { detail } }).await;
    }
}

/// The half itself.
struct Local {
    rule: RuleId,
    address: String,
    sessions: Arc<Sessions>,
    wishes: watch::Receiver<Wishes>,
    /// Of the wishes that were taken over.
    order: Order,
    source: Source,
    state: Arc<watch::Sender<LocalState>>,
    tally: Arc<Tally>,
    replay: Duration,
}

impl Local {
    /// Takes over the newest wishes.
    fn take_over(&mut self) -> Result<(), LinkError> {
        let Wishes { taking, running } = self.wishes.borrow_and_update().clone();
        self.order = running.as_ref().map_or(Order(0), |(order, _)| *order);
        self.source.serve(Takers { taking, trying: running.map(|(_, rule)| rule) })
    }

    fn say(&self, state: LocalState) {
        self.state.send_if_modified(|said| {
            let news = *said != state;
            *said = state;
            news
        });
    }
}

impl Half for Local {
    fn renew(&mut self) {
        if let Err(error) = self.take_over() {
            // Nothing waits without a connection.
            tracing::debug!(rule.id = %self.rule, %error, "while taking over other wishes");
        }
    }

    fn renewed(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        // Other topics are no reason to try again sooner, nor to give up an attempt: they are asked for when it succeeds.
        Box::pin(std::future::pending())
    }

    async fn prepare(&self) -> Result<(), LinkError> {
        self.sessions.claim(self.rule).await
    }

    fn endpoint(&self) -> Endpoint {
        self.sessions.endpoint(self.rule)
    }

    fn another(&mut self, error: &LinkError) -> bool {
        tracing::debug!(rule.id = %self.rule, %error, "not connected");
        false
    }

    fn connected(&mut self, dialled: &Dialled) {
        self.source.connected(dialled.session_present);
        if !dialled.as_bridge {
            tracing::info!(
                line.kind = "local-broker", rule.id = %self.rule, broker = %self.address,
                "the local broker does not know bridges: what the rule publishes there and forwards as well comes back once"
            );
        }
        // What was wished while the connection was made.
        self.renew();
    }

    fn filters(&self) -> BTreeMap<String, Qos> {
        let wishes = self.wishes.borrow();
        let rules = wishes.taking.iter().chain(wishes.running.iter().map(|(_, rule)| rule));
        let routes: Vec<Route> = rules.flat_map(|rule| rule.forwards.iter().cloned()).collect();
        filters_of(&without_covered(routes))
    }

    fn limit(&self) -> Option<DrainSpec> {
        // It is for the way to the remote broker.
        None
    }

    async fn ready(&mut self) {
        self.say(LocalState::Up(self.order));
    }

    async fn failed(&mut self, error: &LinkError) {
        let fault = error.local_fault(&self.address);
        self.tally.error(&fault.detail);
        self.say(LocalState::Trouble(fault));
    }

    fn blocked(&self) -> bool {
        self.source.blocked()
    }

    fn take(&mut self, publish: Publish) -> Result<(), LinkError> {
        self.source.take(publish)
    }

    fn pass_over(&mut self, id: Option<u16>) {
        self.source.pass_over(id);
    }

    fn acknowledge(&mut self, out: &mut BytesMut) -> Result<(), LinkError> {
        self.source.acknowledge(out)
    }

    fn due(&mut self, now: Instant) -> Result<Option<Instant>, LinkError> {
        self.source.due(now, self.replay)
    }

    async fn wait(&mut self) -> Result<Change, LinkError> {
        tokio::select! {
            moved = self.source.wait() => {
                moved?;
                Ok(Change::None)
            }
            Ok(()) = self.wishes.changed() => {
                self.take_over()?;
                Ok(Change::Filters)
            }
        }
    }
}

/// Leaves out what another route takes as well: most brokers send a message once for each subscription that matches. What
/// is left may still overlap.
fn without_covered(mut routes: Vec<Route>) -> Vec<Route> {
    let mut left: Vec<Route> = Vec::new();
    while let Some(route) = routes.pop() {
        match routes.iter_mut().chain(&mut left).find(|other| other.filter.covers(&route.filter)) {
            Some(other) => other.qos = other.qos.max(route.qos),
            None => left.push(route),
        }
    }
    left
}

//! The one loop: takes what waits, lets the core decide, makes it durable in one batch, and only then acts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidegate_broker::TapResult;
use tidegate_cloud_core::{Controller, Effect, Event, Input, Output, ReplyTo, Write};
use tidegate_model::ids::{EdgeId, RuleName};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::Clock;
use super::core_link::{Answer, Call, FromEdge, Inbox};
use crate::auth::Credentials;
use crate::events::Events;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError};
use crate::systems::Changed;
use crate::transport::Transport;

/// Calls and messages that share one write of the store at the most.
const MAX_BATCH: usize = 256;
/// How long to sleep when nothing is due.
const IDLE: Duration = Duration::from_secs(3_600);

/// Everything the loop owns.
pub(crate) struct CoreLoop {
    pub(crate) controller: Controller,
    pub(crate) inbox: Inbox,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) transport: Box<dyn Transport>,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) events: Arc<Events>,
    pub(crate) changed: Arc<Changed>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
}

/// What came together before one write of the store.
#[derive(Default)]
struct Batch {
    next_reply: u64,
    size: usize,
    writes: Vec<Write>,
    effects: Vec<Effect>,
    changed: BTreeSet<(RuleName, EdgeId)>,
    answers: BTreeMap<ReplyTo, oneshot::Sender<Answer>>,
    taken: Vec<oneshot::Sender<TapResult>>,
    reads: Vec<Call>,
}

impl Batch {
    fn add(&mut self, output: Output) {
        self.writes.extend(output.writes);
        self.effects.extend(output.effects);
        self.changed.extend(output.changed);
    }
}

impl CoreLoop {
    /// Runs until `stop`, or until a write fails: then the store is no longer trusted, and neither is this process.
    pub(crate) async fn run(mut self, first: Vec<Effect>, stop: CancellationToken) -> Result<(), StoreError> {
        self.act(Batch { effects: first, ..Batch::default() }).await;
        let result = loop {
            let due = self.controller.next_deadline().map_or(IDLE, |deadline| self.clock.until(deadline.at));
            let mut batch = Batch::default();
            tokio::select! {
                biased;
                () = stop.cancelled() => break Ok(()),
                Some(message) = self.inbox.messages.recv() => self.message(&mut batch, message),
                Some(call) = self.inbox.calls.recv() => self.call(&mut batch, call),
                () = tokio::time::sleep(due) => {
                    let output = self.controller.handle(self.clock.now(), Input::Tick);
                    batch.add(output);
                }
            }
            self.drain(&mut batch);
            let writes = std::mem::take(&mut batch.writes);
            if !writes.is_empty()
                && let Err(error) = self.store.apply(writes).await
            {
                tracing::error!(%error, "a write of the store failed; the controller stops");
                break Err(error);
            }
            self.act(batch).await;
        };
        self.transport.stop().await;
        result
    }

    /// Takes what waits, up to the bound, turn and turn about, so that neither side starves the other.
    fn drain(&mut self, batch: &mut Batch) {
        while batch.size < MAX_BATCH {
            let message = self.inbox.messages.try_recv().ok();
            let call = self.inbox.calls.try_recv().ok();
            if message.is_none() && call.is_none() {
                return;
            }
            if let Some(message) = message {
                self.message(batch, message);
            }
            if let Some(call) = call {
                self.call(batch, call);
            }
        }
    }

    fn message(&mut self, batch: &mut Batch, message: FromEdge) {
        let FromEdge { edge, presence, payload, taken, _bytes } = message;
        batch.size += 1;
        batch.taken.push(taken);
        let output = self.controller.handle(self.clock.now(), Input::FromEdge { edge, presence, payload });
        batch.add(output);
    }

    fn call(&mut self, batch: &mut Batch, call: Call) {
        batch.size += 1;
        match call {
            Call::Request { by, role, request, how, answer } => {
                batch.next_reply += 1;
                let reply_to = ReplyTo(batch.next_reply);
                batch.answers.insert(reply_to, answer);
                let input = Input::Request { reply_to, by, role, request, how };
                let output = self.controller.handle(self.clock.now(), input);
                batch.add(output);
            }
            Call::OtherController(presence) => {
                let output = self.controller.handle(self.clock.now(), Input::OtherController(presence));
                batch.add(output);
            }
            // It must not see what is not durable yet.
            read @ Call::Read(_) => batch.reads.push(read),
        }
    }

    /// Performs what was decided; its writes are durable.
    async fn act(&mut self, mut batch: Batch) {
        self.changed.note(std::mem::take(&mut batch.changed));
        for taken in batch.taken {
            // A connection that closed meanwhile has nobody to acknowledge to.
            let _ = taken.send(TapResult::Taken);
        }
        for effect in batch.effects {
            match effect {
                Effect::Publish { edge, payload } => self.transport.send(&edge, payload),
                Effect::PublishPresence(presence) => self.transport.announce(&presence).await,
                Effect::Disconnect(edge) => {
                    self.credentials.forget(&edge);
                    self.transport.disconnect(&edge);
                }
                Effect::Reply { to, result } => {
                    if let Some(answer) = batch.answers.remove(&to) {
                        // A caller that went away does not hear of it; the change stands.
                        let _ = answer.send(result);
                    }
                }
                Effect::Notify(event) => {
                    log(&event);
                    self.events.publish(event);
                }
                Effect::Settled { action, code, took_ms } => self.metrics.settled(action, code, took_ms),
                Effect::Warn { edge, what } => {
                    tracing::warn!(line.kind = "edge-message", edge.id = %edge, "{what}")
                }
            }
        }
        let now = self.clock.now();
        for read in batch.reads {
            if let Call::Read(look) = read {
                look(&self.controller, now);
            }
        }
    }
}

/// What people ask for is written down always; what edges say, or keep silent about, within its budget.
fn log(event: &Event) {
    let (rule, edge) = (event.rule.as_ref().map(|r| r.as_str()), event.edge.as_ref().map(|e| e.as_str()));
    if event.was_asked_for {
        tracing::info!(rule.name = rule, edge.id = edge, "{}", event.text);
    } else {
        tracing::info!(line.kind = "edge-event", rule.name = rule, edge.id = edge, "{}", event.text);
    }
}

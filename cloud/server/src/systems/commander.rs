//! Carries out commands of other systems, one after the other, and acknowledges each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_broker::TapResult;
use tidegate_cloud_core::{
    Actor, Controller, How, PlacementFilter, PlacementView, Rejection, Reply, Request, VIA_MQTT, WhenOffline,
};
use tidegate_model::code::Code;
use tidegate_model::ids::{EdgeId, RuleName};
use tidegate_model::limits::{MAX_COMMAND_BYTES, MAX_ENVELOPE_BYTES};
use tidegate_model::placement::{Action, Role};
use tidegate_model::wire::{Ack, Ask, BadCommand, Command, PlacementState, Tid, Topics};
use tokio::sync::{mpsc, oneshot};

use super::recent::Recent;
use crate::run::{CoreLink, Stopped};
use crate::transport::{Outlet, Publication};

/// Commands that wait at the most. Beyond it the broker of ours closes the sender's connection, and a broker of somebody
/// else is not read.
const MAX_WAITING: usize = 1_024;
/// How often an answer is tried while the broker is not reached, and the pause between two tries.
const PUBLISH_TRIES: u32 = 50;
const PUBLISH_PAUSE: Duration = Duration::from_millis(100);
/// Who acts, as events name it: on a broker of somebody else nobody can tell which system it was.
const NAME: &str = "api";
/// What the senders of commands may do.
const ROLE: Role = Role::Operator;

/// A command as it came.
pub(crate) struct FromSystem {
    pub(crate) payload: Vec<u8>,
    pub(crate) retained: bool,
    /// Told once what the command changed is durable.
    pub(crate) taken: oneshot::Sender<TapResult>,
}

impl FromSystem {
    /// Keeps no more of a payload than it takes to see that it is too large.
    pub(crate) fn new(payload: &[u8], retained: bool, taken: oneshot::Sender<TapResult>) -> Self {
        Self { payload: payload[..payload.len().min(MAX_COMMAND_BYTES + 1)].to_vec(), retained, taken }
    }
}

/// Where a transport puts commands.
pub(crate) type Intake = mpsc::Sender<FromSystem>;

/// The way from a transport to the commander.
pub(crate) fn intake() -> (Intake, mpsc::Receiver<FromSystem>) {
    mpsc::channel(MAX_WAITING)
}

/// Carries out commands.
pub(crate) struct Commander {
    core: CoreLink,
    topics: Topics,
    outlet: Arc<dyn Outlet>,
    recent: Recent,
    /// Commands that could not be read.
    unreadable: u64,
}

impl Commander {
    pub(crate) fn new(core: CoreLink, topics: Topics, outlet: Arc<dyn Outlet>) -> Self {
        Self { core, topics, outlet, recent: Recent::default(), unreadable: 0 }
    }

    /// Until the controller stops.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<FromSystem>) {
        while let Some(FromSystem { payload, retained, taken }) = commands.recv().await {
            if retained {
                // Else it would come again at each start.
                self.publish(self.topics.command(), Vec::new(), true).await;
            }
            match self.obey(&payload, retained).await {
                Ok(Some(ack)) => self.acknowledge(ack).await,
                Ok(None) => {}
                Err(Stopped) => return,
            }
            // A connection that closed meanwhile has nobody to acknowledge to.
            let _ = taken.send(TapResult::Taken);
        }
    }

    async fn acknowledge(&self, ack: Ack) {
        let bytes = |ack: &Ack| serde_json::to_vec(ack).expect("an acknowledgement has string keys");
        let mut payload = bytes(&ack);
        if payload.len() > MAX_ENVELOPE_BYTES {
            let detail = "the answer is larger than a message may be; ask the API";
            payload = bytes(&Ack::new(ack.tid, ack.action, Code::TooLarge, detail));
        }
        self.publish(self.topics.ack(), payload, false).await;
    }

    async fn publish(&self, topic: String, payload: Vec<u8>, retain: bool) {
        let publication = Publication { topic, payload, retain };
        for _ in 0..PUBLISH_TRIES {
            if self.outlet.publish(publication.clone()).await {
                return;
            }
            // The line by which commands come may stand before the one by which answers go.
            tokio::time::sleep(PUBLISH_PAUSE).await;
        }
        tracing::debug!("an answer to a command was not sent; its sender asks again under the same tid");
    }

    /// Does what a payload says; `None`: nobody can be told, or it is for another controller to answer.
    async fn obey(&mut self, payload: &[u8], retained: bool) -> Result<Option<Ack>, Stopped> {
        if payload.is_empty() || self.core.read(|core, _| core.superseded_by().is_some()).await? {
            return Ok(None);
        }
        let command = match Command::read(payload) {
            Ok(command) => command,
            Err(BadCommand { tid, action, what }) => {
                self.unreadable += 1;
                tracing::warn!(
                    line.kind = "command-unreadable",
                    what,
                    total = self.unreadable,
                    "a command over MQTT cannot be read"
                );
                return Ok(tid.map(|tid| Ack::new(tid, action, Code::BadMessage, what)));
            }
        };
        let (tid, action) = (command.tid.clone(), command.action());
        if retained {
            let detail =
                "a retained command would be repeated at every start; publish it without the retain flag";
            return Ok(Some(Ack::new(tid, action, Code::BadMessage, detail)));
        }
        Ok(Some(match command.ask.clone() {
            Ask::List { rule, edge, after, limit } => {
                let filter = PlacementFilter { rule, edge, issue_state: None, run_state: None };
                self.core.read(move |core, _| list(core, tid, &filter, after, limit)).await?
            }
            Ask::Lookup { rule } => self.core.read(move |core, _| lookup(core, tid, &rule)).await?,
            Ask::Status { rule, edge } => {
                self.core.read(move |core, _| status(core, tid, &rule, &edge)).await?
            }
            Ask::Act { action, rule, edge, queue } => {
                let now = Instant::now();
                if let Some(ack) = self.recent.answer(now, &command) {
                    return Ok(Some(ack));
                }
                let ack = self.act(tid, action, rule, edge, queue).await?;
                // A refusal changed nothing: the same command may be tried again.
                if ack.payload.status.is_success() {
                    self.recent.insert(now, command, ack.clone());
                }
                ack
            }
        }))
    }

    async fn act(
        &self,
        tid: Tid,
        action: Action,
        rule: RuleName,
        edge: EdgeId,
        queue: bool,
    ) -> Result<Ack, Stopped> {
        let when_offline = if queue { WhenOffline::Queue } else { WhenOffline::Refuse };
        let by = Actor { name: NAME.to_owned(), via: VIA_MQTT.to_owned() };
        let request = Request::Act { rule, edge, action, when_offline };
        Ok(match self.core.request(by, ROLE, request, How::default()).await? {
            Ok(reply) => acted(tid, action, *reply),
            Err(rejection) => Ack::new(tid, action.as_str(), rejection.code(), rejection.to_string()),
        })
    }
}

fn acted(tid: Tid, action: Action, reply: Reply) -> Ack {
    let ack = |status, detail: String, placement: &PlacementView| {
        let mut ack = Ack::new(tid.clone(), action.as_str(), status, detail);
        ack.payload.state = Some(PlacementState::from(placement));
        ack
    };
    match reply {
        Reply::Acted { operation, placement } => {
            let waits = if operation.queued { "waits for the edge" } else { "is under way" };
            let mut ack =
                ack(Code::Accepted, format!("{action} {waits}; its end shows in the state"), &placement);
            ack.payload.generation = Some(operation.generation);
            ack.payload.operation = Some(operation.id);
            ack
        }
        Reply::Already { placement } => ack(Code::Already, Code::Already.meaning().to_owned(), &placement),
        Reply::Rule { .. }
        | Reply::Deleted
        | Reply::Placed { .. }
        | Reply::Unplaced { .. }
        | Reply::ActedOnMany(_)
        | Reply::EdgeCreated(_)
        | Reply::EdgeConfirmed(_)
        | Reply::EdgeRemoved
        | Reply::Replayed(_)
        | Reply::Rehearsed(_) => Ack::new(tid, action.as_str(), Code::Internal, Code::Internal.meaning()),
    }
}

fn list(
    core: &Controller,
    tid: Tid,
    filter: &PlacementFilter,
    after: Option<(RuleName, EdgeId)>,
    limit: usize,
) -> Ack {
    let after = after.as_ref().map(|(rule, edge)| (rule, edge));
    // One more than is told shows whether there is a next page.
    let (placements, total) = core.placements(filter, after, limit + 1, ROLE);
    let mut ack = Ack::new(tid, "list", Code::Ok, format!("{total} placements in all"));
    let items: Vec<_> = placements.iter().take(limit).map(PlacementState::from).collect();
    if placements.len() > limit {
        ack.payload.next = items.last().map(|last| format!("{}/{}", last.rule, last.edge));
    }
    ack.payload.items = Some(items);
    ack
}

fn lookup(core: &Controller, tid: Tid, rule: &RuleName) -> Ack {
    match core.rule_record(rule) {
        Some(record) => {
            let mut ack = Ack::new(tid, "lookup", Code::Ok, "");
            ack.payload.rule = Some(serde_json::json!({
                "name": record.name(),
                "version": record.version,
                "content": record.shown(),
            }));
            ack
        }
        None => refused(tid, "lookup", &Rejection::NoSuchRule(rule.clone())),
    }
}

fn status(core: &Controller, tid: Tid, rule: &RuleName, edge: &EdgeId) -> Ack {
    match core.state(rule, edge) {
        Some(state) => {
            let mut ack = Ack::new(tid, "status", Code::Ok, "");
            ack.payload.state = Some(state);
            ack
        }
        None => {
            let rejection = Rejection::NoSuchPlacement { rule: rule.clone(), edge: edge.clone() };
            refused(tid, "status", &rejection)
        }
    }
}

fn refused(tid: Tid, action: &str, rejection: &Rejection) -> Ack {
    Ack::new(tid, action, rejection.code(), rejection.to_string())
}

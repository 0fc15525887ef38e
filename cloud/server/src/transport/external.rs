//! A broker of somebody else as a transport: the controller is its client.
//!
//! ```text
//!  up, presence, controller --> edges line ----> the loop --PUBACK, once it is durable--> edges line
//!  commands ----------------> commands line -> systems --PUBACK, once it is durable--> commands line
//!  down, own presence <------ writer line <--- the loop
//!  answers, states <--------- writer line <--- systems
//! ```
//!
//! Each line is a connection of its own: acknowledgements and publishes on one connection of rumqttc can block each
//! other (docs/adr/0006). Sessions are clean; what is lost while a line is down is sent again by the core and told again
//! by the edges. A line that breaks is made again with a pause of its own; the loop never waits for the broker.
//!
//! The broker does not vouch for who publishes on an edge's topics: its access rules have to (docs/operations.md).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tidegate_model::ids::EdgeId;
use tidegate_model::wire::{ControllerPresence, EdgeTopic, Topics};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Outlet, Publication, Transport};
use crate::run::CoreLink;
use crate::settings::ExternalBroker;
use crate::systems::{Intake, Stray};

mod backoff;
mod commands;
mod edges;
mod line;
mod reader;
mod writer;

use commands::Commands;
use edges::Edges;
use line::{Line, Part};
use writer::Writer;

/// Messages that wait to be published at the most; those beyond it are lost, and sent again by the core.
const MAX_WAITING_SAYS: usize = 4_096;
/// Answers and states that wait to be published at the most; then who publishes them waits.
const MAX_WAITING_OTHERS: usize = 64;
/// Time for the last word on the broker when the controller stops.
const STOP_TIMEOUT: Duration = Duration::from_millis(800);

/// How the connections are, each by its own account.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// Why each line is down; `None`: it is up.
    down: [Option<String>; Part::ALL.len()],
    /// How often the writer was connected.
    reached: u64,
    dropped: Arc<AtomicU64>,
}

impl Lines {
    fn new(dropped: Arc<AtomicU64>) -> Self {
        Self { down: Part::ALL.map(|_| Some("it was not reached yet".to_owned())), reached: 0, dropped }
    }

    /// Why messages cannot pass; `None`: they can.
    pub(crate) fn down(&self) -> Option<&str> {
        self.down.iter().flatten().next().map(String::as_str)
    }

    /// How often the broker was reached; each time it may have forgotten what it held.
    pub(crate) fn times_reached(&self) -> u64 {
        self.reached
    }

    /// Messages that were dropped because they were not for us, or unreadable.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The controller as a client of a broker of somebody else.
pub(crate) struct External {
    topics: Topics,
    says: mpsc::Sender<Publication>,
    others: mpsc::Sender<Publication>,
    presence: watch::Sender<Option<ControllerPresence>>,
    writes: Arc<AtomicBool>,
    lines: watch::Receiver<Lines>,
    stopping: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl External {
    /// Begins to connect. It never fails: a broker that is not there is waited for.
    pub(crate) fn start(
        broker: &ExternalBroker,
        topics: Topics,
        epoch: u64,
        core: CoreLink,
        commands: Intake,
        strays: mpsc::Sender<Stray>,
    ) -> Self {
        let dropped = Arc::new(AtomicU64::new(0));
        let (told, lines) = watch::channel(Lines::new(Arc::clone(&dropped)));
        let told = Arc::new(told);
        let stopping = CancellationToken::new();
        let (says, waiting) = mpsc::channel(MAX_WAITING_SAYS);
        let (others, others_waiting) = mpsc::channel(MAX_WAITING_OTHERS);
        let (presence, announced) = watch::channel(None);
        let writes = Arc::new(AtomicBool::new(false));
        let line = |part: Part| Line {
            part,
            broker: broker.clone(),
            client_id: topics.controller_client_id(part.name(), epoch),
            told: Arc::clone(&told),
            stopping: stopping.clone(),
        };
        let writer = Writer {
            topics: topics.clone(),
            waiting,
            others: others_waiting,
            presence: announced,
            writes: Arc::clone(&writes),
        };
        let commands = Commands { topics: topics.clone(), commands, strays };
        let edges = Edges::new(topics.clone(), core, dropped);
        let tasks = vec![
            tokio::spawn(writer.run(line(Part::Writer))),
            tokio::spawn(reader::run(line(Part::Edges), edges)),
            tokio::spawn(reader::run(line(Part::Commands), commands)),
        ];
        Self { topics, says, others, presence, writes, lines, stopping, tasks }
    }

    /// Publishes for others.
    pub(crate) fn outlet(&self) -> Arc<dyn Outlet> {
        Arc::new(ExternalOutlet { others: self.others.clone(), writes: Arc::clone(&self.writes) })
    }

    /// How the connections are.
    pub(crate) fn lines(&self) -> watch::Receiver<Lines> {
        self.lines.clone()
    }
}

/// Publishes through the writer line.
struct ExternalOutlet {
    others: mpsc::Sender<Publication>,
    writes: Arc<AtomicBool>,
}

impl Outlet for ExternalOutlet {
    fn publish(&self, publication: Publication) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(async move {
            // What waits when the connection breaks is lost; everything that lasts is published again after it is back.
            self.writes.load(Ordering::Relaxed) && self.others.send(publication).await.is_ok()
        })
    }
}

impl Transport for External {
    fn send(&self, edge: &EdgeId, payload: Vec<u8>) {
        if !self.writes.load(Ordering::Relaxed) {
            tracing::debug!(edge.id = %edge, "a message was not sent, since the broker is not connected; it is sent again");
            return;
        }
        let say = Publication { topic: self.topics.edge(edge, EdgeTopic::Down), payload, retain: false };
        if self.says.try_send(say).is_err() {
            tracing::warn!(line.kind = "message-not-sent", edge.id = %edge, "a message was not sent, since too many wait for the broker; it is sent again");
        }
    }

    fn announce<'a>(
        &'a self,
        presence: &'a ControllerPresence,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        self.presence.send_replace(Some(presence.clone()));
        Box::pin(std::future::ready(()))
    }

    /// The connection is between the edge and its broker; that the credential is void is for who runs the broker to see to.
    fn disconnect(&self, edge: &EdgeId) {
        tracing::warn!(edge.id = %edge, "the edge was removed here; remove its account at the broker too");
    }

    fn stop(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            self.stopping.cancel();
            for mut task in self.tasks {
                if tokio::time::timeout(STOP_TIMEOUT, &mut task).await.is_err() {
                    task.abort();
                }
            }
        })
    }
}

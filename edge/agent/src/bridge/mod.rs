//! The bridge of one rule: moves records from the rule's outgoing queue to the remote broker, and what the remote
//! broker sends to the rule's incoming queue and from there to the local broker.
//!
//! ```text
//!       outgoing queue -> window -> PUBLISH ->                     (outgoing.rs)
//! tap or                                      remote broker        (remote.rs)
//! local broker
//!       incoming queue <- PUBLISH           <-                     (incoming.rs; PUBACK once it is durable)
//!              '-> LocalSink (our own broker)                      (drain.rs)
//!                  or window -> PUBLISH -> local broker            (local.rs, source.rs)
//! ```
//!
//! A record leaves the outgoing queue when the remote broker acknowledged it, and the incoming one when the local
//! broker took it. Each connection is a half (`half.rs`) that one task runs for ever, with pauses (`run.rs`), over one kind of
//! connection (`route.rs`, `tls.rs`, `dial.rs`, `link.rs`); a remote broker may have several addresses (`addresses.rs`). Towards our own broker there is none: its tap fills the outgoing queue, and a second task
//! empties the incoming one. All end with the bridge; the queues are the caller's and stay.
//!
//! Speaks MQTT 3.1.1 over its own small connection: a client library that keeps pending messages itself loses them with
//! a lost session, and flushes once per message (docs/adr/0005, and 0008 for the local side). Leaves to others: filling the
//! outgoing queue from our own broker, when a rule runs at all, keeping secrets, what a fault means for the rule.

mod addresses;
mod counters;
mod dial;
mod drain;
mod fault;
mod frame;
mod half;
mod incoming;
mod link;
mod local;
mod outgoing;
mod remote;
mod route;
mod run;
mod sessions;
mod sink;
mod source;
mod subscriptions;
mod tls;
mod visit;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use tidegate_edge_core::{BridgeEvent, Order};
use tidegate_edge_queue::{Queue, QueueConfig};
use tidegate_model::{
    ids::RuleId,
    rule::{EdgeQueue, EdgeRule, Secrets, WhenFull},
    wire::Counters,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use counters::Tally;
pub(crate) use counters::{REFUSED, TOO_LARGE, UNMAPPED};
pub(crate) use local::{LocalLink, LocalParts};
pub use remote::LocalState;
pub(crate) use sessions::Sessions;
pub use sink::{LocalMessage, LocalSink, SinkError, SinkFuture};
pub(crate) use visit::{NotWelcome, Visit};

/// What a bridge is to do. A new one replaces the old one as a whole.
#[derive(Debug, Clone)]
pub struct Task {
    /// The order it comes from; each event names it.
    pub order: Order,
    /// The rule.
    pub rule: Arc<EdgeRule>,
    /// The secrets that the rule names.
    pub secrets: Secrets,
}

/// What a bridge works with.
pub struct Parts {
    /// Whose bridge it is.
    pub rule: RuleId,
    /// Records for the remote broker, under its topics.
    pub outgoing: Queue,
    /// Records from the remote broker, under local topics.
    pub incoming: Queue,
    /// The local broker.
    pub local: LocalEnd,
    /// Where it says how it fares. It waits when the channel is full.
    pub events: mpsc::Sender<Notice>,
    /// How long it waits for what.
    pub timing: Timing,
}

/// The local broker, as a bridge sees it.
pub enum LocalEnd {
    /// Our own: it takes messages.
    Sink(Arc<dyn LocalSink>),
    /// Another one. A connection of its own fills and empties the queues, and says here how it fares.
    Link(watch::Receiver<LocalState>),
}

/// A bridge says how it fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Whose bridge.
    pub rule: RuleId,
    /// The order of the task it speaks of.
    pub order: Order,
    /// What it says.
    pub event: BridgeEvent,
}

/// How long a bridge waits for what.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// From the start of an attempt to CONNACK.
    pub connect: Duration,
    /// From SUBSCRIBE to SUBACK.
    pub subscribe: Duration,
    /// From a PUBLISH, or the last PUBACK of another, to its PUBACK.
    pub acknowledge: Duration,
    /// Silence after which it asks whether the remote broker is there, if three quarters of the rule's keep-alive
    /// are not shorter.
    pub silence: Duration,
    /// From PINGREQ to any sign of life.
    pub ping: Duration,
    /// Between two looks for records that are too old.
    pub expire: Duration,
    /// From the first message that is sent again to the last one that is held.
    pub replay: Duration,
    /// Between two looks whether the first address of the remote broker answers again, while another one is used.
    pub look_for_first: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            subscribe: Duration::from_secs(10),
            acknowledge: Duration::from_secs(30),
            silence: Duration::from_secs(30),
            ping: Duration::from_secs(10),
            expire: Duration::from_secs(10),
            replay: Duration::from_secs(10),
            look_for_first: Duration::from_secs(60),
        }
    }
}

/// A running bridge. Dropping it ends it as [`Bridge::stop`] does, without waiting.
pub struct Bridge {
    tasks: watch::Sender<Task>,
    cancel: CancellationToken,
    running: JoinHandle<()>,
    tally: Arc<Tally>,
    outgoing: Queue,
    incoming: Queue,
}

impl Bridge {
    /// Starts a bridge; it ends with `cancel`, or when it is stopped.
    pub fn start(parts: Parts, task: Task, cancel: &CancellationToken) -> Self {
        let cancel = cancel.child_token();
        let tally = Arc::new(Tally::default());
        let (outgoing, incoming) = (parts.outgoing.clone(), parts.incoming.clone());
        let (tasks, desired) = watch::channel(task);
        let running = tokio::spawn(run::supervise(parts, desired, Arc::clone(&tally), cancel.clone()));
        Self { tasks, cancel, running, tally, outgoing, incoming }
    }

    /// Gives the bridge another task. Topics are changed on the living connection; only another address, login or
    /// client id makes it connect anew. The order gets its own event. Never waits.
    pub fn reconfigure(&self, task: Task) {
        self.tasks.send_replace(task);
    }

    /// What it has moved, with what waits in the queues at this wall clock (ms).
    pub fn counters(&self, now_ms: i64) -> Counters {
        self.tally.counters(&self.outgoing.stats(), &self.incoming.stats(), now_ms)
    }

    /// Says goodbye to the remote broker and ends. Takes at most a second.
    pub async fn stop(mut self) {
        self.cancel.cancel();
        if let Err(error) = (&mut self.running).await {
            tracing::error!(%error, "a bridge did not end well");
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Counters of a rule without a bridge: what waits in its queues at this wall clock (ms).
pub fn waiting(outgoing: &Queue, incoming: &Queue, now_ms: i64) -> Counters {
    Tally::default().counters(&outgoing.stats(), &incoming.stats(), now_ms)
}

/// The bounds of a rule's queues, one for each direction.
pub fn queue_config(queue: &EdgeQueue) -> QueueConfig {
    QueueConfig {
        max_bytes: queue.max_bytes.0,
        max_age: Some(Duration::from_secs(queue.max_age.0)),
        when_full: match queue.when_full {
            WhenFull::Block => tidegate_edge_queue::WhenFull::Block,
            WhenFull::DropOldest => tidegate_edge_queue::WhenFull::DropOldest,
        },
        ..QueueConfig::default()
    }
}

/// Wall clock, ms since 1970.
fn wall_ms() -> i64 {
    crate::clock::wall().0
}

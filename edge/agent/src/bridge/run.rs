//! The life of a bridge: attempt after attempt, with pauses, and what it says meanwhile.

use std::{sync::Arc, time::Instant};

use tidegate_edge_core::{BridgeEvent, Order, backoff::Backoff};
use tidegate_edge_queue::Queue;
use tidegate_model::ids::RuleId;
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
    time::{Duration, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    Notice, Parts, Task,
    counters::Tally,
    dial::dial,
    drain::drain,
    incoming::Incoming,
    link::{Context, End, drive, monotonic},
    outgoing::Outgoing,
    queue_config, wall_ms,
};

/// Runs the bridge and tells if it ends in a way it should not.
pub(super) async fn supervise(
    parts: Parts,
    tasks: watch::Receiver<Task>,
    tally: Arc<Tally>,
    cancel: CancellationToken,
) {
    let (events, rule, desired) = (parts.events.clone(), parts.rule, tasks.clone());
    let (trouble_tx, trouble) = watch::channel(None);
    let (queue, sink) = (parts.incoming.clone(), Arc::clone(&parts.sink));
    let mut drainer = tokio::spawn(drain(queue, sink, Arc::clone(&tally), trouble_tx));
    let mut running = tokio::spawn(Box::pin(run(parts, tasks, trouble, tally, cancel)));
    let _ends = [AbortOnDrop(drainer.abort_handle()), AbortOnDrop(running.abort_handle())];
    let error = tokio::select! {
        Err(error) = &mut drainer => error,
        ended = &mut running => match ended {
            Ok(()) => return,
            Err(error) => error,
        },
    };
    tracing::error!(rule.id = %rule, %error, "a bridge panicked");
    let order = desired.borrow().order;
    let event = BridgeEvent::Ended { detail: "internal error, see the agent's log".to_owned() };
    // Nobody listens any more: the agent is going down.
    let _ = events.send(Notice { rule, order, event }).await;
}

/// Says how the bridge fares, each thing once per order.
pub(super) struct Reporter {
    rule: RuleId,
    /// Of the task that is being done.
    order: Order,
    events: mpsc::Sender<Notice>,
    said: Option<(Order, BridgeEvent)>,
    outgoing: Queue,
    incoming: Queue,
}

impl Reporter {
    /// A new task: its queue bounds hold from now on.
    pub fn tasked(&mut self, task: &Task) {
        self.order = task.order;
        let config = queue_config(&task.rule.queue);
        self.outgoing.reconfigure(config.clone());
        self.incoming.reconfigure(config);
    }

    /// The last write of a queue failed.
    pub fn disk_faulted(&self) -> bool {
        self.outgoing.is_faulted() || self.incoming.is_faulted()
    }

    /// Sends an event, unless it is what was said last. The detail of a fault alone is no news.
    pub async fn say(&mut self, event: BridgeEvent, cancel: &CancellationToken) {
        let order = self.order;
        if self.said.as_ref().is_some_and(|(said, last)| *said == order && same(last, &event)) {
            return;
        }
        self.said = Some((order, event.clone()));
        tokio::select! {
            // Nobody listens any more: the agent is going down.
            _ = self.events.send(Notice { rule: self.rule, order, event }) => {}
            () = cancel.cancelled() => {}
        }
    }
}

fn same(last: &BridgeEvent, event: &BridgeEvent) -> bool {
    match (last, event) {
        (BridgeEvent::Faulted(last), BridgeEvent::Faulted(fault)) => last.code == fault.code,
        (BridgeEvent::Running, BridgeEvent::Running) => true,
        (
            BridgeEvent::Running | BridgeEvent::Faulted(_) | BridgeEvent::Ended { .. },
            BridgeEvent::Running | BridgeEvent::Faulted(_) | BridgeEvent::Ended { .. },
        ) => false,
    }
}

async fn run(
    parts: Parts,
    mut tasks: watch::Receiver<Task>,
    mut trouble: watch::Receiver<Option<String>>,
    tally: Arc<Tally>,
    cancel: CancellationToken,
) {
    let Parts { rule, outgoing, incoming, sink: _, events, timing } = parts;
    let expirer = tokio::spawn(expire(outgoing.clone(), incoming.clone(), timing.expire));
    let _ends = AbortOnDrop(expirer.abort_handle());
    let order = tasks.borrow().order;
    let mut reporter =
        Reporter { rule, order, events, said: None, outgoing: outgoing.clone(), incoming: incoming.clone() };
    let mut sending = Outgoing::new(outgoing, Arc::clone(&tally));
    let mut backoff = Backoff::new();
    let epoch = Instant::now();
    loop {
        let task = tasks.borrow_and_update().clone();
        reporter.tasked(&task);
        let dialled = tokio::select! {
            () = cancel.cancelled() => break,
            Ok(()) = tasks.changed() => {
                backoff.reset();
                continue;
            }
            dialled = dial(&task, timing.connect) => dialled,
        };
        let end = match dialled {
            Ok(dialled) => {
                Tally::add(&tally.connections, 1);
                backoff.connected(monotonic(epoch, Instant::now()));
                tracing::debug!(rule.id = %rule, session_present = dialled.session_present, "connected");
                sending.rewind();
                let receiving = Incoming::new(incoming.clone(), Arc::clone(&tally));
                let mut context = Context {
                    tasks: &mut tasks,
                    outgoing: &mut sending,
                    reporter: &mut reporter,
                    backoff: &mut backoff,
                    trouble: &mut trouble,
                    timing,
                    epoch,
                    cancel: &cancel,
                };
                Box::pin(drive(dialled, task, receiving, &mut context)).await
            }
            Err(error) => End::Failed(error),
        };
        match end {
            End::Stopped => break,
            End::Redial => backoff.reset(),
            End::Failed(error) => {
                tracing::debug!(rule.id = %rule, %error, "not connected");
                tally.error(&error.to_string());
                reporter.say(BridgeEvent::Faulted(error.fault()), &cancel).await;
                let pause = u64::try_from(backoff.failed(random())).unwrap_or(0);
                tokio::select! {
                    () = cancel.cancelled() => break,
                    () = sleep(Duration::from_millis(pause)) => {}
                    Ok(()) = tasks.changed() => backoff.reset(),
                }
            }
        }
    }
}

/// Drops what is too old, also while there is no connection.
async fn expire(outgoing: Queue, incoming: Queue, every: Duration) {
    let mut ticks = interval(every);
    loop {
        ticks.tick().await;
        outgoing.expire(wall_ms());
        incoming.expire(wall_ms());
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn random() -> u64 {
    // Without randomness the pauses are the shortest, which is no harm to a single bridge.
    getrandom::u64().unwrap_or(0)
}

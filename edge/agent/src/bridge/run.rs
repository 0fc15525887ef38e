//! The life of a half: attempt after attempt, with pauses. And the tasks of a bridge, of which none may end unnoticed.

use std::{sync::Arc, time::Instant};

use tidegate_edge_core::{BridgeEvent, backoff::Backoff};
use tidegate_edge_queue::Queue;
use tidegate_model::ids::RuleId;
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{Duration, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    LocalEnd, Notice, Parts, Task, Timing,
    addresses::Addresses,
    counters::Tally,
    dial::dial,
    drain::{UP, drain},
    half::Half,
    incoming::Incoming,
    link::{Context, End, drive, monotonic},
    outgoing::Outgoing,
    remote::{Remote, Reporter},
    wall_ms,
};

/// Runs the bridge and tells if it ends in a way it should not.
pub(super) async fn supervise(
    parts: Parts,
    tasks: watch::Receiver<Task>,
    tally: Arc<Tally>,
    cancel: CancellationToken,
) {
    let Parts { rule, outgoing, incoming, local, events, timing } = parts;
    let (told, desired) = (events.clone(), tasks.clone());
    let expirer = tokio::spawn(expire(outgoing.clone(), incoming.clone(), timing.expire));
    let (local, mut drainer) = match local {
        LocalEnd::Sink(sink) => {
            let (sender, state) = watch::channel(UP);
            (state, tokio::spawn(drain(incoming.clone(), sink, Arc::clone(&tally), sender)))
        }
        // The other half empties the queue.
        LocalEnd::Link(state) => (state, tokio::spawn(std::future::pending())),
    };
    let task = tasks.borrow().clone();
    let reporter = Reporter {
        rule,
        order: task.order,
        events,
        said: None,
        outgoing: outgoing.clone(),
        incoming: incoming.clone(),
        cancel: cancel.clone(),
    };
    let receiving = Incoming::new(incoming, Arc::clone(&tally));
    let half = Remote {
        tasks,
        task,
        reporter,
        local,
        incoming: receiving,
        addresses: Addresses::default(),
        timing,
        tally: Arc::clone(&tally),
    };
    let sending = Outgoing::new(rule, outgoing, tally);
    let mut running = tokio::spawn(Box::pin(run(rule, half, sending, timing, cancel)));
    let _ends = [&expirer.abort_handle(), &drainer.abort_handle(), &running.abort_handle()]
        .map(|handle| AbortOnDrop(handle.clone()));
    let error = tokio::select! {
        Err(error) = &mut drainer => error,
        ended = &mut running => match ended {
            Ok(()) => return,
            Err(error) => error,
        },
    };
    tracing::error!(line.kind = "rule-state", rule.id = %rule, %error, "a bridge panicked");
    let order = desired.borrow().order;
    let event = BridgeEvent::Ended { detail: "internal error, see the agent's log".to_owned() };
    // Nobody listens any more: the agent is going down.
    let _ = told.send(Notice { rule, order, event }).await;
}

/// Runs one half until `cancel`: connects, and connects again.
pub(super) async fn run<H: Half>(
    rule: RuleId,
    mut half: H,
    mut outgoing: Outgoing,
    timing: Timing,
    cancel: CancellationToken,
) {
    let mut backoff = Backoff::new();
    let epoch = Instant::now();
    loop {
        half.renew();
        let renewed = half.renewed();
        let dialling = async {
            half.prepare().await?;
            dial(&half.endpoint(), timing.connect).await
        };
        let dialled = tokio::select! {
            () = cancel.cancelled() => break,
            () = renewed => {
                backoff.reset();
                outgoing.forget();
                continue;
            }
            dialled = dialling => dialled,
        };
        let end = match dialled {
            Ok(dialled) => {
                backoff.connected(monotonic(epoch, Instant::now()));
                tracing::debug!(rule.id = %rule, session_present = dialled.session_present, "connected");
                outgoing.rewind();
                half.connected(&dialled);
                let mut context = Context {
                    outgoing: &mut outgoing,
                    backoff: &mut backoff,
                    timing,
                    epoch,
                    cancel: &cancel,
                };
                Box::pin(drive(dialled, &mut half, &mut context)).await
            }
            Err(error) => End::Failed(error),
        };
        match end {
            End::Stopped => break,
            End::Redial => {
                backoff.reset();
                outgoing.forget();
            }
            End::Failed(error) => {
                if half.another(&error) {
                    continue;
                }
                half.failed(&error).await;
                if outgoing.hurries() {
                    continue;
                }
                let pause = u64::try_from(backoff.failed(random())).unwrap_or(0);
                tokio::select! {
                    () = cancel.cancelled() => break,
                    () = sleep(Duration::from_millis(pause)) => {}
                    () = half.renewed() => {
                        backoff.reset();
                        outgoing.forget();
                    }
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

pub(super) struct AbortOnDrop(pub AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(super) fn random() -> u64 {
    // Without randomness the pauses are the shortest, which is no harm to a single bridge.
    getrandom::u64().unwrap_or(0)
}

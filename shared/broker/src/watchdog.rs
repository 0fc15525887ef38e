//! The watchdog: a thread of its own sends a canary through the accept loop and the hub and tells the owner when it
//! does not come back. An open port with nothing behind it is the worst state a broker can be in.

use crate::watcher::{Event, Watcher};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// A canary: whoever is alive sends it back.
pub(crate) type Canary = SyncSender<()>;

/// How the broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// The last canary came back.
    Healthy,
    /// It did not; what is wrong.
    Unhealthy(String),
}

/// Starts the thread; it ends when the sender of `stop` is dropped.
pub(crate) fn start(
    interval: Duration,
    canaries: mpsc::Sender<Canary>,
    health: watch::Sender<Health>,
    watcher: Arc<dyn Watcher>,
    stop: Receiver<()>,
) -> std::io::Result<()> {
    let patrol = move || {
        while let Err(RecvTimeoutError::Timeout) = stop.recv_timeout(interval) {
            let (canary, back) = sync_channel(1);
            let sent = canaries.try_send(canary).is_ok();
            let alive = sent && back.recv_timeout(interval).is_ok();
            // The broker may have stopped while the canary was out.
            if let Err(std::sync::mpsc::TryRecvError::Disconnected) = stop.try_recv() {
                return;
            }
            report(alive, interval, &health, &*watcher);
        }
    };
    std::thread::Builder::new().name("broker-watchdog".to_owned()).spawn(patrol).map(drop)
}

fn report(alive: bool, interval: Duration, health: &watch::Sender<Health>, watcher: &dyn Watcher) {
    if alive {
        health.send_if_modified(|health| std::mem::replace(health, Health::Healthy) != Health::Healthy);
        return;
    }
    let why = format!(
        "the accept loop and the hub of the broker did not answer within {} ms",
        interval.as_millis()
    );
    tracing::error!(%why, "the embedded broker is not healthy");
    let was_healthy = *health.borrow() == Health::Healthy;
    health.send_replace(Health::Unhealthy(why.clone()));
    if was_healthy {
        watcher.event(&Event::Unhealthy { why });
    }
}

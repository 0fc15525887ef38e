//! What the service manager hears of `serve`: ready, stopping, and that the controller is alive. Without one, nothing.
//!
//! It is told that the controller is alive while two things go on: this task, which shows that the runtime runs tasks, and
//! the one loop, which answers when it is asked and everything before is durable. A loop that hangs ends the pings, and
//! the manager restarts.

use std::time::Duration;

use sd_notify::NotifyState;
use tidegate_cloud::Alive;

/// Least time between two pings.
const MIN_PERIOD: Duration = Duration::from_millis(50);

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager does not listen");
    }
}

/// API and broker serve.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The controller ends as it was told to.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// Pings the service manager for as long as the loop answers; without a watchdog it waits for ever.
pub async fn keep_alive(alive: Alive) {
    let Some(timeout) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let wait = (timeout / 3).max(MIN_PERIOD);
    let mut period = tokio::time::interval(wait);
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        period.tick().await;
        match tokio::time::timeout(wait, alive.answers()).await {
            Ok(true) => tell(&[NotifyState::Watchdog]),
            Ok(false) => return std::future::pending().await,
            Err(_) => tracing::error!(
                "the controller's loop does not answer; the service manager is not told that it is alive"
            ),
        }
    }
}

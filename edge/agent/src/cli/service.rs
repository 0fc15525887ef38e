//! What the service manager hears: ready, reloading, stopping, and that the agent is alive. Without one, nothing.
//!
//! It is told that the agent is alive while two things go on: this task, which shows that the runtime runs tasks, and the
//! agent's own loop, which goes round when it is asked to. A loop that hangs ends the pings, and the manager restarts.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tidegate_edge::Pulse;

/// Least time between two pings.
const MIN_PERIOD: Duration = Duration::from_millis(50);

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager does not listen");
    }
}

/// The agent stands: devices can connect.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Rules and files are being read again; [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "the monotonic clock cannot be read"),
    }
}

/// The agent ends as it was told to.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// Pings the service manager for as long as the loop goes round; returns at once where no pings are wanted.
pub async fn keep_alive(pulse: Arc<Pulse>) {
    let Some(timeout) = sd_notify::watchdog_enabled() else { return };
    let mut period = tokio::time::interval((timeout / 3).max(MIN_PERIOD));
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut seen = None;
    loop {
        period.tick().await;
        let beats = pulse.beats();
        if seen != Some(beats) {
            tell(&[NotifyState::Watchdog]);
        } else {
            tracing::error!(
                "the agent's loop does not go round; the service manager is not told that it is alive"
            );
        }
        seen = Some(beats);
        pulse.ask();
    }
}

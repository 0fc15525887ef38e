//! Ctrl-C and SIGTERM.

use tidegate_cloud::os;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;

/// Listens to Ctrl-C from now on: one that comes before it is waited for is not lost.
///
/// # Errors
/// [`Failure::Failed`]: the system does not let us.
pub fn interrupts() -> Result<Signal, Failure> {
    signal(SignalKind::interrupt())
        .map_err(|error| Failure::Failed(format!("Ctrl-C cannot be listened to: {}", os::plain(&error))))
}

/// Cancels `stop` when the process is asked to end. A second Ctrl-C ends it at once.
pub fn cancel_on_signal(stop: CancellationToken) {
    tokio::spawn(async move {
        let (Ok(mut interrupt), Ok(mut terminate)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            // Without handlers the signals end the process, which is what they ask for.
            return;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.cancel();
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        std::process::exit(130);
    });
}

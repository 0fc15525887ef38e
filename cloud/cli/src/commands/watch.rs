//! `--watch`: shows something, and again whenever the server says that something changed.

use std::io::Write as _;
use std::time::Duration;

use super::Session;
use crate::args::WatchArgs;
use crate::client::ClientError;
use crate::failure::{Exit, Failure};
use crate::signals;

/// Changes within this time are shown together.
const SETTLE: Duration = Duration::from_millis(200);
/// How long to wait before a server that went away is asked again.
const AGAIN: Duration = Duration::from_secs(2);

/// Shows once, or until Ctrl-C. On a terminal the screen is cleared before each time.
pub async fn watched(
    open: impl Fn() -> Result<Session, Failure>,
    args: WatchArgs,
    show: impl AsyncFn(&Session) -> Result<Exit, Failure>,
) -> Result<Exit, Failure> {
    let session = open()?;
    if !args.watch {
        return show(&session).await;
    }
    let mut interrupts = signals::interrupts()?;
    let mut seen = false;
    tokio::select! {
        failed = changes(&open, &show, &mut seen) => Err(failed),
        _ = interrupts.recv() => Ok(Exit::Interrupted),
    }
}

/// Shows with each change; comes back only with a failure that does not pass by itself.
async fn changes(
    open: &impl Fn() -> Result<Session, Failure>,
    show: &impl AsyncFn(&Session) -> Result<Exit, Failure>,
    seen: &mut bool,
) -> Failure {
    loop {
        let failed = follow(open, show, seen).await;
        // The server may be restarting.
        let Failure::Client(error @ ClientError::Unreachable { .. }) = &failed else { return failed };
        if !*seen {
            return failed;
        }
        if let Ok(session) = open() {
            session.out.note(format_args!("still watching: {error}"));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn follow(
    open: &impl Fn() -> Result<Session, Failure>,
    show: &impl AsyncFn(&Session) -> Result<Exit, Failure>,
    seen: &mut bool,
) -> Failure {
    let first = match open() {
        Ok(session) => session,
        Err(failure) => return failure,
    };
    // Before the first look, so that nothing is missed between the two.
    let mut watch = match first.client.watch(&[]).await {
        Ok(watch) => watch,
        Err(error) => return error.into(),
    };
    loop {
        // A new session for each time: ages count from its moment.
        let session = match open() {
            Ok(session) => session,
            Err(failure) => return failure,
        };
        if session.out.decorated() {
            // Home, and clear what is below. A terminal that went away is told by what is shown next.
            let _ = write!(std::io::stdout().lock(), "\x1b[H\x1b[2J");
        }
        if let Err(failure) = show(&session).await {
            return failure;
        }
        *seen = true;
        match watch.next().await {
            Ok(Some(_)) => {}
            Ok(None) => {
                let cause = "it ended the stream of events".to_owned();
                return ClientError::Unreachable { url: session.client.base().to_owned(), cause }.into();
            }
            Err(error) => return error.into(),
        }
        tokio::time::sleep(SETTLE).await;
    }
}

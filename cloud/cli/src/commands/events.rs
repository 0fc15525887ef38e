//! `tidegate events`.

use std::time::Duration;

use serde_json::json;

use super::Session;
use crate::args::EventsArgs;
use crate::client::{ClientError, Event, Watch};
use crate::failure::{Exit, Failure};
use crate::output::time::ago;
use crate::signals;

/// How long to wait before a server that went away is asked again.
const AGAIN: Duration = Duration::from_secs(2);

/// Prints events as they come, until Ctrl-C. A server that goes away is waited for: what it still has of the time between is
/// printed then.
pub async fn events(session: &Session, args: &EventsArgs) -> Result<Exit, Failure> {
    let mut interrupts = signals::interrupts()?;
    let mut watch = session.client.watch(&args.topics).await?;
    session.out.note("following events; Ctrl-C ends it");
    loop {
        let next = async {
            loop {
                match watch.next().await {
                    Ok(Some(event)) => return Ok(event),
                    Ok(None) | Err(ClientError::Unreachable { .. }) => {}
                    Err(error) => return Err(error),
                }
                session.out.note("the connection to the server ended; waiting for it to come back");
                watch = reconnect(session, args, watch.last_id()).await?;
                session.out.note("following events again");
            }
        };
        let event = tokio::select! {
            event = next => with_words(event?),
            _ = interrupts.recv() => return Ok(Exit::Interrupted),
        };
        if !session.out.for_people() {
            session.out.line(&event.data)?;
            continue;
        }
        let text = |field: &str| event.data.get(field).and_then(serde_json::Value::as_str);
        let at = text("at").map(|at| ago(jiff::Timestamp::now(), at));
        let said = text("text").map_or_else(|| event.data.to_string(), str::to_owned);
        match at {
            Some(at) => session.out.line(format_args!("{:<10} {:<9} {said}", event.name, at))?,
            None => {
                let heard = jiff::Timestamp::now().strftime("%H:%M:%SZ");
                session.out.line(format_args!("{heard} {:<10} {said}", event.name))?;
            }
        }
    }
}

/// What the server says without words of its own: that a watcher has to look anew.
fn with_words(event: Event) -> Event {
    let Event { name, data } = event;
    let data = match name.as_str() {
        "resync" => json!({ "kind": "resync", "text": MISSED }),
        _ => data,
    };
    Event { name, data }
}

/// What a gap in the stream means.
const MISSED: &str =
    "some events were missed and are not told here; tidegate status shows how things are now";

/// Opens the stream again as soon as the server is there.
async fn reconnect(session: &Session, args: &EventsArgs, last: Option<&str>) -> Result<Watch, ClientError> {
    loop {
        match session.client.watch_after(&args.topics, last).await {
            Err(ClientError::Unreachable { .. }) => tokio::time::sleep(AGAIN).await,
            ended => return ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_told_in_words() {
        let gap = with_words(Event { name: "resync".into(), data: json!({}) });
        assert_eq!(gap.data["kind"], "resync");
        assert!(gap.data["text"].as_str().unwrap().contains("some events were missed"));
        let other = Event { name: "rule".into(), data: json!({ "text": "rule a was saved" }) };
        assert_eq!(with_words(other.clone()), other);
    }
}

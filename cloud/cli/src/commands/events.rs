//! `tidegate events`.

use super::Session;
use crate::args::EventsArgs;
use crate::failure::{Exit, Failure};
use crate::output::time::ago;
use crate::signals;

/// Prints events as they come, until the server ends the stream or Ctrl-C.
pub async fn events(session: &Session, args: &EventsArgs) -> Result<Exit, Failure> {
    let mut interrupts = signals::interrupts()?;
    let mut watch = session.client.watch(&args.topics).await?;
    session.out.note("following events; Ctrl-C ends it");
    loop {
        let event = tokio::select! {
            event = watch.next() => event?,
            _ = interrupts.recv() => return Ok(Exit::Interrupted),
        };
        let Some(event) = event else {
            return Err(Failure::Failed(
                "the server ended the stream of events; it may be restarting".into(),
            ));
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

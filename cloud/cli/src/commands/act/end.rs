//! How actions end: the answers are shown, their ends waited for if that was asked for, and what failed is told, with the exit
//! code that it leads to.

use serde_json::{Value, json};

use crate::api::Placement;
use crate::client::ClientError;
use crate::commands::Session;
use crate::commands::follow::{Wanted, follow};
use crate::commands::judge::Verdict;
use crate::failure::{Exit, Failure};

/// Above this many placements an interrupted wait names one command for all.
const WATCH_LINES: usize = 3;

/// What became of the steps.
#[derive(Default)]
pub(super) struct Sent {
    /// The server's answers, one for each.
    pub(super) answers: Vec<Value>,
    /// What was begun.
    pub(super) wanted: Vec<Wanted>,
    /// What was refused.
    pub(super) failed: Vec<(String, ClientError)>,
}

/// A refusal among the answers, as the server has it where it is asked for many at once.
pub(super) fn refused(placement: &Placement, error: &ClientError) -> Value {
    let problem = match error.problem() {
        Some(problem) => problem.document(),
        None => json!({ "code": error.exit().code(), "detail": error.to_string() }),
    };
    json!({ "rule": placement.rule, "edge": placement.edge, "operation": null, "problem": problem })
}

/// Shows the answers, waits if that was asked for, and says what failed.
pub(super) async fn end(session: &Session, sent: Sent, all: usize, wait_for: bool) -> Result<Exit, Failure> {
    let Sent { mut answers, wanted, mut failed } = sent;
    // One that was refused has no answer but its problem, which is told.
    if !session.out.for_people() && !answers.is_empty() {
        let shown = match (answers.len(), all) {
            (1, 1) => answers.remove(0),
            _ => json!({ "items": answers }),
        };
        let names = || wanted.iter().map(|w| format!("{}/{}", w.rule, w.edge)).collect();
        session.out.show(&shown, |_| Ok(String::new()), names)?;
    }
    if all == 1
        && let Some((_, error)) = failed.pop()
    {
        return Err(error.into());
    }
    let mut exits: Vec<Exit> = failed.iter().map(|(_, error)| error.exit()).collect();
    let mut texts = listed(&failed);
    if wait_for && !wanted.is_empty() {
        let ended = match wait(session, wanted).await {
            // What was refused is to be told besides.
            Err(Failure::TimedOut(text)) => {
                texts.push(text);
                return Err(Failure::TimedOut(texts.join("\n")));
            }
            ended => ended?,
        };
        exits.resize(exits.len() + ended.len(), Exit::Failed);
        texts.extend(ended);
    }
    match exits.len() {
        0 => Ok(Exit::Done),
        n if all > 1 => {
            texts.push(format!("{n} of {all} failed"));
            Err(Failure::of_several(&exits, all, texts.join("\n")))
        }
        _ => Err(Failure::Failed(texts.join("\n"))),
    }
}

/// What was refused, one line each; what to do about those that follow each other stands below them once, where it is the same.
fn listed(failed: &[(String, ClientError)]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut below: Vec<String> = Vec::new();
    for (on, error) in failed {
        let (said, now) = match error.problem() {
            Some(problem) => (problem.said(), problem.below()),
            None => (error.to_string(), Vec::new()),
        };
        if now != below {
            lines.extend(below.iter().map(|line| format!("  {line}")));
            below = now;
        }
        lines.push(format!("{on}: {said}"));
    }
    lines.extend(below.iter().map(|line| format!("  {line}")));
    lines
}

/// Commands that go on waiting, to be copied; for many placements the one that shows all.
fn watch_lines(wanted: &[Wanted]) -> String {
    if wanted.len() > WATCH_LINES {
        return "  tidegate status".to_owned();
    }
    let line = |w: &Wanted| format!("  tidegate wait {} --edge {} --for {}", w.rule, w.edge, w.goal.as_str());
    wanted.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Waits until every operation ended; returns what failed.
async fn wait(session: &Session, wanted: Vec<Wanted>) -> Result<Vec<String>, Failure> {
    let interrupted = format!(
        "no longer waiting; what was begun goes on on the server. Watch it with\n{}",
        watch_lines(&wanted)
    );
    let followed = follow(session, wanted, session.patience(), false, &interrupted).await?;
    let mut failed = Vec::new();
    let mut open = Vec::new();
    for (wanted, verdict) in followed.ends {
        match verdict {
            Verdict::Reached => {}
            Verdict::Failed(why) => failed.push(format!("{}: {why}", wanted.shown())),
            Verdict::Waiting(state) => open.push(format!("{}: {state}", wanted.shown())),
        }
    }
    if !open.is_empty() {
        open.extend(failed);
        return Err(Failure::TimedOut(format!("not done in time:\n  {}", open.join("\n  "))));
    }
    Ok(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Goal;

    fn wanted(edge: &str) -> Wanted {
        Wanted { rule: "camera-up".into(), edge: edge.into(), goal: Goal::Running, operation: None }
    }

    #[test]
    fn an_interrupted_wait_can_be_taken_up_by_copying_a_line() {
        let lines = watch_lines(&[wanted("gw-1"), wanted("gw-2")]);
        assert_eq!(
            lines,
            "  tidegate wait camera-up --edge gw-1 --for running\n  tidegate wait camera-up --edge gw-2 --for running"
        );
        assert_eq!(watch_lines(&["a", "b", "c", "d"].map(wanted)), "  tidegate status");
    }
}

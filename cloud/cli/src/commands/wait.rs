//! `tidegate wait`.

use serde_json::json;

use super::Session;
use super::follow::{Wanted, follow};
use super::judge::Verdict;
use super::targets;
use crate::args::WaitArgs;
use crate::failure::{Exit, Failure};
use crate::output::words::count;

/// Waits for a rule on its edges.
pub async fn wait(session: &Session, args: &WaitArgs) -> Result<Exit, Failure> {
    let placements = targets::of_rule(session, &args.rule, &args.edges).await?;
    let wanted: Vec<Wanted> = placements
        .iter()
        .map(|p| Wanted { rule: p.rule.clone(), edge: p.edge.clone(), goal: args.goal, operation: None })
        .collect();
    let goal = args.goal.as_str();
    let all = wanted.len();
    let interrupted = "no longer waiting; nothing was changed on the server";
    let followed = follow(session, wanted, session.patience(), true, interrupted).await?;
    if !session.out.for_people() {
        // However it ended: how it stands.
        let names = || placements.iter().map(|p| format!("{}/{}", p.rule, p.edge)).collect();
        session.out.show(&json!({ "items": followed.placements }), |_| Ok(String::new()), names)?;
    }
    let mut lines = Vec::new();
    for (wanted, verdict) in &followed.ends {
        if let Verdict::Failed(why) = verdict {
            lines.push(format!("{}: {why}", wanted.shown()));
        }
    }
    if !lines.is_empty() {
        return Err(Failure::Failed(format!("it will not be {goal} by itself:\n  {}", lines.join("\n  "))));
    }
    if followed.timed_out {
        for (wanted, verdict) in &followed.ends {
            if let Verdict::Waiting(state) = verdict {
                lines.push(format!("{}: {state}", wanted.shown()));
            }
        }
        return Err(Failure::TimedOut(format!(
            "not {goal} within {}: {} of {}:\n  {}",
            shown(session.patience()),
            lines.len(),
            count(all, "placement", "placements"),
            lines.join("\n  ")
        )));
    }
    if session.out.for_people() {
        session.out.note(format!("{}: {goal} ({})", args.rule, count(all, "edge", "edges")));
    }
    Ok(Exit::Done)
}

/// A time as it may be typed: `90s`, `5m`, `1h30m`.
pub fn shown(time: std::time::Duration) -> String {
    let (total, ms) = (time.as_secs(), time.subsec_millis());
    let mut text = String::new();
    for (value, unit) in
        [(total / 3_600, "h"), (total % 3_600 / 60, "m"), (total % 60, "s"), (u64::from(ms), "ms")]
    {
        if value > 0 {
            text.push_str(&format!("{value}{unit}"));
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

//! The words for states: the same as in the console. On a terminal a glyph stands before the word and gives it a
//! colour; elsewhere the word stands alone.

use comfy_table::{Cell, Color};
use jiff::Timestamp;
use tidegate_model::placement::{Action, IssueState, Link, RunState};

use super::Out;
use super::time::ago_or_dash;
use crate::api::{Placement, Reason, RefusedLogin, Tally, Unmanaged};

#[derive(Clone, Copy)]
enum Mood {
    Good,
    Warn,
    Bad,
    Idle,
    Info,
}

fn cell(out: &Out, glyph: &str, word: &str, mood: Mood) -> Cell {
    let text = if out.decorated() { format!("{glyph} {word}") } else { word.to_owned() };
    let cell = Cell::new(text);
    if !out.colour() {
        return cell;
    }
    cell.fg(match mood {
        Mood::Good => Color::Green,
        Mood::Warn => Color::Yellow,
        Mood::Bad => Color::Red,
        Mood::Idle => Color::DarkGrey,
        Mood::Info => Color::Blue,
    })
}

/// What the issue column says: the state, or what is under way.
pub fn issue_text(placement: &Placement) -> String {
    let state = placement.issue_state.to_string();
    match &placement.in_flight {
        _ if placement.removing => "Being removed".into(),
        Some(flight) if flight.queued => {
            let action = flight.action.map_or("removal".into(), |a| a.to_string());
            // A stop that was queued before goes with it.
            let runs = matches!(placement.run_state, RunState::Running | RunState::PausedFault);
            let stops = runs && placement.desired_run == "stopped" && flight.action != Some(Action::Stop);
            format!("{state} (queued: {action}{})", if stops { ", stopped" } else { "" })
        }
        Some(flight) => {
            format!("{state} ({} under way)", flight.action.map_or("removal".into(), |a| a.to_string()))
        }
        None if placement.drift => format!("{state} (changed on the edge)"),
        None => state,
    }
}

/// The issue column.
pub fn issue_cell(out: &Out, placement: &Placement) -> Cell {
    let (glyph, mood) = match placement.issue_state {
        _ if placement.in_flight.is_some() => ("↻", Mood::Info),
        IssueState::Issued => ("✓", Mood::Good),
        IssueState::UpdatesNotIssued => ("▲", Mood::Warn),
        IssueState::Failed => ("✕", Mood::Bad),
        IssueState::NotIssued => ("○", Mood::Idle),
    };
    cell(out, glyph, &issue_text(placement), mood)
}

/// Whether nothing is known of its run: the edge never told of it, and was not heard of since the controller started.
pub fn is_not_known(placement: &Placement) -> bool {
    placement.as_of.is_none() && placement.link == Link::Unknown
}

/// What the run column says: the state, marked where it is the last known one.
pub fn run_text(placement: &Placement) -> String {
    if is_not_known(placement) {
        return "Not known".into();
    }
    let last_known = placement.last_known && placement.edge_version.is_some();
    state_text(placement.run_state, placement.queue_full.is_some(), last_known)
}

fn state_text(state: RunState, is_full: bool, last_known: bool) -> String {
    let full = if is_full { ", queue full" } else { "" };
    let known = if last_known { " (last known)" } else { "" };
    format!("{state}{full}{known}")
}

/// The run column.
pub fn run_cell(out: &Out, placement: &Placement) -> Cell {
    let shown = (placement.run_state, placement.queue_full.is_some(), placement.last_known);
    state_cell(out, shown, &run_text(placement))
}

/// The run column of a rule that the cloud does not manage.
pub fn unmanaged_run_cell(out: &Out, rule: &Unmanaged) -> Cell {
    let (state, is_full, last_known) = (rule.run_state, rule.queue_full.is_some(), rule.last_known);
    state_cell(out, (state, is_full, last_known), &state_text(state, is_full, last_known))
}

fn state_cell(out: &Out, (state, is_full, last_known): (RunState, bool, bool), text: &str) -> Cell {
    let (glyph, mood) = match state {
        RunState::Running if is_full => ("▶", Mood::Warn),
        RunState::Running => ("▶", Mood::Good),
        RunState::PausedManual => ("⏸", Mood::Info),
        RunState::PausedFault => ("!", Mood::Bad),
        RunState::NotRunning => ("–", Mood::Idle),
    };
    let mood = if last_known { Mood::Idle } else { mood };
    cell(out, glyph, text, mood)
}

/// The link column.
pub fn link_cell(out: &Out, link: Link) -> Cell {
    match link {
        Link::Online => cell(out, "●", link.as_str(), Mood::Good),
        Link::Stale => cell(out, "●", link.as_str(), Mood::Warn),
        Link::Offline => cell(out, "○", link.as_str(), Mood::Idle),
        Link::Unknown => cell(out, "?", link.as_str(), Mood::Idle),
    }
}

/// "2 issued, 1 failed to issue": counts in the order of the states, without those that are 0.
pub fn issue_counts(tally: &Tally) -> String {
    counts(tally.issue.iter().map(|(state, count)| (state.to_string(), *count)))
}

/// "2 running, 1 paused (fault)".
pub fn run_counts(tally: &Tally) -> String {
    let known = tally.run.iter().map(|(state, count)| {
        // Of these nothing was ever told, so that they count as such.
        let not_known = if *state == RunState::NotRunning { tally.not_known } else { 0 };
        (state.to_string(), count.saturating_sub(not_known))
    });
    let text = counts(known.chain([("not known".to_owned(), tally.not_known)]));
    let besides = counts([("queue full", tally.queue_full), ("as last known", tally.last_known)].into_iter());
    if besides == NONE { text } else { format!("{text} ({besides})") }
}

/// In place of counts where all are 0.
const NONE: &str = "-";

fn counts(states: impl Iterator<Item = (impl AsRef<str>, u32)>) -> String {
    let parts: Vec<String> = states
        .filter(|(_, n)| *n > 0)
        .map(|(state, n)| format!("{n} {}", state.as_ref().to_lowercase()))
        .collect();
    if parts.is_empty() { NONE.into() } else { parts.join(", ") }
}

/// "Aligned" or "3 pending".
pub fn pending_text(pending: u32) -> String {
    if pending == 0 { "Aligned".into() } else { format!("{pending} pending") }
}

/// The indicator of an edge to which nothing is sent.
pub fn held_cell(out: &Out) -> Cell {
    cell(out, "✕", "Held", Mood::Bad)
}

/// The indicator of a whole.
pub fn pending_cell(out: &Out, pending: u32) -> Cell {
    let mood = if pending == 0 { Mood::Good } else { Mood::Bad };
    cell(out, if pending == 0 { "✓" } else { "✕" }, &pending_text(pending), mood)
}

/// A reason on one line: what happened, then what to do.
pub fn reason_text(reason: &Reason) -> String {
    let said = format!("{} ({})", reason.detail, reason.code);
    match reason.next.trim() {
        "" | "nothing" => said,
        // "nothing: the agent tries again by itself"
        next => match next.strip_prefix("nothing: ") {
            Some(why) => format!("{said}; {why}"),
            None => format!("{said}. Next: {next}"),
        },
    }
}

/// A refused login on one line: who, why, how often, from where.
pub fn refused_text(now: Timestamp, refused: &RefusedLogin) -> String {
    let RefusedLogin { name, why, times, last, from } = refused;
    let why = match why.as_str() {
        "wrong_credential" => "with a wrong credential",
        "wrong_token" => "with a wrong token",
        "unknown_edge" => "and no edge has this name",
        "two_names" => "under a client id that belongs to another name",
        "no_credential" => "without a credential",
        other => other,
    };
    let tries = if *times == 1 { "once".to_owned() } else { format!("{times} times") };
    let last = ago_or_dash(now, last.as_deref());
    format!("{from} tried to log in as {name} {why}, {tries}, last {last}")
}

/// What to do about a refused login.
pub fn refused_next(refused: &RefusedLogin) -> String {
    let name = &refused.name;
    match refused.why.as_str() {
        "wrong_credential" => format!(
            "give the gateway at this address the credential of {name}, or a name of its own; a lost one: tidegate edge remove {name} --leave-running, then tidegate edge create {name}"
        ),
        "wrong_token" => "give it the token in admin.token in the controller's data directory".to_owned(),
        "unknown_edge" => {
            format!(
                "tidegate edge create {name} makes it known; or correct the name in the gateway's settings"
            )
        }
        "two_names" => {
            "use one name in the gateway's settings: name and controller.username are the same".to_owned()
        }
        _ => "put the credential into the gateway's settings (controller.password)".to_owned(),
    }
}

/// "1 rule", "3 rules".
pub fn count(n: usize, one: &str, many: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {many}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commands::judge::tests::placement;

    #[test]
    fn a_reason_that_needs_nobody_says_so_without_a_next_step() {
        let reason = |next: &str| Reason { code: "TCP".into(), detail: "no way".into(), next: next.into() };
        let table = [
            ("", "no way (TCP)"),
            ("nothing", "no way (TCP)"),
            ("nothing: it tries again", "no way (TCP); it tries again"),
            ("mend the rule", "no way (TCP). Next: mend the rule"),
        ];
        for (next, shown) in table {
            assert_eq!(reason_text(&reason(next)), shown);
        }
    }

    #[test]
    fn counts_tell_full_queues_and_what_is_not_known() {
        let run: std::collections::BTreeMap<RunState, u32> =
            [(RunState::Running, 2), (RunState::NotRunning, 3)].into();
        let tally = Tally { run, ..Tally::default() };
        assert_eq!(run_counts(&tally), "3 not running, 2 running");
        let full = Tally { queue_full: 1, ..tally.clone() };
        assert_eq!(run_counts(&full), "3 not running, 2 running (1 queue full)");
        let past = Tally { last_known: 2, not_known: 3, ..full };
        assert_eq!(run_counts(&past), "2 running, 3 not known (1 queue full, 2 as last known)");
        assert_eq!(run_counts(&Tally::default()), "-");
    }

    #[test]
    fn of_an_edge_that_was_never_heard_nothing_is_known() {
        let never = json!({ "run_state": "not_running", "edge_version": null, "link": "unknown" });
        assert_eq!(run_text(&placement(never)), "Not known");
        // It told what it holds, and this was not among it.
        let told = json!({ "run_state": "not_running", "edge_version": null, "link": "offline" });
        assert_eq!(run_text(&placement(told)), "Not running");
        let before = json!({ "as_of": "2026-01-01T00:00:00Z", "link": "unknown", "last_known": true });
        assert_eq!(run_text(&placement(before)), "Running (last known)");
    }

    #[test]
    fn a_stop_that_waits_behind_a_queued_sync_is_shown() {
        let queued = |action: &str, desired: &str| {
            issue_text(&placement(json!({
                "desired_run": desired,
                "in_flight": { "id": "1", "action": action, "queued": true, "since": "2026-01-01T00:00:00Z" },
            })))
        };
        assert_eq!(queued("sync", "stopped"), "Issued (queued: sync, stopped)");
        assert_eq!(queued("sync", "running"), "Issued (queued: sync)");
        assert_eq!(queued("stop", "stopped"), "Issued (queued: stop)");
    }
}

//! Decides whether a placement is where somebody waits for it to be. Pure: reads nothing, waits for nothing.

use tidegate_model::placement::{Action, IssueState, RunState};

use crate::api::Placement;
use crate::args::Goal;
use crate::output::words::{is_not_known, issue_text, reason_text, run_text};

/// How a placement stands against a goal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is there.
    Reached,
    /// It may still come; how it stands now.
    Waiting(String),
    /// It will not come by itself; why.
    Failed(String),
}

/// Faults that stay until somebody changes the rule or the remote broker's accounts.
const LASTING_FAULTS: [&str; 4] = ["AUTH", "NOT_AUTHORIZED", "SUBSCRIBE_REFUSED", "CONFIG"];

/// How `placement` stands against `goal`.
pub fn judge(goal: Goal, placement: &Placement) -> Verdict {
    match goal {
        Goal::Issued => issued(placement),
        Goal::Aligned => aligned(placement),
        Goal::Running => running(placement),
        Goal::Stopped => stopped(placement),
    }
}

fn issue_kind_under_way(placement: &Placement) -> bool {
    placement.in_flight.as_ref().is_some_and(|flight| flight.action.is_none_or(Action::is_issue_kind))
}

fn issued(placement: &Placement) -> Verdict {
    // "Issue again" keeps the state *issued* while it is under way: the end of the action counts.
    if issue_kind_under_way(placement) {
        return waiting(placement);
    }
    match placement.issue_state {
        IssueState::Issued => Verdict::Reached,
        IssueState::Failed => Verdict::Failed(why_not_issued(placement)),
        IssueState::NotIssued | IssueState::UpdatesNotIssued => waiting(placement),
    }
}

fn aligned(placement: &Placement) -> Verdict {
    match issued(placement) {
        Verdict::Reached if placement.in_flight.is_some() || placement.removing || placement.drift => {
            waiting(placement)
        }
        verdict @ (Verdict::Reached | Verdict::Waiting(_) | Verdict::Failed(_)) => verdict,
    }
}

fn running(placement: &Placement) -> Verdict {
    if placement.run_state == RunState::Running && !placement.last_known {
        return Verdict::Reached;
    }
    if placement.in_flight.is_some() {
        return waiting(placement);
    }
    if placement.edge_version.is_none() {
        match placement.issue_state {
            IssueState::Failed => return Verdict::Failed(why_not_issued(placement)),
            IssueState::NotIssued => return needs(placement, "issue"),
            IssueState::Issued | IssueState::UpdatesNotIssued => {}
        }
    }
    if placement.run_state == RunState::PausedManual
        && placement.desired_run == "stopped"
        && !placement.last_known
    {
        return needs(placement, "start");
    }
    let lasting = placement.run_state == RunState::PausedFault
        && placement.run_reason.as_ref().is_some_and(|r| LASTING_FAULTS.contains(&r.code.as_str()));
    if lasting { Verdict::Failed(state_text(placement)) } else { waiting(placement) }
}

fn stopped(placement: &Placement) -> Verdict {
    if placement.in_flight.is_some() {
        return waiting(placement);
    }
    let rests = match placement.run_state {
        RunState::PausedManual => true,
        RunState::NotRunning => placement.edge_version.is_none() || placement.desired_run != "running",
        RunState::Running | RunState::PausedFault => false,
    };
    // Where nothing was ever issued nothing can run, whatever the link.
    if rests && (!placement.last_known || placement.edge_version.is_none()) {
        Verdict::Reached
    } else if !rests && placement.desired_run == "running" && is_settled(placement) {
        needs(placement, "stop")
    } else {
        waiting(placement)
    }
}

/// Whether nothing is on its way that could change the placement.
fn is_settled(placement: &Placement) -> bool {
    !placement.last_known && !placement.removing && !placement.drift
}

/// It does not come by itself: somebody has to do this.
fn needs(placement: &Placement, action: &str) -> Verdict {
    let next = format!("Next: tidegate {action} {} --edge {}", placement.rule, placement.edge);
    Verdict::Failed(format!("{}. {next}", state_text(placement)))
}

fn waiting(placement: &Placement) -> Verdict {
    Verdict::Waiting(state_text(placement))
}

fn why_not_issued(placement: &Placement) -> String {
    match &placement.issue_reason {
        Some(reason) => format!("failed to issue v{}: {}", placement.version, reason_text(reason)),
        None => format!("failed to issue v{}", placement.version),
    }
}

/// Where a placement stands, on one line: issue state, run state, reason.
pub fn state_text(placement: &Placement) -> String {
    let mut text = issue_text(placement);
    if !is_not_known(placement) {
        text.push_str(&format!(", {}", run_text(placement)));
    }
    if !placement.link.reachable() {
        text.push_str(&format!(", edge {}", placement.link.as_str()));
    }
    if let Some(reason) = placement.reason.as_ref().or(placement.run_reason.as_ref()) {
        text.push_str(&format!(": {}", reason_text(reason)));
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// An issued, running placement with some fields changed.
    pub(crate) fn placement(change: Value) -> Placement {
        let mut all = json!({
            "rule": "r", "edge": "e", "issue_state": "issued", "run_state": "running", "since": null,
            "version": 7, "edge_version": 7, "generation": 3, "desired_run": "running", "removing": false,
            "drift": false, "link": "online", "last_known": false, "as_of": null, "actions": [],
        });
        all.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    fn word(verdict: &Verdict) -> &'static str {
        match verdict {
            Verdict::Reached => "reached",
            Verdict::Waiting(_) => "waiting",
            Verdict::Failed(_) => "failed",
        }
    }

    #[test]
    fn every_goal_in_every_situation_that_matters() {
        let flight = |action: &str| json!({"id": "x", "action": action, "queued": false});
        let fault =
            |code: &str| json!({"run_state": "paused_fault", "run_reason": {"code": code, "detail": "d"}});
        let failed =
            json!({"issue_state": "failed", "issue_reason": {"code": "TIMED_OUT", "detail": "no answer"}});
        let with = |mut base: Value, more: Value| {
            base.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            base
        };
        // What is so: issued, aligned, running, stopped.
        let table = [
            (json!({}), ["reached", "reached", "reached", "failed"]),
            (json!({"in_flight": flight("issue_again")}), ["waiting", "waiting", "reached", "waiting"]),
            (json!({"in_flight": flight("stop")}), ["reached", "waiting", "reached", "waiting"]),
            (json!({"issue_state": "updates_not_issued"}), ["waiting", "waiting", "reached", "failed"]),
            (
                json!({"issue_state": "not_issued", "edge_version": null, "run_state": "not_running"}),
                ["waiting", "waiting", "failed", "reached"],
            ),
            (with(failed.clone(), json!({"edge_version": 6})), ["failed", "failed", "reached", "failed"]),
            (
                with(failed, json!({"edge_version": null, "run_state": "not_running"})),
                ["failed", "failed", "failed", "reached"],
            ),
            (fault("TCP"), ["reached", "reached", "waiting", "failed"]),
            (fault("AUTH"), ["reached", "reached", "failed", "failed"]),
            (fault("CONFIG"), ["reached", "reached", "failed", "failed"]),
            (
                with(fault("AUTH"), json!({"in_flight": flight("sync")})),
                ["waiting", "waiting", "waiting", "waiting"],
            ),
            (json!({"last_known": true, "link": "offline"}), ["reached", "reached", "waiting", "waiting"]),
            (
                json!({"run_state": "paused_manual", "desired_run": "stopped"}),
                ["reached", "reached", "failed", "reached"],
            ),
            (
                json!({"run_state": "paused_manual", "last_known": true}),
                ["reached", "reached", "waiting", "waiting"],
            ),
            (
                json!({"run_state": "not_running", "desired_run": "running"}),
                ["reached", "reached", "waiting", "failed"],
            ),
            (
                json!({"run_state": "not_running", "desired_run": "stopped"}),
                ["reached", "reached", "waiting", "reached"],
            ),
            (json!({"drift": true}), ["reached", "waiting", "reached", "waiting"]),
            (json!({"removing": true}), ["reached", "waiting", "reached", "waiting"]),
        ];
        for (change, expected) in table {
            let placement = placement(change.clone());
            let goals = [Goal::Issued, Goal::Aligned, Goal::Running, Goal::Stopped];
            let got = goals.map(|goal| word(&judge(goal, &placement)));
            assert_eq!(got, expected, "{change}");
        }
    }

    #[test]
    fn a_failure_names_its_reason_and_the_next_step() {
        let change = json!({"run_state": "paused_fault", "run_reason":
            {"code": "AUTH", "detail": "the broker refused the login", "next": "correct the password, then sync"}});
        let Verdict::Failed(text) = judge(Goal::Running, &placement(change)) else { panic!("it has failed") };
        assert_eq!(
            text,
            "Issued, Paused (fault): the broker refused the login (AUTH). Next: correct the password, then sync"
        );
    }
}

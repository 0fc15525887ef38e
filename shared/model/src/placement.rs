//! The two states of a placement, and what an operator may do in them.
//!
//! Owns the words of the states, how the issue state follows from stored facts ([`IssueFacts::state`]) and which
//! actions are allowed ([`actions`]): console, API and command line all ask here. Stores nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::digest::Digest;
use crate::version::RuleVersion;

/// Is the edge's configuration the one that the cloud holds?
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IssueState {
    /// Nothing is on the edge.
    NotIssued,
    /// The edge said that it holds the cloud's version, with the cloud's digest.
    Issued,
    /// Something else than the cloud's version is on the edge.
    UpdatesNotIssued,
    /// The last issue, issue again or sync failed, and the rule has not changed since.
    Failed,
}

impl IssueState {
    /// Every one of them.
    pub const ALL: [Self; 4] = [Self::NotIssued, Self::Issued, Self::UpdatesNotIssued, Self::Failed];

    /// The word of the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotIssued => "not_issued",
            Self::Issued => "issued",
            Self::UpdatesNotIssued => "updates_not_issued",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for IssueState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotIssued => "Not issued",
            Self::Issued => "Issued",
            Self::UpdatesNotIssued => "Updates not issued",
            Self::Failed => "Failed to issue",
        })
    }
}

/// Is the rule moving data? Only the edge says so.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Never ran.
    NotRunning,
    /// The remote broker accepted the connection and every subscription is acknowledged.
    Running,
    /// Stopped by an operator, in the cloud or on site.
    PausedManual,
    /// Wants to run and cannot: a fault with a code.
    PausedFault,
}

impl RunState {
    /// Every one of them.
    pub const ALL: [Self; 4] = [Self::NotRunning, Self::Running, Self::PausedManual, Self::PausedFault];

    /// The word of the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotRunning => "not_running",
            Self::Running => "running",
            Self::PausedManual => "paused_manual",
            Self::PausedFault => "paused_fault",
        }
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotRunning => "Not running",
            Self::Running => "Running",
            Self::PausedManual => "Paused (manual)",
            Self::PausedFault => "Paused (fault)",
        })
    }
}

/// Can the edge be reached?
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// Not heard of since the controller started.
    Unknown,
    /// Its session stands.
    Online,
    /// Silent for 2.5 heartbeats; a ping is under way. Actions treat it as online.
    Stale,
    /// Its session ended.
    Offline,
}

impl Link {
    /// Every one of them.
    pub const ALL: [Self; 4] = [Self::Unknown, Self::Online, Self::Stale, Self::Offline];

    /// The word of the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Online => "online",
            Self::Stale => "stale",
            Self::Offline => "offline",
        }
    }

    /// Whether a message sent now is expected to arrive.
    #[must_use]
    pub fn reachable(self) -> bool {
        matches!(self, Self::Online | Self::Stale)
    }
}

/// A version of a rule together with the digest of what was rendered of it for one edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VersionDigest {
    /// The rule's version.
    pub version: RuleVersion,
    /// Digest of the rendered bytes.
    pub digest: Digest,
}

/// What the issue state is computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IssueFacts {
    /// What the cloud wants on the edge: the rule's current version, rendered.
    pub desired: VersionDigest,
    /// What is on the edge, as it last said; `None`: nothing.
    pub running: Option<VersionDigest>,
    /// The last settled operation of the issue kind, where it failed: the version it was for, rendered.
    pub failed: Option<VersionDigest>,
}

impl IssueFacts {
    /// The issue state: the first row of protocol.md section 7 that holds.
    #[must_use]
    pub fn state(&self) -> IssueState {
        if self.failed == Some(self.desired) {
            IssueState::Failed
        } else {
            match self.running {
                Some(running) if running == self.desired => IssueState::Issued,
                Some(_) => IssueState::UpdatesNotIssued,
                None => IssueState::NotIssued,
            }
        }
    }
}

/// The five operator actions.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Send for the first time; it starts straight away.
    Issue,
    /// Create or overwrite on the edge, and restart.
    IssueAgain,
    /// Send the newer version in place of the one that is there.
    Sync,
    /// Run what the edge has.
    Start,
    /// Pause what the edge has.
    Stop,
}

impl Action {
    /// All five, in the order in which they are shown.
    pub const ALL: [Self; 5] = [Self::Issue, Self::IssueAgain, Self::Sync, Self::Start, Self::Stop];

    /// The word of the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issue => "issue",
            Self::IssueAgain => "issue_again",
            Self::Sync => "sync",
            Self::Start => "start",
            Self::Stop => "stop",
        }
    }

    /// Whether it changes what is on the edge (else it changes whether that runs).
    #[must_use]
    pub fn is_issue_kind(self) -> bool {
        match self {
            Self::Issue | Self::IssueAgain | Self::Sync => true,
            Self::Start | Self::Stop => false,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Issue => "issue",
            Self::IssueAgain => "issue again",
            Self::Sync => "sync",
            Self::Start => "start",
            Self::Stop => "stop",
        })
    }
}

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look.
    Viewer,
    /// Write rules and act.
    Operator,
    /// Everything.
    Administrator,
}

/// What the allowed actions follow from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActionFacts {
    /// The issue state.
    pub issue: IssueState,
    /// The cloud's version, rendered.
    pub desired: VersionDigest,
    /// What is on the edge.
    pub running: Option<VersionDigest>,
    /// The run state as last reported; `None`: never reported, or unknown since the controller started.
    pub run: Option<RunState>,
    /// Can the edge be reached?
    pub link: Link,
    /// The action that is under way, if any.
    pub in_flight: Option<Action>,
    /// That action was not sent: it waits for the edge to return.
    pub in_flight_queued: bool,
    /// Why all actions on this edge are held, if they are (`DUPLICATE_EDGE`, `CLOUD_BEHIND`).
    pub held: Option<Code>,
    /// Whether the caller asked to queue for an offline edge.
    pub queue_offline: bool,
    /// What the caller may do.
    pub role: Role,
}

/// Whether one action is allowed now, and if not, why.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowed {
    /// The action.
    pub name: Action,
    /// Whether it is allowed now.
    pub allowed: bool,
    /// Why not, as a sentence for people; with it the code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Refused>,
}

/// Why an action is refused.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// For programs.
    pub code: Code,
    /// For people: why, and what to do.
    pub detail: String,
}

/// Which of the five actions are allowed: the one place that decides it.
#[must_use]
pub fn actions(facts: &ActionFacts) -> Vec<Allowed> {
    Action::ALL
        .into_iter()
        .map(|name| {
            let reason = refusal(facts, name);
            Allowed { name, allowed: reason.is_none(), reason }
        })
        .collect()
}

/// Why this action is refused now; `None`: it is allowed.
#[must_use]
pub fn refusal(facts: &ActionFacts, action: Action) -> Option<Refused> {
    if facts.role == Role::Viewer {
        return refuse(Code::PolicyDenied, "a viewer may look only; ask an operator to do this");
    }
    // What can never be right comes before what may be right in a moment, so that the reason shown is the lasting one.
    by_state(facts, action)
        .or_else(|| by_hold(facts))
        .or_else(|| by_flight(facts, action))
        .or_else(|| by_link(facts))
}

fn refuse(code: Code, detail: impl Into<String>) -> Option<Refused> {
    Some(Refused { code, detail: detail.into() })
}

fn by_hold(facts: &ActionFacts) -> Option<Refused> {
    let code = facts.held?;
    refuse(code, format!("actions on this edge are held: {}", code.meaning()))
}

fn by_flight(facts: &ActionFacts, action: Action) -> Option<Refused> {
    let under_way = facts.in_flight?;
    // A stop supersedes whatever is under way. Of what waits for the edge only the latest is kept.
    if action == Action::Stop || (facts.in_flight_queued && facts.queue_offline) {
        return None;
    }
    if facts.in_flight_queued {
        // That the edge is offline is the better reason.
        return by_link(facts);
    }
    refuse(Code::Busy, format!("'{under_way}' is under way; wait until it ends"))
}

fn by_link(facts: &ActionFacts) -> Option<Refused> {
    if facts.link.reachable() || facts.queue_offline {
        return None;
    }
    refuse(
        Code::EdgeOffline,
        "the edge is offline; nothing was sent and nothing is kept. Queue it to send it when the edge returns",
    )
}

fn by_state(facts: &ActionFacts, action: Action) -> Option<Refused> {
    let held_version = facts.running.map(|running| running.version);
    match action {
        Action::Issue => match held_version {
            Some(version) if facts.issue == IssueState::Failed => refuse(
                Code::NotAllowed,
                format!("the edge already holds {version}; use sync to try the newer version again"),
            ),
            Some(version) if facts.issue == IssueState::Issued => {
                refuse(Code::NotAllowed, format!("the edge already has {version}"))
            }
            Some(version) => refuse(
                Code::NotAllowed,
                format!("the edge already holds {version}; use sync to send {}", facts.desired.version),
            ),
            None => None,
        },
        // Creates what is missing and restarts what is there: always meaningful.
        Action::IssueAgain => None,
        Action::Sync => match facts.running {
            None => refuse(Code::NotAllowed, "nothing is on the edge yet; issue it first"),
            Some(running) if running == facts.desired && facts.issue != IssueState::Failed => {
                refuse(Code::NotAllowed, format!("the edge already has {}", running.version))
            }
            Some(_) => None,
        },
        Action::Start => match (held_version, facts.run) {
            (None, _) => refuse(Code::NotAllowed, "nothing is on the edge yet; issue it first"),
            // A stop that waits for the edge is taken back by it.
            (Some(_), Some(RunState::Running)) if facts.in_flight != Some(Action::Stop) => {
                refuse(Code::NotAllowed, "the rule is running already")
            }
            (Some(_), _) => None,
        },
        Action::Stop => match (held_version, facts.run) {
            (None, _) if facts.in_flight.is_some() => None,
            (None, _) => refuse(Code::NotAllowed, "nothing is on the edge yet, so there is nothing to stop"),
            (Some(_), Some(RunState::PausedManual)) if facts.in_flight.is_none() => {
                refuse(Code::NotAllowed, "the rule is stopped already")
            }
            (Some(_), Some(RunState::NotRunning)) if facts.in_flight.is_none() => {
                refuse(Code::NotAllowed, "the rule is not running")
            }
            (Some(_), _) => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(version: u64, digest: &str) -> VersionDigest {
        VersionDigest { version: RuleVersion(version), digest: Digest::of(digest.as_bytes()) }
    }

    #[test]
    fn c06_to_c09_the_issue_state_is_the_first_row_that_holds() {
        let desired = at(7, "seven");
        let state = |running, failed| IssueFacts { desired, running, failed }.state();
        assert_eq!(state(None, None), IssueState::NotIssued);
        assert_eq!(state(Some(desired), None), IssueState::Issued);
        assert_eq!(state(Some(at(6, "six")), None), IssueState::UpdatesNotIssued);
        assert_eq!(state(Some(at(7, "other variable")), None), IssueState::UpdatesNotIssued);
        assert_eq!(state(None, Some(desired)), IssueState::Failed);
        assert_eq!(state(Some(desired), Some(desired)), IssueState::Failed);
        // An edit after a failure: the failure was of another version.
        assert_eq!(state(None, Some(at(6, "six"))), IssueState::NotIssued);
        assert_eq!(state(Some(at(5, "five")), Some(at(6, "six"))), IssueState::UpdatesNotIssued);
    }

    fn allowed(facts: &ActionFacts) -> Vec<&'static str> {
        actions(facts).into_iter().filter(|a| a.allowed).map(|a| a.name.as_str()).collect()
    }

    fn facts(running: Option<VersionDigest>, run: RunState) -> ActionFacts {
        let desired = at(7, "seven");
        ActionFacts {
            issue: IssueFacts { desired, running, failed: None }.state(),
            desired,
            running,
            run: Some(run),
            link: Link::Online,
            in_flight: None,
            in_flight_queued: false,
            held: None,
            queue_offline: false,
            role: Role::Operator,
        }
    }

    #[test]
    fn the_button_table_of_section_2_4_holds() {
        let (six, seven) = (at(6, "six"), at(7, "seven"));
        assert_eq!(allowed(&facts(None, RunState::NotRunning)), ["issue", "issue_again"]);
        assert_eq!(allowed(&facts(Some(seven), RunState::NotRunning)), ["issue_again", "start"]);
        assert_eq!(allowed(&facts(Some(seven), RunState::Running)), ["issue_again", "stop"]);
        assert_eq!(allowed(&facts(Some(seven), RunState::PausedManual)), ["issue_again", "start"]);
        assert_eq!(allowed(&facts(Some(seven), RunState::PausedFault)), ["issue_again", "start", "stop"]);
        assert_eq!(allowed(&facts(Some(six), RunState::Running)), ["issue_again", "sync", "stop"]);
        assert_eq!(allowed(&facts(Some(six), RunState::PausedManual)), ["issue_again", "sync", "start"]);
        let failed =
            |running| ActionFacts { issue: IssueState::Failed, ..facts(running, RunState::NotRunning) };
        assert_eq!(allowed(&failed(None)), ["issue", "issue_again"]);
        assert_eq!(allowed(&failed(Some(six))), ["issue_again", "sync", "start"]);
    }

    #[test]
    fn c05_offline_refuses_everything_unless_queueing_was_asked_for() {
        let offline = ActionFacts { link: Link::Offline, ..facts(None, RunState::NotRunning) };
        assert!(allowed(&offline).is_empty());
        assert_eq!(refusal(&offline, Action::Issue).unwrap().code, Code::EdgeOffline);
        let queued = ActionFacts { queue_offline: true, ..offline };
        assert_eq!(allowed(&queued), ["issue", "issue_again"]);
    }

    #[test]
    fn a_stop_supersedes_what_is_under_way_and_nothing_else_does() {
        let busy =
            ActionFacts { in_flight: Some(Action::Sync), ..facts(Some(at(6, "six")), RunState::Running) };
        assert_eq!(allowed(&busy), ["stop"]);
    }

    #[test]
    fn of_what_waits_for_an_edge_the_latest_is_kept() {
        let waiting = ActionFacts {
            link: Link::Offline,
            in_flight: Some(Action::Stop),
            in_flight_queued: true,
            ..facts(Some(at(6, "six")), RunState::Running)
        };
        assert_eq!(refusal(&waiting, Action::Sync).unwrap().code, Code::EdgeOffline);
        let queued = ActionFacts { queue_offline: true, ..waiting };
        assert_eq!(allowed(&queued), ["issue_again", "sync", "start", "stop"], "a start takes the stop back");
    }

    #[test]
    fn viewers_and_held_edges_do_nothing() {
        let base = facts(Some(at(6, "six")), RunState::Running);
        assert!(allowed(&ActionFacts { role: Role::Viewer, ..base }).is_empty());
        let held = ActionFacts { held: Some(Code::CloudBehind), ..base };
        assert!(allowed(&held).is_empty());
        assert_eq!(refusal(&held, Action::Sync).unwrap().code, Code::CloudBehind);
    }
}

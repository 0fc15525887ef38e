//! What people and programs are shown: computed from the records whenever somebody looks, never stored.
//!
//! The field names are the words of the API; `rule get -o json` and the console show exactly these.

use std::collections::{BTreeMap, BTreeSet};

use semver::Version;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use tidegate_model::code::{Code, FailureClass};
use tidegate_model::digest::Digest;
use tidegate_model::ids::{EdgeId, MessageId, RuleId, RuleName};
use tidegate_model::placement::{Action, Allowed, IssueState, Link, RunState};
use tidegate_model::time::Wall;
use tidegate_model::version::{Generation, RuleVersion};
use tidegate_model::wire::{By, Counters, DesiredRun, Origin, PlacementState, StateQueueFull, StateReason};

use crate::full::QueueFullView;
use crate::record::RuleRecord;

/// A moment as the API writes it: RFC 3339, UTC, milliseconds.
pub(crate) fn rfc3339<S: Serializer>(at: &Wall, serializer: S) -> Result<S::Ok, S::Error> {
    match jiff::Timestamp::from_millisecond(at.0) {
        Ok(at) => serializer.collect_str(&format_args!("{at:.3}")),
        Err(_) => serializer.serialize_none(),
    }
}

fn rfc3339_opt<S: Serializer>(at: &Option<Wall>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => rfc3339(at, serializer),
        None => serializer.serialize_none(),
    }
}

/// The ETag of a rule, without quotes: its version and the first 8 digits of its content's digest.
#[must_use]
pub fn etag(rule: &RuleRecord) -> String {
    let secret_version = rule.secret.as_ref().map_or(0, |s| s.version);
    let digest = Digest::of(format!("{} {secret_version}", rule.content.content_digest()).as_bytes());
    format!("{}-{}", rule.version.0, digest.short())
}

/// A rule and where it stands.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RuleView {
    /// Its identity.
    pub id: RuleId,
    /// Its name.
    pub name: RuleName,
    /// Its version.
    pub version: RuleVersion,
    /// Its ETag, without quotes.
    pub etag: String,
    /// When it was made.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created: Wall,
    /// When this version was made.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub changed: Wall,
    /// By whom.
    pub changed_by: String,
    /// The content as an object, without the password but with `password_set`.
    #[schema(value_type = tidegate_model::rule::RuleSpec)]
    pub content: serde_json::Value,
    /// How its placements stand, in numbers.
    pub tally: Tally,
    /// Its placements; left out of lists of rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placements: Option<Vec<PlacementView>>,
}

/// Placements counted by their states.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Tally {
    /// All placements.
    pub placements: u32,
    /// By issue state.
    pub issue: BTreeMap<IssueState, u32>,
    /// By run state.
    pub run: BTreeMap<RunState, u32>,
    /// Not issued, updates not issued, failed and queued.
    pub pending: u32,
    /// Those whose queue is full and blocks, as last told.
    pub queue_full: u32,
    /// Those of which nothing is known: their edge never told of them, and was not heard of since the controller started.
    /// They count as not running.
    pub not_known: u32,
    /// Those whose run state is the last known one: their edge is not reachable, or has not said since it came back that it is
    /// still so.
    pub last_known: u32,
}

/// A failure or a fault, as people are shown it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Reason {
    /// For programs; upper case.
    pub code: String,
    /// For people: what happened and why.
    pub detail: String,
    /// Network or parameter, for a failure to issue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<FailureClass>,
    /// What to do next.
    pub next: String,
}

/// One rule on one edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PlacementView {
    /// The rule.
    pub rule: RuleName,
    /// The rule's identity.
    pub rule_id: RuleId,
    /// The edge.
    pub edge: EdgeId,
    /// Is the edge's configuration the cloud's?
    pub issue_state: IssueState,
    /// Why the last issue, issue again or sync failed; kept after an edit, until the next one succeeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issue_reason: Option<Reason>,
    /// Is it moving data? The last that the edge said; see `last_known`.
    pub run_state: RunState,
    /// The fault, while the run state is `paused_fault`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_reason: Option<Reason>,
    /// The reason that matters most now: of the run state if there is one, else of the issue state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Who caused the run state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_by: Option<By>,
    /// Since when the run state holds, by the edge's clock.
    #[serde(serialize_with = "rfc3339_opt")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Wall>,
    /// The cloud's version.
    pub version: RuleVersion,
    /// Digest of the cloud's version, rendered for this edge.
    pub digest: Digest,
    /// The version on the edge.
    pub edge_version: Option<RuleVersion>,
    /// Its digest.
    pub edge_digest: Option<Digest>,
    /// Counter of desired states.
    pub generation: Generation,
    /// Should it run?
    pub desired_run: DesiredRun,
    /// The action that is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<InFlightView>,
    /// It is being removed; it disappears when the edge said so.
    pub removing: bool,
    /// The edge runs something that the cloud did not issue.
    pub drift: bool,
    /// Is the edge reachable?
    pub link: Link,
    /// The run state is the last known one: the edge is not reachable now, or not heard of since the controller started.
    pub last_known: bool,
    /// When the edge last said something about this placement, by the controller's clock.
    #[serde(serialize_with = "rfc3339_opt")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub as_of: Option<Wall>,
    /// Changes of the run state within a minute, where they are too many to be told one by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flapping: Option<u32>,
    /// A queue is full and blocks, whatever the run state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_full: Option<QueueFullView>,
    /// Values of the rule's variables on this edge.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub vars: BTreeMap<String, String>,
    /// What it moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counters: Option<Counters>,
    /// What may be done now.
    pub actions: Vec<Allowed>,
}

/// As it is retained for dashboards.
impl From<&PlacementView> for PlacementState {
    fn from(view: &PlacementView) -> Self {
        let shown = |at: Wall| jiff::Timestamp::from_millisecond(at.0).ok().map(|at| format!("{at:.3}"));
        Self {
            rule: view.rule.clone(),
            edge: view.edge.clone(),
            issue_state: view.issue_state,
            run_state: view.run_state,
            desired_run: view.desired_run,
            version: view.version,
            edge_version: view.edge_version,
            since: view.since.and_then(shown),
            link: view.link,
            last_known: view.last_known,
            in_flight: view.in_flight.as_ref().and_then(|flight| flight.action),
            queued: view.in_flight.as_ref().is_some_and(|flight| flight.queued),
            removing: view.removing,
            drift: view.drift,
            reason: view
                .reason
                .as_ref()
                .map(|reason| StateReason { code: reason.code.clone(), detail: reason.detail.clone() }),
            queue_full: view.queue_full.as_ref().map(|full| StateQueueFull {
                since: shown(full.since),
                forwards: full.forwards,
                subscriptions: full.subscriptions,
            }),
        }
    }
}

/// An action under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct InFlightView {
    /// To ask after it.
    pub id: MessageId,
    /// Which action; `None`: a removal.
    pub action: Option<Action>,
    /// Its generation.
    pub generation: Generation,
    /// Since when.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub since: Wall,
    /// Who wanted it.
    pub by: String,
    /// It waits for the edge to return.
    pub queued: bool,
    /// When a queued action is given up.
    #[serde(serialize_with = "rfc3339_opt", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Wall>,
    /// The edge said that it is on its disk.
    pub received: bool,
}

/// A gateway.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EdgeView {
    /// Its name.
    pub id: EdgeId,
    /// When it was made.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created: Wall,
    /// Is it reachable?
    pub link: Link,
    /// When it was last heard of.
    #[serde(serialize_with = "rfc3339_opt")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_seen: Option<Wall>,
    /// Version of its agent.
    #[schema(value_type = Option<String>)]
    pub agent_version: Option<Version>,
    /// Rule features that it runs.
    pub features: BTreeSet<String>,
    /// Its placements, in numbers.
    pub tally: Tally,
    /// Why actions are held, if they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<Reason>,
    /// How much its clock differs from the controller's, in milliseconds, at the last hello.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_skew_ms: Option<i64>,
    /// How many rules on it this cloud does not manage; absent: it has not told yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unmanaged_rules: Option<u32>,
    /// Those rules; absent: it has not told yet. Lists leave them out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unmanaged: Option<Vec<UnmanagedRule>>,
    /// Messages of this edge that were dropped: copies, late ones, unreadable ones.
    pub dropped_messages: u64,
}

/// A rule on an edge that this cloud does not manage, as the edge says it. It is shown and never touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct UnmanagedRule {
    /// Its identity on the edge.
    pub rule: RuleId,
    /// Its name on the edge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<RuleName>,
    /// `local`: the site wrote it; `cloud`: a controller issued it that this one has no record of (a restored backup, or an
    /// edge that was forgotten while its rules stayed).
    pub origin: Origin,
    /// The run state as last told.
    pub run_state: RunState,
    /// The fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_reason: Option<Reason>,
    /// Since when the run state holds, by the edge's clock.
    #[serde(serialize_with = "rfc3339_opt", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Wall>,
    /// The edge is not reachable, or has not said since it came back that this is still so.
    pub last_known: bool,
    /// A queue is full and blocks, whatever the run state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_full: Option<QueueFullView>,
}

/// Held edges that a summary names at the most.
pub const MAX_HELD_SHOWN: usize = 20;

/// Totals for the header and for monitors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Summary {
    /// Rules in the account.
    pub rules: u32,
    /// Rules that are issued to at least one edge.
    pub rules_issued: u32,
    /// Edges by link.
    pub edges: BTreeMap<&'static str, u32>,
    /// Placements.
    pub tally: Tally,
    /// Edges whose actions are held (`CLOUD_BEHIND`, `DUPLICATE_EDGE`); the first [`MAX_HELD_SHOWN`].
    pub held: Vec<EdgeId>,
    /// Epoch of another controller that leads on this broker; then this one sends nothing and refuses changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub superseded_by: Option<u64>,
    /// `green`: aligned; `amber`: nothing pending, but something is stale, unknown or held; `red`: something is pending.
    pub indicator: &'static str,
    /// When this was computed.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub as_of: Wall,
}

/// Which rules somebody wants to see.
#[derive(Debug, Clone, Default)]
pub struct RuleFilter {
    /// The name contains this.
    pub q: Option<String>,
    /// A placement has this issue state.
    pub issue_state: Option<IssueState>,
    /// A placement has this run state.
    pub run_state: Option<RunState>,
    /// It is placed on this edge.
    pub edge: Option<EdgeId>,
}

/// Which placements somebody wants to see.
#[derive(Debug, Clone, Default)]
pub struct PlacementFilter {
    /// Of this rule.
    pub rule: Option<RuleName>,
    /// On this edge.
    pub edge: Option<EdgeId>,
    /// In this issue state.
    pub issue_state: Option<IssueState>,
    /// In this run state.
    pub run_state: Option<RunState>,
}

/// What to do about a code, as one sentence.
pub(crate) fn next_step(code: Code) -> &'static str {
    match code {
        Code::EdgeOffline => {
            "it is sent again when the edge returns; or check the gateway's power and network"
        }
        Code::TimedOut => "it is settled when the edge reports; or try again",
        Code::Expired => "issue it again when the gateway is back",
        Code::RemoteAuth | Code::RemoteNotAuthorized => "correct the credentials in the rule, then sync",
        Code::SubscribeRefused => "correct the subscriptions or the remote broker's access rules, then sync",
        Code::InvalidConfig | Code::TooLarge | Code::BadMessage => "correct the rule, then sync",
        Code::UnsupportedField => "update the agent on the edge, or leave the field out",
        Code::MissingDependency => "issue it again",
        Code::PolicyDenied => "ask who runs the gateway to allow it in its policy file",
        Code::NoSpace => "free space on the gateway's disk, then try again",
        Code::DuplicateEdge => {
            "find the second gateway with this identity and give it its own; the hold ends 5 minutes after the last sign of it"
        }
        Code::CloudBehind => "look at what the edge runs, then confirm it",
        Code::Superseded => "nothing: a newer action took its place",
        Code::Ok | Code::Accepted | Code::Already => "nothing",
        Code::BadSignature
        | Code::ManagedByCloud
        | Code::UnknownRule
        | Code::UnknownEdge
        | Code::Conflict
        | Code::NotAllowed
        | Code::Stale
        | Code::StaleController
        | Code::StaleSession
        | Code::Locked
        | Code::Busy
        | Code::Internal
        | Code::RemoteUnreachable
        | Code::Unknown => "issue it again; if that fails too, look at the agent's log",
    }
}

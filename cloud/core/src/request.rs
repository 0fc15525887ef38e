//! What callers may want, and what they get.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use tidegate_model::ids::{EdgeId, RuleId, RuleName};
use tidegate_model::placement::{Action, IssueState};
use tidegate_model::rule::{SecretInputs, ValidRule};

use crate::once::KeptAnswer;
use crate::record::VersionRecord;
use crate::rejection::Rejection;
use crate::view::{EdgeView, InFlightView, PlacementView, RuleView};

/// A precondition of a change (HTTP `If-Match`, `If-None-Match: *`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// No condition: last writer wins. Only for callers that read and write in one step.
    Any,
    /// The rule must not exist.
    Absent,
    /// The rule must be at this version, with this content digest's first 8 digits.
    Etag(String),
}

/// What to do with an action for an edge that is offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenOffline {
    /// Refuse it; nothing changes.
    #[default]
    Refuse,
    /// Keep the latest desired state until the edge returns, for [`tidegate_model::limits::QUEUE_TTL_MS`].
    Queue,
}

/// What somebody wants of the controller.
#[derive(Debug, Clone)]
pub enum Request {
    /// Create a rule, or change the one of that name.
    SaveRule {
        /// The id that the rule gets if it is new (UUIDv7, made by the shell).
        id: RuleId,
        /// The content.
        content: Box<ValidRule>,
        /// What to do with the secrets.
        secrets: SecretInputs,
        /// What must hold before.
        expect: Expect,
        /// What the author says of the change.
        note: String,
    },
    /// Make a new version with an old version's content.
    RestoreRule {
        /// The rule.
        rule: RuleName,
        /// The version, read from the store by the shell.
        from: Box<VersionRecord>,
        /// What must hold before.
        expect: Expect,
        /// Why.
        note: String,
    },
    /// Delete a rule and take it off all its edges.
    DeleteRule {
        /// The rule.
        rule: RuleName,
        /// What must hold before.
        expect: Expect,
    },
    /// Put a rule on an edge (nothing is sent before it is issued), or change its variables there.
    Place {
        /// The rule.
        rule: RuleName,
        /// The edge.
        edge: EdgeId,
        /// Values of the rule's variables on this edge.
        vars: BTreeMap<String, String>,
    },
    /// Take a rule off an edge; the removal waits for an edge that is offline.
    Unplace {
        /// The rule.
        rule: RuleName,
        /// The edge.
        edge: EdgeId,
    },
    /// One of the five actions.
    Act {
        /// The rule.
        rule: RuleName,
        /// The edge.
        edge: EdgeId,
        /// Which action.
        action: Action,
        /// What if the edge is offline.
        when_offline: WhenOffline,
    },
    /// One action on many placements, at most [`MAX_TARGETS`]. What is refused for one holds up no other.
    ActOnMany {
        /// Which placements.
        targets: Vec<(RuleName, EdgeId)>,
        /// Which action.
        action: Action,
        /// What if an edge is offline.
        when_offline: WhenOffline,
    },
    /// Make an edge known.
    CreateEdge {
        /// Its name.
        edge: EdgeId,
        /// Hash of its credential.
        credential: String,
    },
    /// Forget an edge and revoke its credential.
    RemoveEdge {
        /// Its name.
        edge: EdgeId,
        /// Forget it although rules are on it, which go on running there.
        leave_running: bool,
    },
    /// The cloud was restored from a backup: take over the edge's generations and go on above them.
    ConfirmEdge {
        /// Its name.
        edge: EdgeId,
    },
    /// Take a rule off an edge that a cloud issued and this one has no record of.
    RemoveUnmanaged {
        /// The edge.
        edge: EdgeId,
        /// Identity of the rule there.
        rule: RuleId,
    },
}

/// Placements of one [`Request::ActOnMany`] at the most: the turn of everybody else comes soon.
pub const MAX_TARGETS: usize = 500;

/// What became of an action on one of many placements.
#[derive(Debug, Clone)]
pub struct ActedOn {
    /// The rule.
    pub rule: RuleName,
    /// The edge.
    pub edge: EdgeId,
    /// The operation that was begun; `None`: it was so already, nothing was sent.
    pub result: Result<Option<InFlightView>, Rejection>,
}

/// How a save went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Saved {
    /// A new rule.
    Created,
    /// A new version.
    Changed,
    /// The same content: the version stays.
    Unchanged,
}

/// What somebody gets.
#[derive(Debug, Clone)]
pub enum Reply {
    /// A rule was saved or restored.
    Rule {
        /// The rule.
        rule: RuleView,
        /// How.
        saved: Saved,
    },
    /// A rule was deleted.
    Deleted,
    /// A rule was placed.
    Placed {
        /// The placement.
        placement: PlacementView,
        /// Whether it was not there before.
        created: bool,
    },
    /// A rule was taken off an edge.
    Unplaced {
        /// Whether the edge still has to hear of it.
        pending: bool,
    },
    /// An action is under way.
    Acted {
        /// The operation.
        operation: InFlightView,
        /// The placement.
        placement: PlacementView,
    },
    /// It was so already: nothing was sent.
    Already {
        /// The placement.
        placement: PlacementView,
    },
    /// What became of an action on each of many placements, in the order in which they were named.
    ActedOnMany(Vec<ActedOn>),
    /// An edge was made known.
    EdgeCreated(EdgeView),
    /// The state of an edge was confirmed.
    EdgeConfirmed(EdgeView),
    /// An edge was forgotten.
    EdgeRemoved,
    /// It was done before under the same key: what was answered then.
    Replayed(KeptAnswer),
    /// Nothing was done: what would be.
    Rehearsed(Box<Rehearsed>),
}

/// What a request would do.
#[derive(Debug, Clone)]
pub struct Rehearsed {
    /// What would be answered.
    pub reply: Reply,
    /// The placements that would change, at most [`crate::MAX_AFFECTED_SHOWN`].
    pub affected: Vec<Affected>,
    /// How many would change in all.
    pub affected_total: u32,
}

/// A placement that a request would change.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Affected {
    /// The rule.
    pub rule: RuleName,
    /// The edge.
    pub edge: EdgeId,
    /// Its issue state now; `None`: the rule is not there yet.
    pub issue_state_before: Option<IssueState>,
    /// A message would be sent to the edge at once.
    pub sends: bool,
    /// The placement as it would be; `None`: it would be gone.
    pub after: Option<PlacementView>,
}

//! Why a request was refused: what, why, and enough for the shell to say what to do.

use tidegate_model::code::Code;
use tidegate_model::ids::{EdgeId, RuleId, RuleName};
use tidegate_model::placement::{Allowed, Refused};
use tidegate_model::rule::{LoopBetween, Problems};
use tidegate_model::time::Wall;

/// Why a request was refused. Nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Rejection {
    /// No such rule.
    #[error("no rule is named '{0}'")]
    NoSuchRule(RuleName),
    /// No such edge.
    #[error("no edge is named '{0}'")]
    NoSuchEdge(EdgeId),
    /// The rule is not on the edge.
    #[error("rule '{rule}' is not placed on edge '{edge}'")]
    NoSuchPlacement {
        /// The rule.
        rule: RuleName,
        /// The edge.
        edge: EdgeId,
    },
    /// The edge does not say that it holds such a rule.
    #[error("edge '{edge}' tells of no rule {rule} that the cloud does not manage")]
    NoSuchUnmanaged {
        /// The edge.
        edge: EdgeId,
        /// Identity of the rule.
        rule: RuleId,
    },
    /// The rule was written on site.
    #[error("rule '{rule}' belongs to the site of edge '{edge}': who runs the gateway removes it there")]
    OfTheSite {
        /// The edge.
        edge: EdgeId,
        /// Its name, or its identity where it has none.
        rule: RuleName,
    },
    /// The edge runs a rule of the same name that this cloud has no record of.
    #[error(
        "edge '{edge}' runs another rule '{rule}' ({id}) that a cloud issued and this one has no record of; with both, each would throw the other off the remote broker. Remove that one first"
    )]
    ForgottenTwin {
        /// The edge.
        edge: EdgeId,
        /// The name of both.
        rule: RuleName,
        /// Identity of the one that is there.
        id: RuleId,
    },
    /// There is one already.
    #[error("a rule is named '{0}' already")]
    RuleExists(RuleName),
    /// There is one already.
    #[error(
        "an edge is named '{0}' already; its credential was shown when it was made. Remove it first to make it anew"
    )]
    EdgeExists(EdgeId),
    /// Somebody else changed it in between.
    #[error("rule '{rule}' was changed in between, by {by}; read it again and repeat the change")]
    VersionConflict {
        /// The rule.
        rule: RuleName,
        /// Its ETag now.
        current_etag: String,
        /// Who changed it last.
        by: String,
        /// When.
        at: Wall,
    },
    /// The rule cannot be as it is written.
    #[error("the rule cannot be saved: {0}")]
    Invalid(Problems),
    /// The rule is fine by itself, but not on this edge.
    #[error("rule '{rule}' does not fit edge '{edge}': {problems}")]
    InvalidOnEdge {
        /// The rule.
        rule: RuleName,
        /// The edge.
        edge: EdgeId,
        /// What is wrong.
        problems: Problems,
    },
    /// Two rules of one edge would use the same client id.
    #[error(
        "on edge '{edge}' rule '{other}' uses client id '{client_id}' at the same broker already; brokers disconnect the older of two such clients, in a loop. Give one of the rules another remote.client_id"
    )]
    ClientIdClash {
        /// The edge.
        edge: EdgeId,
        /// The rule that has it.
        other: RuleName,
        /// The client id.
        client_id: String,
    },
    /// With the other rules of the edge messages would go round for ever.
    #[error("on edge '{edge}' {found}")]
    LoopBetween {
        /// The edge.
        edge: EdgeId,
        /// Between which rules.
        found: LoopBetween,
    },
    /// The state of the placement does not allow it.
    #[error("{} is not possible: {}", .action, .refused.detail)]
    NotAllowed {
        /// Which action.
        action: String,
        /// Why.
        refused: Refused,
        /// What is allowed now.
        actions: Vec<Allowed>,
    },
    /// The agent on the edge cannot run this rule.
    #[error("{detail}")]
    Unsupported {
        /// Which field, and which version of the agent is needed.
        detail: String,
    },
    /// The caller may look only.
    #[error("a viewer may look only; ask an operator to do this")]
    Forbidden,
    /// A bound would be passed.
    #[error("{what}: at most {limit} are allowed")]
    Limit {
        /// Of what there are too many.
        what: String,
        /// The bound.
        limit: usize,
    },
    /// Rules are on the edge.
    #[error("rules are still on edge '{edge}' ({count}); take them off first, or leave them running there")]
    EdgeInUse {
        /// The edge.
        edge: EdgeId,
        /// How many rules.
        count: usize,
    },
    /// The key of a request that is done once belongs to another request.
    #[error(
        "this Idempotency-Key was used for another request within the last 24 hours; make a new key for each request, and keep it only to repeat the very same one"
    )]
    KeyReused,
    /// Another controller took this one's place.
    #[error(
        "another controller (epoch {epoch}) leads on this broker, and edges obey it alone; stop one of the two, then start this one again if it is to lead"
    )]
    Superseded {
        /// Its epoch.
        epoch: u64,
    },
    /// There is nothing to confirm.
    #[error("edge '{0}' is not ahead of the cloud; there is nothing to confirm")]
    NothingToConfirm(EdgeId),
    /// It cannot have seen such an epoch.
    #[error(
        "edge '{0}' says that it obeyed a controller whose clock was more than a year ahead of this one's; look at the clocks of both, then wipe the edge's data directory so that it begins anew"
    )]
    EpochTooFar(EdgeId),
    /// It cannot have had so many actions.
    #[error(
        "edge '{0}' names a generation far above every action that it can have had; its database is damaged or somebody else speaks for it: give it a new credential, then empty its data directory so that it begins anew"
    )]
    GenerationTooFar(EdgeId),
}

impl Rejection {
    /// The code, for programs.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::NoSuchRule(_) | Self::NoSuchPlacement { .. } | Self::NoSuchUnmanaged { .. } => {
                Code::UnknownRule
            }
            Self::NoSuchEdge(_) => Code::UnknownEdge,
            Self::RuleExists(_)
            | Self::EdgeExists(_)
            | Self::VersionConflict { .. }
            | Self::EdgeInUse { .. }
            | Self::OfTheSite { .. }
            | Self::ForgottenTwin { .. }
            | Self::NothingToConfirm(_)
            | Self::EpochTooFar(_)
            | Self::GenerationTooFar(_) => Code::Conflict,
            Self::Invalid(_)
            | Self::InvalidOnEdge { .. }
            | Self::ClientIdClash { .. }
            | Self::LoopBetween { .. } => Code::InvalidConfig,
            Self::NotAllowed { refused, .. } => refused.code,
            Self::Unsupported { .. } => Code::UnsupportedField,
            Self::Forbidden => Code::PolicyDenied,
            Self::Limit { .. } => Code::TooLarge,
            Self::KeyReused => Code::Conflict,
            Self::Superseded { .. } => Code::StaleController,
        }
    }
}

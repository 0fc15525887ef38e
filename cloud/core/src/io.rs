//! What goes into the controller and what comes out.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use tidegate_model::code::Code;
use tidegate_model::digest::Digest;
use tidegate_model::ids::{EdgeId, RuleId, RuleName};
use tidegate_model::placement::{Action, Role};
use tidegate_model::time::{Monotonic, Wall};
use tidegate_model::version::RuleVersion;
use tidegate_model::wire::ControllerPresence;

use crate::once::{Once, OnceRecord};
use crate::record::{Actor, EdgeRecord, Meta, PlacementRecord, RuleRecord, VersionRecord};
use crate::rejection::Rejection;
use crate::request::{Reply, Request};

/// Which waiting caller a reply is for; made by the shell, given back in [`Effect::Reply`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyTo(pub u64);

/// Everything that can happen to a controller.
#[derive(Debug, Clone)]
pub enum Input {
    /// Somebody wants something.
    Request {
        /// Whom to answer.
        reply_to: ReplyTo,
        /// Who wants it.
        by: Actor,
        /// What they may do.
        role: Role,
        /// What they want.
        request: Box<Request>,
        /// In which way.
        how: How,
    },
    /// A payload came from an edge, on its `up` or `presence` topic. The transport vouches for the edge's name.
    FromEdge {
        /// Which edge.
        edge: EdgeId,
        /// Whether it came on `presence`.
        presence: bool,
        /// The payload as it came.
        payload: Vec<u8>,
    },
    /// The presence of a controller other than this one was seen on the broker.
    OtherController(ControllerPresence),
    /// A deadline may have passed.
    Tick,
}

/// In which way a request is to be handled.
#[derive(Debug, Clone, Default)]
pub struct How {
    /// It is done once, however often it is sent.
    pub once: Option<Once>,
    /// Nothing is done: the answer says what would be. Such a request is not kept under its key.
    pub dry_run: bool,
}

/// What follows from an input.
#[must_use]
#[derive(Debug, Default)]
pub struct Output {
    /// One atomic batch, to be durable before any effect …
    pub writes: Vec<Write>,
    /// … and only then these, in order.
    pub effects: Vec<Effect>,
    /// Placements of which something that people are shown may have changed, those that went included.
    pub changed: BTreeSet<(RuleName, EdgeId)>,
}

/// A change of the store.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Keep facts about the controller.
    PutMeta(Meta),
    /// Keep a rule. `expect` is the version that the store must hold now (`None`: no such rule).
    PutRule {
        /// The rule as it is from now on.
        record: Box<RuleRecord>,
        /// Precondition.
        expect: Option<RuleVersion>,
    },
    /// Keep a version of a rule for ever.
    PutVersion(Box<VersionRecord>),
    /// Forget a rule. Its versions stay.
    RemoveRule(RuleId),
    /// Keep an edge.
    PutEdge(Arc<EdgeRecord>),
    /// Forget an edge.
    RemoveEdge(EdgeId),
    /// Keep a placement.
    PutPlacement(Arc<PlacementRecord>),
    /// Forget a placement and its generation.
    RemovePlacement {
        /// The rule.
        rule: RuleId,
        /// The edge.
        edge: EdgeId,
    },
    /// Keep the answer of a request that is done once.
    PutAnswer(Box<OnceRecord>),
    /// Forget such an answer.
    RemoveAnswer(Digest),
}

/// Something to do once the writes are durable. Losing one to a crash loses nothing else: the difference between
/// desired and reported produces it again.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Publish an envelope on the edge's `down` topic, QoS 1.
    Publish {
        /// Which edge.
        edge: EdgeId,
        /// The envelope.
        payload: Vec<u8>,
    },
    /// Publish the controller's presence, retained.
    PublishPresence(ControllerPresence),
    /// End the edge's connection: its credentials were revoked.
    Disconnect(EdgeId),
    /// Answer a request.
    Reply {
        /// Whom.
        to: ReplyTo,
        /// What.
        result: Result<Box<Reply>, Box<Rejection>>,
    },
    /// Tell the watchers that something changed.
    Notify(Event),
    /// Count an action, or a removal (`None`), that ended.
    Settled {
        /// Which action.
        action: Option<Action>,
        /// How it ended.
        code: Code,
        /// Milliseconds since somebody wanted it, by the wall clock.
        took_ms: i64,
    },
    /// Say something in the log: a peer's message that could not be taken. Never quotes a payload.
    Warn {
        /// Which edge.
        edge: EdgeId,
        /// What was wrong.
        what: String,
    },
}

/// Something changed; watchers read the new state themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Event {
    /// What kind of change.
    pub kind: EventKind,
    /// When, by the controller's clock.
    #[serde(serialize_with = "crate::view::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub at: Wall,
    /// The rule, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleName>,
    /// The edge, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edge: Option<EdgeId>,
    /// A sentence for people.
    pub text: String,
    /// Somebody asked for it; else an edge said it, or time passed. It is for the log, which tells all of the first and
    /// bounds the second.
    #[serde(skip)]
    pub was_asked_for: bool,
}

/// What kind of change an event tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A rule was created, changed or deleted.
    Rule,
    /// A placement came, went or changed its issue state or run state.
    Placement,
    /// An edge came, went, or its link changed.
    Edge,
    /// Another controller took over, or went away.
    Controller,
}

/// When the controller wants to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// The moment.
    pub at: Monotonic,
    /// What is due then, for the log.
    pub what: &'static str,
}

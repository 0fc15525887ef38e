//! The controller's decisions, without IO.
//!
//! [`Controller::handle`] takes one [`Input`] and returns an [`Output`]: what to write in one atomic batch, and what
//! to do only after that. No clock, no randomness, no socket: the shell (`cloud/server`) brings `now` and ids.
//!
//! ```text
//! request, message of an edge, deadline --Input--> Controller --Output--> writes (commit), then effects (publish, reply, notify)
//! ```

mod action;
mod controller;
mod edge_message;
mod full;
mod io;
mod link;
mod once;
mod placements;
mod read;
mod reconcile;
mod record;
mod rehearse;
mod rejection;
mod request;
mod rules;
mod shared;
mod stored;
mod succession;
mod timers;
mod view;

pub use controller::{Controller, Settings};
pub use full::QueueFullView;
pub use io::{Deadline, Effect, Event, EventKind, How, Input, Output, ReplyTo, Write};
pub use once::{
    InvalidKey, KEEP_ANSWER_MS, KeptAnswer, MAX_KEPT_ANSWERS, MAX_KEPT_BYTES, MAX_KEY_BYTES, Once, OnceKey,
    OnceRecord,
};
pub use record::{
    Actor, EdgeRecord, Facts, Meta, Operation, PlacementRecord, Reported, RuleRecord, Settled, Snapshot,
    StoredSecrets, Target, VIA_MQTT, VersionRecord,
};
pub use rehearse::MAX_AFFECTED_SHOWN;
pub use rejection::Rejection;
pub use request::{ActedOn, Affected, Expect, MAX_TARGETS, Rehearsed, Reply, Request, Saved, WhenOffline};
pub use shared::Frozen;
pub use view::{
    EdgeView, InFlightView, MAX_HELD_SHOWN, PlacementFilter, PlacementView, Reason, RuleFilter, RuleView,
    Summary, Tally, UnmanagedRule, etag,
};

/// Version of this software (semver), told to edges.
#[must_use]
pub fn software_version() -> semver::Version {
    env!("CARGO_PKG_VERSION").parse().expect("cargo accepts only semver versions")
}

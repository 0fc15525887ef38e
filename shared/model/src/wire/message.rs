//! The messages, one type each. Unknown fields are ignored, so that an older peer reads a newer one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use semver::Version;
use serde::{Deserialize, Serialize};

use crate::code::{Code, FaultCode};
use crate::digest::Digest;
use crate::ids::{RuleId, RuleName};
use crate::placement::{RunState, VersionDigest};
use crate::time::Wall;
use crate::version::{Generation, RuleVersion};

use super::told;

macro_rules! direction {
    ($(#[$doc:meta])* $name:ident { $( $(#[$vdoc:meta])* $variant:ident($body:ty) = $kind:literal, )* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum $name {
            $( $(#[$vdoc])* $variant($body), )*
        }

        impl $name {
            /// The kind, as `t` says it on the wire.
            #[must_use]
            pub fn kind(&self) -> &'static str {
                match self { $( Self::$variant(_) => $kind, )* }
            }

            /// The message's JSON.
            #[must_use]
            pub fn body(&self) -> String {
                match self { $( Self::$variant(body) => serde_json::to_string(body), )* }
                    .expect("messages have string keys and no failing serializer")
            }

            /// Reads a body by its kind; `None`: the kind is not known.
            pub(super) fn read(kind: &str, body: &str) -> Option<(&'static str, Result<Self, serde_json::Error>)> {
                match kind {
                    $( $kind => Some(($kind, serde_json::from_str(body).map(Self::$variant))), )*
                    _ => None,
                }
            }
        }
    };
}

direction! {
    /// What an edge says, on `up` and on `presence`.
    Up {
        /// The session stands (presence, retained).
        Birth(Birth) = "birth",
        /// The session broke (presence, retained; said by the broker in the edge's name).
        Will(Will) = "will",
        /// The session ends as planned (presence, retained).
        Bye(Bye) = "bye",
        /// Who I am and what I hold, as one digest.
        Hello(Hello) = "hello",
        /// What I hold, rule by rule.
        Inventory(Inventory) = "inventory",
        /// A set is on disk.
        Received(Received) = "received",
        /// How a set ended.
        Result(SetResult) = "result",
        /// A rule's run state changed, by itself or on site.
        Report(Report) = "report",
        /// Still here.
        Heartbeat(Heartbeat) = "heartbeat",
        /// Answer to a ping.
        Pong(Ping) = "pong",
    }
}

direction! {
    /// What the controller says.
    Down {
        /// Answer to a hello.
        Welcome(Welcome) = "welcome",
        /// The complete desired state of one placement.
        Set(Box<Set>) = "set",
        /// Are you there?
        Ping(Ping) = "ping",
    }
}

/// The session stands. Its id is in the envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Birth {
    /// Random number of the process: two in one epoch are a cloned disk.
    pub boot: u64,
}

/// The session broke. Its id is in the envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Will {}

/// The session ends as planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bye {
    /// Why, for people.
    pub reason: String,
}

/// Who the agent is, what it can and a digest of all that it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Version of the agent's software.
    pub agent: Version,
    /// Major versions of this protocol that it speaks.
    pub protocols: BTreeSet<u32>,
    /// Rule features that it can run.
    #[serde(deserialize_with = "told::features")]
    pub features: BTreeSet<String>,
    /// What it can hold.
    pub limits: HelloLimits,
    /// Random number of the process.
    pub boot: u64,
    /// [`root`] of all that it holds.
    pub root: Digest,
    /// How many rules it holds.
    pub rules: u32,
    /// Highest controller epoch that it has seen.
    pub highest_ce: u64,
    /// Its wall clock.
    pub clock: Wall,
}

/// What an agent can hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloLimits {
    /// Largest envelope that it reads, in bytes.
    pub max_envelope_bytes: u64,
    /// Most rules that it keeps.
    pub max_rules: u32,
}

/// What the controller wants to know after a hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Want {
    /// Nothing: both sides hold the same.
    None,
    /// Everything, rule by rule.
    Inventory,
}

/// Answer to a hello, and at any time the request for an inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// What the controller wants to know.
    pub want: Want,
    /// Seconds between heartbeats.
    pub heartbeat_s: u32,
    /// Wall clock of the controller.
    pub time: Wall,
    /// The highest session epoch that the controller knows of this store: an edge restored from a backup jumps above it.
    pub epoch: u64,
}

/// One page of what an edge holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Number of this page, from 1.
    pub page: u32,
    /// How many pages there are.
    pub pages: u32,
    /// [`root`] of all that the edge holds, the same on each page.
    pub root: Digest,
    /// Its rules, tombstones included.
    pub rules: Vec<InventoryItem>,
}

/// What an edge holds of one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryItem {
    /// The rule.
    pub rule: RuleId,
    /// Its name, for people; a tombstone may have forgotten it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<RuleName>,
    /// The highest generation that the edge accepted.
    pub generation: Generation,
    /// The `want` of that generation.
    pub want: Digest,
    /// Whether the rule should be there; `false`: a tombstone.
    pub present: bool,
    /// What is committed and runs, or would run.
    pub running: Option<VersionDigest>,
    /// How the last attempt ended; `None`: it is under way, or there was none.
    pub attempted: Option<Attempt>,
    /// Its run state.
    pub run: RunReport,
    /// Who wrote it.
    pub origin: Origin,
}

/// How an attempt at a generation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Which generation.
    pub generation: Generation,
    /// What it should have brought; `None` for a removal.
    pub target: Option<VersionDigest>,
    /// How it ended.
    pub code: Code,
    /// A sentence for people, at most [`crate::limits::MAX_DETAIL_BYTES`], without secrets.
    #[serde(deserialize_with = "told::detail")]
    pub detail: String,
}

/// Who wrote a rule that an edge holds.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The controller issued it.
    Cloud,
    /// It was written on site.
    Local,
}

/// The complete desired state of one placement: issue, issue again, sync, start, stop and removal are all this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    /// The rule.
    pub rule: RuleId,
    /// Its name, for people and for the agent's own commands.
    pub name: RuleName,
    /// Orders the sets of this placement.
    pub generation: Generation,
    /// What equality means: [`Set::compute_want`] of this set.
    pub want: Digest,
    /// The target: which version, with which digest.
    pub target: VersionDigest,
    /// `false`: remove it.
    pub present: bool,
    /// Should it run?
    pub run: DesiredRun,
    /// Another value than before asks for a restart.
    pub restart: u64,
    /// The rendered rule.
    pub config: Config,
    /// Values of the secrets that the rendered rule names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretValue>,
}

impl Set {
    /// The digest over everything that makes one desired state another than the next.
    #[must_use]
    pub fn compute_want(&self) -> Digest {
        let Self { rule, generation, target, present, run, restart, .. } = self;
        let run = run.as_str();
        let text = format!(
            "tidegate-want-1\n{rule}\n{generation}\n{}\n{}\n{present}\n{run}\n{restart}\n",
            target.version.0, target.digest
        );
        Digest::of(text.as_bytes())
    }
}

/// Should a rule run?
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DesiredRun {
    /// Yes.
    Running,
    /// No.
    Stopped,
}

impl DesiredRun {
    fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
        }
    }
}

/// The rendered rule of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Config {
    /// These bytes; their SHA-256 is the target's digest.
    Bytes(String),
    /// The bytes that the edge holds under the target's digest.
    Keep,
}

/// The value of a secret, on its way to the edge. Its `Debug` shows no value.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretValue {
    /// Which secret, as the rendered rule names it.
    pub id: String,
    /// Which version of it.
    pub version: u64,
    /// The value.
    pub value: String,
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretValue({} version {}, ******)", self.id, self.version)
    }
}

/// A set is on the edge's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// The rule.
    pub rule: RuleId,
    /// Which generation.
    pub generation: Generation,
}

/// How a set ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetResult {
    /// The rule.
    pub rule: RuleId,
    /// The highest generation that the edge holds: the set's own, or a higher one (`STALE`).
    pub generation: Generation,
    /// The generation that this answers.
    pub answers: Generation,
    /// How it ended.
    pub code: Code,
    /// What was attempted.
    pub attempted: Option<VersionDigest>,
    /// What is committed now.
    pub running: Option<VersionDigest>,
    /// The `want` that the edge holds now.
    pub want: Digest,
    /// The run state now.
    pub run: RunReport,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// A sentence for people, at most [`crate::limits::MAX_DETAIL_BYTES`], without secrets.
    #[serde(deserialize_with = "told::detail")]
    pub detail: String,
}

/// A rule's run state changed without a set, or its counters are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The rule.
    pub rule: RuleId,
    /// Its run state.
    pub run: RunReport,
    /// What it moved.
    pub counters: Counters,
    /// Transitions that were not told one by one since the last report.
    #[serde(default)]
    pub skipped: u64,
}

/// A run state as the edge says it. Ordered by `sequence`, which is persisted and grows with each transition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunReport {
    /// Number of the transition, per rule and store.
    pub sequence: u64,
    /// The state.
    pub state: RunState,
    /// The fault, in [`RunState::PausedFault`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// Who wanted it so.
    pub by: By,
    /// Since when, by the edge's wall clock.
    pub since: Wall,
    /// Changes within the last minute, where they are too many to be told one by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flapping: Option<u32>,
    /// A queue of the rule is full and blocks (`when_full = "block"`), whatever the state. It is no transition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_full: Option<QueueFull>,
}

/// A full queue: whoever sends gets no acknowledgement until there is room. Nothing is lost by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueFull {
    /// Since when, by the edge's wall clock.
    pub since: Wall,
    /// What devices publish waits.
    pub forwards: bool,
    /// What the remote broker sends waits.
    pub subscriptions: bool,
}

impl RunReport {
    /// The number of the transition, where it led and when: what [`root`] covers of it. The moment tells two transitions
    /// apart that bear one number, because a disk was restored from a backup between them.
    #[must_use]
    pub fn transition(&self) -> Transition {
        (self.sequence, self.state, self.since)
    }

    /// The state of a rule that never ran.
    #[must_use]
    pub fn never_ran() -> Self {
        Self {
            sequence: 0,
            state: RunState::NotRunning,
            fault: None,
            by: By::Cloud,
            since: Wall(0),
            flapping: None,
            queue_full: None,
        }
    }
}

/// Why a rule that wants to run does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// For programs.
    pub code: FaultCode,
    /// For people; at most [`crate::limits::MAX_DETAIL_BYTES`], without secrets.
    #[serde(deserialize_with = "told::detail")]
    pub detail: String,
}

/// Who caused a run state.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// A set of the controller.
    Cloud,
    /// Somebody on site.
    Local,
    /// The agent itself: a fault or a recovery.
    Agent,
}

/// What a rule moved since its queue was made, and what waits.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Messages that the remote broker acknowledged.
    pub forwarded: u64,
    /// Messages that came from the remote broker.
    pub received: u64,
    /// Messages that wait in the queue.
    pub queued: u64,
    /// Bytes that wait in the queue.
    pub queued_bytes: u64,
    /// Age of the oldest message that waits, in milliseconds.
    pub oldest_age_ms: u64,
    /// Messages that lie aside of the queue: the broker does not take them. Absent on the wire while there are none.
    #[serde(skip_serializing_if = "is_zero")]
    pub set_aside: u64,
    /// Messages that were given up, by reason.
    pub dropped: Dropped,
    /// Connections after the first.
    pub reconnects: u64,
    /// The last error, for people.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "told::optional_detail")]
    pub last_error: Option<String>,
}

/// Messages that were given up, by reason (`full`, `age`, `corrupt`, `too_large`, `disk`, …).
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Dropped(#[serde(deserialize_with = "told::reasons")] pub BTreeMap<String, u64>);

/// Still here, and in this shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// [`root`] of all that the edge holds.
    pub root: Digest,
    /// Rules in each run state.
    pub runs: BTreeMap<RunState, u32>,
    /// Messages that wait in all queues.
    pub queued: u64,
}

/// A question whether somebody is there, and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// The answer repeats it.
    pub nonce: u64,
}

/// The controller's own presence, retained on its topic (plain JSON, no envelope).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerPresence {
    /// Its epoch: an edge that sees a higher one says hello again.
    pub epoch: u64,
    /// Version of its software.
    pub version: Version,
    /// `false`: it went away; said by the broker in its name, or as its last word. Absent on the wire while it is there.
    #[serde(default = "is_there", skip_serializing_if = "is_so")]
    pub alive: bool,
}

fn is_there() -> bool {
    true
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_so(flag: &bool) -> bool {
    *flag
}

/// What [`root`] covers of a run state: the number of the last transition, the state that it led to, since when.
pub type Transition = (u64, RunState, Wall);

/// Digest over all that an edge holds and has told: per present rule the accepted `want`, what is committed, and the
/// last transition of its run state. Equal on both sides, no inventory is needed. The order of the items does not matter.
#[must_use]
pub fn root<'a>(
    items: impl IntoIterator<Item = (RuleId, &'a Digest, Option<&'a VersionDigest>, Transition)>,
) -> Digest {
    // In order, each once.
    let lines: BTreeSet<String> = items.into_iter().map(line_of_root).collect();
    let mut text = String::from("tidegate-root-1\n");
    text.extend(lines);
    Digest::of(text.as_bytes())
}

fn line_of_root(
    (rule, want, running, (sequence, state, since)): (RuleId, &Digest, Option<&VersionDigest>, Transition),
) -> String {
    // Long enough for any: a line is made for each rule with each heartbeat.
    let mut line = String::with_capacity(256);
    let written = match running {
        None => write!(line, "{rule} {want} -"),
        Some(at) => write!(line, "{rule} {want} {}:{}", at.version.0, at.digest),
    };
    written
        .and_then(|()| writeln!(line, " {sequence} {} {}", state.as_str(), since.0))
        .expect("a String takes whatever is written");
    line
}

/// The target of a removal: nothing is rendered for it.
impl VersionDigest {
    /// What a removal names as its target.
    #[must_use]
    pub fn removal(version: RuleVersion) -> Self {
        Self { version, digest: Digest::of(b"") }
    }
}

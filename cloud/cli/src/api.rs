//! What the command line reads of the API's objects, for tables and decisions. `-o json` shows the objects as they
//! came: nothing passes through these types there. Unknown fields are ignored, so that an older `tidegate` reads a
//! newer server.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use tidegate_model::placement::{Action, Allowed, IssueState, Link, RunState};
use tidegate_model::rule::{Fate, Oddity};

use crate::client::{ClientError, Problem};

/// Reads an object of the API.
///
/// # Errors
/// [`ClientError::Unreadable`] when the server's answer has another shape than this version knows.
pub fn read<T: DeserializeOwned>(value: &Value) -> Result<T, ClientError> {
    T::deserialize(value)
        .map_err(|error| ClientError::Unreadable { why: tidegate_model::plain::json(&error) })
}

/// A list of the API.
#[derive(Debug, Clone, Deserialize)]
pub struct List<T> {
    /// Its items.
    pub items: Vec<T>,
}

/// A rule.
#[derive(Debug, Clone, Deserialize)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// When this version was made.
    #[serde(default)]
    pub changed: Option<String>,
    /// By whom.
    #[serde(default)]
    pub changed_by: String,
    /// Its content, without the password.
    #[serde(default)]
    pub content: Value,
    /// Its placements, in numbers.
    #[serde(default)]
    pub tally: Tally,
    /// Its placements; lists leave them out.
    #[serde(default)]
    pub placements: Option<Vec<Placement>>,
}

/// Placements counted by their states.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Tally {
    /// All.
    #[serde(default)]
    pub placements: u32,
    /// By issue state.
    #[serde(default)]
    pub issue: BTreeMap<IssueState, u32>,
    /// By run state.
    #[serde(default)]
    pub run: BTreeMap<RunState, u32>,
    /// Those that something is still to be done for.
    #[serde(default)]
    pub pending: u32,
    /// Those whose queue is full and blocks.
    #[serde(default)]
    pub queue_full: u32,
    /// Those of whose run nothing is known.
    #[serde(default)]
    pub not_known: u32,
    /// Those whose run state is the last known one.
    #[serde(default)]
    pub last_known: u32,
}

/// A failure or a fault.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Reason {
    /// For programs.
    pub code: String,
    /// For people.
    #[serde(default)]
    pub detail: String,
    /// What to do next.
    #[serde(default)]
    pub next: String,
}

/// One rule on one edge.
#[derive(Debug, Clone, Deserialize)]
pub struct Placement {
    /// The rule.
    pub rule: String,
    /// The edge.
    pub edge: String,
    /// The issue state.
    pub issue_state: IssueState,
    /// Why the last issue failed.
    #[serde(default)]
    pub issue_reason: Option<Reason>,
    /// The run state.
    pub run_state: RunState,
    /// The fault.
    #[serde(default)]
    pub run_reason: Option<Reason>,
    /// The reason that matters most.
    #[serde(default)]
    pub reason: Option<Reason>,
    /// Since when the run state holds.
    #[serde(default)]
    pub since: Option<String>,
    /// The cloud's version.
    pub version: u64,
    /// The edge's version.
    #[serde(default)]
    pub edge_version: Option<u64>,
    /// Counter of desired states.
    #[serde(default)]
    pub generation: u64,
    /// `running` or `stopped`.
    #[serde(default)]
    pub desired_run: String,
    /// Who wanted the run state: `cloud`, `local` (on site) or `agent`.
    #[serde(default)]
    pub run_by: Option<String>,
    /// What is under way.
    #[serde(default)]
    pub in_flight: Option<InFlight>,
    /// It is being removed.
    #[serde(default)]
    pub removing: bool,
    /// The edge runs something that the cloud did not issue.
    #[serde(default)]
    pub drift: bool,
    /// Is the edge reachable?
    pub link: Link,
    /// The run state is the last known one.
    #[serde(default)]
    pub last_known: bool,
    /// When the edge last said something about it.
    #[serde(default)]
    pub as_of: Option<String>,
    /// A queue is full and blocks.
    #[serde(default)]
    pub queue_full: Option<QueueFull>,
    /// Values of the rule's variables on this edge.
    #[serde(default)]
    pub vars: BTreeMap<String, String>,
    /// What it moved.
    #[serde(default)]
    pub counters: Option<Counters>,
    /// What may be done now.
    #[serde(default)]
    pub actions: Vec<Allowed>,
}

/// A full queue: whoever sends waits.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct QueueFull {
    /// Since when.
    #[serde(default)]
    pub since: Option<String>,
    /// What that means and what to do.
    pub reason: Reason,
}

/// An action under way.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct InFlight {
    /// To ask after it.
    pub id: String,
    /// Which; `None`: a removal.
    #[serde(default)]
    pub action: Option<Action>,
    /// It waits for the edge to return.
    #[serde(default)]
    pub queued: bool,
}

/// What a placement moved, as far as tables show it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Counters {
    /// Messages that the remote broker acknowledged.
    #[serde(default)]
    pub forwarded: u64,
    /// Messages that came from the remote broker.
    #[serde(default)]
    pub received: u64,
    /// Messages that wait.
    #[serde(default)]
    pub queued: u64,
    /// Messages that lie aside, because the broker does not take them.
    #[serde(default)]
    pub set_aside: u64,
    /// Messages that were given up, by reason.
    #[serde(default)]
    pub dropped: BTreeMap<String, u64>,
}

/// A gateway.
#[derive(Debug, Clone, Deserialize)]
pub struct Edge {
    /// Its name.
    pub id: String,
    /// Is it reachable?
    pub link: Link,
    /// When it was last heard of.
    #[serde(default)]
    pub last_seen: Option<String>,
    /// Version of its agent.
    #[serde(default)]
    pub agent_version: Option<String>,
    /// Its placements, in numbers.
    #[serde(default)]
    pub tally: Tally,
    /// Why actions are held.
    #[serde(default)]
    pub held: Option<Reason>,
    /// How much its clock differs, in milliseconds.
    #[serde(default)]
    pub clock_skew_ms: Option<i64>,
    /// How many rules on it the cloud does not manage; `None`: it has not told yet.
    #[serde(default)]
    pub unmanaged_rules: Option<u32>,
    /// Those rules; lists leave them out.
    #[serde(default)]
    pub unmanaged: Option<Vec<Unmanaged>>,
}

/// A rule on a gateway that the cloud does not manage.
#[derive(Debug, Clone, Deserialize)]
pub struct Unmanaged {
    /// Its identity on the gateway.
    pub rule: String,
    /// Its name there.
    #[serde(default)]
    pub name: Option<String>,
    /// `local`: the site wrote it; `cloud`: a controller did, and this one does not know of it.
    pub origin: String,
    /// The run state.
    pub run_state: RunState,
    /// The fault.
    #[serde(default)]
    pub run_reason: Option<Reason>,
    /// Since when the run state holds.
    #[serde(default)]
    pub since: Option<String>,
    /// The run state is the last known one.
    #[serde(default)]
    pub last_known: bool,
    /// A queue is full and blocks.
    #[serde(default)]
    pub queue_full: Option<QueueFull>,
}

/// Totals.
#[derive(Debug, Clone, Deserialize)]
pub struct Summary {
    /// Rules.
    pub rules: u32,
    /// Rules issued to at least one edge.
    pub rules_issued: u32,
    /// Edges by link.
    #[serde(default)]
    pub edges: BTreeMap<String, u32>,
    /// Placements.
    #[serde(default)]
    pub tally: Tally,
    /// Edges whose actions are held.
    #[serde(default)]
    pub held: Vec<String>,
    /// `green`, `amber` or `red`.
    pub indicator: String,
    /// The broker between controller and gateways; an older server does not tell it.
    #[serde(default)]
    pub broker: Option<Broker>,
    /// Epoch of another controller that leads on this broker.
    #[serde(default)]
    pub superseded_by: Option<u64>,
    /// Logins that the controller's broker refused lately, the newest first; `None`: it is not known.
    #[serde(default)]
    pub refused_logins: Option<Vec<RefusedLogin>>,
}

/// A login that the controller's broker refused.
#[derive(Debug, Clone, Deserialize)]
pub struct RefusedLogin {
    /// Who it said it was.
    pub name: String,
    /// `wrong_credential`, `wrong_token`, `unknown_edge`, `two_names` or `no_credential`.
    pub why: String,
    /// How often.
    pub times: u64,
    /// When last.
    #[serde(default)]
    pub last: Option<String>,
    /// From which address.
    #[serde(default)]
    pub from: String,
}

/// The broker between controller and gateways.
#[derive(Debug, Clone, Deserialize)]
pub struct Broker {
    /// `embedded` or `external`.
    pub kind: String,
    /// Where it is.
    pub address: String,
    /// Whether messages can pass.
    pub up: bool,
    /// Why not.
    #[serde(default)]
    pub detail: Option<String>,
}

/// What became of an action on one of many placements.
#[derive(Debug, Clone, Deserialize)]
pub struct ActedOn {
    /// The operation; `None`: it was so already, or it was refused.
    pub operation: Option<InFlight>,
    /// Why it was refused.
    #[serde(default)]
    pub problem: Option<Problem>,
}

/// What the server answers to an action.
#[derive(Debug, Clone, Deserialize)]
pub struct Acted {
    /// The operation; `None`: it was so already, and nothing was sent.
    pub operation: Option<InFlight>,
    /// The placement.
    pub placement: Placement,
}

/// What becomes of a topic on an edge.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Explanation {
    /// The rule.
    pub rule: String,
    /// The edge.
    pub edge: String,
    /// The version that is explained.
    pub version: u64,
    /// The version on the edge.
    #[serde(default)]
    pub edge_version: Option<u64>,
    /// Whether it is placed there.
    pub placed: bool,
    /// The topic.
    #[serde(default)]
    pub topic: Option<String>,
    /// What each forward does with it.
    #[serde(default)]
    pub forwards: Vec<Fate>,
    /// What each subscription does with it.
    #[serde(default)]
    pub subscriptions: Vec<Fate>,
    /// What is odd about the entries.
    #[serde(default)]
    pub oddities: Vec<Oddity>,
}

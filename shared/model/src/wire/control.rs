//! How other systems drive the controller over MQTT, and what they are told (docs/integrations.md): commands, their
//! acknowledgements, and the state of a placement. Plain JSON without an envelope; unknown fields are ignored.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::code::Code;
use crate::ids::{EdgeId, MessageId, RuleName};
use crate::limits::{MAX_COMMAND_BYTES, MAX_LISTED, MAX_TID_BYTES};
use crate::placement::{Action, IssueState, Link, RunState};
use crate::version::{Generation, RuleVersion};
use crate::wire::DesiredRun;

/// The one `type` of commands.
pub const COMMAND_TYPE: &str = "datasync";

/// What the sender calls its command: 1 to [`MAX_TID_BYTES`] bytes without control characters. The acknowledgement
/// repeats it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tid(String);

/// A text that is no [`Tid`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("tid is a text of 1 to {MAX_TID_BYTES} bytes without control characters, a new one for each command")]
pub struct InvalidTid;

impl TryFrom<String> for Tid {
    type Error = InvalidTid;
    fn try_from(text: String) -> Result<Self, InvalidTid> {
        let fits = (1..=MAX_TID_BYTES).contains(&text.len()) && !text.chars().any(char::is_control);
        if fits { Ok(Self(text)) } else { Err(InvalidTid) }
    }
}

impl From<Tid> for String {
    fn from(tid: Tid) -> Self {
        tid.0
    }
}

impl fmt::Display for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// What its sender calls it.
    pub tid: Tid,
    /// What is wanted.
    pub ask: Ask,
}

/// What a command asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// The states of placements, page by page.
    List {
        /// Of this rule alone.
        rule: Option<RuleName>,
        /// On this edge alone.
        edge: Option<EdgeId>,
        /// After this placement, as the page before told in `next`.
        after: Option<(RuleName, EdgeId)>,
        /// How many at the most, up to [`MAX_LISTED`].
        limit: usize,
    },
    /// A rule's content, without its password.
    Lookup {
        /// The rule.
        rule: RuleName,
    },
    /// The state of one placement.
    Status {
        /// The rule.
        rule: RuleName,
        /// The edge.
        edge: EdgeId,
    },
    /// One of the five actions.
    Act {
        /// Which.
        action: Action,
        /// The rule.
        rule: RuleName,
        /// The edge.
        edge: EdgeId,
        /// Whether it waits for an edge that is offline.
        queue: bool,
    },
}

/// Why a command cannot be carried out, with as much of it as could be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct BadCommand {
    /// Whom to tell; `None`: nobody can be told.
    pub tid: Option<Tid>,
    /// Its action as far as it is a known word, else empty.
    pub action: String,
    /// What is wrong and what to do. It quotes nothing but names.
    pub what: String,
}

const ACTIONS: &str = "list, lookup, status, issue, issue_again, sync, start, stop";

impl Command {
    /// Reads a command.
    ///
    /// # Errors
    /// [`BadCommand`]
    pub fn read(payload: &[u8]) -> Result<Self, BadCommand> {
        let bad = |tid: Option<Tid>, what: String| BadCommand { tid, action: String::new(), what };
        if payload.len() > MAX_COMMAND_BYTES {
            return Err(bad(None, format!("the command is larger than {MAX_COMMAND_BYTES} bytes")));
        }
        let Ok(Value::Object(fields)) = serde_json::from_slice(payload) else {
            return Err(bad(None, "the command is not a JSON object".to_owned()));
        };
        let tid = match fields.get("tid").and_then(Value::as_str).map(|t| Tid::try_from(t.to_owned())) {
            Some(Ok(tid)) => tid,
            Some(Err(error)) => return Err(bad(None, error.to_string())),
            None => return Err(bad(None, InvalidTid.to_string())),
        };
        let word = fields.get("action").and_then(Value::as_str).unwrap_or_default();
        let Some(kind) = Kind::read(word) else {
            return Err(bad(Some(tid), format!("action is one of {ACTIONS}")));
        };
        let bad = |what: String| BadCommand { tid: Some(tid.clone()), action: word.to_owned(), what };
        if fields.get("type").and_then(Value::as_str) != Some(COMMAND_TYPE) {
            return Err(bad(format!("type is '{COMMAND_TYPE}'")));
        }
        let empty = Map::new();
        let payload = match fields.get("payload") {
            None | Some(Value::Null) => &empty,
            Some(Value::Object(payload)) => payload,
            Some(_) => return Err(bad("payload is a JSON object".to_owned())),
        };
        let ask = kind.ask(payload).map_err(bad)?;
        Ok(Self { tid, ask })
    }

    /// The action's word on the wire.
    #[must_use]
    pub fn action(&self) -> &'static str {
        match &self.ask {
            Ask::List { .. } => "list",
            Ask::Lookup { .. } => "lookup",
            Ask::Status { .. } => "status",
            Ask::Act { action, .. } => action.as_str(),
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    List,
    Lookup,
    Status,
    Act(Action),
}

impl Kind {
    fn read(word: &str) -> Option<Self> {
        match word {
            "list" => Some(Self::List),
            "lookup" => Some(Self::Lookup),
            "status" => Some(Self::Status),
            _ => Action::ALL.into_iter().find(|action| action.as_str() == word).map(Self::Act),
        }
    }

    fn ask(self, payload: &Map<String, Value>) -> Result<Ask, String> {
        let text = |name: &str| match payload.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(format!("payload.{name} is a text")),
        };
        let rule = text("id")?.map(RuleName::new).transpose().map_err(|e| format!("payload.id: {e}"))?;
        let edge = text("edge")?.map(EdgeId::new).transpose().map_err(|e| format!("payload.edge: {e}"))?;
        let no_rule = || "payload.id names the rule; it is missing".to_owned();
        let no_edge = || "payload.edge names the edge; it is missing".to_owned();
        Ok(match self {
            Self::List => {
                let after = text("after")?.map(|after| {
                    let (rule, edge) = after.split_once('/')?;
                    Some((RuleName::new(rule).ok()?, EdgeId::new(edge).ok()?))
                });
                let Some(after) = after.map_or(Some(None), |known| known.map(Some)) else {
                    return Err("payload.after is what the page before told in next".to_owned());
                };
                let limit = match payload.get("limit") {
                    None | Some(Value::Null) => MAX_LISTED,
                    Some(limit) => limit
                        .as_u64()
                        .and_then(|limit| usize::try_from(limit).ok())
                        .filter(|limit| (1..=MAX_LISTED).contains(limit))
                        .ok_or_else(|| format!("payload.limit is a number from 1 to {MAX_LISTED}"))?,
                };
                Ask::List { rule, edge, after, limit }
            }
            Self::Lookup => Ask::Lookup { rule: rule.ok_or_else(no_rule)? },
            Self::Status => Ask::Status { rule: rule.ok_or_else(no_rule)?, edge: edge.ok_or_else(no_edge)? },
            Self::Act(action) => {
                let queue = match text("when_offline")? {
                    None | Some("refuse") => false,
                    Some("queue") => true,
                    Some(_) => return Err("payload.when_offline is 'refuse' or 'queue'".to_owned()),
                };
                Ask::Act { action, rule: rule.ok_or_else(no_rule)?, edge: edge.ok_or_else(no_edge)?, queue }
            }
        })
    }
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ack {
    /// The command's.
    pub tid: Tid,
    /// [`COMMAND_TYPE`].
    #[serde(rename = "type")]
    pub kind: String,
    /// The command's action; empty where it could not be read.
    pub action: String,
    /// [`Code::number`] of the status: below 300 it is done, or under way.
    pub code: u16,
    /// The rest.
    pub payload: AckBody,
}

/// What an acknowledgement says beside its code; which fields are there depends on the action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AckBody {
    /// For programs.
    pub status: Code,
    /// For people: what happened and why.
    pub detail: String,
    /// Of an action that is under way: the counter of the placement's desired states.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// Of an action that is under way: its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<MessageId>,
    /// The state of the placement that was asked for, or acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<PlacementState>,
    /// Of a list: one page of states.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<Vec<PlacementState>>,
    /// Of a list: what to send as `after` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Of a lookup: the rule's version and content, without its password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Value>,
}

impl Ack {
    /// An answer that says no more than this.
    #[must_use]
    pub fn new(tid: Tid, action: impl Into<String>, status: Code, detail: impl Into<String>) -> Self {
        let payload = AckBody {
            status,
            detail: detail.into(),
            generation: None,
            operation: None,
            state: None,
            items: None,
            next: None,
            rule: None,
        };
        Self { tid, kind: COMMAND_TYPE.to_owned(), action: action.into(), code: status.number(), payload }
    }
}

/// The state of one rule on one edge, as it is retained for dashboards. The words are those of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementState {
    /// The rule.
    pub rule: RuleName,
    /// The edge.
    pub edge: EdgeId,
    /// Is the edge's configuration the cloud's?
    pub issue_state: IssueState,
    /// Is it moving data? The last that the edge said; see `last_known`.
    pub run_state: RunState,
    /// Should it run?
    pub desired_run: DesiredRun,
    /// The cloud's version.
    pub version: RuleVersion,
    /// The version on the edge.
    pub edge_version: Option<RuleVersion>,
    /// Since when the run state holds, by the edge's clock (RFC 3339, UTC).
    pub since: Option<String>,
    /// Is the edge reachable?
    pub link: Link,
    /// The run state is the last known one.
    pub last_known: bool,
    /// The action that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<Action>,
    /// That action waits for the edge to return.
    #[serde(default, skip_serializing_if = "is_not")]
    pub queued: bool,
    /// It is being taken off the edge.
    #[serde(default, skip_serializing_if = "is_not")]
    pub removing: bool,
    /// The edge runs something that the cloud did not issue.
    #[serde(default, skip_serializing_if = "is_not")]
    pub drift: bool,
    /// Why something is not as it should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<StateReason>,
    /// A queue is full and blocks, whatever the run state and its reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_full: Option<StateQueueFull>,
}

/// A full queue: who sends waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateQueueFull {
    /// Since when, by the edge's clock (RFC 3339, UTC).
    pub since: Option<String>,
    /// What devices publish waits.
    pub forwards: bool,
    /// What the remote broker sends waits.
    pub subscriptions: bool,
}

fn is_not(flag: &bool) -> bool {
    !flag
}

/// A failure to issue, or a fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateReason {
    /// For programs.
    pub code: String,
    /// For people.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Command, BadCommand> {
        Command::read(text.as_bytes())
    }

    #[test]
    fn commands_are_read_and_fields_of_a_newer_peer_ignored() {
        let start = read(
            r#"{"tid":"42","type":"datasync","action":"start","new":1,"payload":{"id":"camera-up","edge":"gw-7","new":[]}}"#,
        )
        .unwrap();
        let (rule, edge) = (RuleName::new("camera-up").unwrap(), EdgeId::new("gw-7").unwrap());
        let ask = Ask::Act { action: Action::Start, rule: rule.clone(), edge: edge.clone(), queue: false };
        assert_eq!((start.ask.clone(), start.action()), (ask, "start"));
        let list = read(
            r#"{"tid":"1","type":"datasync","action":"list","payload":{"after":"camera-up/gw-7","limit":2}}"#,
        );
        let ask = Ask::List { rule: None, edge: None, after: Some((rule, edge)), limit: 2 };
        assert_eq!(list.unwrap().ask, ask);
        let all = read(r#"{"tid":"1","type":"datasync","action":"list"}"#).unwrap();
        assert_eq!(all.ask, Ask::List { rule: None, edge: None, after: None, limit: MAX_LISTED });
    }

    #[test]
    fn what_is_wrong_is_told_under_the_tid_wherever_one_can_be_read() {
        let over = "x".repeat(MAX_COMMAND_BYTES + 1);
        let long = format!(r#"{{"tid":"{}"}}"#, "x".repeat(MAX_TID_BYTES + 1));
        for nobody in
            ["", "[]", "no JSON", r#"{"tid":42}"#, r#"{"tid":""}"#, r#"{"tid":"a\nb"}"#, &long, &over]
        {
            assert_eq!(read(nobody).unwrap_err().tid, None, "{nobody}");
        }
        for (text, part) in [
            (r#"{"tid":"1"}"#, "action is one of list"),
            (r#"{"tid":"1","type":"datasync","action":"delete"}"#, "action is one of"),
            (r#"{"tid":"1","action":"start"}"#, "type is 'datasync'"),
            (r#"{"tid":"1","type":"x","action":"start"}"#, "type is 'datasync'"),
            (r#"{"tid":"1","type":"datasync","action":"start","payload":[]}"#, "payload is a JSON object"),
            (r#"{"tid":"1","type":"datasync","action":"start"}"#, "payload.id names the rule"),
            (r#"{"tid":"1","type":"datasync","action":"start","payload":{"id":"a"}}"#, "payload.edge names"),
            (r#"{"tid":"1","type":"datasync","action":"lookup","payload":{"id":"A b"}}"#, "payload.id: "),
            (r#"{"tid":"1","type":"datasync","action":"status","payload":{"id":7}}"#, "payload.id is a text"),
            (r#"{"tid":"1","type":"datasync","action":"list","payload":{"limit":0}}"#, "payload.limit"),
            (r#"{"tid":"1","type":"datasync","action":"list","payload":{"after":"a"}}"#, "payload.after"),
            (
                r#"{"tid":"1","type":"datasync","action":"stop","payload":{"id":"a","edge":"b","when_offline":"x"}}"#,
                "payload.when_offline",
            ),
        ] {
            let bad = read(text).unwrap_err();
            assert!(bad.tid.is_some() && bad.what.contains(part), "{text}: {bad:?}");
        }
    }
}

//! What the controller remembers: the records that the store keeps and from which everything else is computed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use semver::Version;
use serde::{Deserialize, Serialize};

use tidegate_model::code::Code;
use tidegate_model::digest::Digest;
use tidegate_model::ids::{EdgeId, MessageId, RuleId, RuleName, StoreId};
use tidegate_model::placement::{Action, VersionDigest};
use tidegate_model::rule::{Secret, Secrets, ValidRule};
use tidegate_model::time::Wall;
use tidegate_model::version::{Generation, RuleVersion};
use tidegate_model::wire::{Counters, DesiredRun, HelloLimits, RunReport};

use crate::once::OnceRecord;

/// Everything that a controller is restored from.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Facts about the store itself.
    pub meta: Meta,
    /// All rules.
    pub rules: Vec<RuleRecord>,
    /// All edges.
    pub edges: Vec<EdgeRecord>,
    /// All placements, removed ones included.
    pub placements: Vec<PlacementRecord>,
    /// Answers of requests that are done once.
    pub answers: Vec<OnceRecord>,
}

/// Facts about the controller itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The controller's epoch: grows with each start.
    pub epoch: u64,
}

/// Who did something, for the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The name: a user, a token, `edge:gw-7`, `system`.
    pub name: String,
    /// By which way: `api`, `cli`, `console`, `mqtt`, `system`.
    pub via: String,
}

/// As events and views name it: who came over MQTT is told apart, since a whole system may stand behind that name.
impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.via.as_str() {
            VIA_MQTT => write!(f, "{} via MQTT", self.name),
            _ => f.write_str(&self.name),
        }
    }
}

/// The way of other systems that drive the controller over MQTT.
pub const VIA_MQTT: &str = "mqtt";

/// The secrets of a rule in the store. Its `Debug` shows no value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "SecretTexts", into = "SecretTexts")]
pub struct StoredSecrets {
    /// Grows by 1 with each change of any of them.
    pub version: u64,
    /// The values.
    pub secrets: Secrets,
}

/// What stands in the store.
#[derive(Serialize, Deserialize)]
struct SecretTexts {
    version: u64,
    /// The password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

impl From<SecretTexts> for StoredSecrets {
    fn from(SecretTexts { version, value, key }: SecretTexts) -> Self {
        Self { version, secrets: Secrets { password: value.map(Secret::new), key: key.map(Secret::new) } }
    }
}

impl From<StoredSecrets> for SecretTexts {
    fn from(StoredSecrets { version, secrets: Secrets { password, key } }: StoredSecrets) -> Self {
        let text = |secret: Option<Secret>| secret.map(|secret| secret.reveal().to_owned());
        Self { version, value: text(password), key: text(key) }
    }
}

/// The secrets of a record, none where nothing is stored.
fn secrets_of(stored: Option<&StoredSecrets>) -> Secrets {
    stored.map(|stored| stored.secrets.clone()).unwrap_or_default()
}

/// A rule as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleRecord {
    /// Its identity, never reused.
    pub id: RuleId,
    /// Grows by exactly 1 with each committed change.
    pub version: RuleVersion,
    /// The content, without its secrets.
    pub content: ValidRule,
    /// The secrets, if there are any.
    pub secret: Option<StoredSecrets>,
    /// Highest version that secrets of this rule had; never falls, so that new ones never bear an old number.
    pub secret_versions: u64,
    /// When it was made.
    pub created: Wall,
    /// When this version was made.
    pub changed: Wall,
    /// By whom.
    pub changed_by: Actor,
}

impl RuleRecord {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &RuleName {
        self.content.name()
    }

    /// Its secrets.
    #[must_use]
    pub fn secrets(&self) -> Secrets {
        secrets_of(self.secret.as_ref())
    }

    /// The rule as it is shown: what secrets are there, and none of them.
    #[must_use]
    pub fn shown(&self) -> serde_json::Value {
        self.content.to_json_telling(&self.secrets())
    }
}

/// One version of a rule; written once, never changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// The rule.
    pub rule: RuleId,
    /// Which version.
    pub version: RuleVersion,
    /// The content, without its secrets.
    pub content: ValidRule,
    /// The secrets that went with it.
    pub secret: Option<StoredSecrets>,
    /// When it was made.
    pub at: Wall,
    /// By whom.
    pub by: Actor,
    /// What its author said of it.
    #[serde(default)]
    pub note: String,
    /// The version that it restored.
    #[serde(default)]
    pub restored_from: Option<RuleVersion>,
}

impl VersionRecord {
    /// Its secrets.
    #[must_use]
    pub fn secrets(&self) -> Secrets {
        secrets_of(self.secret.as_ref())
    }

    /// The rule as it is shown: what secrets are there, and none of them.
    #[must_use]
    pub fn shown(&self) -> serde_json::Value {
        self.content.to_json_telling(&self.secrets())
    }
}

/// A gateway as the cloud knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeRecord {
    /// Its name.
    pub id: EdgeId,
    /// When it was made.
    pub created: Wall,
    /// Hash of its credential (PHC string); the credential itself is not kept.
    pub credential: String,
    /// Facts that its sessions told.
    pub facts: Facts,
}

/// What the sessions of an edge told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Its database, once it was heard of.
    #[serde(default, with = "store_id")]
    pub store: Option<StoreId>,
    /// The database before that: if it comes back, two gateways alternate.
    #[serde(default, with = "store_id")]
    pub previous_store: Option<StoreId>,
    /// The highest epoch of that store that was heard of.
    pub epoch: u64,
    /// Whether that epoch's session stood, as last heard.
    pub alive: bool,
    /// When it was last heard of.
    pub last_seen: Option<Wall>,
    /// Version of its agent.
    pub agent: Option<Version>,
    /// Protocol versions that it speaks.
    #[serde(default)]
    pub protocols: BTreeSet<u32>,
    /// Rule features that it runs.
    #[serde(default)]
    pub features: BTreeSet<String>,
    /// What it can hold.
    pub limits: Option<HelloLimits>,
    /// The edge holds newer generations than the cloud: actions are held until an operator confirms.
    #[serde(default)]
    pub cloud_behind: bool,
}

mod store_id {
    use serde::{Deserialize as _, Deserializer, Serializer};
    use tidegate_model::ids::StoreId;

    pub(super) fn serialize<S: Serializer>(id: &Option<StoreId>, serializer: S) -> Result<S::Ok, S::Error> {
        match id {
            Some(id) => serializer.serialize_str(&id.to_string()),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<StoreId>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|t| u128::from_str_radix(&t, 16).map(StoreId).map_err(serde::de::Error::custom)).transpose()
    }
}

/// A rule rendered for one edge, with what is needed to send it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Version and digest.
    pub at: VersionDigest,
    /// The rendered bytes; never rendered again. Empty: they are not known here, and the edge is to keep its own.
    pub bytes: String,
    /// The secrets that the bytes name.
    pub secret: Option<StoredSecrets>,
}

impl Target {
    /// What the edge holds and this side does not know.
    pub(crate) fn unknown(at: VersionDigest) -> Arc<Self> {
        Arc::new(Self { at, bytes: String::new(), secret: None })
    }
}

/// One rule on one edge: the stored facts from which its states are computed. What is stored of it is in `stored`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "crate::stored::StoredPlacement")]
pub struct PlacementRecord {
    /// The rule.
    pub rule: RuleId,
    /// Its name; the rule itself may be deleted while the edge still has to hear of it.
    pub name: RuleName,
    /// The edge.
    pub edge: EdgeId,
    /// Values of the rule's variables on this edge.
    pub vars: BTreeMap<String, String>,
    /// `false`: it was taken off; kept until the edge said so, and for its generation.
    pub present: bool,
    /// Counter of desired states; never falls.
    pub generation: Generation,
    /// What the cloud wants on the edge: the rule's current version, rendered.
    pub desired: Arc<Target>,
    /// What was last sent, or is to be sent; only issue, issue again, sync and heal change it. `None`: nothing yet.
    pub target: Option<Arc<Target>>,
    /// What the edge last said to have committed, with its bytes, so that it can be sent again.
    pub committed: Option<Arc<Target>>,
    /// Should it run?
    pub run: DesiredRun,
    /// Another value asks the edge for a restart.
    pub restart: u64,
    /// The action that is under way.
    pub operation: Option<Operation>,
    /// How the last issue, issue again or sync ended.
    pub last_issue: Option<Settled>,
    /// How the last start or stop ended.
    pub last_run: Option<Settled>,
    /// What the edge last said; `None`: it never said anything.
    pub reported: Option<Reported>,
}

/// An action that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// For the caller, to ask after it.
    pub id: MessageId,
    /// Which action; `None`: a removal.
    pub action: Option<Action>,
    /// When it began.
    pub since: Wall,
    /// Who wanted it.
    pub by: Actor,
    /// Whether it may wait for an edge that is offline.
    pub queued: bool,
    /// When a queued action is given up; `None`: never.
    pub expires: Option<Wall>,
    /// How often the edge answered with a transient failure, or not at all.
    pub tries: u32,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// Which operation.
    pub id: MessageId,
    /// Which action; `None`: a removal.
    pub action: Option<Action>,
    /// Its generation.
    pub generation: Generation,
    /// How it ended.
    pub code: Code,
    /// A sentence for people.
    pub detail: String,
    /// What it was to bring.
    pub attempted: VersionDigest,
    /// When it ended.
    pub at: Wall,
}

/// What an edge last said of a placement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    /// The highest generation that it accepted.
    pub generation: Generation,
    /// The `want` of that generation.
    pub want: Digest,
    /// What is committed there; `None`: nothing.
    pub running: Option<VersionDigest>,
    /// Its run state.
    pub run: RunReport,
    /// What it moved, as last told (told often, stored with the next transition).
    #[serde(default)]
    pub counters: Counters,
    /// When the edge said so, by the controller's clock.
    pub as_of: Wall,
}

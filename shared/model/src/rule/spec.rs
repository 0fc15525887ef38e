//! What a rule says, field by field, with every default filled in. The secrets are not here: see [`super::Secrets`].
//!
//! Texts may hold variables such as `{edge}`; they are kept as written and filled in by [`super::render()`]. The serde
//! form is the store's and the API's; texts of people are read by [`super::parse`], which tells places and all problems.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::quantity::{Bytes, Seconds};
use crate::ids::RuleName;
#[cfg(doc)]
use crate::limits::{MAX_ALPN, MAX_EXCLUDES_PER_ROUTE, MAX_FALLBACK_URLS};

/// A sync rule as the operator means it.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSpec {
    /// Its name, unique in the account.
    pub name: RuleName,
    /// Put before the topic of every forwarded message, before the forward's own prefix. Default: empty.
    #[serde(default)]
    pub mountpoint: String,
    /// Whether it runs as soon as it is on an edge.
    #[serde(default)]
    pub start: Start,
    /// The broker at the other end.
    pub remote: RemoteSpec,
    /// Local to remote.
    #[serde(default)]
    pub forwards: Vec<RouteSpec>,
    /// Remote to local.
    #[serde(default)]
    pub subscriptions: Vec<RouteSpec>,
    /// What waits while the remote broker cannot be reached.
    #[serde(default)]
    pub queue: QueueSpec,
    /// What happens in unusual situations.
    #[serde(default)]
    pub policy: PolicySpec,
    /// Variables that placements may set.
    #[serde(default)]
    pub vars: BTreeMap<String, VarSpec>,
}

/// Whether a rule runs as soon as it is on an edge.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// It runs once it is issued, and at each boot unless it was stopped.
    #[default]
    Auto,
    /// It waits for an operator's start.
    Manual,
}

/// The broker at the other end, and how to log in there.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteSpec {
    /// `mqtt://host[:port]`, port 1883 unless given, or `mqtts://host[:port]` for TLS, port 8883 unless given.
    pub url: String,
    /// Other addresses of the same broker, of the same kind as `url`, tried in turn while it cannot be reached; at most
    /// [`MAX_FALLBACK_URLS`]. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallback_urls: Vec<String>,
    /// `http://host:port` of an HTTP proxy through which the broker is reached (CONNECT, RFC 9110 section 9.3.6). Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// MQTT client id. Default: [`DEFAULT_CLIENT_ID`].
    #[serde(default = "default_client_id")]
    pub client_id: String,
    /// User name; `None` for an anonymous login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Longest silence before either side asks whether the other is there. Default: 60 s.
    #[serde(default = "default_keep_alive")]
    pub keep_alive: Seconds,
    /// Whether the remote broker forgets our subscriptions and what it holds for them when the connection ends. Default: no.
    #[serde(default)]
    pub clean_session: bool,
    /// How TLS is done, with `mqtts://` only. Default: by the system's certificate authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
}

/// How TLS is done. The private key is not here: see [`super::Secrets`].
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSpec {
    /// Certificates (PEM) of the authorities that the broker's certificate must come from. Default: those of the edge's system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// The name that the broker's certificate must bear, and that is asked for (SNI). Default: the host of the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Application protocols to offer (ALPN, RFC 7301), at most [`MAX_ALPN`]. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alpn: Vec<String>,
    /// The client certificate (PEM), with the certificates between it and its authority. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

/// The client id of a rule that names none: unique per edge and rule.
pub const DEFAULT_CLIENT_ID: &str = "{edge}-{rule}";

pub(crate) fn default_client_id() -> String {
    DEFAULT_CLIENT_ID.to_owned()
}

pub(crate) fn default_keep_alive() -> Seconds {
    Seconds(60)
}

/// One direction of messages: which topics, and how they are called on the other side.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteSpec {
    /// The filter at the source: the local broker for a forward, the remote one for a subscription.
    pub topic: String,
    /// Topics that `topic` matches and that are left out all the same: at most [`MAX_EXCLUDES_PER_ROUTE`] filters. Default:
    /// none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Quality of service at the source and at the target. Default: 1.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schema(value_type = u8))]
    pub qos: Qos,
    /// Text taken off the front of each topic; the filter starts with it. Default: empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub strip: String,
    /// Text put before the rest. Default: empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// Whether the retain flag of a message is passed on; else it is sent on as an ordinary message. Default: no.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retain: bool,
}

/// Quality of service of a route. 2 is refused: a bridge with a queue on disk delivers at least once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Qos {
    /// 0: a message may be lost.
    AtMostOnce,
    /// 1: a message arrives, perhaps twice.
    #[default]
    AtLeastOnce,
}

/// A number that is no [`Qos`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("qos is 0 or 1, not {0}")]
pub struct InvalidQos(u8);

impl TryFrom<u8> for Qos {
    type Error = InvalidQos;

    fn try_from(number: u8) -> Result<Self, InvalidQos> {
        match number {
            0 => Ok(Self::AtMostOnce),
            1 => Ok(Self::AtLeastOnce),
            other => Err(InvalidQos(other)),
        }
    }
}

impl From<Qos> for u8 {
    fn from(qos: Qos) -> Self {
        match qos {
            Qos::AtMostOnce => 0,
            Qos::AtLeastOnce => 1,
        }
    }
}

/// Bounds of the durable queue between local and remote broker.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueueSpec {
    /// Most bytes on disk.
    pub max_bytes: Bytes,
    /// Older messages are dropped and counted.
    pub max_age: Seconds,
    /// What gives way when the queue is full.
    pub when_full: WhenFull,
    /// How fast messages are sent to the remote broker at the most. Default: as fast as it takes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainSpec>,
}

/// How fast messages are sent to the remote broker at the most; at least one of the two. Up to a second's worth is sent at once.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainSpec {
    /// Messages per second: 1 to 1,000,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_per_s: Option<u32>,
    /// Bytes of topics and payloads per second: 1 KiB to 64 GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_s: Option<Bytes>,
}

impl Default for QueueSpec {
    fn default() -> Self {
        Self {
            max_bytes: Bytes(64 << 20),
            max_age: Seconds(7 * 86_400),
            when_full: WhenFull::default(),
            drain: None,
        }
    }
}

/// What gives way when the queue is full.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// The oldest messages, counted.
    #[default]
    DropOldest,
    /// New messages: they are not acknowledged to their source until there is room (`QUEUE_FULL` is shown beside the run state).
    Block,
}

/// What happens in unusual situations.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicySpec {
    /// How long an edge tries a changed rule before it commits it, in seconds. Default: 15.
    pub verify_s: u32,
    /// What the cloud does with an edge that lost its disk.
    pub on_wipe: OnWipe,
    /// What the cloud does with an edge that runs something else than was issued.
    pub on_drift: OnDrift,
}

impl Default for PolicySpec {
    fn default() -> Self {
        Self { verify_s: 15, on_wipe: OnWipe::default(), on_drift: OnDrift::default() }
    }
}

/// What the cloud does with an edge that lost its disk.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnWipe {
    /// Issues the rule again.
    #[default]
    Issue,
    /// Leaves the edge empty: the placement is *not issued*.
    Keep,
}

/// What the cloud does with an edge that runs something else than was issued.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDrift {
    /// Sends the issued rule again.
    Heal,
    /// Reports a conflict and waits for an operator.
    #[default]
    Ask,
}

/// A variable that placements may set.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VarSpec {
    /// The value for edges that set none. Without it each placement must set one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

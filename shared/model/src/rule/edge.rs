//! What an agent runs: a rendered rule, read and checked, and the ways of a message through it.

use serde::Serialize;

use super::problem::{Problem, Problems};
use super::quantity::{Bytes, Seconds};
use super::rendered;
use super::secret::SecretRef;
use super::spec::{DrainSpec, PolicySpec, Qos, Start, WhenFull};
use super::url::BrokerAddress;
use crate::ids::RuleName;
use crate::topic::{TopicFilter, TopicMapping, TopicName, reserved};

/// A rule for one edge: no variables, no secrets, every default filled in.
///
/// Made by [`EdgeRule::from_rendered`] only, so each value has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EdgeRule {
    /// The rule's name, for logs and people.
    pub name: RuleName,
    /// Whether it runs as soon as it is there.
    pub start: Start,
    /// The broker at the other end.
    pub remote: EdgeRemote,
    /// Local to remote, in the order of the file. Subscribe locally to each `filter`.
    pub forwards: Vec<Route>,
    /// Remote to local, in the order of the file. Subscribe remotely to each `filter`.
    pub subscriptions: Vec<Route>,
    /// Bounds of the durable queue.
    pub queue: EdgeQueue,
    /// What happens in unusual situations; the agent uses `verify_s`.
    pub policy: PolicySpec,
}

/// Where and how to log in at the remote broker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EdgeRemote {
    /// Where it is.
    pub address: BrokerAddress,
    /// Where it is, too; tried in turn while the first cannot be reached.
    pub fallbacks: Vec<BrokerAddress>,
    /// The HTTP proxy through which it is reached.
    pub proxy: Option<BrokerAddress>,
    /// MQTT client id.
    pub client_id: String,
    /// User name; `None` for an anonymous login.
    pub username: Option<String>,
    /// Names the password; `None` for none.
    pub password: Option<SecretRef>,
    /// Keep-alive of the connection, 5 to 65,535 s.
    pub keep_alive: Seconds,
    /// Whether the remote broker forgets our session when the connection ends.
    pub clean_session: bool,
    /// How TLS is done; `None`: it is spoken to in clear.
    pub tls: Option<EdgeTls>,
}

impl EdgeRemote {
    /// Every address of the broker, the one that is preferred first.
    pub fn addresses(&self) -> impl Iterator<Item = &BrokerAddress> {
        std::iter::once(&self.address).chain(&self.fallbacks)
    }

    /// The secrets that the agent must have to run the rule.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretRef> {
        self.password.iter().chain(self.tls.iter().filter_map(|tls| tls.key.as_ref()))
    }
}

/// How TLS to the remote broker is done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EdgeTls {
    /// Authorities (PEM) to trust in place of the system's.
    pub ca: Option<String>,
    /// The name that the broker's certificate must bear, in place of the host.
    pub server_name: Option<String>,
    /// Application protocols to offer.
    pub alpn: Vec<String>,
    /// The client certificate and what leads to its authority (PEM).
    pub certificate: Option<String>,
    /// Names the private key of the client certificate; there if, and only if, that is.
    pub key: Option<SecretRef>,
}

/// Bounds of the durable queue of a rule on an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct EdgeQueue {
    /// Most bytes on disk.
    pub max_bytes: Bytes,
    /// Older messages are dropped and counted.
    pub max_age: Seconds,
    /// What gives way when it is full.
    pub when_full: WhenFull,
    /// How fast it is sent to the remote broker at the most.
    pub drain: Option<DrainSpec>,
}

/// One direction of messages.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Route {
    /// Topics at the source.
    pub filter: TopicFilter,
    /// Topics that `filter` matches and that are left out all the same.
    pub exclude: Vec<TopicFilter>,
    /// How they are called at the target; for a forward the prefix begins with the rule's mountpoint.
    pub mapping: TopicMapping,
    /// Topics at the target: what `mapping` makes of `filter`.
    pub image: TopicFilter,
    /// QoS of the subscription at the source and of the message at the target.
    pub qos: Qos,
    /// Whether the retain flag of a message is passed on.
    pub retain: bool,
}

/// A message as it goes to the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The topic at the target.
    pub topic: TopicName,
    /// With which QoS it is published there.
    pub qos: Qos,
    /// Whether the retain flag of the message is passed on; if not, it is published without.
    pub pass_retain: bool,
}

impl Route {
    /// Whether the route asks for messages of this topic.
    pub fn wants(&self, topic: &str) -> bool {
        self.filter.matches_text(topic) && !self.exclude.iter().any(|filter| filter.matches_text(topic))
    }

    /// Whether the route leaves out every topic of this filter.
    pub fn leaves_out(&self, topics: &TopicFilter) -> bool {
        self.exclude.iter().any(|filter| filter.covers(topics))
    }

    /// What becomes of a message of this topic; `None` when the route does not take it.
    ///
    /// Topics under `tidegate/` are never taken and never made. A topic that the filter matches but whose name at the target
    /// would be no topic (empty, too long) is not taken either.
    pub fn take(&self, topic: &TopicName) -> Option<Delivery> {
        if reserved(topic.as_str()) || !self.wants(topic.as_str()) {
            return None;
        }
        let topic = self.mapping.apply(topic).filter(|topic| !reserved(topic.as_str()))?;
        Some(Delivery { topic, qos: self.qos, pass_retain: self.retain })
    }
}

impl EdgeRule {
    /// Reads what [`super::render()`] made.
    ///
    /// # Errors
    ///
    /// Every problem at once. A field that this software does not know is a problem with the code `unknown-field`: running
    /// the rule without it could do something else than the operator asked for. See [`is_unsupported`].
    pub fn from_rendered(text: &str) -> Result<Self, Problems> {
        rendered::read(text)
    }

    /// Whether a forward asks for messages of this topic of the local broker and cannot take them, because the topic or
    /// its name at the remote broker is none that we may use (too long, too deep, empty, a control character).
    pub fn wants_in_vain(&self, topic: &str) -> bool {
        let taken = |route: &Route| TopicName::new(topic).is_ok_and(|topic| route.take(&topic).is_some());
        !reserved(topic) && self.forwards.iter().any(|route| route.wants(topic) && !taken(route))
    }

    /// What a message of the local broker becomes at the remote one: one delivery per forward that takes it, in the order of
    /// the rule. Of several with the same topic the first counts, so a message is sent once per name.
    pub fn forward(&self, topic: &TopicName) -> Vec<Delivery> {
        let mut out: Vec<Delivery> = Vec::new();
        for delivery in self.forwards.iter().filter_map(|route| route.take(topic)) {
            if out.iter().all(|have| have.topic != delivery.topic) {
                out.push(delivery);
            }
        }
        out
    }

    /// Whether a subscription matches this topic of the remote broker and leaves it out: then it is not lost.
    pub fn leaves_out(&self, topic: &str) -> bool {
        let matching = |route: &&Route| route.filter.matches_text(topic);
        self.subscriptions.iter().any(|route| matching(&route))
            && !self.subscriptions.iter().any(|route| route.wants(topic))
    }

    /// What a message of the remote broker becomes at the local one. The first subscription that takes it decides: where
    /// several match, validation made sure that they agree on the topic.
    pub fn receive(&self, topic: &TopicName) -> Option<Delivery> {
        self.subscriptions.iter().find_map(|route| route.take(topic))
    }

    /// What must be done to get from one rule to the other, so that the least disturbing way can be chosen.
    pub fn difference(old: &Self, new: &Self) -> Change {
        Change {
            connection: old.remote != new.remote,
            forwards: old.forwards != new.forwards,
            subscriptions: old.subscriptions != new.subscriptions,
            queue: old.queue != new.queue,
            settings: (&old.name, old.start, old.policy) != (&new.name, new.start, new.policy),
        }
    }
}

/// Whether a problem of [`EdgeRule::from_rendered`] means that this software is too old for the rule
/// (`UNSUPPORTED_FIELD`), rather than that the rule is wrong (`INVALID_CONFIG`).
pub fn is_unsupported(problem: &Problem) -> bool {
    problem.code == "unknown-field"
}

/// Which parts of a rule differ, each with its own way of taking effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Change {
    /// Address, client id, login, keep-alive: the remote connection must be made anew. The queue stays.
    pub connection: bool,
    /// Local subscriptions and mappings of new messages; the remote connection stays.
    pub forwards: bool,
    /// Remote subscriptions; resubscribing is enough, the connection stays.
    pub subscriptions: bool,
    /// Bounds of the queue; nothing is interrupted.
    pub queue: bool,
    /// Name, start, policy; nothing is interrupted.
    pub settings: bool,
}

impl Change {
    /// Nothing differs.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Only topics differ: resubscribe, keep the connection.
    pub fn is_topics_only(&self) -> bool {
        (self.forwards || self.subscriptions) && !self.connection && !self.queue
    }
}

/// Two rules of one edge that would throw each other off the remote broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientIdClash {
    /// The rule that comes first.
    pub first: RuleName,
    /// The rule that comes later.
    pub second: RuleName,
    /// The client id that both use.
    pub client_id: String,
    /// `host:port` of the broker.
    pub broker: String,
}

impl std::fmt::Display for ClientIdClash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "rules '{}' and '{}' use the client id '{}' at {}: the broker would disconnect the older one, in a loop; give \
             one of them another client_id",
            self.first, self.second, self.client_id, self.broker
        )
    }
}

/// As what a rule logs in at its remote broker: all that rules of one edge are compared by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The rule.
    pub rule: RuleName,
    /// Every address at which it may.
    pub addresses: Vec<BrokerAddress>,
    /// MQTT client id.
    pub client_id: String,
}

impl Login {
    /// Reads it of a rendered rule, without the rest; `None` when it is none.
    pub fn of_rendered(text: &str) -> Option<Self> {
        rendered::wiring(text).map(|wiring| wiring.login)
    }
}

impl From<&EdgeRule> for Login {
    fn from(rule: &EdgeRule) -> Self {
        let addresses = rule.remote.addresses().cloned().collect();
        Self { rule: rule.name.clone(), addresses, client_id: rule.remote.client_id.clone() }
    }
}

/// Finds rules of one edge that log in at the same broker with the same client id (MQTT-3.1.4-2).
pub fn client_id_clash<'r>(logins: impl IntoIterator<Item = &'r Login>) -> Vec<ClientIdClash> {
    let mut seen: std::collections::BTreeMap<_, &RuleName> = std::collections::BTreeMap::new();
    let mut clashes = Vec::new();
    for Login { rule, addresses, client_id } in logins {
        let there = |address| seen.get(&(address, client_id)).map(|first| (address, *first));
        match addresses.iter().find_map(there) {
            Some((address, first)) => clashes.push(ClientIdClash {
                first: first.clone(),
                second: rule.clone(),
                client_id: client_id.clone(),
                broker: address.to_string(),
            }),
            None => seen.extend(addresses.iter().map(|address| ((address, client_id), rule))),
        }
    }
    clashes
}

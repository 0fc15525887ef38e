//! Which abilities of an agent a rule needs, so that the cloud refuses a rule before it sends it to an agent that is too
//! old.

use std::collections::BTreeSet;

use super::problem::{Problems, pointer};
use super::spec::{RouteSpec, RuleSpec};
use super::valid::ValidRule;

/// An ability of agents. Each new field of a rule comes with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// Bridges over plain MQTT 3.1.1 with a durable queue.
    BridgeV1,
    /// Topics that a forward or subscription leaves out.
    Exclude,
    /// TLS towards the remote broker.
    Tls,
    /// Other addresses of the remote broker.
    Fallbacks,
    /// A remote broker behind an HTTP proxy.
    Proxy,
    /// A limit on how fast messages are sent.
    Drain,
}

impl Feature {
    /// Every feature that this software speaks.
    pub const ALL: [Self; 6] =
        [Self::BridgeV1, Self::Exclude, Self::Tls, Self::Fallbacks, Self::Proxy, Self::Drain];

    /// The word on the wire, in the agent's hello.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BridgeV1 => "bridge.v1",
            Self::Exclude => "route.exclude",
            Self::Tls => "remote.tls",
            Self::Fallbacks => "remote.fallbacks",
            Self::Proxy => "remote.proxy",
            Self::Drain => "queue.drain",
        }
    }

    /// The first agent version that has it.
    pub fn since(self) -> semver::Version {
        match self {
            Self::BridgeV1 | Self::Exclude | Self::Tls | Self::Fallbacks | Self::Proxy | Self::Drain => {
                semver::Version::new(0, 1, 0)
            }
        }
    }

    /// The first field of a rule that needs it, as a JSON pointer; `None`: the rule does not need it.
    fn needed_at(self, rule: &RuleSpec) -> Option<String> {
        match self {
            Self::BridgeV1 => Some("/remote".to_owned()),
            // A variable may stand for the scheme, too: then the agent finds out.
            Self::Tls if rule.remote.tls.is_some() => Some("/remote/tls".to_owned()),
            Self::Tls => has_tls(&rule.remote.url).then(|| "/remote/url".to_owned()),
            Self::Fallbacks => {
                (!rule.remote.fallback_urls.is_empty()).then(|| "/remote/fallback_urls".to_owned())
            }
            Self::Proxy => rule.remote.proxy.is_some().then(|| "/remote/proxy".to_owned()),
            Self::Exclude => {
                first_route(rule, |route| !route.exclude.is_empty()).map(|at| format!("{at}/exclude"))
            }
            Self::Drain => rule.queue.drain.map(|_| "/queue/drain".to_owned()),
        }
    }
}

fn has_tls(url: &str) -> bool {
    url.split_once("://").is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("mqtts"))
}

/// Where the first forward or subscription is of which something holds.
fn first_route(rule: &RuleSpec, holds: impl Fn(&RouteSpec) -> bool) -> Option<String> {
    let forwards =
        rule.forwards.iter().enumerate().map(|(index, route)| (pointer("/forwards", index), route));
    let subscriptions =
        rule.subscriptions.iter().enumerate().map(|(index, route)| (pointer("/subscriptions", index), route));
    forwards.chain(subscriptions).find(|(_, route)| holds(route)).map(|(at, _)| at)
}

impl std::fmt::Display for Feature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a rule needs.
pub fn requires(rule: &ValidRule) -> BTreeSet<Feature> {
    Feature::ALL.into_iter().filter(|feature| feature.needed_at(rule.spec()).is_some()).collect()
}

/// What a rule needs and an agent lacks: one problem per feature, naming the field and the agent version that brought it.
///
/// # Errors
///
/// `unsupported-field` for each feature that is not among those that the agent told.
pub fn missing_features<'a>(
    rule: &ValidRule,
    agent: impl IntoIterator<Item = &'a str>,
) -> Result<(), Problems> {
    let agent: BTreeSet<&str> = agent.into_iter().collect();
    let mut problems = Problems::default();
    for feature in Feature::ALL.into_iter().filter(|feature| !agent.contains(feature.as_str())) {
        let Some(at) = feature.needed_at(rule.spec()) else { continue };
        problems.add(
            at,
            "unsupported-field",
            format!("the agent on the edge does not know '{feature}'"),
            format!("update it to version {} or later", feature.since()),
        );
    }
    problems.into_result()
}

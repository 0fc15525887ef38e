//! What becomes of a topic on one edge, entry by entry, and why; and what is odd about the entries of a rule. For people:
//! what the agent does is [`EdgeRule::forward`] and [`EdgeRule::receive`], which this must agree with.

use serde::{Deserialize, Serialize};

use super::edge::{EdgeRule, Route};
use crate::topic::{InvalidTopic, TopicFilter, TopicName, reserved};

/// What becomes of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// As a message of the gateway's local broker: one fate per forward, in the order of the rule.
    pub forwards: Vec<Fate>,
    /// As a message of the remote broker: one fate per subscription.
    pub subscriptions: Vec<Fate>,
}

/// What one forward or subscription does with a message.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fate {
    /// Number of the entry in the rule, from 0.
    pub entry: usize,
    /// Its filter, with variables filled in.
    pub filter: String,
    /// Whether it passes the message on.
    pub taken: bool,
    /// The topic that it has, or would have, on the other side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub becomes: Option<String>,
    /// Quality of service with which it is passed on: that of the message, at most this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos: Option<u8>,
    /// Whether a retained message stays one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retain: Option<bool>,
    /// Why, as a sentence.
    pub why: String,
}

/// Something about an entry that its author may not have meant; nothing is wrong with the rule.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Oddity {
    /// `forwards` or `subscriptions`.
    pub list: String,
    /// Number of the entry, from 0.
    pub entry: usize,
    /// The other entry that it is about, if it is about two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other: Option<usize>,
    /// What is odd, as a sentence.
    pub what: String,
}

/// What becomes of a message of this topic.
///
/// # Errors
/// [`InvalidTopic`]: no message can have this topic.
pub fn explain(rule: &EdgeRule, topic: &str) -> Result<Explained, InvalidTopic> {
    let topic = TopicName::new(topic)?;
    Ok(Explained { forwards: forwards(rule, &topic), subscriptions: subscriptions(rule, &topic) })
}

/// Every forward that takes it sends it, but for those that give it a name that it has already.
fn forwards(rule: &EdgeRule, topic: &TopicName) -> Vec<Fate> {
    let mut names: Vec<(usize, String)> = Vec::new();
    let fates = rule.forwards.iter().enumerate().map(|(entry, route)| {
        let mut fate = fate(entry, route, topic);
        let Some(name) = fate.becomes.clone().filter(|_| fate.taken) else { return fate };
        match names.iter().find(|(_, known)| *known == name) {
            Some((first, _)) => {
                fate.taken = false;
                fate.why = format!("forwards[{first}] sends it under the same topic already");
            }
            None => names.push((entry, name)),
        }
        fate
    });
    fates.collect()
}

/// The first subscription that takes it decides.
fn subscriptions(rule: &EdgeRule, topic: &TopicName) -> Vec<Fate> {
    let mut decided: Option<usize> = None;
    let fates = rule.subscriptions.iter().enumerate().map(|(entry, route)| {
        let mut fate = fate(entry, route, topic);
        if fate.taken {
            match decided {
                Some(first) => {
                    fate.taken = false;
                    fate.why = format!("subscriptions[{first}] takes it already; a message is taken once");
                }
                None => decided = Some(entry),
            }
        }
        fate
    });
    fates.collect()
}

/// What one entry does with it, were it the only one.
fn fate(entry: usize, route: &Route, topic: &TopicName) -> Fate {
    let filter = route.filter.to_string();
    let not = |why: String| Fate {
        entry,
        filter: filter.clone(),
        taken: false,
        becomes: None,
        qos: None,
        retain: None,
        why,
    };
    if reserved(topic.as_str()) {
        return not("topics under 'tidegate/' are Tidegate's own and are never bridged".to_owned());
    }
    if !route.filter.matches(topic) {
        return not(match topic.is_dollar() {
            true => {
                "its filter does not match; a wildcard at the front leaves out topics that begin with '$'"
                    .to_owned()
            }
            false => "its filter does not match".to_owned(),
        });
    }
    if let Some(exclude) = route.exclude.iter().find(|filter| filter.matches(topic)) {
        return not(format!("exclude '{exclude}' leaves it out"));
    }
    let Some(delivery) = route.take(topic) else {
        let (strip, prefix) = (&route.mapping.strip, &route.mapping.prefix);
        return not(format!(
            "without '{strip}' and with '{prefix}' before it, it is no topic that can be used: empty, too long, too deep, or \
             under 'tidegate/'"
        ));
    };
    Fate {
        taken: true,
        becomes: Some(delivery.topic.to_string()),
        qos: Some(u8::from(delivery.qos)),
        retain: Some(delivery.pass_retain),
        ..not("its filter matches".to_owned())
    }
}

/// What is odd about the entries of a rule: two that overlap, and such that never decide anything.
#[must_use]
pub fn oddities(rule: &EdgeRule) -> Vec<Oddity> {
    let mut odd = Vec::new();
    for (list, routes) in [("forwards", &rule.forwards), ("subscriptions", &rule.subscriptions)] {
        for (entry, route) in routes.iter().enumerate() {
            for (other, earlier) in routes[..entry].iter().enumerate() {
                let Some(both) = route.filter.intersection(&earlier.filter) else { continue };
                if route.leaves_out(&both) || earlier.leaves_out(&both) {
                    continue;
                }
                let what = pair(list, (entry, route), (other, earlier), &both);
                odd.push(Oddity { list: list.to_owned(), entry, other: Some(other), what });
            }
        }
    }
    odd
}

/// What a message that two entries match means for the later one.
fn pair(
    list: &str,
    (entry, route): (usize, &Route),
    (other, earlier): (usize, &Route),
    both: &TopicFilter,
) -> String {
    let same_name = route.mapping.map_filter(both).ok() == earlier.mapping.map_filter(both).ok();
    let whole = both == &route.filter && earlier.exclude.iter().all(|exclude| !exclude.overlaps(both));
    match (list == "forwards" && !same_name, whole) {
        (true, _) => {
            format!(
                "{list}[{entry}] and {list}[{other}] overlap: what '{both}' matches is sent twice, under two topics"
            )
        }
        (false, true) => {
            format!(
                "{list}[{entry}] never decides anything: {list}[{other}] takes all that it matches, under the same topic"
            )
        }
        (false, false) => {
            format!(
                "{list}[{entry}] and {list}[{other}] overlap: what '{both}' matches is passed on once, as {list}[{other}] says"
            )
        }
    }
}

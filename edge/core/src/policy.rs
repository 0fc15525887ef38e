//! What the site allows, whatever the cloud says: hosts, topics, bytes of a queue. The shell reads it from a local file.

use tidegate_model::rule::EdgeRule;
use tidegate_model::topic::TopicFilter;

/// The local allow-list. What is `None` is not restricted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Remote hosts, those of proxies included: a name or address in full, or `*.` and a suffix. Case does not matter.
    pub hosts: Option<Vec<String>>,
    /// Local topics that rules may forward and write; each local filter must lie within one of these.
    pub topics: Option<Vec<TopicFilter>>,
    /// Most bytes of one rule's queue.
    pub max_queue_bytes: Option<u64>,
}

impl Policy {
    /// Why this rule is not allowed here; `None`: it is. The sentence names what the rule asks for.
    #[must_use]
    pub fn refusal(&self, rule: &EdgeRule) -> Option<String> {
        if let Some(allowed) = &self.hosts {
            let hosts = rule.remote.addresses().chain(&rule.remote.proxy).map(|address| &address.host);
            for host in hosts {
                if !allowed.iter().any(|allowed| host_matches(allowed, host)) {
                    return Some(format!("the policy of this edge does not allow the remote host '{host}'"));
                }
            }
        }
        if let Some(topics) = &self.topics {
            let local =
                rule.forwards.iter().map(|r| &r.filter).chain(rule.subscriptions.iter().map(|r| &r.image));
            for filter in local {
                if !topics.iter().any(|allowed| allowed.covers(filter)) {
                    return Some(format!(
                        "the policy of this edge does not allow the local topic '{filter}'"
                    ));
                }
            }
        }
        let bytes = rule.queue.max_bytes.0;
        if let Some(most) = self.max_queue_bytes
            && bytes > most
        {
            return Some(format!(
                "the policy of this edge allows a queue of {most} bytes, the rule asks for {bytes}"
            ));
        }
        None
    }
}

fn host_matches(allowed: &str, host: &str) -> bool {
    let (allowed, host) = (allowed.to_ascii_lowercase(), host.to_ascii_lowercase());
    match allowed.strip_prefix('*') {
        Some(suffix) => suffix.starts_with('.') && host.len() > suffix.len() && host.ends_with(suffix),
        None => allowed == host,
    }
}

#[cfg(test)]
mod tests {
    use super::host_matches;

    #[test]
    fn hosts_match_in_full_or_by_suffix() {
        for (allowed, host, expected) in [
            ("broker.example", "Broker.Example", true),
            ("broker.example", "x.broker.example", false),
            ("*.example", "broker.example", true),
            ("*.example", ".example", false),
            ("*.example", "example", false),
            ("*.example", "badexample", false),
            ("*", "anything", false),
        ] {
            assert_eq!(host_matches(allowed, host), expected, "{allowed} {host}");
        }
    }
}

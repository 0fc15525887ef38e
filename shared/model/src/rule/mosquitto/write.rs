//! A rule as a `connection` of a `mosquitto.conf` (2.0 and later).

use std::collections::BTreeMap;

use super::super::edge::{EdgeRule, EdgeTls, Route};
use super::super::problem::Problems;
use super::super::render::{RenderContext, render};
use super::super::secret::SecretRefs;
use super::super::spec::{DEFAULT_CLIENT_ID, PolicySpec, QueueSpec, Start};
use super::super::valid::ValidRule;
use crate::ids::{AccountId, EdgeId};

/// A connection, and what it cannot say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Lines of a `mosquitto.conf`; the notes stand in them as comments.
    pub text: String,
    /// Where the connection does otherwise than the rule.
    pub notes: Vec<String>,
}

/// Writes a rule as mosquitto has it: for an edge, with its variables filled in, or for any, if the rule uses none but in its
/// default client id. The password is not known here and left out.
///
/// # Errors
/// Every problem at once: a variable without an edge, a text that the file cannot hold, what [`render`] finds.
pub fn export(rule: &ValidRule, edge: Option<&RenderContext>) -> Result<Exported, Problems> {
    let stand_in;
    let context = match edge {
        Some(context) => context,
        None => {
            without_variables(rule)?;
            stand_in = RenderContext {
                account: AccountId::default_account(),
                edge: EdgeId::new("any").expect("a word is a name"),
                vars: BTreeMap::new(),
                secrets: SecretRefs::default(),
            };
            &stand_in
        }
    };
    let rendered = render(rule, context)?.rule;
    let names_client = edge.is_some() || rule.spec().remote.client_id != DEFAULT_CLIENT_ID;
    holds(rule, &rendered)?;
    let notes = notes(rule, &rendered);
    let mut out = Vec::new();
    out.push(match edge {
        Some(context) => format!("# Rule {} of Tidegate on edge {}", rendered.name, context.edge),
        None => format!("# Rule {} of Tidegate", rendered.name),
    });
    out.extend(notes.iter().map(|note| format!("# {note}")));
    let remote = &rendered.remote;
    out.push(format!("connection {}", rendered.name));
    let addresses = std::iter::once(&remote.address).chain(&remote.fallbacks);
    let addresses: Vec<String> = addresses.map(|to| format!("{}:{}", to.host, to.port)).collect();
    out.push(format!("address {}", addresses.join(" ")));
    if let Some(tls) = &remote.tls {
        out.extend(over_tls(tls));
    }
    out.push("bridge_protocol_version mqttv311".to_owned());
    if names_client {
        out.push(format!("remote_clientid {}", remote.client_id));
    }
    if let Some(username) = &remote.username {
        out.push(format!("remote_username {username}"));
    }
    out.push(format!("cleansession {}", remote.clean_session));
    // What waits at the gateway is kept in any case.
    out.push("local_cleansession false".to_owned());
    out.push(format!("keepalive_interval {}", remote.keep_alive.0));
    out.push("notifications false".to_owned());
    out.push("try_private false".to_owned());
    if !rendered.forwards.is_empty() && rendered.forwards.iter().all(|forward| !forward.retain) {
        out.push("bridge_outgoing_retain false".to_owned());
    }
    out.extend(rendered.forwards.iter().map(|route| topic(route, "out")));
    out.extend(rendered.subscriptions.iter().map(|route| topic(route, "in")));
    out.push(String::new());
    Ok(Exported { text: out.join("\n"), notes })
}

/// TLS, as far as it needs no files.
fn over_tls(tls: &EdgeTls) -> Vec<String> {
    let mut out = Vec::new();
    if tls.ca.is_none() {
        out.push("bridge_tls_use_os_certs true".to_owned());
    }
    out.extend(tls.alpn.first().map(|name| format!("bridge_alpn {name}")));
    out
}

fn topic(route: &Route, direction: &str) -> String {
    let marker = |text: &str| if text.is_empty() { "\"\"".to_owned() } else { text.to_owned() };
    let (strip, prefix) = (&route.mapping.strip, &route.mapping.prefix);
    let pattern =
        route.filter.as_str().strip_prefix(strip.as_str()).expect("a filter begins with what is stripped");
    let (local, remote) = if direction == "out" { (strip, prefix) } else { (prefix, strip) };
    let line = format!("topic {} {direction} {}", marker(pattern), u8::from(route.qos));
    match (local.is_empty(), remote.is_empty()) {
        (true, true) => line,
        (_, _) => format!("{line} {} {}", marker(local), marker(remote)),
    }
}

/// Refuses variables where no edge fills them in; the default client id is left to mosquitto.
fn without_variables(rule: &ValidRule) -> Result<(), Problems> {
    let spec = rule.spec();
    let mut texts = vec![
        ("/mountpoint".to_owned(), spec.mountpoint.as_str()),
        ("/remote/url".to_owned(), &spec.remote.url),
        ("/remote/proxy".to_owned(), spec.remote.proxy.as_deref().unwrap_or_default()),
        ("/remote/username".to_owned(), spec.remote.username.as_deref().unwrap_or_default()),
    ];
    for (index, url) in spec.remote.fallback_urls.iter().enumerate() {
        texts.push((format!("/remote/fallback_urls/{index}"), url));
    }
    if let Some(name) = spec.remote.tls.as_ref().and_then(|tls| tls.server_name.as_ref()) {
        texts.push(("/remote/tls/server_name".to_owned(), name));
    }
    if spec.remote.client_id != DEFAULT_CLIENT_ID {
        texts.push(("/remote/client_id".to_owned(), &spec.remote.client_id));
    }
    for (name, routes) in [("forwards", &spec.forwards), ("subscriptions", &spec.subscriptions)] {
        for (index, route) in routes.iter().enumerate() {
            for (field, text) in [("topic", &route.topic), ("strip", &route.strip), ("prefix", &route.prefix)]
            {
                texts.push((format!("/{name}/{index}/{field}"), text));
            }
        }
    }
    let mut problems = Problems::default();
    for (pointer, _) in texts.into_iter().filter(|(_, text)| text.contains('{')) {
        problems.add(
            pointer,
            "missing-variable",
            "a variable stands here, which mosquitto does not have",
            "name an edge (--edge), whose values are filled in",
        );
    }
    problems.into_result()
}

/// Refuses texts that a line of mosquitto cannot hold.
fn holds(rule: &ValidRule, rendered: &EdgeRule) -> Result<(), Problems> {
    let mut problems = Problems::default();
    let help = "choose another text, or write this connection by hand";
    for (name, routes) in [("forwards", &rendered.forwards), ("subscriptions", &rendered.subscriptions)] {
        for (index, route) in routes.iter().enumerate() {
            let texts = [route.filter.as_str(), &route.mapping.strip, &route.mapping.prefix];
            let pattern = &route.filter.as_str()[route.mapping.strip.len()..];
            let quoted = [pattern, &route.mapping.strip, &route.mapping.prefix];
            if !route.exclude.is_empty() {
                let what = "mosquitto cannot leave out a part of a topic filter";
                problems.add(
                    format!("/{name}/{index}/exclude"),
                    "bad-value",
                    what,
                    "name what is wanted instead",
                );
            }
            if texts.iter().any(|text| text.contains(' ')) {
                let what = "mosquitto 2.0 parts words by blanks, also in topics";
                problems.add(format!("/{name}/{index}/topic"), "bad-value", what, help);
            } else if quoted.iter().any(|text| text.starts_with('"')) {
                let what = "a quote at its beginning would be read as a quoted text";
                problems.add(format!("/{name}/{index}/topic"), "bad-value", what, help);
            }
        }
    }
    if rule.spec().remote.username.is_some()
        && rendered.remote.username.as_deref().is_some_and(|name| name.trim_matches(' ') != name)
    {
        problems.add("/remote/username", "bad-value", "mosquitto drops blanks around a user name", help);
    }
    problems.into_result()
}

/// What a connection of mosquitto cannot say.
fn notes(rule: &ValidRule, rendered: &EdgeRule) -> Vec<String> {
    let spec = rule.spec();
    let mut notes = Vec::new();
    if rendered.remote.username.is_some() {
        notes.push("the password is not exported: add remote_password if there is one".to_owned());
    }
    if rendered.start == Start::Manual {
        notes.push("start = \"manual\": mosquitto connects as soon as it runs".to_owned());
    }
    if spec.queue != QueueSpec::default() {
        notes.push(
            "queue: mosquitto bounds all clients alike, by max_queued_messages and max_queued_bytes, in memory unless \
             persistence is on"
                .to_owned(),
        );
    }
    if spec.policy != PolicySpec::default() {
        notes.push("policy: mosquitto has nothing like it".to_owned());
    }
    if rendered.remote.proxy.is_some() {
        notes.push("proxy: mosquitto 2.0 reaches a broker through none".to_owned());
    }
    if let Some(tls) = &rendered.remote.tls {
        for (there, what) in [
            (tls.ca.is_some(), "ca: put remote.tls.ca into a file and name it in bridge_cafile"),
            (
                tls.certificate.is_some(),
                "certificate: put it and its key into files and name them in bridge_certfile and bridge_keyfile",
            ),
            (tls.server_name.is_some(), "server_name: mosquitto checks the name of the address"),
            (tls.alpn.len() > 1, "alpn: mosquitto offers one"),
        ] {
            if there {
                notes.push(what.to_owned());
            }
        }
    }
    let retained = rendered.forwards.iter().filter(|forward| forward.retain).count();
    if retained > 0 && retained < rendered.forwards.len() {
        notes.push(
            "retain: mosquitto keeps the flag of all forwarded messages or of none; here of all".to_owned(),
        );
    }
    if rendered.subscriptions.iter().any(|subscription| !subscription.retain) {
        notes.push("retain: mosquitto keeps the flag of what comes in".to_owned());
    }
    notes
}

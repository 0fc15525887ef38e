//! From a rule to the exact bytes for one edge.

use std::collections::BTreeMap;

use super::check::routes_together;
use super::edge::{EdgeQueue, EdgeRemote, EdgeRule, EdgeTls, Route};
use super::problem::{Problems, pointer};
use super::rendered;
use super::resolve::resolve;
use super::secret::SecretRefs;
use super::template;
use super::tls;
use super::valid::ValidRule;
use crate::digest::Digest;
use crate::ids::{AccountId, EdgeId};
use crate::limits::MAX_RENDERED_BYTES;

/// What a rule is rendered for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderContext {
    /// Fills `{account}`.
    pub account: AccountId,
    /// Fills `{edge}`.
    pub edge: EdgeId,
    /// Values of this placement for variables that the rule declares.
    pub vars: BTreeMap<String, String>,
    /// The stored secrets that are there. The password is named in the bytes when the rule has a user name, the key when it has
    /// a client certificate.
    pub secrets: SecretRefs,
}

/// A rule as one edge gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// JSON, at most [`MAX_RENDERED_BYTES`]; the same input gives the same bytes.
    pub bytes: String,
    /// SHA-256 of exactly these bytes.
    pub digest: Digest,
    /// The same, read.
    pub rule: EdgeRule,
}

/// Fills in variables and defaults, and checks what comes out: a value may make a topic too long or close a loop.
///
/// # Errors
///
/// Every problem at once; places have pointers into the rule, no lines. Values that the placement sets and the rule does not
/// declare are problems at `/vars/…` too.
pub fn render(rule: &ValidRule, context: &RenderContext) -> Result<Rendered, Problems> {
    let mut problems = Problems::default();
    let spec = rule.spec();
    let values = values(rule, context, &mut problems);
    problems.into_result()?;

    let mut problems = Problems::default();
    let resolved = resolve(spec, &|name| values.get(name).copied(), &mut problems);
    if tls::needs_key(resolved.tls.as_ref()) && context.secrets.key.is_none() {
        tls::missing_key(&mut problems);
    }
    routes_together(&resolved.forwards, &resolved.subscriptions, &mut problems);
    problems.into_result()?;

    let incomplete = || {
        let mut problems = Problems::default();
        problems.add("", "syntax", "the rule is incomplete", "save it again");
        problems
    };
    let all = |routes: Vec<Option<Route>>| routes.into_iter().collect::<Option<Vec<Route>>>();
    let username = resolved.username;
    let rule = EdgeRule {
        name: spec.name.clone(),
        start: spec.start,
        remote: EdgeRemote {
            address: resolved.address.ok_or_else(incomplete)?,
            fallbacks: resolved.fallbacks,
            proxy: resolved.proxy,
            client_id: resolved.client_id.ok_or_else(incomplete)?,
            password: username.as_ref().and(context.secrets.password.clone()),
            username,
            keep_alive: spec.remote.keep_alive,
            clean_session: spec.remote.clean_session,
            tls: resolved.tls.map(|tls| EdgeTls {
                key: tls.certificate.as_ref().and(context.secrets.key.clone()),
                ca: tls.ca,
                server_name: tls.server_name,
                alpn: tls.alpn,
                certificate: tls.certificate,
            }),
        },
        forwards: all(resolved.forwards).ok_or_else(incomplete)?,
        subscriptions: all(resolved.subscriptions).ok_or_else(incomplete)?,
        queue: EdgeQueue {
            max_bytes: spec.queue.max_bytes,
            max_age: spec.queue.max_age,
            when_full: spec.queue.when_full,
            drain: spec.queue.drain,
        },
        policy: spec.policy,
    };
    let bytes = rendered::write(&rule);
    if bytes.len() > MAX_RENDERED_BYTES {
        let mut problems = Problems::default();
        rendered::too_large(bytes.len(), &mut problems);
        return Err(problems);
    }
    Ok(Rendered { digest: Digest::of(bytes.as_bytes()), bytes, rule })
}

/// The value of every variable of the rule for this edge.
fn values<'v>(
    rule: &'v ValidRule,
    context: &'v RenderContext,
    problems: &mut Problems,
) -> BTreeMap<&'v str, &'v str> {
    let spec = rule.spec();
    let mut values = BTreeMap::from([
        ("edge", context.edge.as_str()),
        ("account", context.account.as_str()),
        ("rule", spec.name.as_str()),
    ]);
    for (name, value) in &context.vars {
        if !spec.vars.contains_key(name) {
            let declared: Vec<&str> = spec.vars.keys().map(String::as_str).collect();
            let help = match declared.as_slice() {
                [] => "the rule declares no variables; leave it out".to_owned(),
                some => format!("the rule declares {}", some.join(", ")),
            };
            let name: String = name.chars().take(64).collect();
            problems.add(
                pointer("/vars", &name),
                "unknown-variable",
                format!("the variable '{name}' is not declared by the rule"),
                help,
            );
        } else if let Some(why) = template::value_error(value) {
            problems.add(
                pointer("/vars", name),
                "bad-variable",
                format!("the value {why}"),
                "a value is 1 to 128 bytes of plain text",
            );
        }
    }
    for (name, var) in &spec.vars {
        match context.vars.get(name).or(var.default.as_ref()) {
            Some(value) => {
                values.insert(name, value);
            }
            None => problems.add(
                pointer("/vars", name),
                "missing-variable",
                format!("edge '{}' has no value for {{{name}}}", context.edge),
                "set it for this placement, or give the variable a default",
            ),
        }
    }
    values
}

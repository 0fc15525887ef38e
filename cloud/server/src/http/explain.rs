//! What becomes of a topic on an edge, and what is odd about a rule's entries.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use tidegate_cloud_core::{Controller, Rejection};
use tidegate_model::ids::{EdgeId, RuleName};
use tidegate_model::rule::{EdgeRule, Explained, Fate, Oddity, explain, oddities};
use tidegate_model::topic::TopicName;
use tidegate_model::version::RuleVersion;
use utoipa::ToSchema;

use super::caller::{Path, rule_name};
use super::params::Params;
use super::problem::Problem;
use super::rules::no_such_rule;
use super::{App, ROLE};

/// What a rule does with a topic on an edge.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Explanation {
    /// The rule.
    rule: RuleName,
    /// The edge.
    edge: EdgeId,
    /// The version that is explained: the newest.
    version: RuleVersion,
    /// The version that the edge runs, as last told, if it runs one.
    edge_version: Option<RuleVersion>,
    /// Whether the rule is placed on the edge.
    placed: bool,
    /// The topic; absent where none was asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    /// As a message of the gateway's local broker: what each forward does with it.
    forwards: Vec<Fate>,
    /// As a message of the remote broker: what each subscription does with it.
    subscriptions: Vec<Fate>,
    /// Entries that overlap, and such that never decide anything.
    oddities: Vec<Oddity>,
}

/// `GET /rules/{rule}/explain`
#[utoipa::path(
    get, path = "/rules/{rule}/explain", operation_id = "explain_rule", tag = "rules",
    params(("rule" = RuleName, Path, description = "Name of the rule"), ("edge" = EdgeId, Query, description = "On this edge, with its values of variables"),
        ("topic" = Option<String>, Query, description = "What becomes of this topic; without it only what is odd about the rule's entries is told")),
    responses((status = 200, description = "What each entry does with the topic, and why", body = Explanation))
)]
pub(super) async fn get(
    State(app): State<App>,
    Path(rule): Path<String>,
    mut params: Params,
) -> Result<Response, Problem> {
    let name = rule_name(&rule)?;
    let topic = params.text("topic");
    if let Some(Err(error)) = topic.as_deref().map(TopicName::new) {
        params.error("topic", "bad-value", format!("topic: {error}"));
    }
    let is_named = params.pairs().iter().any(|(name, value)| name == "edge" && !value.is_empty());
    if !is_named {
        params.error(
            "edge",
            "missing",
            "edge is missing: a rule is explained as it is on one edge".to_owned(),
        );
    }
    let edge = params.parse::<EdgeId>("edge");
    params.finish()?;
    let Some(edge) = edge else { return Err(no_such_rule(&name)) };
    let asked = (name.clone(), edge.clone());
    let found = app.core.read(move |core, _| look(core, &asked.0, &asked.1)).await?;
    let Found { version, edge_version, placed, on_edge } =
        found.map_err(|rejection| Problem::from(*rejection))?;
    // The name was checked above: without a topic there is nothing to tell of one.
    let told = topic.as_deref().and_then(|topic| explain(&on_edge, topic).ok());
    let (forwards, subscriptions) =
        told.map_or_else(Default::default, |Explained { forwards, subscriptions }| (forwards, subscriptions));
    let oddities = oddities(&on_edge);
    let told = Explanation {
        rule: name,
        edge,
        version,
        edge_version,
        placed,
        topic,
        forwards,
        subscriptions,
        oddities,
    };
    Ok(Json(told).into_response())
}

/// A rule as it is on an edge.
struct Found {
    version: RuleVersion,
    edge_version: Option<RuleVersion>,
    placed: bool,
    on_edge: EdgeRule,
}

fn look(core: &Controller, rule: &RuleName, edge: &EdgeId) -> Result<Found, Box<Rejection>> {
    let record = core.rule_record(rule).ok_or_else(|| Rejection::NoSuchRule(rule.clone()))?;
    if core.edge(edge).is_none() {
        return Err(Box::new(Rejection::NoSuchEdge(edge.clone())));
    }
    let placement = core.placement(rule, edge, ROLE).filter(|placement| !placement.removing);
    let vars = placement.as_ref().map_or_else(BTreeMap::new, |placement| placement.vars.clone());
    let rendered = core
        .preview(&record.content, &record.secrets(), edge, &vars)
        .map_err(|problems| Rejection::InvalidOnEdge { rule: rule.clone(), edge: edge.clone(), problems })?;
    Ok(Found {
        version: record.version,
        edge_version: placement.as_ref().and_then(|placement| placement.edge_version),
        placed: placement.is_some(),
        on_edge: rendered.rule,
    })
}

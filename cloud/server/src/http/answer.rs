//! What a reply of the core is as an HTTP answer: a function of the reply and nothing else, so that it can be kept and
//! told again (`Idempotency-Key`), and shown without being done (`?dry_run=true`).

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use serde_json::Value;
use tidegate_cloud_core::{
    ActedOn, Affected, EdgeView, InFlightView, KeptAnswer, PlacementView, Rejection, Reply, RuleView, Saved,
};
use utoipa::ToSchema;

use tidegate_model::ids::{EdgeId, RuleName};

use super::problem::{self, Problem};
use crate::transport::ForGateways;

/// Says that an answer was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A rule that was saved.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SavedRule<'r> {
    #[serde(flatten)]
    rule: &'r RuleView,
    /// What became of it.
    saved: Saved,
}

/// An action that was begun, or that had nothing to do.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Acted<'r> {
    /// What is under way; `null`: it was so already, nothing was sent, and nobody has to wait.
    operation: Option<&'r InFlightView>,
    /// The placement.
    placement: &'r PlacementView,
}

/// What became of an action on many placements.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ActedOnMany<'r> {
    /// One for each placement that was named, in that order.
    items: Vec<ActedOnOne<'r>>,
    /// How many operations were begun.
    begun: usize,
    /// For how many it was so already: nothing was sent.
    already: usize,
    /// For how many it was refused; each says why.
    refused: usize,
}

/// What became of an action on one of many placements.
#[derive(Debug, Serialize, ToSchema)]
struct ActedOnOne<'r> {
    /// The rule.
    rule: &'r RuleName,
    /// The edge.
    edge: &'r EdgeId,
    /// What is under way; `null`: it was so already, or it was refused.
    operation: Option<&'r InFlightView>,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Brief>,
}

impl<'r> ActedOnMany<'r> {
    fn of(acted: &'r [ActedOn]) -> Self {
        let one = |acted: &'r ActedOn| ActedOnOne {
            rule: &acted.rule,
            edge: &acted.edge,
            operation: acted.result.as_ref().ok().and_then(Option::as_ref),
            problem: acted.result.as_ref().err().map(Brief::of),
        };
        let items: Vec<_> = acted.iter().map(one).collect();
        let begun = items.iter().filter(|item| item.operation.is_some()).count();
        let refused = items.iter().filter(|item| item.problem.is_some()).count();
        Self { begun, already: items.len() - begun - refused, refused, items }
    }
}

/// Why an action on one of many placements was refused: what a problem of its own would say.
#[derive(Debug, Serialize, ToSchema)]
struct Brief {
    /// The kind, as in a problem of its own.
    #[serde(rename = "type")]
    kind: String,
    /// The HTTP status that the request would have got alone.
    status: u16,
    /// For programs.
    code: &'static str,
    /// What happened and why.
    detail: String,
    /// What to do.
    next: String,
}

impl Brief {
    fn of(rejection: &Rejection) -> Self {
        let problem = problem::of_rejection(rejection);
        let kind = problem.kind();
        Self {
            kind: kind.path(),
            status: kind.status().as_u16(),
            code: kind.code(),
            detail: rejection.to_string(),
            next: problem.next(),
        }
    }
}

/// A rule that is taken off an edge which still has to hear of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Unplaced {
    /// Always true: the removal waits for the edge.
    pending: bool,
}

/// An edge that was made known, with the only sight of its credential.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CreatedEdge<'r> {
    #[serde(flatten)]
    edge: &'r EdgeView,
    /// The credential. It is told once and not kept: `null` in an answer that is told again.
    credential: Option<&'r str>,
    /// Where the broker is, for the agent's settings; told with the credential.
    #[serde(flatten)]
    broker: Option<ForGateways>,
    /// How to get another credential, where it is not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    credential_help: Option<String>,
}

/// What a request would do.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Rehearsal<'r> {
    /// Always true.
    dry_run: bool,
    /// The status that the request would be answered with.
    status: u16,
    /// The ETag that it would be answered with.
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<&'r str>,
    /// The body that it would be answered with.
    #[schema(value_type = Value)]
    answer: Value,
    /// The placements that would change, the first 500.
    affected: &'r [Affected],
    /// How many placements would change in all.
    affected_total: u32,
}

/// One of two answers of the same status.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it stands in the API's description only")]
pub(super) enum OneOf2<A, B> {
    /// The usual one.
    Usual(A),
    /// The other one.
    Other(B),
}

/// Tells a reply.
pub(super) fn of_reply(reply: &Reply) -> KeptAnswer {
    match reply {
        Reply::Rule { rule, saved } => {
            let mut answer = json(StatusCode::OK, &SavedRule { rule, saved: *saved });
            answer.headers.push((header::ETAG.to_string(), format!("\"{}\"", rule.etag)));
            match saved {
                Saved::Created => created(answer, format!("/api/v1/rules/{}", rule.name)),
                Saved::Changed | Saved::Unchanged => answer,
            }
        }
        Reply::Placed { placement, created: true } => {
            created(json(StatusCode::CREATED, placement), path_of(placement))
        }
        Reply::Placed { placement, created: false } => json(StatusCode::OK, placement),
        Reply::Unplaced { pending: true } => json(StatusCode::ACCEPTED, &Unplaced { pending: true }),
        Reply::Unplaced { pending: false } | Reply::Deleted | Reply::EdgeRemoved => {
            KeptAnswer { status: StatusCode::NO_CONTENT.as_u16(), headers: Vec::new(), body: String::new() }
        }
        Reply::Acted { operation, placement } => {
            let mut answer = json(StatusCode::ACCEPTED, &Acted { operation: Some(operation), placement });
            answer.headers.push((header::LOCATION.to_string(), path_of(placement)));
            answer
        }
        Reply::ActedOnMany(items) => json(StatusCode::OK, &ActedOnMany::of(items)),
        Reply::Already { placement } => json(StatusCode::OK, &Acted { operation: None, placement }),
        Reply::EdgeCreated(edge) => edge_created(edge, None),
        Reply::EdgeConfirmed(edge) => json(StatusCode::OK, edge),
        Reply::Replayed(answer) => answer.clone(),
        Reply::Rehearsed(rehearsed) => {
            let KeptAnswer { status, headers, body } = of_reply(&rehearsed.reply);
            let etag = headers.iter().find(|(name, _)| *name == header::ETAG.as_str());
            json(
                StatusCode::OK,
                &Rehearsal {
                    dry_run: true,
                    status,
                    etag: etag.map(|(_, value)| value.as_str()),
                    answer: serde_json::from_str(&body).unwrap_or(Value::Null),
                    affected: &rehearsed.affected,
                    affected_total: rehearsed.affected_total,
                },
            )
        }
    }
}

/// Tells that an edge was made known. `secret`: its credential and where its broker is, for the one answer that has them.
pub(super) fn edge_created(edge: &EdgeView, secret: Option<(&str, ForGateways)>) -> KeptAnswer {
    let help = || {
        let id = &edge.id;
        format!(
            "the credential was told once, in the first answer, and is not kept; if that answer was lost, remove the \
             edge (DELETE /api/v1/edges/{id}) and make it again"
        )
    };
    let answer = json(
        StatusCode::CREATED,
        &CreatedEdge {
            edge,
            credential: secret.as_ref().map(|(credential, _)| *credential),
            credential_help: secret.is_none().then(help),
            broker: secret.map(|(_, broker)| broker),
        },
    );
    let mut answer = created(answer, format!("/api/v1/edges/{}", edge.id));
    answer.headers.push((header::CACHE_CONTROL.to_string(), "no-store".to_owned()));
    answer
}

fn path_of(placement: &PlacementView) -> String {
    format!("/api/v1/placements/{}/{}", placement.rule, placement.edge)
}

fn created(mut answer: KeptAnswer, location: String) -> KeptAnswer {
    answer.status = StatusCode::CREATED.as_u16();
    answer.headers.push((header::LOCATION.to_string(), location));
    answer
}

fn json(status: StatusCode, body: &impl Serialize) -> KeptAnswer {
    let body = serde_json::to_string(body).expect("a view has text keys and no failing serializer");
    KeptAnswer { status: status.as_u16(), headers: Vec::new(), body }
}

/// The answer to a reply.
pub(super) fn respond(reply: &Reply) -> Result<Response, Problem> {
    let mut response = send(of_reply(reply))?;
    if matches!(reply, Reply::Replayed(_)) {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// The response of an answer.
pub(super) fn send(answer: KeptAnswer) -> Result<Response, Problem> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(answer.status).map_err(|_| Problem::internal())?;
    let headers = response.headers_mut();
    for (name, value) in &answer.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Problem::internal())?;
        headers.insert(name, HeaderValue::from_str(value).map_err(|_| Problem::internal())?);
    }
    if !answer.body.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        *response.body_mut() = Body::from(answer.body);
    }
    Ok(response)
}

//! Edges: make known, list, read, remove, confirm.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use tidegate_cloud_core::{EdgeView, Rejection, Reply, Request};
use tidegate_model::ids::{EdgeId, RuleId};
use utoipa::ToSchema;

use super::answer::{CreatedEdge, Unplaced};
use super::caller::{Caller, Path, edge_id, rule_id};
use super::page::{List, Page};
use super::params::Params;
use super::problem::{FieldError, Problem};
use super::{App, answer, body};
use crate::auth::Credentials;

/// `GET /edges`
#[utoipa::path(
    get, path = "/edges", operation_id = "list_edges", tag = "edges",
    params(("limit" = Option<usize>, Query, description = "Items of the page, 1 to 500; 50 unless given"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before, as it came")),
    responses((status = 200, description = "Edges by name", body = List<EdgeView>, headers(("Link" = String, description = "The next page, where there is one"))))
)]
pub(super) async fn list(State(app): State<App>, mut params: Params) -> Result<Response, Problem> {
    let page = Page::take(&mut params, "/api/v1/edges");
    let after = page.after.as_ref().map(|after| EdgeId::new(after.as_str())).transpose();
    let after = after.unwrap_or_else(|_| {
        params.bad_cursor();
        None
    });
    params.finish()?;
    let ask = page.ask();
    let (items, all) = app.core.read(move |core, _| core.edges(after.as_ref(), ask)).await?;
    Ok(page.answer(items, |edge: &EdgeView| edge.id.to_string(), List::of(all)))
}

/// `GET /edges/{edge}`
#[utoipa::path(
    get, path = "/edges/{edge}", operation_id = "get_edge", tag = "edges",
    params(("edge" = EdgeId, Path, description = "Name of the edge")),
    responses((status = 200, description = "The edge", body = EdgeView))
)]
pub(super) async fn get(
    State(app): State<App>,
    Path(edge): Path<String>,
    params: Params,
) -> Result<Response, Problem> {
    params.finish()?;
    let edge = edge_id(&edge)?;
    Ok(Json(view(&app, edge).await?).into_response())
}

async fn view(app: &App, edge: EdgeId) -> Result<EdgeView, Problem> {
    let looked_up = edge.clone();
    let found = app.core.read(move |core, _| core.edge(&looked_up)).await?;
    found.ok_or_else(|| Problem::from(Rejection::NoSuchEdge(edge)))
}

/// Which edge to make known.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    /// Its name.
    id: String,
}

/// `POST /edges`
#[utoipa::path(
    post, path = "/edges", operation_id = "create_edge", tag = "edges",
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 128 visible ASCII characters: the request is done once, and sent again gets the first answer")),
    request_body = Create,
    responses((status = 201, description = "The edge is known; its credential is told only now", body = CreatedEdge<'_>))
)]
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    params.finish()?;
    let Create { id } = body::json(&headers, body).await?;
    let edge = EdgeId::new(id)
        .map_err(|error| Problem::invalid(vec![FieldError::field("/id", "bad-name", error.to_string())]))?;
    let (token, credential) = Credentials::make().map_err(|error| {
        tracing::error!(%error, "a credential could not be made");
        Problem::internal()
    })?;
    let reply = app.change(caller, false, Request::CreateEdge { edge, credential }).await?;
    if let Reply::EdgeCreated(edge) = &reply {
        return answer::send(answer::edge_created(edge, Some((token.reveal(), app.broker.for_gateways()))));
    }
    answer::respond(&reply)
}

/// `DELETE /edges/{edge}?leave_running=`
#[utoipa::path(
    delete, path = "/edges/{edge}", operation_id = "remove_edge", tag = "edges",
    params(("edge" = EdgeId, Path, description = "Name of the edge"), ("leave_running" = Option<bool>, Query, description = "Forget the edge although rules are on it, which go on running there")),
    responses((status = 204, description = "The edge is forgotten and its credential revoked"))
)]
pub(super) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path(edge): Path<String>,
    mut params: Params,
) -> Result<Response, Problem> {
    let leave_running = params.flag("leave_running");
    params.finish()?;
    let edge = edge_id(&edge)?;
    answer::respond(&app.change(caller, false, Request::RemoveEdge { edge, leave_running }).await?)
}

/// `POST /edges/{edge}/confirm`
#[utoipa::path(
    post, path = "/edges/{edge}/confirm", operation_id = "confirm_edge", tag = "edges",
    params(("edge" = EdgeId, Path, description = "Name of the edge"), ("Idempotency-Key" = Option<String>, Header, description = "1 to 128 visible ASCII characters: the request is done once, and sent again gets the first answer")),
    responses((status = 200, description = "The cloud goes on above what the edge holds", body = EdgeView))
)]
pub(super) async fn confirm(
    State(app): State<App>,
    caller: Caller,
    Path(edge): Path<String>,
    params: Params,
) -> Result<Response, Problem> {
    params.finish()?;
    let edge = edge_id(&edge)?;
    answer::respond(&app.change(caller, false, Request::ConfirmEdge { edge }).await?)
}

/// `DELETE /edges/{edge}/unmanaged/{rule}`
#[utoipa::path(
    delete, path = "/edges/{edge}/unmanaged/{rule}", operation_id = "remove_unmanaged_rule", tag = "edges",
    params(("edge" = EdgeId, Path, description = "Name of the edge"), ("rule" = RuleId, Path, description = "Id of a rule there that a cloud issued and this one has no record of")),
    responses((status = 202, description = "The rule is being taken off; the removal waits for an edge that is offline", body = Unplaced))
)]
pub(super) async fn remove_unmanaged(
    State(app): State<App>,
    caller: Caller,
    Path((edge, rule)): Path<(String, String)>,
    params: Params,
) -> Result<Response, Problem> {
    params.finish()?;
    let edge = edge_id(&edge)?;
    let rule = rule_id(&rule)?;
    answer::respond(&app.change(caller, false, Request::RemoveUnmanaged { edge, rule }).await?)
}

//! Edges: make known, list, read, remove, confirm.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use tidegate_cloud_core::{EdgeView, Rejection, Reply, Request};
use tidegate_model::ids::EdgeId;

use crate::auth::Credentials;

use super::caller::{Caller, Path, edge_id};
use super::page::{Page, total};
use super::params::Params;
use super::problem::{FieldError, Problem};
use super::{App, answer, body};

/// `GET /edges`
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
    page.answer(items, |edge: &EdgeView| edge.id.to_string(), total(all))
}

/// `GET /edges/{edge}`
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
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    id: String,
}

/// `POST /edges`
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

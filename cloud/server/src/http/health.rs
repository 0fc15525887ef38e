//! Whether the controller lives and is ready, and the totals.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use super::params::Params;
use super::problem::Problem;
use crate::auth::RefusedLogin;
use crate::transport::BrokerView;

/// How long the loop, or the store, may take to say that it is there.
const ALIVE_WITHIN: Duration = Duration::from_secs(2);

/// The totals, and how the broker is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SummaryAndBroker {
    #[serde(flatten)]
    totals: tidegate_cloud_core::Summary,
    /// The broker that carries the messages.
    broker: BrokerView,
    /// Logins that the controller's own broker refused within the last hour, the newest first, at most 32; absent where another
    /// broker lets the gateways in.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused_logins: Option<Vec<RefusedLogin>>,
}

/// The process works.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Live {
    /// `ok`
    status: &'static str,
}

/// The process can serve.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Ready {
    /// `ready`
    status: &'static str,
    /// `ok`
    store: &'static str,
    /// `ok`
    broker: &'static str,
}

/// `GET /summary`
#[utoipa::path(
    get, path = "/summary", operation_id = "summary", tag = "monitoring",
    responses((status = 200, description = "Totals", body = SummaryAndBroker))
)]
pub(super) async fn summary(State(app): State<App>, params: Params) -> Result<Response, Problem> {
    params.finish()?;
    let (totals, now) = app.core.read(|core, now| (core.summary(now), now)).await?;
    let refused_logins = app.refused.as_ref().map(|refused| refused.view(now));
    let broker = app.broker.view();
    Ok(Json(SummaryAndBroker { totals, broker, refused_logins }).into_response())
}

/// `GET /healthz`: the loop answers.
#[utoipa::path(
    get, path = "/healthz", operation_id = "live", tag = "monitoring",
    responses((status = 200, description = "The process works", body = Live))
)]
pub(super) async fn live(State(app): State<App>) -> Result<Response, Problem> {
    match tokio::time::timeout(ALIVE_WITHIN, app.core.read(|_, _| ())).await {
        Ok(answer) => answer?,
        Err(_) => return Err(Problem::unavailable("the controller's loop does not answer")),
    }
    Ok(Json(Live { status: "ok" }).into_response())
}

/// `GET /readyz`: the store takes writes, and messages can pass through the broker.
#[utoipa::path(
    get, path = "/readyz", operation_id = "ready", tag = "monitoring",
    responses((status = 200, description = "The process can serve", body = Ready))
)]
pub(super) async fn ready(State(app): State<App>) -> Result<Response, Problem> {
    match tokio::time::timeout(ALIVE_WITHIN, app.store.health()).await {
        Ok(health) => health?,
        Err(_) => return Err(Problem::unavailable("the store does not answer")),
    }
    let broker = app.broker.view();
    if !broker.up {
        let why = broker.detail.unwrap_or_else(|| "it does not answer".to_owned());
        return Err(Problem::unavailable(format!("the broker at {} cannot be used: {why}", broker.address)));
    }
    Ok(Json(Ready { status: "ready", store: "ok", broker: "ok" }).into_response())
}

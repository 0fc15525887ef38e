//! Whether the controller lives and is ready, and the totals.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::json;

use super::App;
use super::params::Params;
use super::problem::Problem;
use crate::transport::BrokerView;

/// How long the loop, or the store, may take to say that it is there.
const ALIVE_WITHIN: Duration = Duration::from_secs(2);

/// The totals, and how the broker is.
#[derive(Serialize)]
struct Summary {
    #[serde(flatten)]
    totals: tidegate_cloud_core::Summary,
    broker: BrokerView,
}

/// `GET /summary`
pub(super) async fn summary(State(app): State<App>, params: Params) -> Result<Response, Problem> {
    params.finish()?;
    let totals = app.core.read(|core, now| core.summary(now)).await?;
    Ok(Json(Summary { totals, broker: app.broker.view() }).into_response())
}

/// `GET /healthz`: the loop answers.
pub(super) async fn live(State(app): State<App>) -> Result<Response, Problem> {
    match tokio::time::timeout(ALIVE_WITHIN, app.core.read(|_, _| ())).await {
        Ok(answer) => answer?,
        Err(_) => return Err(Problem::unavailable("the controller's loop does not answer")),
    }
    Ok(Json(json!({ "status": "ok" })).into_response())
}

/// `GET /readyz`: the store takes writes, and messages can pass through the broker.
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
    Ok(Json(json!({ "status": "ready", "store": "ok", "broker": "ok" })).into_response())
}

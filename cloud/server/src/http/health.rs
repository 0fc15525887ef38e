//! Whether the controller lives and is ready, and the totals.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use tidegate_broker::Health;

use super::App;
use super::params::Params;
use super::problem::Problem;

/// How long the loop, or the store, may take to say that it is there.
const ALIVE_WITHIN: Duration = Duration::from_secs(2);

/// `GET /summary`
pub(super) async fn summary(State(app): State<App>, params: Params) -> Result<Response, Problem> {
    params.finish()?;
    let summary = app.core.read(|core, now| core.summary(now)).await?;
    Ok(Json(summary).into_response())
}

/// `GET /healthz`: the loop answers.
pub(super) async fn live(State(app): State<App>) -> Result<Response, Problem> {
    match tokio::time::timeout(ALIVE_WITHIN, app.core.read(|_, _| ())).await {
        Ok(answer) => answer?,
        Err(_) => return Err(Problem::unavailable("the controller's loop does not answer")),
    }
    Ok(Json(json!({ "status": "ok" })).into_response())
}

/// `GET /readyz`: the store takes writes, and the broker's watchdog is content.
pub(super) async fn ready(State(app): State<App>) -> Result<Response, Problem> {
    match tokio::time::timeout(ALIVE_WITHIN, app.store.health()).await {
        Ok(health) => health?,
        Err(_) => return Err(Problem::unavailable("the store does not answer")),
    }
    if *app.broker.borrow() != Health::Healthy {
        return Err(Problem::unavailable("the controller's broker does not answer"));
    }
    Ok(Json(json!({ "status": "ready", "store": "ok", "broker": "ok" })).into_response())
}

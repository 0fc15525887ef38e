//! `/metrics`: what monitors read.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};

use super::params::Params;
use super::problem::Problem;
use super::{App, MAX_WATCHERS};
use crate::metrics::{CONTENT_TYPE, Now};

/// `GET /metrics`
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "monitoring",
    responses((status = 200, description = "Metrics in the OpenMetrics text format", body = String, content_type = "application/openmetrics-text"))
)]
pub(super) async fn metrics(State(app): State<App>, params: Params) -> Result<Response, Problem> {
    params.finish()?;
    // Looked at before this very request waits for the loop.
    let (waiting_calls, waiting_messages) = app.core.waiting();
    let (summary, kept_answers) = app.core.read(|core, now| (core.summary(now), core.kept_answers())).await?;
    let now = Now {
        summary,
        kept_answers,
        waiting_calls,
        waiting_messages,
        sse_clients: MAX_WATCHERS - app.watchers.available_permits(),
        broker: app.broker_stats.as_ref().map(|stats| stats()),
    };
    let text = app.metrics.render(&now).map_err(|_| Problem::internal())?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}

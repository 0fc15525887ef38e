//! The backup of a running controller: one moment of it, as a stream of lines.
//!
//! The one answer, beside that which makes an edge known, that holds secrets: the rules' passwords belong to a backup.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::App;
use super::params::Params;
use super::problem::Problem;
use crate::store::{MAX_WAITING_CHUNKS, StoreError, export};

/// Exports at the same time at the most: each holds on to records that change meanwhile.
pub(super) const MAX_EXPORTS: usize = 1;

/// `GET /admin/export`
#[utoipa::path(
    get, path = "/admin/export", operation_id = "export", tag = "monitoring",
    responses((status = 200, description = "A backup: one record in JSON per line; it holds the rules' passwords", body = String, content_type = "application/jsonl"))
)]
pub(super) async fn export_all(State(app): State<App>, params: Params) -> Result<Response, Problem> {
    params.finish()?;
    let seat = Arc::clone(&app.exports)
        .try_acquire_owned()
        .map_err(|_| Problem::unavailable("another export is under way; try again when it is done"))?;
    // Everything that is frozen is durable: the loop looks only between its writes.
    let frozen = app.core.read(|core, _| core.freeze()).await?;
    let core = app.core.clone();
    let is_there = Box::new(move |rule| {
        let core = core.clone();
        let there = async move {
            let answer = core.read(move |core, _| core.has_rule(rule)).await;
            answer.map_err(|stopped| StoreError::Export { why: stopped.to_string() })
        };
        Box::pin(there) as crate::store::Pending<'static, bool>
    });
    let (chunks, coming) = mpsc::channel(MAX_WAITING_CHUNKS);
    let (failed, fails) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let _seat = seat;
        let ended = tokio::select! {
            ended = export(frozen, &*app.store, is_there, chunks) => ended,
            () = app.stopping.cancelled() => Err(StoreError::Export { why: "the controller is stopping".to_owned() }),
        };
        if let Err(error) = ended {
            tracing::warn!(line.kind = "export-broken", %error, "an export did not come to its end");
            // A caller that went away does not hear of it.
            let _ = failed.send(error);
        }
    });
    // Without a failure the sender is dropped, and the stream ends as it should. With one it breaks off.
    let end = futures_util::stream::once(fails).filter_map(|failed| std::future::ready(failed.ok().map(Err)));
    let body = Body::from_stream(ReceiverStream::new(coming).map(Ok::<_, StoreError>).chain(end));
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jsonl"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

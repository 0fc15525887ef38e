//! `Idempotency-Key`: a request that is sent again gets the answer that it got before.
//!
//! The core decides and keeps (`tidegate_cloud_core::Once`). Here the key is read, everything that the request says is put
//! into one digest, and a kept answer is told before anything else is looked at: what a handler would look at, such as the
//! version to restore, may be gone by then.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tidegate_cloud_core::{Once, OnceKey, Reply};
use tidegate_model::digest::Digest;

use super::caller::actor;
use super::problem::{FieldError, Problem};
use super::{App, answer, body};

/// Header with the key.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Does a POST that bears a key once. Other methods are the same however often they are sent, and need none.
pub(super) async fn once(State(app): State<App>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST || !request.headers().contains_key(IDEMPOTENCY_KEY) {
        return next.run(request).await;
    }
    match prepare(&app, request).await {
        Ok(Prepared::First(request)) => next.run(request).await,
        Ok(Prepared::Again(response)) => response,
        Err(problem) => problem.into_response(),
    }
}

enum Prepared {
    /// It is to be done.
    First(Request),
    /// It was done.
    Again(Response),
}

async fn prepare(app: &App, request: Request) -> Result<Prepared, Problem> {
    let (mut parts, body) = request.into_parts();
    let key = key(&parts)?;
    let bytes = body::bytes(body).await?;
    let once = Once { key, request: digest(&parts, &bytes), render: answer::of_reply };
    let (by, asked) = (actor(&parts.headers), once.clone());
    let kept = app.core.read(move |core, _| core.kept_answer(&by, &asked)).await?;
    if let Some(kept) = kept? {
        return Ok(Prepared::Again(answer::respond(&Reply::Replayed(kept))?));
    }
    parts.extensions.insert(once);
    Ok(Prepared::First(Request::from_parts(parts, Body::from(bytes))))
}

fn key(parts: &Parts) -> Result<OnceKey, Problem> {
    let mut given = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
    let one = given.next().and_then(|value| value.to_str().ok()).filter(|_| given.next().is_none());
    let key = one.ok_or_else(|| "it is given more than once, or is not ASCII".to_owned());
    key.and_then(|key| OnceKey::new(key).map_err(|error| error.to_string())).map_err(|why| {
        Problem::invalid(vec![FieldError::field(
            "",
            "bad-idempotency-key",
            format!("Idempotency-Key: {why}"),
        )])
    })
}

/// Digest of everything that the request says.
fn digest(parts: &Parts, body: &[u8]) -> Digest {
    let header = |name: &HeaderName| parts.headers.get(name).map_or(&[][..], |value| value.as_bytes());
    let said: [&[u8]; 5] = [
        parts.method.as_str().as_bytes(),
        parts.uri.path_and_query().map_or("", |p| p.as_str()).as_bytes(),
        header(&header::CONTENT_TYPE),
        header(&header::IF_MATCH),
        body,
    ];
    let mut all = Vec::with_capacity(body.len() + 256);
    for part in said {
        // With its length before it, so that no two requests run together to the same bytes.
        all.extend_from_slice(&part.len().to_be_bytes());
        all.extend_from_slice(part);
    }
    Digest::of(&all)
}

//! What surrounds every route: a request id, a time bound, panics caught, problems written, and who may come in.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;

use super::App;
use super::problem::Problem;

/// Header with the request's id: taken from the caller if it is a sane one, else made.
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id that is taken from a caller, in bytes.
const MAX_REQUEST_ID_BYTES: usize = 64;
/// How long an answer may take. A stream of events has answered once its head is sent.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Paths that need no token: they tell nothing but whether the process works.
const OPEN_PATHS: [&str; 2] = ["/healthz", "/readyz"];

/// The outermost layer.
pub(super) async fn surround(request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    // The log names routes, not paths: what callers put into a path is theirs.
    let route = request.extensions().get::<MatchedPath>().map_or("-".to_owned(), |m| m.as_str().to_owned());
    let began = Instant::now();
    let answered =
        tokio::time::timeout(REQUEST_TIMEOUT, AssertUnwindSafe(next.run(request)).catch_unwind()).await;
    let mut response = match answered {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => {
            tracing::error!(request.id = id, %method, route, "a request ended in a panic");
            Problem::internal().into_response()
        }
        Err(_) => Problem::unavailable("the controller did not answer in time; try again").into_response(),
    };
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        response = problem.render(&path, &id, response);
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::debug!(request.id = id, %method, route, status = response.status().as_u16(), duration_ms, "answered");
    response
}

fn request_id(headers: &HeaderMap) -> String {
    let sane = |id: &&str| {
        !id.is_empty()
            && id.len() <= MAX_REQUEST_ID_BYTES
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let given = headers.get(X_REQUEST_ID).and_then(|value| value.to_str().ok()).filter(sane);
    given.map_or_else(|| uuid::Uuid::now_v7().to_string(), str::to_owned)
}

/// Lets in who holds the administrator's token.
pub(super) async fn authenticate(State(app): State<App>, request: Request, next: Next) -> Response {
    if OPEN_PATHS.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    match check(&app, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn check(app: &App, headers: &HeaderMap) -> Result<(), Problem> {
    const HOW: &str = "send the administrator's token (file admin.token in the controller's data directory) as \
                       'Authorization: Bearer tga_…'";
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Err(Problem::unauthenticated(HOW));
    };
    let token = value.as_bytes().split_at_checked("Bearer ".len());
    let Some((_, token)) = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer ")) else {
        return Err(Problem::unauthenticated(format!("the Authorization header is no bearer token; {HOW}")));
    };
    if app.admin.accepts(token) {
        return Ok(());
    }
    if token.starts_with(b"tge_") {
        return Err(Problem::forbidden(format!(
            "this is the credential of an edge, which opens MQTT only; {HOW}"
        )));
    }
    Err(Problem::unauthenticated(format!("the token is not valid; {HOW}")))
}

/// The answer to a path that is no route.
pub(super) async fn no_such_path(uri: Uri) -> Problem {
    Problem::not_found("unknown-path", "UNKNOWN_PATH", format!("there is nothing at {}", uri.path()))
}

/// The answer to a method that a route does not have.
pub(super) async fn no_such_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{method} is not possible at {}; the Allow header tells what is", uri.path());
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        "METHOD_NOT_ALLOWED",
        "No such method",
        detail,
    )
}

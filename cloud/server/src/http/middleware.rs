//! What surrounds every route: a request id, a time bound, panics caught, problems written, and who may come in.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;

use super::App;
use super::body::check_length;
use super::kind::Kind;
use super::problem::Problem;

/// Header with the request's id: taken from the caller if it is a sane one, else made.
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id that is taken from a caller, in bytes.
const MAX_REQUEST_ID_BYTES: usize = 64;
/// How long an answer may take. A stream of events has answered once its head is sent.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest path, in bytes.
const MAX_PATH_BYTES: usize = 1_024;
/// Longest query, in bytes: topics of a stream of events are the longest.
const MAX_QUERY_BYTES: usize = 16 * 1_024;
/// Headers of a request at the most.
pub(super) const MAX_HEADERS: usize = 64;
/// All headers of a request together, in bytes.
pub(super) const MAX_HEADER_BYTES: usize = 16 * 1_024;
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

/// Refuses what is too long or too large before anything of it is looked at or read.
pub(super) async fn bounds(request: Request, next: Next) -> Response {
    let (uri, headers) = (request.uri(), request.headers());
    let query = uri.query().map_or(0, str::len);
    let header_bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let too_long = |what: &str, limit: usize, unit: &str| format!("{what} at most {limit} {unit}");
    let problem = if uri.path().len() > MAX_PATH_BYTES {
        Problem::new(Kind::UriTooLong, too_long("a path has", MAX_PATH_BYTES, "bytes"))
    } else if query > MAX_QUERY_BYTES {
        Problem::new(Kind::UriTooLong, too_long("a query has", MAX_QUERY_BYTES, "bytes"))
    } else if headers.len() > MAX_HEADERS {
        Problem::new(Kind::HeadersTooLarge, too_long("a request has", MAX_HEADERS, "headers"))
    } else if header_bytes > MAX_HEADER_BYTES {
        Problem::new(Kind::HeadersTooLarge, too_long("all headers together have", MAX_HEADER_BYTES, "bytes"))
    } else if let Err(problem) = check_length(headers) {
        problem
    } else {
        return next.run(request).await;
    };
    problem.into_response()
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
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Err(Problem::new(Kind::Unauthenticated, "no token was sent"));
    };
    let token = value.as_bytes().split_at_checked("Bearer ".len());
    let Some((_, token)) = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer ")) else {
        return Err(Problem::new(Kind::Unauthenticated, "the Authorization header is no bearer token"));
    };
    if app.admin.accepts(token) {
        return Ok(());
    }
    if token.starts_with(b"tge_") {
        return Err(Problem::new(Kind::Forbidden, "this is the credential of an edge"));
    }
    Err(Problem::new(Kind::Unauthenticated, "the token is not valid"))
}

/// The answer to a path that is no route.
pub(super) async fn no_such_path(uri: Uri) -> Problem {
    Problem::new(Kind::UnknownPath, format!("there is nothing at {}", uri.path()))
}

/// The answer to a method that a route does not have.
pub(super) async fn no_such_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{method} is not possible at {}; the Allow header tells what is", uri.path());
    Problem::new(Kind::MethodNotAllowed, detail)
}

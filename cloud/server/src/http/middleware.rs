//! What surrounds every route: a request id, a time bound, panics caught, problems written, and who may come in.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use tracing::Instrument as _;

use super::body::check_length;
use super::kind::Kind;
use super::problem::Problem;
use super::rate::{Rate, Rates};
use super::server::Peer;
use super::{Access, App};

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
/// Seconds for which an address that paused may ask as often at once as it may in the long run.
const BURST_S: u32 = 5;
/// Requests without a valid token of one address.
const FAILURES: Rate = Rate { per_second: 1, burst: 30 };
/// The path that needs no token where an operator said so.
const METRICS_PATH: &str = "/metrics";
/// Paths that need no token: they tell nothing but whether the process works.
const OPEN_PATHS: [&str; 3] = ["/healthz", "/readyz", "/api/v1/openapi.json"];

/// The outermost layer.
pub(super) async fn surround(State(app): State<App>, request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    // The log names routes, not paths: what callers put into a path is theirs.
    let route = request.extensions().get::<MatchedPath>().map_or("-".to_owned(), |m| m.as_str().to_owned());
    let began = Instant::now();
    // Every line that the log has of this request bears its id.
    let span = tracing::info_span!("request", request.id = id);
    let running = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span);
    let answered = tokio::time::timeout(REQUEST_TIMEOUT, running).await;
    let mut response = match answered {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => {
            tracing::error!(line.kind = "request-panicked", request.id = id, %method, route, "a request ended in a panic");
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
    let took = began.elapsed();
    app.metrics.answered(&route, method.as_str(), response.status().as_u16(), took);
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
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

/// How often one address may ask, and fail to say who it is.
pub(super) struct Limits {
    requests: Option<Rates>,
    failures: Rates,
    metrics_public: bool,
}

impl Limits {
    pub(super) fn new(access: Access) -> Self {
        let rate = |per_second: u32| Rate { per_second, burst: per_second.saturating_mul(BURST_S) };
        Self {
            requests: (access.rate > 0).then(|| Rates::new(rate(access.rate))),
            failures: Rates::new(FAILURES),
            metrics_public: access.metrics_public,
        }
    }
}

fn too_often(detail: &str, wait: Duration) -> Problem {
    Problem::rate_limited(detail, wait.as_secs().saturating_add(1))
}

fn peer(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<Peer>().map(|peer| peer.0)
}

/// Refuses who asks too often.
pub(super) async fn rate(State(app): State<App>, request: Request, next: Next) -> Response {
    if let (Some(rates), Some(peer)) = (&app.limits.requests, peer(&request))
        && let Err(wait) = rates.take(peer, Instant::now())
    {
        app.metrics.rate_limited();
        return too_often("this address asks more often than http_rate allows", wait).into_response();
    }
    next.run(request).await
}

/// Lets in who holds the administrator's token.
pub(super) async fn authenticate(State(app): State<App>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if OPEN_PATHS.contains(&path) || (path == METRICS_PATH && app.limits.metrics_public) {
        return next.run(request).await;
    }
    match check(&app, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => {
            app.metrics.auth_failed();
            // Who has a valid token is never refused because of somebody else at the same address.
            match peer(&request).map(|peer| app.limits.failures.take(peer, Instant::now())) {
                Some(Err(wait)) => {
                    too_often("this address sent too many requests without a valid token", wait)
                        .into_response()
                }
                Some(Ok(())) | None => problem.into_response(),
            }
        }
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
pub(super) async fn no_such_method(method: Method, uri: Uri) -> Response {
    if method == Method::OPTIONS {
        // The router adds Allow. There is nothing about other origins to say: browsers of other sites have no business here.
        return StatusCode::NO_CONTENT.into_response();
    }
    let detail = format!("{method} is not possible at {}; the Allow header tells what is", uri.path());
    Problem::new(Kind::MethodNotAllowed, detail).into_response()
}

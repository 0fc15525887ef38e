//! Talks HTTP to the controller: one call, one answer, and an error that says what failed, why and what to do.
//! Knows the conventions of the API (bearer token, problem+json, paging), not its objects.

mod download;
mod error;
mod events;
mod probe;

use std::io::Write as _;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

pub use error::{ClientError, Problem};
pub use events::{Event, Watch};
pub use probe::Probe;

/// How long one answer may take, in seconds. The server answers from memory; its disk may be slow.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is read, in bytes: 500 rules of a page are far below it.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// Items that are asked for per page: the most that the API gives.
const PAGE: usize = 500;
/// Pages that are read of one list at the most: the controller holds fewer items.
const MAX_PAGES: usize = 1_000;

/// One controller, and who we are to it. `Debug` does not show the token.
#[derive(Clone)]
pub struct Client {
    base: String,
    pub(crate) token: Option<String>,
    http: reqwest::Client,
    tuning: Tuning,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("base", &self.base).finish_non_exhaustive()
    }
}

/// How long to wait before a call is sent again whose connection broke: a controller that is started again is back by then.
const REPEAT_PAUSE: Duration = Duration::from_secs(1);

/// How calls are done, where the command line says so.
#[derive(Debug, Clone, Default)]
pub struct Tuning {
    /// How long an answer may take; at the most as long as without.
    pub timeout: Option<Duration>,
    /// Id of the calls in the server's log.
    pub request_id: Option<String>,
    /// 1: each call is told on standard error; 2: with sizes.
    pub verbose: u8,
}

/// One call.
#[derive(Debug, Clone)]
pub struct Call {
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Option<Vec<u8>>,
}

impl Call {
    /// A call of `path`, which begins with `/` and stands below `/api/v1`.
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: Vec::new(), body: None }
    }

    /// A POST of a JSON object.
    pub fn post(path: impl Into<String>, body: &Value) -> Self {
        Self::new(Method::POST, path).json(body)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sends this JSON.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.text("application/json", body.to_string())
    }

    /// Sends these bytes as they are.
    #[must_use]
    pub fn text(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self.header("content-type", content_type)
    }
}

/// What came back, when it is a success.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status: 200 to 299.
    pub status: u16,
    /// The ETag as it came, with its quotes.
    pub etag: Option<String>,
    /// The JSON; `Null` where there was none.
    pub body: Value,
}

impl Client {
    /// A client for a server at `url`: `http://host[:port]`.
    ///
    /// # Errors
    /// [`ClientError::Tls`] for `https://`, [`ClientError::BadUrl`] for anything else that is no such URL.
    pub fn new(url: &str, token: Option<String>) -> Result<Self, ClientError> {
        let bad = |why: &str| ClientError::BadUrl { url: url.to_owned(), why: why.to_owned() };
        let parsed = reqwest::Url::parse(url).map_err(|error| bad(&error.to_string()))?;
        match parsed.scheme() {
            "http" => {}
            "https" => return Err(ClientError::Tls { url: url.to_owned() }),
            _ => return Err(bad("it does not begin with http://")),
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(bad("it holds a user name or a password; use --token or TIDEGATE_TOKEN"));
        }
        let host = parsed.host_str().ok_or_else(|| bad("it names no host"))?;
        let loopback = host == "localhost" || host.starts_with("127.") || host == "[::1]";
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")));
        if loopback {
            // A proxy cannot reach our loopback.
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| bad(&error::chain(&error)))?;
        Ok(Self { base: url.trim_end_matches('/').to_owned(), token, http, tuning: Tuning::default() })
    }

    /// The same, tuned.
    #[must_use]
    pub fn tuned(self, tuning: Tuning) -> Self {
        Self { tuning, ..self }
    }

    fn answer_timeout(&self) -> Duration {
        self.tuning.timeout.map_or(ANSWER_TIMEOUT, |timeout| timeout.min(ANSWER_TIMEOUT))
    }

    /// The server's URL.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Reads an object.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn get(&self, path: impl Into<String>) -> Result<Answer, ClientError> {
        self.send(Call::new(Method::GET, path)).await
    }

    /// Reads an object that may be missing.
    ///
    /// # Errors
    /// As [`Client::send`], but for a 404.
    pub async fn find(&self, path: impl Into<String>) -> Result<Option<Answer>, ClientError> {
        match self.get(path).await {
            Ok(answer) => Ok(Some(answer)),
            Err(ClientError::Refused(problem)) if problem.status == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a whole list, page by page: `{"items": […], "total": n}`.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn list(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, ClientError> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let limit = PAGE.to_string();
            let mut all = query.to_vec();
            all.push(("limit", &limit));
            if let Some(cursor) = &cursor {
                all.push(("cursor", cursor));
            }
            let mut page = self.get(with_query(path, &all)).await?.body;
            match page.get_mut("items").map(Value::take) {
                Some(Value::Array(more)) => items.extend(more),
                _ => return Err(ClientError::Unreadable { why: format!("{path} gave no list of items") }),
            }
            cursor = page.get("next_cursor").and_then(Value::as_str).map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
        let total = items.len();
        Ok(json!({ "items": items, "total": total }))
    }

    /// Does a call. If the connection breaks before the answer is there, it is sent once more: a GET changes nothing, and a
    /// POST bears a key under which the controller does it once. Other methods are told as failed: whether they were
    /// done is not known, and a second time could end otherwise than the first.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] without an answer, [`ClientError::Refused`] with a problem of the API,
    /// [`ClientError::NotOurs`] with an answer that no Tidegate gives.
    pub async fn send(&self, call: Call) -> Result<Answer, ClientError> {
        let call = match call.method {
            Method::POST => call.header("idempotency-key", uuid::Uuid::now_v7().to_string()),
            _ => call,
        };
        match self.send_once(call.clone()).await {
            Err(Sent::Broken(_)) if matches!(call.method, Method::GET | Method::POST) => {
                tokio::time::sleep(REPEAT_PAUSE).await;
                self.send_once(call).await.map_err(Sent::into_error)
            }
            sent => sent.map_err(Sent::into_error),
        }
    }

    async fn send_once(&self, call: Call) -> Result<Answer, Sent> {
        let told = (call.method.clone(), call.path.clone(), call.body.as_ref().map_or(0, Vec::len));
        let began = std::time::Instant::now();
        let sent = self.request(call)?.timeout(self.answer_timeout()).send().await;
        self.tell(&told, began.elapsed(), &sent);
        let response = sent.map_err(|error| self.broken(&error))?;
        let status = response.status().as_u16();
        if !response.status().is_success() {
            return Err(self.refused(response).await);
        }
        let etag = header(&response, "etag");
        let bytes = self.read_bounded(response).await?;
        if bytes.is_empty() {
            return Ok(Answer { status, etag, body: Value::Null });
        }
        let body = serde_json::from_slice(&bytes)
            .map_err(|_| ClientError::NotOurs { url: self.base.clone(), status })?;
        Ok(Answer { status, etag, body })
    }

    /// What an answer that is no success means.
    async fn refused(&self, response: reqwest::Response) -> Sent {
        let status = response.status().as_u16();
        let is_problem =
            header(&response, "content-type").is_some_and(|t| t.starts_with("application/problem+json"));
        let request_id = header(&response, "x-request-id");
        let bytes = match self.read_bounded(response).await {
            Ok(bytes) => bytes,
            Err(error) => return error,
        };
        Sent::Failed(match serde_json::from_slice::<Problem>(&bytes) {
            Ok(mut problem) if is_problem => {
                problem.status = status;
                problem.request_id = problem.request_id.or(request_id);
                ClientError::Refused(Box::new(problem))
            }
            Ok(_) | Err(_) => ClientError::NotOurs { url: self.base.clone(), status },
        })
    }

    /// Opens the stream of events for these topics (`rule/camera-up`, `rule/*`); none: everything.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn watch(&self, topics: &[String]) -> Result<Watch, ClientError> {
        self.watch_after(topics, None).await
    }

    /// The same after the event with this id, as far as the server still has what was missed.
    ///
    /// # Errors
    /// As [`Client::watch`].
    pub async fn watch_after(&self, topics: &[String], last: Option<&str>) -> Result<Watch, ClientError> {
        let topics = topics.join(",");
        let query: &[(&str, &str)] = if topics.is_empty() { &[] } else { &[("topics", &topics)] };
        let mut call =
            Call::new(Method::GET, with_query("/events", query)).header("accept", "text/event-stream");
        if let Some(id) = last {
            call = call.header("last-event-id", id);
        }
        let response = self.request(call)?.send().await.map_err(|e| self.unreachable(&e))?;
        if response.status().is_success() {
            Ok(Watch::new(self.base.clone(), response, last.map(str::to_owned)))
        } else {
            Err(self.refused(response).await.into_error())
        }
    }

    fn request(&self, call: Call) -> Result<reqwest::RequestBuilder, ClientError> {
        let mut request = self.http.request(call.method, format!("{}/api/v1{}", self.base, call.path));
        for (name, value) in call.headers {
            request = request.header(name, value);
        }
        if let Some(token) = self.bearer()? {
            request = request.header("authorization", token);
        }
        if let Some(id) = &self.tuning.request_id {
            request = request.header("x-request-id", id);
        }
        Ok(match call.body {
            Some(body) => request.body(body),
            None => request,
        })
    }

    /// The token as a header has it.
    fn bearer(&self) -> Result<Option<reqwest::header::HeaderValue>, ClientError> {
        let Some(token) = &self.token else { return Ok(None) };
        let mut value = reqwest::header::HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| ClientError::BadToken)?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Tells a call, with `-v`. Neither token nor body is told.
    fn tell(
        &self,
        (method, path, sent_bytes): &(Method, String, usize),
        took: Duration,
        sent: &Result<reqwest::Response, reqwest::Error>,
    ) {
        if self.tuning.verbose == 0 {
            return;
        }
        let end = match sent {
            Ok(response) => {
                let id = header(response, "x-request-id").unwrap_or_default();
                let sizes = match (self.tuning.verbose, response.content_length()) {
                    (2.., Some(bytes)) => format!(", sent {sent_bytes} B, got {bytes} B"),
                    (2.., None) => format!(", sent {sent_bytes} B"),
                    (_, _) => String::new(),
                };
                format!("{} ({} ms{sizes}, request {id})", response.status().as_u16(), took.as_millis())
            }
            Err(error) => format!("no answer ({} ms): {}", took.as_millis(), error::root(error)),
        };
        // Without a standard error there is nobody to tell.
        let _ = writeln!(std::io::stderr().lock(), "{method} {}/api/v1{path} -> {end}", self.base);
    }

    async fn read_bounded(&self, mut response: reqwest::Response) -> Result<Vec<u8>, Sent> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.broken(&error))? {
            if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
                let why = format!("the answer is longer than {} MiB", MAX_ANSWER_BYTES >> 20);
                return Err(ClientError::Unreadable { why }.into());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    fn broken(&self, error: &reqwest::Error) -> Sent {
        let told = self.unreachable(error);
        // Nobody was there, or nobody answered in time: another try at once would end alike.
        if error.is_connect() || error.is_timeout() { Sent::Failed(told) } else { Sent::Broken(told) }
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        let cause = if error.is_timeout() { "no answer in time".to_owned() } else { error::root(error) };
        ClientError::Unreachable { url: self.base.clone(), cause }
    }
}

/// Why one try of a call gave no success.
enum Sent {
    /// The connection broke before the answer was there.
    Broken(ClientError),
    /// Anything else.
    Failed(ClientError),
}

impl Sent {
    fn into_error(self) -> ClientError {
        match self {
            Self::Broken(error) | Self::Failed(error) => error,
        }
    }
}

impl From<ClientError> for Sent {
    fn from(error: ClientError) -> Self {
        Self::Failed(error)
    }
}

fn header(response: &reqwest::Response, name: &str) -> Option<String> {
    response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// A path segment as a URL has it: everything but letters, digits, `-`, `.`, `_` and `~` is escaped.
pub fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The path with these queries.
pub fn with_query(path: &str, query: &[(&str, &str)]) -> String {
    let mut out = path.to_owned();
    for (index, (name, value)) in query.iter().enumerate() {
        out.push(if index == 0 { '?' } else { '&' });
        out.push_str(name);
        out.push('=');
        out.push_str(&segment(value));
    }
    out
}

#[cfg(test)]
mod tests;

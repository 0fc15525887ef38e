//! Every error of the API: RFC 9457 problem+json, built here and nowhere else.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tidegate_cloud_core::Rejection;
use tidegate_model::code::Code;
use tidegate_model::placement::Allowed;
use tidegate_model::rule::Problems;

use crate::run::Stopped;
use crate::store::StoreError;

/// An error of the API. As a response it is bare; [`Problem::render`] writes it once the request is known.
#[derive(Debug, Clone)]
pub(super) struct Problem(Box<Inner>);

#[derive(Debug, Clone, Serialize)]
struct Inner {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    code: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_etag: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    actions: Vec<Allowed>,
    #[serde(skip)]
    allow_retry: bool,
}

/// One thing that is wrong with what was sent.
#[derive(Debug, Clone, Serialize)]
pub(super) struct FieldError {
    /// JSON pointer into the body; empty for the whole body, or for a parameter of the query.
    pub(super) pointer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parameter: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) column: Option<u32>,
    pub(super) code: String,
    pub(super) detail: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) help: String,
}

impl FieldError {
    /// A field of the body.
    pub(super) fn field(pointer: &str, code: &str, detail: impl Into<String>) -> Self {
        Self {
            pointer: pointer.to_owned(),
            parameter: None,
            line: None,
            column: None,
            code: code.to_owned(),
            detail: detail.into(),
            help: String::new(),
        }
    }

    /// A parameter of the query.
    pub(super) fn parameter(name: &str, code: &str, detail: impl Into<String>) -> Self {
        Self { parameter: Some(name.to_owned()), ..Self::field("", code, detail) }
    }
}

/// What is wrong with a rule, field by field.
pub(super) fn field_errors(problems: &Problems) -> Vec<FieldError> {
    let listed = problems.iter().map(|problem| FieldError {
        pointer: problem.place.pointer.clone(),
        parameter: None,
        line: problem.place.line,
        column: problem.place.column,
        code: problem.code.to_owned(),
        detail: problem.what.clone(),
        help: problem.help.clone(),
    });
    listed.collect()
}

impl Problem {
    /// A problem whose type is `/problems/{kind}`.
    pub(super) fn new(
        status: StatusCode,
        kind: &str,
        code: &str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self(Box::new(Inner {
            kind: format!("/problems/{kind}"),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            instance: None,
            code: code.to_owned(),
            request_id: None,
            errors: Vec::new(),
            current_etag: None,
            actions: Vec::new(),
            allow_retry: false,
        }))
    }

    pub(super) fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.0.errors = errors;
        self
    }

    /// The same without lines and columns: the text in which they count is not the caller's.
    pub(super) fn without_places(mut self) -> Self {
        for error in &mut self.0.errors {
            (error.line, error.column) = (None, None);
        }
        self
    }

    /// The same as 412, where the caller made it a precondition that nothing is there.
    pub(super) fn failed_precondition(mut self, create_only: bool) -> Self {
        if create_only && self.0.status == StatusCode::CONFLICT.as_u16() {
            self.0.status = StatusCode::PRECONDITION_FAILED.as_u16();
        }
        self
    }

    /// 422: a field or a parameter is wrong.
    pub(super) fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = errors.first().map_or_else(String::new, |first| {
            let more = errors.len() - 1;
            if more == 0 { first.detail.clone() } else { format!("{} (and {more} more)", first.detail) }
        });
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Self::new(status, "invalid-request", "BAD_REQUEST", "The request is not valid", detail)
            .with_errors(errors)
    }

    /// 422: the rule is wrong.
    pub(super) fn invalid_rule(problems: &Problems) -> Self {
        let count = problems.len();
        let detail = format!("the rule has {count} problem{}", if count == 1 { "" } else { "s" });
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Self::new(status, "invalid-rule", Code::InvalidConfig.as_str(), "The rule is not valid", detail)
            .with_errors(field_errors(problems))
    }

    /// 404, or what a request for something that is not there gets.
    pub(super) fn not_found(kind: &str, code: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, kind, code, "Not found", detail)
    }

    /// 401.
    pub(super) fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", "UNAUTHENTICATED", "A token is needed", detail)
    }

    /// 403.
    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "FORBIDDEN", "Not allowed", detail)
    }

    /// 503: it may work a little later.
    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let mut problem = Self::new(status, "unavailable", "UNAVAILABLE", "Not available now", detail);
        problem.0.allow_retry = true;
        problem
    }

    /// 500: a defect; the log knows more under the request's id.
    pub(super) fn internal() -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        let detail = "this is a defect of tidegate; its log tells more under this request id";
        Self::new(status, "internal", Code::Internal.as_str(), "Internal error", detail)
    }

    /// The whole response, for this request.
    pub(super) fn render(mut self, path: &str, request_id: &str, mut response: Response) -> Response {
        self.0.instance = Some(path.to_owned());
        self.0.request_id = Some(request_id.to_owned());
        let body = serde_json::to_vec(&self.0).expect("texts and numbers under text keys are always JSON");
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        *response.body_mut() = Body::from(body);
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"tidegate\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        if self.0.allow_retry {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Stopped> for Problem {
    fn from(stopped: Stopped) -> Self {
        Self::unavailable(format!("{stopped}; try again in a moment"))
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store could not answer");
        Self::unavailable("the store could not answer; the controller's log tells why")
    }
}

/// The problem of a refusal.
pub(super) fn of_rejection(rejection: &Rejection) -> Problem {
    use StatusCode as S;
    let code = rejection.code();
    let (status, kind, title) = match rejection {
        Rejection::NoSuchRule(_) => (S::NOT_FOUND, "unknown-rule", "No such rule"),
        Rejection::NoSuchEdge(_) => (S::NOT_FOUND, "unknown-edge", "No such edge"),
        Rejection::NoSuchPlacement { .. } => {
            (S::NOT_FOUND, "unknown-placement", "The rule is not on this edge")
        }
        Rejection::RuleExists(_) => (S::CONFLICT, "rule-exists", "The rule exists already"),
        Rejection::EdgeExists(_) => (S::CONFLICT, "edge-exists", "The edge exists already"),
        Rejection::VersionConflict { .. } => {
            (S::PRECONDITION_FAILED, "version-conflict", "The rule was changed in between")
        }
        Rejection::Invalid(_) => (S::UNPROCESSABLE_ENTITY, "invalid-rule", "The rule is not valid"),
        Rejection::InvalidOnEdge { .. } => {
            (S::UNPROCESSABLE_ENTITY, "invalid-on-edge", "The rule does not fit this edge")
        }
        Rejection::ClientIdClash { .. } => {
            (S::UNPROCESSABLE_ENTITY, "client-id-clash", "Another rule uses this client id")
        }
        Rejection::NotAllowed { refused, .. } => {
            let status = S::from_u16(refused.code.number()).unwrap_or(S::CONFLICT);
            if refused.code == Code::EdgeOffline {
                (status, "edge-offline", "The edge is offline")
            } else if refused.code == Code::CloudBehind {
                (status, "cloud-behind", "The edge is ahead of the cloud")
            } else if refused.code == Code::DuplicateEdge {
                (status, "duplicate-edge", "Two gateways use this identity")
            } else if refused.code == Code::Busy {
                (S::CONFLICT, "busy", "Something else is under way")
            } else {
                (status, "not-allowed", "Not possible in this state")
            }
        }
        Rejection::Unsupported { .. } => {
            (S::UNPROCESSABLE_ENTITY, "unsupported-field", "The agent is too old for this rule")
        }
        Rejection::Forbidden => (S::FORBIDDEN, "forbidden", "Not allowed"),
        Rejection::Limit { .. } => (S::UNPROCESSABLE_ENTITY, "limit", "A bound would be passed"),
        Rejection::EdgeInUse { .. } => (S::CONFLICT, "edge-in-use", "Rules are on this edge"),
        Rejection::NothingToConfirm(_) => (S::CONFLICT, "nothing-to-confirm", "There is nothing to confirm"),
    };
    let mut problem = Problem::new(status, kind, code.as_str(), title, rejection.to_string());
    match rejection {
        Rejection::Invalid(problems) | Rejection::InvalidOnEdge { problems, .. } => {
            problem.0.errors = field_errors(problems);
        }
        Rejection::VersionConflict { current_etag, .. } => {
            problem.0.current_etag = Some(current_etag.clone())
        }
        Rejection::NotAllowed { actions, .. } => problem.0.actions = actions.clone(),
        Rejection::NoSuchRule(_)
        | Rejection::NoSuchEdge(_)
        | Rejection::NoSuchPlacement { .. }
        | Rejection::RuleExists(_)
        | Rejection::EdgeExists(_)
        | Rejection::ClientIdClash { .. }
        | Rejection::Unsupported { .. }
        | Rejection::Forbidden
        | Rejection::Limit { .. }
        | Rejection::EdgeInUse { .. }
        | Rejection::NothingToConfirm(_) => {}
    }
    problem
}

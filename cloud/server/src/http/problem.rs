//! Every error of the API: RFC 9457 problem+json, built here and nowhere else.

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tidegate_cloud_core::Rejection;
use tidegate_model::code::Code;
use tidegate_model::ids::EdgeId;
use tidegate_model::placement::Allowed;
use tidegate_model::rule::Problems;

use utoipa::ToSchema;

use super::kind::Kind;
use crate::run::Stopped;
use crate::store::StoreError;

/// An error of the API. As a response it is bare; [`Problem::render`] writes it once the request is known.
#[derive(Debug, Clone)]
pub(super) struct Problem(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    kind: Kind,
    detail: String,
    /// In place of the kind's.
    next: Option<String>,
    errors: Vec<FieldError>,
    current_etag: Option<String>,
    actions: Vec<Allowed>,
    retry_after_s: Option<u64>,
}

/// An error of the API (RFC 9457, `application/problem+json`).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody {
    /// The kind, as a path; docs/operations.md lists them all.
    #[serde(rename = "type")]
    kind: String,
    /// The kind, for people.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What happened and why.
    detail: String,
    /// What to do.
    next: String,
    /// The path that was asked for.
    instance: String,
    /// The kind, for programs.
    code: &'static str,
    /// The request, as the controller's log names it.
    request_id: String,
    /// Everything that is wrong with what was sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
    /// The rule's ETag now, where it was changed in between; without quotes.
    #[serde(skip_serializing_if = "Option::is_none")]
    current_etag: Option<String>,
    /// What is possible now, where the state does not allow an action.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    actions: Vec<Allowed>,
}

/// One thing that is wrong with what was sent.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct FieldError {
    /// JSON pointer into the body; empty for the whole body, or for a parameter of the query.
    pub(super) pointer: String,
    /// The parameter of the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parameter: Option<String>,
    /// The edge on which a rule does not fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) edge: Option<EdgeId>,
    /// The line of the body, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<u32>,
    /// The column, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) column: Option<u32>,
    /// What is wrong, for programs.
    pub(super) code: String,
    /// What is wrong, for people.
    pub(super) detail: String,
    /// How to mend it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) help: String,
}

impl FieldError {
    /// A field of the body.
    pub(super) fn field(pointer: &str, code: &str, detail: impl Into<String>) -> Self {
        Self {
            pointer: pointer.to_owned(),
            parameter: None,
            edge: None,
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
        edge: None,
        line: problem.place.line,
        column: problem.place.column,
        code: problem.code.to_owned(),
        detail: problem.what.clone(),
        help: problem.help.clone(),
    });
    listed.collect()
}

impl Problem {
    /// A problem of this kind. The detail says what happened and why.
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            detail: detail.into(),
            next: None,
            errors: Vec::new(),
            current_etag: None,
            actions: Vec::new(),
            retry_after_s: (kind == Kind::Unavailable).then_some(1),
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
        if create_only && self.0.kind == Kind::RuleExists {
            self.0.kind = Kind::AlreadyThere;
        }
        self
    }

    /// 422: a field or a parameter is wrong.
    pub(super) fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = errors.first().map_or_else(String::new, |first| {
            let more = errors.len() - 1;
            if more == 0 { first.detail.clone() } else { format!("{} (and {more} more)", first.detail) }
        });
        Self::new(Kind::InvalidRequest, detail).with_errors(errors)
    }

    /// 422: the rule is wrong.
    pub(super) fn invalid_rule(problems: &Problems) -> Self {
        let count = problems.len();
        let detail = format!("the rule has {count} problem{}", if count == 1 { "" } else { "s" });
        Self::new(Kind::InvalidRule, detail).with_errors(field_errors(problems))
    }

    /// 429: it may work after so many seconds.
    pub(super) fn rate_limited(detail: &str, retry_after_s: u64) -> Self {
        let mut problem = Self::new(Kind::RateLimited, detail);
        problem.0.retry_after_s = Some(retry_after_s);
        problem
    }

    /// 503: it may work a little later.
    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, detail)
    }

    /// 500: a defect; the log knows more under the request's id.
    pub(super) fn internal() -> Self {
        Self::new(Kind::Internal, "this is a defect of tidegate; its log tells more under this request id")
    }

    /// Its kind.
    pub(super) fn kind(&self) -> Kind {
        self.0.kind
    }

    /// What to do.
    pub(super) fn next(&self) -> String {
        self.0.next.clone().unwrap_or_else(|| self.0.kind.next().to_owned())
    }

    /// The whole response, for this request.
    pub(super) fn render(self, path: &str, request_id: &str, mut response: Response) -> Response {
        let next = self.next();
        let Inner { kind, detail, next: _, errors, current_etag, actions, retry_after_s: _ } = *self.0;
        let shown = ProblemBody {
            kind: kind.path(),
            title: kind.title(),
            status: kind.status().as_u16(),
            detail,
            next,
            instance: path.to_owned(),
            code: kind.code(),
            request_id: request_id.to_owned(),
            errors,
            current_etag,
            actions,
        };
        let body = serde_json::to_vec(&shown).expect("texts and numbers under text keys are always JSON");
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
        let mut response = self.0.kind.status().into_response();
        let headers = response.headers_mut();
        if self.0.kind == Kind::Unauthenticated {
            let challenge = HeaderValue::from_static("Bearer realm=\"tidegate\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = self.0.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
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
        tracing::error!(line.kind = "store-no-answer", %error, "the store could not answer");
        Self::unavailable("the store could not answer; the controller's log tells why")
    }
}

/// The kind of problem that a rejection is.
pub(super) fn kind_of(rejection: &Rejection) -> Kind {
    match rejection {
        Rejection::NoSuchRule(_) => Kind::UnknownRule,
        Rejection::NoSuchEdge(_) => Kind::UnknownEdge,
        Rejection::NoSuchPlacement { .. } => Kind::UnknownPlacement,
        Rejection::RuleExists(_) => Kind::RuleExists,
        Rejection::EdgeExists(_) => Kind::EdgeExists,
        Rejection::VersionConflict { .. } => Kind::VersionConflict,
        Rejection::Invalid(_) => Kind::InvalidRule,
        Rejection::InvalidOnEdge { .. } => Kind::InvalidOnEdge,
        Rejection::ClientIdClash { .. } => Kind::ClientIdClash,
        Rejection::LoopBetween { .. } => Kind::LoopBetweenRules,
        Rejection::NotAllowed { refused, .. } => of_refused(refused.code),
        Rejection::Unsupported { .. } => Kind::UnsupportedField,
        Rejection::Forbidden => Kind::Forbidden,
        Rejection::Limit { .. } => Kind::Limit,
        Rejection::EdgeInUse { .. } => Kind::EdgeInUse,
        Rejection::KeyReused => Kind::KeyReused,
        Rejection::Superseded { .. } => Kind::Superseded,
        Rejection::NothingToConfirm(_) => Kind::NothingToConfirm,
        Rejection::EpochTooFar(_) => Kind::EpochTooFar,
        Rejection::GenerationTooFar(_) => Kind::GenerationTooFar,
        Rejection::NoSuchUnmanaged { .. } => Kind::UnknownUnmanaged,
        Rejection::OfTheSite { .. } => Kind::OfTheSite,
        Rejection::ForgottenTwin { .. } => Kind::ForgottenTwin,
    }
}

/// The problem of a refusal.
pub(super) fn of_rejection(rejection: &Rejection) -> Problem {
    let mut problem = Problem::new(kind_of(rejection), rejection.to_string());
    match rejection {
        Rejection::Invalid(problems) => problem.0.errors = field_errors(problems),
        Rejection::InvalidOnEdge { edge, problems, .. } => {
            problem.0.errors = field_errors(problems);
            problem.0.errors.iter_mut().for_each(|error| error.edge = Some(edge.clone()));
        }
        Rejection::VersionConflict { current_etag, .. } => {
            problem.0.current_etag = Some(current_etag.clone());
        }
        Rejection::NotAllowed { refused, actions, .. } => {
            problem.0.actions = actions.clone();
            if refused.code == Code::PolicyDenied {
                problem.0.next = Some("ask somebody who may do this".to_owned());
            }
        }
        Rejection::NoSuchRule(_)
        | Rejection::NoSuchUnmanaged { .. }
        | Rejection::OfTheSite { .. }
        | Rejection::ForgottenTwin { .. }
        | Rejection::NoSuchEdge(_)
        | Rejection::NoSuchPlacement { .. }
        | Rejection::RuleExists(_)
        | Rejection::EdgeExists(_)
        | Rejection::ClientIdClash { .. }
        | Rejection::LoopBetween { .. }
        | Rejection::Unsupported { .. }
        | Rejection::Forbidden
        | Rejection::Limit { .. }
        | Rejection::EdgeInUse { .. }
        | Rejection::KeyReused
        | Rejection::Superseded { .. }
        | Rejection::NothingToConfirm(_)
        | Rejection::EpochTooFar(_)
        | Rejection::GenerationTooFar(_) => {}
    }
    problem
}

/// The kind of a refusal because of a placement's state.
fn of_refused(code: Code) -> Kind {
    if code == Code::EdgeOffline {
        Kind::EdgeOffline
    } else if code == Code::CloudBehind {
        Kind::CloudBehind
    } else if code == Code::DuplicateEdge {
        Kind::DuplicateEdge
    } else if code == Code::Busy {
        Kind::Busy
    } else if code == Code::PolicyDenied {
        Kind::Forbidden
    } else {
        Kind::NotAllowed
    }
}

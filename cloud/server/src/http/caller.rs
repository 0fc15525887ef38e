//! Who a request comes from, and the names in its path.

use std::convert::Infallible;
use std::str::FromStr as _;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use serde::de::DeserializeOwned;
use tidegate_cloud_core::{Actor, Once};
use tidegate_model::ids::{EdgeId, RuleId, RuleName};

use super::kind::Kind;
use super::problem::Problem;

/// Beginning of the command line's `User-Agent`.
const CLI_AGENT: &str = "tidegate/";

/// Who a request comes from; authenticated before.
pub(super) struct Caller {
    pub(super) by: Actor,
    /// The request is to be done once.
    pub(super) once: Option<Once>,
}

/// Who sends these headers; authenticated before.
pub(super) fn actor(headers: &HeaderMap) -> Actor {
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    let via = if agent.is_some_and(|agent| agent.starts_with(CLI_AGENT)) { "cli" } else { "api" };
    Actor { name: "admin".to_owned(), via: via.to_owned() }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self { by: actor(&parts.headers), once: parts.extensions.remove::<Once>() })
    }
}

/// The names in a path.
pub(super) struct Path<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|path| Self(path.0)).map_err(|_| Problem::new(Kind::BadPath, "the path is not UTF-8"))
    }
}

/// The rule that a path names. What is no name cannot be there.
pub(super) fn rule_name(text: &str) -> Result<RuleName, Problem> {
    RuleName::from_str(text).map_err(|error| Problem::new(Kind::UnknownRule, error.to_string()))
}

/// The edge that a path names. What is no name cannot be there.
pub(super) fn edge_id(text: &str) -> Result<EdgeId, Problem> {
    EdgeId::from_str(text).map_err(|error| Problem::new(Kind::UnknownEdge, error.to_string()))
}

/// The id of a rule that a path names. What is no id cannot be there.
pub(super) fn rule_id(text: &str) -> Result<RuleId, Problem> {
    let id = uuid::Uuid::parse_str(text).map(RuleId);
    id.map_err(|_| {
        Problem::new(Kind::UnknownUnmanaged, "an id is a UUID, such as 01900000-0000-7000-8000-0000000000aa")
    })
}

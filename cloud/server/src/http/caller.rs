//! Who a request comes from, and the names in its path.

use std::convert::Infallible;
use std::str::FromStr as _;

use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;
use tidegate_cloud_core::Actor;
use tidegate_model::ids::{EdgeId, RuleName};

use super::problem::Problem;

/// Beginning of the command line's `User-Agent`.
const CLI_AGENT: &str = "tidegate/";

/// Who a request comes from; authenticated before.
pub(super) struct Caller(pub(super) Actor);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let agent = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        let via = if agent.is_some_and(|agent| agent.starts_with(CLI_AGENT)) { "cli" } else { "api" };
        Ok(Self(Actor { name: "admin".to_owned(), via: via.to_owned() }))
    }
}

/// The rule that a path names. What is no name cannot be there.
pub(super) fn rule_name(text: &str) -> Result<RuleName, Problem> {
    RuleName::from_str(text)
        .map_err(|error| Problem::not_found("unknown-rule", "UNKNOWN_RULE", error.to_string()))
}

/// The edge that a path names. What is no name cannot be there.
pub(super) fn edge_id(text: &str) -> Result<EdgeId, Problem> {
    EdgeId::from_str(text)
        .map_err(|error| Problem::not_found("unknown-edge", "UNKNOWN_EDGE", error.to_string()))
}

//! Bridges of another broker's configuration as drafts of rules: parsed, told, not saved.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use tidegate_model::ids::RuleName;
use tidegate_model::rule::mosquitto::{self, ImportedBridge, ImportedLine};
use tidegate_model::rule::{RuleSpec, SecretInput};
use utoipa::ToSchema;

use super::params::Params;
use super::problem::{FieldError, Problem};
use super::{App, body};

/// What to read.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Import {
    /// `mosquitto`
    format: String,
    /// The file.
    text: String,
}

/// What it becomes.
#[derive(Serialize, ToSchema)]
pub(super) struct Imported {
    /// One for each connection.
    drafts: Vec<Draft>,
    /// What became of each line.
    lines: Vec<ImportedLine>,
}

/// A rule that a connection becomes.
#[derive(Serialize, ToSchema)]
struct Draft {
    /// Its name in the file.
    connection: String,
    /// Its first line.
    line: u32,
    /// The rule's name.
    name: RuleName,
    /// What `POST /rules` takes; `null` if a line was refused.
    #[schema(value_type = Option<RuleSpec>)]
    content: Option<serde_json::Value>,
    /// The file holds a password, which no answer does: add it as `remote.password`.
    password_in_file: bool,
}

impl From<ImportedBridge> for Draft {
    fn from(bridge: ImportedBridge) -> Self {
        let ImportedBridge { connection, line, spec, secrets, rule } = bridge;
        let content = rule.map(|rule| rule.to_json());
        let password_in_file = matches!(secrets.password, SecretInput::Set(_));
        Self { connection, line, name: spec.name, content, password_in_file }
    }
}

/// `POST /rules/import`: nothing is saved.
#[utoipa::path(
    post, path = "/rules/import", operation_id = "import_rules", tag = "rules",
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 128 visible ASCII characters: the request is done once, and sent again gets the first answer")),
    request_body(description = "A file of another broker", content = Import),
    responses((status = 200, description = "Drafts of rules, and what became of each line; no password is told", body = Imported))
)]
pub(super) async fn import(
    State(_): State<App>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    params.finish()?;
    let Import { format, text } = body::json(&headers, body).await?;
    if format != "mosquitto" {
        let detail = "the formats are: mosquitto";
        return Err(Problem::invalid(vec![FieldError::field("/format", "bad-value", detail)]));
    }
    let done = mosquitto::import(&text).map_err(|problems| Problem::invalid_rule(&problems))?;
    let drafts = done.bridges.into_iter().map(Draft::from).collect();
    Ok(Json(Imported { drafts, lines: done.lines }).into_response())
}

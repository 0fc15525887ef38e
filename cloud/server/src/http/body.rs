//! Bodies: bounded, of a known content type, with no unknown field.

use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, header};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tidegate_model::limits::MAX_RULE_TEXT_BYTES;
use tidegate_model::plain;
use tidegate_model::rule::{Format, Limits, SecretInputs, ValidRule, parse};

use super::kind::Kind;
use super::problem::{FieldError, Problem};

/// Largest body, in bytes: as large as the largest text of a rule.
pub(super) const MAX_BODY_BYTES: usize = MAX_RULE_TEXT_BYTES;
/// How long a body may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What a body is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ContentType {
    None,
    Json,
    MergePatch,
    Toml,
    Yaml,
    Other,
}

fn content_type(headers: &HeaderMap) -> ContentType {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return ContentType::None };
    let text = value.to_str().unwrap_or("");
    match text.split(';').next().unwrap_or("").trim().to_ascii_lowercase().as_str() {
        "application/json" => ContentType::Json,
        "application/merge-patch+json" => ContentType::MergePatch,
        "application/toml" => ContentType::Toml,
        "application/yaml" | "application/x-yaml" | "text/yaml" => ContentType::Yaml,
        _ => ContentType::Other,
    }
}

fn unsupported(wanted: &str) -> Problem {
    Problem::new(Kind::UnsupportedMediaType, format!("the Content-Type of this request is {wanted}"))
}

/// 413, with the bound.
fn too_large() -> Problem {
    Problem::new(Kind::TooLarge, format!("a body has at most {MAX_BODY_BYTES} bytes"))
}

/// Refuses at once what says itself that it is too large.
pub(super) fn check_length(headers: &HeaderMap) -> Result<(), Problem> {
    let said = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if said.is_some_and(|bytes| bytes > MAX_BODY_BYTES as u64) { Err(too_large()) } else { Ok(()) }
}

/// A body, whole and bounded.
pub(super) async fn bytes(body: Body) -> Result<Bytes, Problem> {
    let read = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY_BYTES)).await;
    let read = read.map_err(|_| {
        let detail = format!("the body was not there within {} s", BODY_TIMEOUT.as_secs());
        Problem::new(Kind::RequestTimeout, detail)
    })?;
    read.map_err(|error| {
        let too_long =
            std::error::Error::source(&error).is_some_and(|s| s.is::<http_body_util::LengthLimitError>());
        if too_long {
            too_large()
        } else {
            Problem::new(Kind::BadBody, "the connection broke within the body")
        }
    })
}

async fn text(body: Body) -> Result<String, Problem> {
    String::from_utf8(bytes(body).await?.into())
        .map_err(|_| Problem::invalid(vec![FieldError::field("", "not-utf8", "the body is not UTF-8")]))
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
    serde_json::from_str(text).map_err(|error| {
        let line_column = (u32::try_from(error.line()).ok(), u32::try_from(error.column()).ok());
        let code = if error.is_data() { "bad-field" } else { "syntax" };
        let field = FieldError::field("", code, plain::json(&error));
        Problem::invalid(vec![FieldError { line: line_column.0, column: line_column.1, ..field }])
    })
}

/// A JSON object; no body at all counts as an empty one.
pub(super) async fn json<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T, Problem> {
    let text = text(body).await?;
    match content_type(headers) {
        ContentType::Json => read(&text),
        ContentType::None if text.is_empty() => read("{}"),
        ContentType::None
        | ContentType::MergePatch
        | ContentType::Toml
        | ContentType::Yaml
        | ContentType::Other => Err(unsupported("application/json")),
    }
}

/// A whole rule, in one of the three formats.
pub(super) async fn rule(headers: &HeaderMap, body: Body) -> Result<(ValidRule, SecretInputs), Problem> {
    let format = match content_type(headers) {
        ContentType::Json => Format::Json,
        ContentType::Toml => Format::Toml,
        ContentType::Yaml => Format::Yaml,
        ContentType::None | ContentType::MergePatch | ContentType::Other => {
            return Err(unsupported("application/json, application/toml or application/yaml"));
        }
    };
    checked(&text(body).await?, format)
}

fn checked(text: &str, format: Format) -> Result<(ValidRule, SecretInputs), Problem> {
    parse(text, format)
        .and_then(|draft| draft.validate(&Limits::default()))
        .map_err(|problems| Problem::invalid_rule(&problems))
}

/// A JSON merge patch (RFC 7396).
pub(super) async fn merge_patch(headers: &HeaderMap, body: Body) -> Result<Value, Problem> {
    match content_type(headers) {
        ContentType::MergePatch | ContentType::Json => {}
        ContentType::None | ContentType::Toml | ContentType::Yaml | ContentType::Other => {
            return Err(unsupported("application/merge-patch+json"));
        }
    }
    let patch: Value = read(&text(body).await?)?;
    if patch.is_object() {
        Ok(patch)
    } else {
        Err(Problem::invalid(vec![FieldError::field(
            "",
            "not-an-object",
            "a patch of a rule is a JSON object",
        )]))
    }
}

/// The rule that a patch makes of the one that is there. A secret of `null` is removed; one that is not named stays.
pub(super) fn patched(mut rule: Value, mut patch: Value) -> Result<(ValidRule, SecretInputs), Problem> {
    for secret in ["/remote/password", "/remote/tls/key"] {
        if let Some(secret) = patch.pointer_mut(secret)
            && secret.is_null()
        {
            *secret = Value::String(String::new());
        }
    }
    merge(&mut rule, patch);
    checked(&rule.to_string(), Format::Json).map_err(Problem::without_places)
}

fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(target) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(&name);
        } else {
            merge(target.entry(name).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn merging_follows_rfc_7396() {
        let cases = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [1]}), json!({"a": [2, 3]}), json!({"a": [2, 3]})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
        ];
        for (mut target, patch, expect) in cases {
            merge(&mut target, patch.clone());
            assert_eq!(target, expect, "{patch}");
        }
    }
}

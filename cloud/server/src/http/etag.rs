//! Entity tags and preconditions: who changes a rule says which one they saw.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use tidegate_cloud_core::Expect;
use tidegate_model::ids::RuleName;

use super::App;
use super::kind::Kind;
use super::problem::Problem;

/// What a header of preconditions says.
enum Tags {
    /// `*`
    Any,
    /// Tags, without quotes and without the mark of a weak one.
    These(Vec<String>),
}

fn tags(headers: &HeaderMap, name: &HeaderName) -> Option<Tags> {
    let values: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    if values.is_empty() {
        return None;
    }
    let all = values.join(",");
    if all.trim() == "*" {
        return Some(Tags::Any);
    }
    let tag = |text: &str| text.trim().trim_start_matches("W/").trim_matches('"').to_owned();
    Some(Tags::These(all.split(',').map(tag).collect()))
}

/// The header value of a tag.
pub(super) fn value(tag: &str) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{tag}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// Whether the caller of a GET has this tag already (`If-None-Match`).
pub(super) fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    match tags(headers, &header::IF_NONE_MATCH) {
        None => false,
        Some(Tags::Any) => true,
        Some(Tags::These(known)) => known.iter().any(|k| k == tag),
    }
}

/// The precondition of a change of an existing rule, which has to be given (`If-Match`).
pub(super) async fn required(app: &App, name: &RuleName, headers: &HeaderMap) -> Result<Expect, Problem> {
    match given(app, name, headers).await? {
        Expect::Any => Err(Problem::new(
            Kind::PreconditionRequired,
            "without a precondition the change of somebody else could be overwritten",
        )),
        expect @ (Expect::Absent | Expect::Etag(_)) => Ok(expect),
    }
}

/// The precondition of a change, if one is given.
pub(super) async fn given(app: &App, name: &RuleName, headers: &HeaderMap) -> Result<Expect, Problem> {
    let wanted = match tags(headers, &header::IF_MATCH) {
        None => return Ok(Expect::Any),
        Some(Tags::These(tags)) if tags.len() == 1 => return Ok(Expect::Etag(tags.concat())),
        Some(tags) => tags,
    };
    let looked_up = name.clone();
    let current =
        app.core.read(move |core, _| core.rule_record(&looked_up).map(tidegate_cloud_core::etag)).await?;
    Ok(Expect::Etag(match (wanted, current) {
        (Tags::Any, Some(current)) => current,
        (Tags::These(tags), Some(current)) if tags.contains(&current) => current,
        (Tags::These(tags), _) => tags.into_iter().next().unwrap_or_default(),
        // The rule is not there; the core says so.
        (Tags::Any, None) => String::new(),
    }))
}

/// Whether the change may only create (`If-None-Match: *`).
pub(super) fn create_only(headers: &HeaderMap) -> bool {
    matches!(tags(headers, &header::IF_NONE_MATCH), Some(Tags::Any))
}

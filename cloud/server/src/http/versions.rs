//! Versions of a rule: list, read, compare, restore.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidegate_cloud_core::{Request, VersionRecord};
use tidegate_model::ids::{RuleId, RuleName};
use tidegate_model::rule::RuleSpec;
use tidegate_model::time::Wall;
use tidegate_model::version::RuleVersion;
use utoipa::ToSchema;

use super::answer::{OneOf2, Rehearsal, SavedRule};
use super::caller::{Caller, Path, rule_name};
use super::diff::Diff;
use super::kind::Kind;
use super::page::{List, Page};
use super::params::Params;
use super::problem::{FieldError, Problem};
use super::rules::{MAX_NOTE_BYTES, no_such_rule};
use super::{App, answer, body, diff, etag};

/// `GET /rules/{rule}/versions`: newest first.
#[utoipa::path(
    get, path = "/rules/{rule}/versions", operation_id = "list_versions", tag = "rules",
    params(("rule" = RuleName, Path, description = "Name of the rule"), ("limit" = Option<usize>, Query, description = "Items of the page, 1 to 500; 50 unless given"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before, as it came")),
    responses((status = 200, description = "Versions, newest first", body = List<VersionView>, headers(("Link" = String, description = "The next page, where there is one"))))
)]
pub(super) async fn list(
    State(app): State<App>,
    Path(rule): Path<String>,
    mut params: Params,
) -> Result<Response, Problem> {
    let name = rule_name(&rule)?;
    let page = Page::take(&mut params, format!("/api/v1/rules/{name}/versions"));
    let before = page.after.as_ref().map(|after| after.parse().map(RuleVersion)).transpose();
    let before = before.unwrap_or_else(|_| {
        params.bad_cursor();
        None
    });
    params.finish()?;
    let (id, newest) = identity(&app, &name).await?;
    let records = app.store.versions(id, before, page.ask()).await?;
    let items: Vec<VersionView> = records.iter().map(|record| show(record, false)).collect();
    let count = u32::try_from(newest.0).unwrap_or(u32::MAX);
    Ok(page.answer(items, |item| item.version.0.to_string(), List::of(count)))
}

/// `GET /rules/{rule}/versions/{version}`
#[utoipa::path(
    get, path = "/rules/{rule}/versions/{version}", operation_id = "get_version", tag = "rules",
    params(("rule" = RuleName, Path, description = "Name of the rule"), ("version" = u64, Path, description = "Number of the version")),
    responses((status = 200, description = "The version with its content", body = VersionView))
)]
pub(super) async fn get(
    State(app): State<App>,
    Path((rule, version)): Path<(String, String)>,
    params: Params,
) -> Result<Response, Problem> {
    params.finish()?;
    let name = rule_name(&rule)?;
    let (id, _) = identity(&app, &name).await?;
    let version = version.parse().map_err(|_| no_such_version(&name, &version))?;
    let record = read(&app, &name, id, RuleVersion(version)).await?;
    Ok(Json(show(&record, true)).into_response())
}

/// `GET /rules/{rule}/diff?from=&to=`: without `to` the newest version, without `from` the one before `to`.
#[utoipa::path(
    get, path = "/rules/{rule}/diff", operation_id = "diff_versions", tag = "rules",
    params(("rule" = RuleName, Path, description = "Name of the rule"), ("from" = Option<u64>, Query, description = "The older version; the one before `to` unless given"), ("to" = Option<u64>, Query, description = "The newer version; the newest unless given")),
    responses((status = 200, description = "What differs", body = Diff))
)]
pub(super) async fn diff(
    State(app): State<App>,
    Path(rule): Path<String>,
    mut params: Params,
) -> Result<Response, Problem> {
    let name = rule_name(&rule)?;
    let (from, to) = (params.parse::<u64>("from"), params.parse::<u64>("to"));
    params.finish()?;
    let (id, newest) = identity(&app, &name).await?;
    let to = to.unwrap_or(newest.0);
    let from = from.unwrap_or_else(|| to.saturating_sub(1).max(1));
    let old = read(&app, &name, id, RuleVersion(from)).await?;
    let new = read(&app, &name, id, RuleVersion(to)).await?;
    let (changes, unified) = (diff::changes(&old, &new), diff::unified(&old, &new));
    Ok(Json(Diff { rule: name, from, to, changes, unified }).into_response())
}

/// What a restore says.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Restore {
    /// The version whose content comes back.
    version: u64,
    /// Why.
    #[serde(default)]
    note: String,
}

/// `POST /rules/{rule}/restore?dry_run=`: a new version with an old one's content.
#[utoipa::path(
    post, path = "/rules/{rule}/restore", operation_id = "restore_rule", tag = "rules",
    params(("rule" = RuleName, Path, description = "Name of the rule"), ("dry_run" = Option<bool>, Query, description = "Tell what would happen; nothing is done. The answer is a `Rehearsal`"), ("Idempotency-Key" = Option<String>, Header, description = "1 to 128 visible ASCII characters: the request is done once, and sent again gets the first answer"), ("If-Match" = Option<String>, Header, description = "The ETag of the rule that was read")),
    request_body = Restore,
    responses((status = 200, description = "A new version with the old content, or unchanged; or a dry run", body = OneOf2<SavedRule<'_>, Rehearsal<'_>>, headers(("ETag" = String, description = "Tag of the rule's version and content"))))
)]
pub(super) async fn restore(
    State(app): State<App>,
    caller: Caller,
    Path(rule): Path<String>,
    mut params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let dry_run = params.flag("dry_run");
    params.finish()?;
    let name = rule_name(&rule)?;
    let expect = etag::given(&app, &name, &headers).await?;
    let Restore { version, note } = body::json(&headers, body).await?;
    if note.len() > MAX_NOTE_BYTES {
        let detail = format!("a note has at most {MAX_NOTE_BYTES} bytes");
        return Err(Problem::invalid(vec![FieldError::field("/note", "too-long", detail)]));
    }
    let (id, _) = identity(&app, &name).await?;
    let from = Box::new(read(&app, &name, id, RuleVersion(version)).await?);
    let request = Request::RestoreRule { rule: name, from, expect, note };
    answer::respond(&app.change(caller, dry_run, request).await?)
}

/// A rule's identity and newest version.
async fn identity(app: &App, name: &RuleName) -> Result<(RuleId, RuleVersion), Problem> {
    let looked_up = name.clone();
    let found = app.core.read(move |core, _| core.rule_record(&looked_up).map(|r| (r.id, r.version))).await?;
    found.ok_or_else(|| no_such_rule(name))
}

async fn read(
    app: &App,
    name: &RuleName,
    id: RuleId,
    version: RuleVersion,
) -> Result<VersionRecord, Problem> {
    let record = app.store.version(id, version).await?;
    record.ok_or_else(|| no_such_version(name, version.0))
}

fn no_such_version(name: &RuleName, version: impl std::fmt::Display) -> Problem {
    let detail = format!("rule '{name}' has no version {version}");
    Problem::new(Kind::UnknownVersion, detail)
}

/// A version of a rule.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VersionView {
    /// The rule.
    rule: RuleName,
    /// Its number.
    version: RuleVersion,
    /// When it was made.
    #[schema(format = DateTime)]
    at: Option<String>,
    /// By whom.
    by: String,
    /// By which way: `api`, `cli`, `mqtt`.
    via: String,
    /// What its author said of it.
    note: String,
    /// The version that it restored.
    restored_from: Option<RuleVersion>,
    /// The content, without the password but with `password_set`; left out of lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<RuleSpec>)]
    content: Option<Value>,
}

fn show(record: &VersionRecord, with_content: bool) -> VersionView {
    VersionView {
        rule: record.content.name().clone(),
        version: record.version,
        at: rfc3339(record.at),
        by: record.by.name.clone(),
        via: record.by.via.clone(),
        note: record.note.clone(),
        restored_from: record.restored_from,
        content: with_content.then(|| record.shown()),
    }
}

fn rfc3339(at: Wall) -> Option<String> {
    jiff::Timestamp::from_millisecond(at.0).ok().map(|at| format!("{at:.3}"))
}

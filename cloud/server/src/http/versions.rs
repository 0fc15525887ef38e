//! Versions of a rule: list, read, compare, restore.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_cloud_core::{Request, VersionRecord};
use tidegate_model::ids::{RuleId, RuleName};
use tidegate_model::time::Wall;
use tidegate_model::version::RuleVersion;

use super::caller::{Caller, Path, rule_name};
use super::kind::Kind;
use super::page::{Page, total};
use super::params::Params;
use super::problem::{FieldError, Problem};
use super::rules::{MAX_NOTE_BYTES, no_such_rule};
use super::{App, answer, body, diff, etag};

/// `GET /rules/{rule}/versions`: newest first.
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
    let items: Vec<Value> = records.iter().map(|record| show(record, false)).collect();
    let count = u32::try_from(newest.0).unwrap_or(u32::MAX);
    page.answer(items, |item| item["version"].to_string(), total(count))
}

/// `GET /rules/{rule}/versions/{version}`
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
    Ok(Json(json!({
        "rule": name,
        "from": from,
        "to": to,
        "changes": diff::changes(&old, &new),
        "unified": diff::unified(&old, &new),
    }))
    .into_response())
}

/// What a restore says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Restore {
    version: u64,
    #[serde(default)]
    note: String,
}

/// `POST /rules/{rule}/restore?dry_run=`: a new version with an old one's content.
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

fn show(record: &VersionRecord, with_content: bool) -> Value {
    let mut shown = json!({
        "rule": record.content.name(),
        "version": record.version,
        "at": rfc3339(record.at),
        "by": record.by.name,
        "via": record.by.via,
        "note": record.note,
        "restored_from": record.restored_from,
    });
    if with_content {
        shown["content"] = record.content.to_json(record.secret.is_some());
    }
    shown
}

fn rfc3339(at: Wall) -> Option<String> {
    jiff::Timestamp::from_millisecond(at.0).ok().map(|at| format!("{at:.3}"))
}

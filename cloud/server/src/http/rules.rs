//! Rules: list, create, read, replace, patch, delete, check.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use tidegate_cloud_core::{Controller, Expect, PlacementFilter, Request, RuleFilter};
use tidegate_model::ids::{EdgeId, RuleId, RuleName};
use tidegate_model::placement::{IssueState, RunState};
use tidegate_model::rule::{Rendered, Route, SecretInput, ValidRule};

use super::caller::{Caller, Path, rule_name};
use super::page::{Page, total};
use super::params::Params;
use super::problem::{FieldError, Problem, field_errors};
use super::{App, ROLE, answer, body, etag};

/// Longest note of a version, in bytes.
pub(super) const MAX_NOTE_BYTES: usize = 1_024;
/// Edges for which a check shows effective topics at the most.
const MAX_CHECKED_EDGES: usize = 50;
/// Longest text that is searched for, in bytes.
const MAX_QUERY_BYTES: usize = 64;

/// Words of the issue state.
pub(super) const ISSUE_STATES: &str = "not_issued, issued, updates_not_issued, failed";
/// Words of the run state.
pub(super) const RUN_STATES: &str = "not_running, running, paused_manual, paused_fault";

/// `GET /rules`
pub(super) async fn list(State(app): State<App>, mut params: Params) -> Result<Response, Problem> {
    let page = Page::take(&mut params, "/api/v1/rules");
    let filter = RuleFilter {
        q: params.text("q"),
        issue_state: params.word::<IssueState>("issue_state", ISSUE_STATES),
        run_state: params.word::<RunState>("run_state", RUN_STATES),
        edge: params.parse::<EdgeId>("edge"),
    };
    if filter.q.as_ref().is_some_and(|q| q.len() > MAX_QUERY_BYTES) {
        params.error("q", "too-long", format!("q has at most {MAX_QUERY_BYTES} bytes"));
    }
    let after = page.after.as_ref().map(|after| RuleName::new(after.as_str())).transpose();
    let after = after.unwrap_or_else(|_| {
        params.bad_cursor();
        None
    });
    params.finish()?;
    let ask = page.ask();
    let look = move |core: &Controller, now| (core.rules(&filter, after.as_ref(), ask), core.summary(now));
    let ((items, matching), summary) = app.core.read(look).await?;
    let mut more = total(matching);
    let totals = json!({ "total": summary.rules, "issued_number": summary.rules_issued, "pending": summary.tally.pending });
    more.insert("summary".to_owned(), totals);
    page.answer(items, |rule| rule.name.to_string(), more)
}

/// `POST /rules?note=&dry_run=`
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    mut params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (note, dry_run) = (note(&mut params), params.flag("dry_run"));
    params.finish()?;
    let (content, secret) = body::rule(&headers, body).await?;
    save(&app, caller, dry_run, content, secret, Expect::Absent, note).await
}

/// `GET /rules/{rule}`
pub(super) async fn get(
    State(app): State<App>,
    Path(rule): Path<String>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    params.finish()?;
    let name = rule_name(&rule)?;
    let looked_up = name.clone();
    let found = app.core.read(move |core, _| core.rule(&looked_up, ROLE)).await?;
    let rule = found.ok_or_else(|| no_such_rule(&name))?;
    let tag = etag::value(&rule.etag);
    // The tag is the content's: placements change without it, so that a known tag only saves the content.
    let mut response = if etag::is_known(&headers, &rule.etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Json(rule).into_response()
    };
    response.headers_mut().insert(header::ETAG, tag);
    Ok(response)
}

/// `PUT /rules/{rule}?note=&dry_run=`
pub(super) async fn put(
    State(app): State<App>,
    caller: Caller,
    Path(rule): Path<String>,
    mut params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (note, dry_run) = (note(&mut params), params.flag("dry_run"));
    params.finish()?;
    let name = rule_name(&rule)?;
    let create_only = etag::create_only(&headers);
    let expect = if create_only { Expect::Absent } else { etag::required(&app, &name, &headers).await? };
    let (content, secret) = body::rule(&headers, body).await?;
    same_name(&name, &content)?;
    save(&app, caller, dry_run, content, secret, expect, note)
        .await
        .map_err(|problem| problem.failed_precondition(create_only))
}

/// `PATCH /rules/{rule}?note=&dry_run=`
pub(super) async fn patch(
    State(app): State<App>,
    caller: Caller,
    Path(rule): Path<String>,
    mut params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (note, dry_run) = (note(&mut params), params.flag("dry_run"));
    params.finish()?;
    let name = rule_name(&rule)?;
    let expect = etag::required(&app, &name, &headers).await?;
    let patch = body::merge_patch(&headers, body).await?;
    let looked_up = name.clone();
    let found = app.core.read(move |core, _| core.rule(&looked_up, ROLE)).await?;
    let current = found.ok_or_else(|| no_such_rule(&name))?;
    let (content, secret) = body::patched(current.content, patch)?;
    same_name(&name, &content)?;
    save(&app, caller, dry_run, content, secret, expect, note).await
}

/// `DELETE /rules/{rule}?dry_run=`
pub(super) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(rule): Path<String>,
    mut params: Params,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let dry_run = params.flag("dry_run");
    params.finish()?;
    let rule = rule_name(&rule)?;
    let expect = etag::required(&app, &rule, &headers).await?;
    answer::respond(&app.change(caller, dry_run, Request::DeleteRule { rule, expect }).await?)
}

/// `POST /rules/check?edge=`: nothing is saved. Shows the effective topics on `edge` (several with commas), else on
/// the edges that the rule is placed on.
pub(super) async fn check(
    State(app): State<App>,
    mut params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let mut asked = Vec::new();
    for edge in params.text("edge").unwrap_or_default().split(',').filter(|edge| !edge.is_empty()) {
        match EdgeId::new(edge) {
            Ok(edge) => asked.push(edge),
            Err(error) => params.error("edge", "bad-value", error.to_string()),
        }
    }
    if asked.len() > MAX_CHECKED_EDGES {
        params.error("edge", "too-many", format!("at most {MAX_CHECKED_EDGES} edges are checked at once"));
    }
    params.finish()?;
    let (content, secret) = body::rule(&headers, body).await?;
    let name = content.name().clone();
    let edges = app.core.read(move |core, _| check_on_edges(core, &content, &secret, asked)).await?;
    Ok(Json(json!({ "valid": true, "name": name, "edges": edges })).into_response())
}

fn check_on_edges(
    core: &Controller,
    content: &ValidRule,
    secret: &SecretInput,
    asked: Vec<EdgeId>,
) -> Vec<serde_json::Value> {
    let stored = core.rule_record(content.name());
    let password_set = match secret {
        SecretInput::Keep => stored.is_some_and(|rule| rule.secret.is_some()),
        SecretInput::Set(_) => true,
        SecretInput::Clear => false,
    };
    let filter = PlacementFilter { rule: Some(content.name().clone()), ..PlacementFilter::default() };
    let (placed, _) = core.placements(&filter, None, MAX_CHECKED_EDGES, ROLE);
    let mut edges: BTreeMap<EdgeId, BTreeMap<String, String>> =
        placed.into_iter().map(|placement| (placement.edge, placement.vars)).collect();
    if !asked.is_empty() {
        edges =
            asked.into_iter().map(|edge| (edge.clone(), edges.remove(&edge).unwrap_or_default())).collect();
    }
    let shown = edges.iter().map(|(edge, vars)| match core.preview(content, password_set, edge, vars) {
        Ok(rendered) => effective(edge, &rendered),
        Err(problems) => json!({ "edge": edge, "ok": false, "errors": field_errors(&problems) }),
    });
    shown.collect()
}

fn effective(edge: &EdgeId, rendered: &Rendered) -> serde_json::Value {
    let rule = &rendered.rule;
    let routes = |routes: &[Route], from: &str, to: &str| -> Vec<serde_json::Value> {
        routes
            .iter()
            .map(|route| {
                json!({ from: route.filter.to_string(), to: route.image.to_string(), "qos": u8::from(route.qos), "retain": route.retain })
            })
            .collect()
    };
    json!({
        "edge": edge,
        "ok": true,
        "digest": rendered.digest,
        "client_id": rule.remote.client_id,
        "forwards": routes(&rule.forwards, "local", "remote"),
        "subscriptions": routes(&rule.subscriptions, "remote", "local"),
    })
}

async fn save(
    app: &App,
    caller: Caller,
    dry_run: bool,
    content: ValidRule,
    secret: SecretInput,
    expect: Expect,
    note: String,
) -> Result<Response, Problem> {
    let id = RuleId(uuid::Uuid::now_v7());
    let request = Request::SaveRule { id, content: Box::new(content), secret, expect, note };
    answer::respond(&app.change(caller, dry_run, request).await?)
}

/// Takes the author's note on a change.
pub(super) fn note(params: &mut Params) -> String {
    let note = params.text("note").unwrap_or_default();
    if note.len() > MAX_NOTE_BYTES {
        params.error("note", "too-long", format!("a note has at most {MAX_NOTE_BYTES} bytes"));
    }
    note
}

fn same_name(path: &RuleName, content: &ValidRule) -> Result<(), Problem> {
    if content.name() == path {
        return Ok(());
    }
    let detail = format!(
        "the rule says that its name is '{}', the path says '{path}'; a rule keeps its name",
        content.name()
    );
    Err(Problem::invalid(vec![FieldError::field("/name", "other-name", detail)]))
}

pub(super) fn no_such_rule(name: &RuleName) -> Problem {
    Problem::from(tidegate_cloud_core::Rejection::NoSuchRule(name.clone()))
}

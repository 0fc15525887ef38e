//! Rules: list, create, read, replace, patch, delete, check.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use tidegate_cloud_core::{Controller, Expect, PlacementFilter, Request, RuleFilter, RuleRecord, RuleView};
use tidegate_model::digest::Digest;
use tidegate_model::ids::{EdgeId, RuleId, RuleName};
use tidegate_model::placement::{IssueState, RunState};
use tidegate_model::rule::{Rendered, Route, RuleSpec, SecretInputs, ValidRule};
use utoipa::ToSchema;

use super::answer::{OneOf2, Rehearsal, SavedRule};
use super::caller::{Caller, Path, rule_name};
use super::page::{List, Page};
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
#[utoipa::path(
    get, path = "/rules", operation_id = "list_rules", tag = "rules",
    params(("q" = Option<String>, Query, description = "The name contains this"), ("issue_state" = Option<IssueState>, Query, description = "With this issue state"),
        ("run_state" = Option<RunState>, Query, description = "With this run state"), ("edge" = Option<EdgeId>, Query, description = "Placed on this edge"), ("limit" = Option<usize>, Query, description = "Items of the page, 1 to 500; 50 unless given"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before, as it came")),
    responses((status = 200, description = "Rules by name", body = RuleList, headers(("Link" = String, description = "The next page, where there is one"))))
)]
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
    let totals = RuleTotals {
        total: summary.rules,
        issued_number: summary.rules_issued,
        pending: summary.tally.pending,
    };
    let wrap = |items, cursor| RuleList { list: List::of(matching)(items, cursor), summary: totals };
    Ok(page.answer(items, |rule| rule.name.to_string(), wrap))
}

/// One page of the rules.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RuleList {
    #[serde(flatten)]
    list: List<RuleView>,
    /// Totals, whatever the filters.
    summary: RuleTotals,
}

/// All rules in numbers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RuleTotals {
    /// Rules.
    total: u32,
    /// Rules that are issued to at least one edge.
    issued_number: u32,
    /// Placements that something is still to be done for.
    pending: u32,
}

/// `POST /rules?note=&dry_run=`
#[utoipa::path(
    post, path = "/rules", operation_id = "create_rule", tag = "rules",
    params(("note" = Option<String>, Query, description = "What the change is about; kept with the version"), ("dry_run" = Option<bool>, Query, description = "Tell what would happen; nothing is done. The answer is a `Rehearsal`"), ("Idempotency-Key" = Option<String>, Header, description = "1 to 128 visible ASCII characters: the request is done once, and sent again gets the first answer")),
    request_body(description = "The rule, as JSON, TOML or YAML", content(
        (RuleSpec = "application/json"), (String = "application/toml"), (String = "application/yaml"))),
    responses((status = 201, description = "The rule was created", body = SavedRule<'_>, headers(("ETag" = String, description = "Tag of the rule's version and content"))), (status = 200, description = "A dry run", body = Rehearsal<'_>))
)]
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    mut params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (note, dry_run) = (note(&mut params), params.flag("dry_run"));
    params.finish()?;
    let (content, secrets) = body::rule(&headers, body).await?;
    save(&app, caller, dry_run, content, secrets, Expect::Absent, note).await
}

/// `GET /rules/{rule}`
#[utoipa::path(
    get, path = "/rules/{rule}", operation_id = "get_rule", tag = "rules",
    params(("rule" = RuleName, Path, description = "Name of the rule"), ("If-None-Match" = Option<String>, Header, description = "The ETag that is known")),
    responses((status = 200, description = "The rule with its placements", body = RuleView, headers(("ETag" = String, description = "Tag of the rule's version and content"))), (status = 304, description = "The content is the known one"))
)]
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
#[utoipa::path(
    put, path = "/rules/{rule}", operation_id = "put_rule", tag = "rules",
    params(("rule" = RuleName, Path, description = "Name of the rule"), ("note" = Option<String>, Query, description = "What the change is about; kept with the version"), ("dry_run" = Option<bool>, Query, description = "Tell what would happen; nothing is done. The answer is a `Rehearsal`"), ("If-Match" = Option<String>, Header, description = "The ETag of the rule that was read"), ("If-None-Match" = Option<String>, Header, description = "`*`: only if there is no such rule")),
    request_body(description = "The rule, as JSON, TOML or YAML", content(
        (RuleSpec = "application/json"), (String = "application/toml"), (String = "application/yaml"))),
    responses((status = 200, description = "A new version, or unchanged; or a dry run", body = OneOf2<SavedRule<'_>, Rehearsal<'_>>, headers(("ETag" = String, description = "Tag of the rule's version and content"))), (status = 201, description = "The rule was created", body = SavedRule<'_>, headers(("ETag" = String, description = "Tag of the rule's version and content"))))
)]
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
    let (content, secrets) = body::rule(&headers, body).await?;
    same_name(&name, &content)?;
    save(&app, caller, dry_run, content, secrets, expect, note)
        .await
        .map_err(|problem| problem.failed_precondition(create_only))
}

/// `PATCH /rules/{rule}?note=&dry_run=`
#[utoipa::path(
    patch, path = "/rules/{rule}", operation_id = "patch_rule", tag = "rules",
    params(("rule" = RuleName, Path, description = "Name of the rule"), ("note" = Option<String>, Query, description = "What the change is about; kept with the version"), ("dry_run" = Option<bool>, Query, description = "Tell what would happen; nothing is done. The answer is a `Rehearsal`"), ("If-Match" = String, Header, description = "The ETag of the rule that was read")),
    request_body(description = "A JSON merge patch (RFC 7396) of the rule", content_type = "application/merge-patch+json", content = Object),
    responses((status = 200, description = "A new version, or unchanged; or a dry run", body = OneOf2<SavedRule<'_>, Rehearsal<'_>>, headers(("ETag" = String, description = "Tag of the rule's version and content"))))
)]
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
    let (content, secrets) = body::patched(current.content, patch)?;
    same_name(&name, &content)?;
    save(&app, caller, dry_run, content, secrets, expect, note).await
}

/// `DELETE /rules/{rule}?dry_run=`
#[utoipa::path(
    delete, path = "/rules/{rule}", operation_id = "delete_rule", tag = "rules",
    params(("rule" = RuleName, Path, description = "Name of the rule"), ("dry_run" = Option<bool>, Query, description = "Tell what would happen; nothing is done. The answer is a `Rehearsal`"), ("If-Match" = String, Header, description = "The ETag of the rule that was read")),
    responses((status = 204, description = "The rule was deleted; edges that have it are told"), (status = 200, description = "A dry run", body = Rehearsal<'_>))
)]
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
#[utoipa::path(
    post, path = "/rules/check", operation_id = "check_rule", tag = "rules",
    params(("edge" = Option<String>, Query, description = "Edges to check on, with commas between them, at most 50; else those that the rule is on"), ("Idempotency-Key" = Option<String>, Header, description = "1 to 128 visible ASCII characters: the request is done once, and sent again gets the first answer")),
    request_body(description = "The rule, as JSON, TOML or YAML", content(
        (RuleSpec = "application/json"), (String = "application/toml"), (String = "application/yaml"))),
    responses((status = 200, description = "The rule can be saved; what it does on each edge", body = Checked))
)]
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
    let (content, secrets) = body::rule(&headers, body).await?;
    let name = content.name().clone();
    let edges = app.core.read(move |core, _| check_on_edges(core, &content, secrets.clone(), asked)).await?;
    Ok(Json(Checked { valid: true, name, edges }).into_response())
}

fn check_on_edges(
    core: &Controller,
    content: &ValidRule,
    secrets: SecretInputs,
    asked: Vec<EdgeId>,
) -> Vec<CheckedOnEdge> {
    let stored = core.rule_record(content.name());
    let secrets = secrets.apply(stored.map(RuleRecord::secrets).unwrap_or_default());
    let filter = PlacementFilter { rule: Some(content.name().clone()), ..PlacementFilter::default() };
    let (placed, _) = core.placements(&filter, None, MAX_CHECKED_EDGES, ROLE);
    let mut edges: BTreeMap<EdgeId, BTreeMap<String, String>> =
        placed.into_iter().map(|placement| (placement.edge, placement.vars)).collect();
    if !asked.is_empty() {
        edges =
            asked.into_iter().map(|edge| (edge.clone(), edges.remove(&edge).unwrap_or_default())).collect();
    }
    let shown = edges.iter().map(|(edge, vars)| match core.preview(content, &secrets, edge, vars) {
        Ok(rendered) => effective(edge, &rendered),
        Err(problems) => {
            CheckedOnEdge::Wrong { edge: edge.clone(), ok: false, errors: field_errors(&problems) }
        }
    });
    shown.collect()
}

/// A rule that can be saved.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Checked {
    /// Always true: a rule that is not valid gets a problem.
    valid: bool,
    /// Its name.
    name: RuleName,
    /// What it does on each edge.
    edges: Vec<CheckedOnEdge>,
}

/// What a rule does on an edge.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum CheckedOnEdge {
    /// It fits.
    Fits {
        /// The edge.
        edge: EdgeId,
        /// True.
        ok: bool,
        /// Digest of the rule as it would be sent.
        digest: Digest,
        /// The client id at the remote broker.
        client_id: String,
        /// What goes to the remote broker.
        forwards: Vec<EffectiveRoute>,
        /// What comes from the remote broker.
        subscriptions: Vec<EffectiveRoute>,
    },
    /// It does not fit.
    Wrong {
        /// The edge.
        edge: EdgeId,
        /// False.
        ok: bool,
        /// What is wrong.
        errors: Vec<FieldError>,
    },
}

/// A route with its variables filled in.
#[derive(Debug, Serialize, ToSchema)]
struct EffectiveRoute {
    /// The topics at the local broker.
    local: String,
    /// The topics at the remote broker.
    remote: String,
    /// What is left out of them, as the source calls it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    exclude: Vec<String>,
    /// Quality of service.
    qos: u8,
    /// The retain flag is passed on.
    retain: bool,
}

fn effective(edge: &EdgeId, rendered: &Rendered) -> CheckedOnEdge {
    let rule = &rendered.rule;
    let routes = |routes: &[Route], outward: bool| {
        let shown = routes.iter().map(|route| {
            let (from, to) = (route.filter.to_string(), route.image.to_string());
            let (local, remote) = if outward { (from, to) } else { (to, from) };
            let exclude = route.exclude.iter().map(ToString::to_string).collect();
            EffectiveRoute { local, remote, exclude, qos: u8::from(route.qos), retain: route.retain }
        });
        shown.collect()
    };
    CheckedOnEdge::Fits {
        edge: edge.clone(),
        ok: true,
        digest: rendered.digest,
        client_id: rule.remote.client_id.clone(),
        forwards: routes(&rule.forwards, true),
        subscriptions: routes(&rule.subscriptions, false),
    }
}

async fn save(
    app: &App,
    caller: Caller,
    dry_run: bool,
    content: ValidRule,
    secrets: SecretInputs,
    expect: Expect,
    note: String,
) -> Result<Response, Problem> {
    let id = RuleId(uuid::Uuid::now_v7());
    let request = Request::SaveRule { id, content: Box::new(content), secrets, expect, note };
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

//! Placements: where a rule is, and the five actions.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use tidegate_cloud_core::{MAX_TARGETS, PlacementFilter, PlacementView, Rejection, Request, WhenOffline};
use tidegate_model::ids::{EdgeId, RuleName};
use tidegate_model::placement::{Action, IssueState, RunState};
use utoipa::ToSchema;

use super::answer::{Acted, ActedOnMany, OneOf2, Rehearsal, Unplaced};
use super::caller::{Caller, Path, edge_id, rule_name};
use super::kind::Kind;
use super::page::{List, Page};
use super::params::Params;
use super::problem::{FieldError, Problem};
use super::rules::{ISSUE_STATES, RUN_STATES, no_such_rule};
use super::{App, ROLE, answer, body};

/// `GET /placements`
#[utoipa::path(
    get, path = "/placements", operation_id = "list_placements", tag = "placements",
    params(("rule" = Option<RuleName>, Query, description = "Of this rule"), ("edge" = Option<EdgeId>, Query, description = "On this edge"), ("issue_state" = Option<IssueState>, Query, description = "With this issue state"),
        ("run_state" = Option<RunState>, Query, description = "With this run state"), ("limit" = Option<usize>, Query, description = "Items of the page, 1 to 500; 50 unless given"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before, as it came")),
    responses((status = 200, description = "Placements by rule and edge", body = List<PlacementView>, headers(("Link" = String, description = "The next page, where there is one"))))
)]
pub(super) async fn list(State(app): State<App>, mut params: Params) -> Result<Response, Problem> {
    let page = Page::take(&mut params, "/api/v1/placements");
    let rule = params.parse::<RuleName>("rule");
    let filter = filter(&mut params, rule);
    page_of(&app, page, params, filter).await
}

/// `GET /rules/{rule}/placements`
#[utoipa::path(
    get, path = "/rules/{rule}/placements", operation_id = "list_rule_placements", tag = "placements",
    params(("rule" = RuleName, Path, description = "Name of the rule"), ("edge" = Option<EdgeId>, Query, description = "On this edge"), ("issue_state" = Option<IssueState>, Query, description = "With this issue state"),
        ("run_state" = Option<RunState>, Query, description = "With this run state"), ("limit" = Option<usize>, Query, description = "Items of the page, 1 to 500; 50 unless given"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before, as it came")),
    responses((status = 200, description = "Placements of the rule by edge", body = List<PlacementView>, headers(("Link" = String, description = "The next page, where there is one"))))
)]
pub(super) async fn of_rule(
    State(app): State<App>,
    Path(rule): Path<String>,
    mut params: Params,
) -> Result<Response, Problem> {
    let name = rule_name(&rule)?;
    let looked_up = name.clone();
    if !app.core.read(move |core, _| core.rule_record(&looked_up).is_some()).await? {
        return Err(no_such_rule(&name));
    }
    let page = Page::take(&mut params, format!("/api/v1/rules/{name}/placements"));
    let filter = filter(&mut params, Some(name));
    page_of(&app, page, params, filter).await
}

fn filter(params: &mut Params, rule: Option<RuleName>) -> PlacementFilter {
    PlacementFilter {
        rule,
        edge: params.parse::<EdgeId>("edge"),
        issue_state: params.word::<IssueState>("issue_state", ISSUE_STATES),
        run_state: params.word::<RunState>("run_state", RUN_STATES),
    }
}

async fn page_of(
    app: &App,
    page: Page,
    mut params: Params,
    filter: PlacementFilter,
) -> Result<Response, Problem> {
    let after = page.after.as_deref().map(|after| {
        let (rule, edge) = after.split_once('/')?;
        Some((RuleName::new(rule).ok()?, EdgeId::new(edge).ok()?))
    });
    if after == Some(None) {
        params.bad_cursor();
    }
    params.finish()?;
    let (after, ask) = (after.flatten(), page.ask());
    let look = move |core: &tidegate_cloud_core::Controller, _| {
        core.placements(&filter, after.as_ref().map(|(rule, edge)| (rule, edge)), ask, ROLE)
    };
    let (items, matching) = app.core.read(look).await?;
    Ok(page.answer(items, |p: &PlacementView| format!("{}/{}", p.rule, p.edge), List::of(matching)))
}

/// `GET /placements/{rule}/{edge}`
#[utoipa::path(
    get, path = "/placements/{rule}/{edge}", operation_id = "get_placement", tag = "placements",
    params(("rule" = RuleName, Path, description = "Name of the rule"), ("edge" = EdgeId, Path, description = "Name of the edge")),
    responses((status = 200, description = "The placement", body = PlacementView))
)]
pub(super) async fn get(
    State(app): State<App>,
    Path((rule, edge)): Path<(String, String)>,
    params: Params,
) -> Result<Response, Problem> {
    params.finish()?;
    let (rule, edge) = (rule_name(&rule)?, edge_id(&edge)?);
    let key = (rule.clone(), edge.clone());
    let found = app.core.read(move |core, _| core.placement(&key.0, &key.1, ROLE)).await?;
    let placement = found.ok_or_else(|| Problem::from(Rejection::NoSuchPlacement { rule, edge }))?;
    Ok(Json(placement).into_response())
}

/// What a placement is made with.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    /// Values of the rule's variables on this edge.
    #[serde(default)]
    vars: BTreeMap<String, String>,
}

/// `PUT /rules/{rule}/placements/{edge}?dry_run=`: nothing is sent before it is issued.
#[utoipa::path(
    put, path = "/rules/{rule}/placements/{edge}", operation_id = "place_rule", tag = "placements",
    params(("rule" = RuleName, Path, description = "Name of the rule"), ("edge" = EdgeId, Path, description = "Name of the edge"), ("dry_run" = Option<bool>, Query, description = "Tell what would happen; nothing is done. The answer is a `Rehearsal`")),
    request_body = Option<Place>,
    responses((status = 201, description = "The rule is placed; nothing was sent", body = PlacementView), (status = 200, description = "It was placed already and has these variables now; or a dry run", body = OneOf2<PlacementView, Rehearsal<'_>>))
)]
pub(super) async fn place(
    State(app): State<App>,
    caller: Caller,
    Path((rule, edge)): Path<(String, String)>,
    mut params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let dry_run = params.flag("dry_run");
    params.finish()?;
    let (rule, edge) = (rule_name(&rule)?, edge_id(&edge)?);
    let Place { vars } = body::json(&headers, body).await?;
    answer::respond(&app.change(caller, dry_run, Request::Place { rule, edge, vars }).await?)
}

/// `DELETE /rules/{rule}/placements/{edge}?dry_run=`: 202 while the edge still has to hear of it, else 204.
#[utoipa::path(
    delete, path = "/rules/{rule}/placements/{edge}", operation_id = "unplace_rule", tag = "placements",
    params(("rule" = RuleName, Path, description = "Name of the rule"), ("edge" = EdgeId, Path, description = "Name of the edge"), ("dry_run" = Option<bool>, Query, description = "Tell what would happen; nothing is done. The answer is a `Rehearsal`")),
    responses((status = 202, description = "The edge still has to hear of it", body = Unplaced), (status = 204, description = "Nothing was on the edge"), (status = 200, description = "A dry run", body = Rehearsal<'_>))
)]
pub(super) async fn unplace(
    State(app): State<App>,
    caller: Caller,
    Path((rule, edge)): Path<(String, String)>,
    mut params: Params,
) -> Result<Response, Problem> {
    let dry_run = params.flag("dry_run");
    params.finish()?;
    let (rule, edge) = (rule_name(&rule)?, edge_id(&edge)?);
    answer::respond(&app.change(caller, dry_run, Request::Unplace { rule, edge }).await?)
}

/// What an action may say.
#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Act {
    /// What to do while the edge is offline; the parameter of the query goes before it.
    when_offline: Option<Offline>,
}

/// What to do while the edge is offline.
#[derive(Deserialize, Clone, Copy, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Offline {
    Refuse,
    Queue,
}

impl Offline {
    fn meant(said: Option<Self>) -> WhenOffline {
        match said {
            None | Some(Self::Refuse) => WhenOffline::Refuse,
            Some(Self::Queue) => WhenOffline::Queue,
        }
    }
}

/// One action on many placements.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ActOnMany {
    /// Which action.
    action: Action,
    /// The placements, at most 500.
    targets: Vec<OnePlacement>,
    /// What to do with edges that are offline; `refuse` unless given.
    when_offline: Option<Offline>,
}

/// Names a placement.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OnePlacement {
    /// The rule.
    rule: RuleName,
    /// The edge.
    edge: EdgeId,
}

/// `POST /actions?dry_run=`: one action on up to 500 placements; the answer tells what became of each.
#[utoipa::path(
    post, path = "/actions", operation_id = "act_on_many", tag = "placements",
    params(("dry_run" = Option<bool>, Query, description = "Tell what would happen; nothing is done. The answer is a `Rehearsal`"), ("Idempotency-Key" = Option<String>, Header, description = "1 to 128 visible ASCII characters: the request is done once, and sent again gets the first answer")),
    request_body = ActOnMany,
    responses((status = 200, description = "What became of each; or a dry run", body = OneOf2<ActedOnMany<'_>, Rehearsal<'_>>))
)]
pub(super) async fn act_on_many(
    State(app): State<App>,
    caller: Caller,
    mut params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let dry_run = params.flag("dry_run");
    params.finish()?;
    let ActOnMany { action, targets, when_offline } = body::json(&headers, body).await?;
    if targets.len() > MAX_TARGETS {
        let detail = format!(
            "{} placements are too many for one request; send {MAX_TARGETS} at a time",
            targets.len()
        );
        return Err(Problem::invalid(vec![FieldError::field("/targets", "too-many", detail)]));
    }
    let targets = targets.into_iter().map(|target| (target.rule, target.edge)).collect();
    let request = Request::ActOnMany { targets, action, when_offline: Offline::meant(when_offline) };
    answer::respond(&app.change(caller, dry_run, request).await?)
}

/// `POST /placements/{rule}/{edge}/{issue|issue-again|sync|start|stop}?when_offline=&dry_run=`
#[utoipa::path(
    post, path = "/placements/{rule}/{edge}/{action}", operation_id = "act", tag = "placements",
    params(("rule" = RuleName, Path, description = "Name of the rule"), ("edge" = EdgeId, Path, description = "Name of the edge"), ("action" = String, Path, description = "`issue`, `issue-again`, `sync`, `start` or `stop`"), ("when_offline" = Option<Offline>, Query, description = "What to do while the edge is offline; `refuse` unless given"), ("dry_run" = Option<bool>, Query, description = "Tell what would happen; nothing is done. The answer is a `Rehearsal`"), ("Idempotency-Key" = Option<String>, Header, description = "1 to 128 visible ASCII characters: the request is done once, and sent again gets the first answer")),
    request_body = Option<Act>,
    responses((status = 202, description = "The action is under way", body = Acted<'_>), (status = 200, description = "It was so already, nothing was sent; or a dry run", body = OneOf2<Acted<'_>, Rehearsal<'_>>))
)]
pub(super) async fn act(
    State(app): State<App>,
    caller: Caller,
    Path((rule, edge, action)): Path<(String, String, String)>,
    mut params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let offline = params.word::<Offline>("when_offline", "refuse, queue");
    let dry_run = params.flag("dry_run");
    params.finish()?;
    let (rule, edge) = (rule_name(&rule)?, edge_id(&edge)?);
    let Some(action) = Action::ALL.into_iter().find(|known| known.as_str().replace('_', "-") == action)
    else {
        let detail = "an action is one of issue, issue-again, sync, start, stop";
        return Err(Problem::new(Kind::UnknownAction, detail));
    };
    let Act { when_offline } = body::json(&headers, body).await?;
    let when_offline = Offline::meant(offline.or(when_offline));
    let request = Request::Act { rule, edge, action, when_offline };
    answer::respond(&app.change(caller, dry_run, request).await?)
}

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

use super::caller::{Caller, Path, edge_id, rule_name};
use super::kind::Kind;
use super::page::{Page, total};
use super::params::Params;
use super::problem::{FieldError, Problem};
use super::rules::{ISSUE_STATES, RUN_STATES, no_such_rule};
use super::{App, ROLE, answer, body};

/// `GET /placements`
pub(super) async fn list(State(app): State<App>, mut params: Params) -> Result<Response, Problem> {
    let page = Page::take(&mut params, "/api/v1/placements");
    let rule = params.parse::<RuleName>("rule");
    let filter = filter(&mut params, rule);
    page_of(&app, page, params, filter).await
}

/// `GET /rules/{rule}/placements`
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
    page.answer(items, |p: &PlacementView| format!("{}/{}", p.rule, p.edge), total(matching))
}

/// `GET /placements/{rule}/{edge}`
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
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    #[serde(default)]
    vars: BTreeMap<String, String>,
}

/// `PUT /rules/{rule}/placements/{edge}?dry_run=`: nothing is sent before it is issued.
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
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Act {
    when_offline: Option<Offline>,
}

/// What to do while the edge is offline.
#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Offline {
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
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ActOnMany {
    action: Action,
    targets: Vec<OnePlacement>,
    when_offline: Option<Offline>,
}

/// Names a placement.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OnePlacement {
    rule: RuleName,
    edge: EdgeId,
}

/// `POST /actions?dry_run=`: one action on up to 500 placements; the answer tells what became of each.
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

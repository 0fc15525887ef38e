//! The five actions: `issue`, `issue --again`, `sync`, `start`, `stop`, on one placement or on many. How they end is told in
//! [`end`].

mod end;

use serde_json::{Value, json};
use tidegate_model::code::Code;
use tidegate_model::placement::Action;

use self::end::Sent;
use super::follow::Wanted;
use super::{Session, dry_run, targets};
use crate::api::{self, Acted, ActedOn, InFlight, Placement};
use crate::args::{ActArgs, Goal, IssueArgs, RunArgs, SyncArgs, WhenOffline};
use crate::client::{Call, ClientError, segment, with_query};
use crate::failure::{Exit, Failure};
use crate::output::words::count;
use crate::prompt;

/// Above this many placements a yes is not enough: the number has to be repeated.
const TIER_2: usize = 50;
/// Placements of one request (the API takes 500).
const MANY: usize = 250;
/// Placements that a question names.
const NAMED: usize = 3;

/// One action on one placement.
struct Step {
    action: Action,
    placement: Placement,
}

impl Step {
    fn shown(&self) -> String {
        format!("{} on {}", self.placement.rule, self.placement.edge)
    }

    fn wanted(self, operation: Option<InFlight>) -> Wanted {
        Wanted {
            rule: self.placement.rule,
            edge: self.placement.edge,
            goal: goal(self.action),
            operation: operation.map(|operation| operation.id),
        }
    }
}

/// `issue`
pub async fn issue(session: &Session, args: IssueArgs) -> Result<Exit, Failure> {
    let action = if args.again { Action::IssueAgain } else { Action::Issue };
    let placements = targets::of_rule(session, &args.rule, &args.edges).await?;
    let placements = if args.edges.is_empty() && !args.again {
        // A whole rule: what was issued before is for sync.
        let (new, old): (Vec<_>, Vec<_>) = placements.into_iter().partition(|p| p.edge_version.is_none());
        if new.is_empty() && !old.is_empty() {
            return Err(Failure::Conflict(format!(
                "rule {0} is on all its edges already; tidegate sync {0} sends a newer version, tidegate issue {0} --again overwrites and restarts",
                args.rule
            )));
        }
        new
    } else {
        placements
    };
    act(session, placements.into_iter().map(|placement| Step { action, placement }).collect(), &args.act)
        .await
}

/// `sync`
pub async fn sync(session: &Session, args: SyncArgs) -> Result<Exit, Failure> {
    let one = args.rule.is_some() && !args.edges.is_empty();
    let placements = match &args.rule {
        Some(rule) => targets::of_rule(session, rule, &args.edges).await?,
        None => targets::on_edges(session, &args.edges).await?,
    };
    let wants = |p: &Placement| {
        let allowed = |action| p.actions.iter().any(|a| a.name == action && (a.allowed || is_for_later(a)));
        match (p.edge_version.is_some(), one) {
            (_, true) => Some(Action::Sync),
            (true, false) => allowed(Action::Sync).then_some(Action::Sync),
            (false, false) => allowed(Action::Issue).then_some(Action::Issue),
        }
    };
    let steps: Vec<Step> = placements
        .into_iter()
        .filter(|p| !p.removing)
        .filter_map(|placement| wants(&placement).map(|action| Step { action, placement }))
        .collect();
    if steps.is_empty() {
        session.out.done(&json!({ "items": [] }), "", "aligned: nothing to send")?;
        return Ok(Exit::Done);
    }
    act(session, steps, &args.act).await
}

/// Refused now for what passes by itself (offline, busy), not for what the placement is.
fn is_for_later(allowed: &tidegate_model::placement::Allowed) -> bool {
    allowed.reason.as_ref().is_some_and(|reason| reason.code != Code::NotAllowed)
}

/// `start`
pub async fn start(session: &Session, args: RunArgs) -> Result<Exit, Failure> {
    run(session, args, Action::Start).await
}

/// `stop`
pub async fn stop(session: &Session, args: RunArgs) -> Result<Exit, Failure> {
    run(session, args, Action::Stop).await
}

async fn run(session: &Session, args: RunArgs, action: Action) -> Result<Exit, Failure> {
    let placements = targets::of_rule(session, &args.rule, &args.edges).await?;
    act(session, placements.into_iter().map(|placement| Step { action, placement }).collect(), &args.act)
        .await
}

async fn act(session: &Session, steps: Vec<Step>, args: &ActArgs) -> Result<Exit, Failure> {
    if !args.dry_run {
        confirm(session, &steps, args)?;
    }
    let all = steps.len();
    let mut sent = Sent::default();
    if all > 1 && !args.dry_run {
        for (step, answer) in send_many(session, steps, args).await? {
            let item: ActedOn = api::read(&answer)?;
            match item.problem {
                Some(mut problem) => {
                    let Placement { rule, edge, .. } = &step.placement;
                    problem.instance = format!("/api/v1/placements/{}/{}", segment(rule), segment(edge));
                    let refused = ClientError::Refused(Box::new(problem));
                    sent.failed.push((step.shown(), with_next(refused, &step.placement)));
                }
                None => {
                    told(session, step.action, &step.placement, item.operation.as_ref());
                    sent.wanted.push(step.wanted(item.operation));
                }
            }
            // What was refused is there as well, with its problem.
            sent.answers.push(answer);
        }
    } else {
        for step in steps {
            match send(session, &step, args).await {
                Ok(answer) => {
                    let acted: Acted = api::read(if args.dry_run { &answer["answer"] } else { &answer })?;
                    if args.dry_run {
                        session.out.note(dry_run::action(step.action, &acted, &answer));
                    } else {
                        told(session, step.action, &acted.placement, acted.operation.as_ref());
                    }
                    sent.answers.push(answer);
                    sent.wanted.push(step.wanted(acted.operation));
                }
                // Without a server the others fail alike.
                Err(error @ ClientError::Unreachable { .. }) => return Err(error.into()),
                Err(error) => {
                    if all > 1 {
                        sent.answers.push(end::refused(&step.placement, &error));
                    }
                    sent.failed.push((step.shown(), with_next(error, &step.placement)));
                }
            }
        }
    }
    end::end(session, sent, all, args.wait).await
}

/// A refusal by the state, with the commands that are possible in it.
fn with_next(error: ClientError, placement: &Placement) -> ClientError {
    let ClientError::Refused(mut problem) = error else { return error };
    let possible: Vec<String> = placement
        .actions
        .iter()
        .filter(|action| action.allowed)
        .map(|action| {
            let on = format!("{} --edge {}", placement.rule, placement.edge);
            match action.name {
                Action::Issue => format!("tidegate issue {on}"),
                Action::IssueAgain => format!("tidegate issue {on} --again (overwrites and restarts)"),
                Action::Sync => format!("tidegate sync {on}"),
                Action::Start => format!("tidegate start {on}"),
                Action::Stop => format!("tidegate stop {on}"),
            }
        })
        .collect();
    if problem.code == Code::NotAllowed.as_str() {
        problem.next = match possible.as_slice() {
            [] => format!("tidegate rule get {} shows how it is there", placement.rule),
            some => some.join(", or "),
        };
    }
    ClientError::Refused(problem)
}

/// Where an action should bring a placement.
fn goal(action: Action) -> Goal {
    match action {
        Action::Issue | Action::IssueAgain | Action::Sync => Goal::Issued,
        Action::Start => Goal::Running,
        Action::Stop => Goal::Stopped,
    }
}

fn confirm(session: &Session, steps: &[Step], args: &ActArgs) -> Result<(), Failure> {
    let Some(first) = steps.first() else { return Ok(()) };
    let offline = steps.iter().filter(|step| !step.placement.link.reachable()).count();
    let rest = match (offline, args.when_offline) {
        (0, _) => String::new(),
        (n, WhenOffline::Refuse) => format!(" ({} offline and refused)", count(n, "edge is", "edges are")),
        (n, WhenOffline::Queue) => format!(" ({} offline: queued)", count(n, "edge is", "edges are")),
    };
    let on = match steps {
        [one] => format!("{} on {}", one.placement.rule, one.placement.edge),
        many => {
            let names =
                many.iter().take(NAMED).map(|s| format!("{} on {}", s.placement.rule, s.placement.edge));
            let more = if many.len() > NAMED { ", …" } else { "" };
            let all = count(many.len(), "placement", "placements");
            format!("{all} ({}{more})", names.collect::<Vec<_>>().join(", "))
        }
    };
    let queues = if steps.len() == 1 { "Its queue is kept" } else { "Their queues are kept" };
    let question = match first.action {
        Action::IssueAgain => format!("Overwrite and restart {on}? Data flow stops for a moment{rest}."),
        Action::Stop => format!("Stop {on}? {queues}{rest}."),
        Action::Issue | Action::Sync | Action::Start if steps.len() == 1 => return Ok(()),
        Action::Issue | Action::Sync => format!("Send the newest version to {on}?{rest}"),
        Action::Start => format!("Start {on}?{rest}"),
    };
    if steps.len() > TIER_2 {
        return prompt::confirm_by_name(
            &session.out,
            &question,
            &steps.len().to_string(),
            args.confirm.as_deref(),
        );
    }
    prompt::confirm(&session.out, &question, session.yes)
}

/// Sends the steps of each action together, as many in a request as the API takes; gives what became of each.
async fn send_many(
    session: &Session,
    mut steps: Vec<Step>,
    args: &ActArgs,
) -> Result<Vec<(Step, Value)>, ClientError> {
    let mut all = Vec::with_capacity(steps.len());
    // Stable: within an action the order stays as it was asked for.
    steps.sort_by_key(|step| step.action);
    while let Some(first) = steps.first() {
        let action = first.action;
        let count = steps.iter().take(MANY).take_while(|step| step.action == action).count();
        let rest = steps.split_off(count);
        let named = |step: &Step| json!({ "rule": step.placement.rule, "edge": step.placement.edge });
        let targets: Vec<Value> = steps.iter().map(named).collect();
        let mut body = json!({ "action": action, "targets": targets });
        if let WhenOffline::Queue = args.when_offline {
            body["when_offline"] = json!("queue");
        }
        let mut answer = session.client.send(Call::post("/actions", &body)).await?.body;
        let items = answer["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
        all.extend(steps.into_iter().zip(items));
        steps = rest;
    }
    Ok(all)
}

async fn send(session: &Session, step: &Step, args: &ActArgs) -> Result<Value, ClientError> {
    let Step { action, placement } = step;
    let word = action.as_str().replace('_', "-");
    let path = format!("/placements/{}/{}/{word}", segment(&placement.rule), segment(&placement.edge));
    let path = if args.dry_run { with_query(&path, &[("dry_run", "true")]) } else { path };
    let body = match args.when_offline {
        WhenOffline::Refuse => json!({}),
        WhenOffline::Queue => json!({ "when_offline": "queue" }),
    };
    Ok(session.client.send(Call::post(path, &body)).await?.body)
}

fn told(session: &Session, action: Action, placement: &Placement, operation: Option<&InFlight>) {
    let Placement { rule, edge, version, edge_version, .. } = placement;
    let version = match (action, edge_version) {
        (Action::Issue | Action::IssueAgain | Action::Sync, _) | (_, None) => *version,
        (Action::Start | Action::Stop, Some(on_edge)) => *on_edge,
    };
    session.out.note(match operation {
        None => format!("{rule} on {edge}: it is so already, nothing was sent"),
        Some(operation) if operation.queued => {
            format!("{rule} on {edge}: {action} of v{version} is queued until the edge returns (7 days)")
        }
        Some(_) => format!("{rule} on {edge}: {action} of v{version} is under way"),
    });
}

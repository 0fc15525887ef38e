//! What is checked of edges and placements.

use jiff::Timestamp;
use tidegate_model::doctor::{Check, named};
use tidegate_model::placement::{IssueState, Link, RunState};

use crate::api::{self, Edge, Placement, RefusedLogin, Summary};
use crate::client::{Client, ClientError};
use crate::output::words::{count, reason_text, refused_next, refused_text};

/// Names that one line tells at the most.
const NAMED: usize = 5;

/// Edges, then placements.
pub(super) async fn all(client: &Client, checks: &mut Vec<Check>) {
    if let Err(error) = look(client, checks).await {
        checks.push(Check::bad("edges", error.to_string(), "try again"));
    }
}

async fn look(client: &Client, checks: &mut Vec<Check>) -> Result<(), ClientError> {
    let edges: api::List<Edge> = api::read(&client.list("/edges", &[]).await?)?;
    let placements: api::List<Placement> = api::read(&client.list("/placements", &[]).await?)?;
    links(&edges.items, checks);
    let summary: Summary = api::read(&client.get("/summary").await?.body)?;
    logins(summary.refused_logins.as_deref(), Timestamp::now(), checks);
    held(&edges.items, checks);
    let held: Vec<&str> =
        edges.items.iter().filter(|edge| edge.held.is_some()).map(|edge| edge.id.as_str()).collect();
    pending(&placements.items, &held, checks);
    Ok(())
}

/// Who was not let in at the controller's broker; `None`: another broker lets the gateways in, or the server is older.
pub(super) fn logins(refused: Option<&[RefusedLogin]>, now: Timestamp, checks: &mut Vec<Check>) {
    let Some(refused) = refused else { return };
    for login in refused.iter().take(NAMED) {
        checks.push(Check::warn("logins", refused_text(now, login), refused_next(login)));
    }
    if refused.len() > NAMED {
        let why = format!("{} more were refused", refused.len() - NAMED);
        checks.push(Check::warn("logins", why, "tidegate status -o json lists them (refused_logins)"));
    }
    if refused.is_empty() {
        checks.push(Check::ok("logins", "none was refused within the last hour"));
    }
}

/// Edges on which actions are held.
pub(super) fn held(edges: &[Edge], checks: &mut Vec<Check>) {
    for (edge, held) in edges.iter().filter_map(|edge| Some((edge, edge.held.as_ref()?))) {
        let fix =
            if held.next.is_empty() { format!("tidegate edge get {}", edge.id) } else { held.next.clone() };
        checks.push(Check::bad("edge", format!("{}: {} ({})", edge.id, held.detail, held.code), fix));
    }
}

/// Which edges are there.
pub(super) fn links(edges: &[Edge], checks: &mut Vec<Check>) {
    let away: Vec<&str> =
        edges.iter().filter(|edge| edge.link != Link::Online).map(|edge| edge.id.as_str()).collect();
    checks.push(if edges.is_empty() {
        Check::warn("edges", "no gateway is known", "tidegate edge create NAME --out NAME.toml")
    } else if away.is_empty() {
        Check::ok("edges", format!("{} online", count(edges.len(), "edge is", "edges are")))
    } else {
        let fix = "on the gateway: tidegate-edge status; check that it reaches the controller's broker";
        Check::warn(
            "edges",
            format!("{} of {} not online: {}", away.len(), edges.len(), named(&away, NAMED)),
            fix,
        )
    });
}

/// Placements that failed, have a fault, lose messages, or wait for somebody. What waits on a `held` edge is told with the edge.
pub(super) fn pending(placements: &[Placement], held: &[&str], checks: &mut Vec<Check>) {
    let shown = |p: &Placement| format!("{}/{}", p.rule, p.edge);
    let mut fine = true;
    let troubled =
        |p: &&Placement| p.issue_state == IssueState::Failed || p.run_state == RunState::PausedFault;
    for p in placements.iter().filter(troubled).take(NAMED) {
        fine = false;
        let reason = p.reason.as_ref().or(p.issue_reason.as_ref()).or(p.run_reason.as_ref());
        let (why, fix) = match reason {
            Some(reason) if !reason.next.is_empty() => {
                (format!("{} ({})", reason.detail, reason.code), reason.next.clone())
            }
            Some(reason) => (reason_text(reason), format!("tidegate rule get {}", p.rule)),
            None => (p.issue_state.to_string(), format!("tidegate rule get {}", p.rule)),
        };
        checks.push(Check::bad("placement", format!("{}: {why}", shown(p)), fix));
    }
    let all = placements.iter().filter(troubled).count();
    if all > NAMED {
        checks.push(Check::bad("placement", format!("{} more have failed", all - NAMED), "tidegate status"));
    }
    for (p, full) in placements.iter().filter_map(|p| Some((p, p.queue_full.as_ref()?))).take(NAMED) {
        fine = false;
        let why = format!("{}: {} ({})", shown(p), full.reason.detail, full.reason.code);
        checks.push(Check::warn("placement", why, full.reason.next.clone()));
    }
    let given_up = |p: &Placement| p.counters.as_ref().map_or(0, |counters| counters.dropped.values().sum());
    let losing: Vec<String> = placements
        .iter()
        .filter(|p| given_up(p) > 0)
        .map(|p| format!("{} ({})", shown(p), given_up(p)))
        .collect();
    if !losing.is_empty() {
        fine = false;
        let names: Vec<&str> = losing.iter().map(String::as_str).collect();
        let why = format!("messages were given up since the agent began: {}", named(&names, NAMED));
        let fix =
            "on the gateway: tidegate-edge doctor says why; a larger queue.max_bytes or max_age keeps more";
        checks.push(Check::warn("placement", why, fix));
    }
    let set_aside = |p: &Placement| p.counters.as_ref().map_or(0, |counters| counters.set_aside);
    let refused: Vec<String> = placements
        .iter()
        .filter(|p| set_aside(p) > 0)
        .map(|p| format!("{} ({})", shown(p), set_aside(p)))
        .collect();
    if !refused.is_empty() {
        fine = false;
        let names: Vec<&str> = refused.iter().map(String::as_str).collect();
        let why = format!("messages are set aside that the broker does not take: {}", named(&names, NAMED));
        let fix =
            "on the gateway: tidegate-edge queue show RULE says which and why; raise the broker's limit";
        checks.push(Check::warn("placement", why, fix));
    }
    let is_queued = |p: &&Placement| p.in_flight.as_ref().is_some_and(|flight| flight.queued);
    let (queued, rest): (Vec<_>, Vec<_>) =
        placements.iter().filter(|p| !held.contains(&p.edge.as_str())).partition(is_queued);
    if !queued.is_empty() {
        fine = false;
        let names: Vec<String> = queued.into_iter().map(shown).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let why = format!("{} queued: {}", names.len(), named(&names, NAMED));
        checks.push(Check::warn("placement", why, "nothing: it is sent when the gateway returns"));
    }
    let open: Vec<String> = rest
        .into_iter()
        .filter(|p| matches!(p.issue_state, IssueState::NotIssued | IssueState::UpdatesNotIssued))
        .map(shown)
        .collect();
    if !open.is_empty() {
        fine = false;
        let names: Vec<&str> = open.iter().map(String::as_str).collect();
        checks.push(Check::warn(
            "placement",
            format!("{} pending: {}", open.len(), named(&names, NAMED)),
            "tidegate sync --all",
        ));
    }
    if fine {
        let away = placements.iter().filter(|p| p.last_known).count();
        let known = if away > 0 { format!(" ({away} as last known)") } else { String::new() };
        let all = count(placements.len(), "placement is", "placements are");
        checks.push(Check::ok("placement", format!("{all} aligned{known}")));
    }
}

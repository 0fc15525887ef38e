//! What is checked of edges and placements.

use tidegate_model::doctor::{Check, named};
use tidegate_model::placement::{IssueState, Link, RunState};

use crate::api::{self, Edge, Placement};
use crate::client::{Client, ClientError};
use crate::output::words::{count, reason_text};

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
    held(&edges.items, checks);
    pending(&placements.items, checks);
    Ok(())
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

/// Placements that failed, have a fault, or wait for somebody.
pub(super) fn pending(placements: &[Placement], checks: &mut Vec<Check>) {
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
    let open: Vec<String> = placements
        .iter()
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

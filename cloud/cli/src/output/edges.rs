//! Edges and totals as tables.

use comfy_table::Cell;
use jiff::Timestamp;
use tidegate_model::code::Code;
use tidegate_model::placement::IssueState;

use super::rules::{Column, placements};
use super::time::ago_or_dash;
use super::words::{
    count, held_cell, issue_counts, link_cell, pending_cell, pending_text, reason_text, refused_text,
    run_counts, unmanaged_run_cell,
};
use super::{Out, finish, table};
use crate::api::{Broker, Edge, Placement, Summary, Unmanaged};

/// The list of edges.
pub fn edges(out: &Out, now: Timestamp, edges: &[Edge], wide: bool) -> String {
    let mut header = vec!["EDGE", "LINK", "LAST SEEN", "RULES", "ISSUE", "RUN", "PENDING", "AGENT"];
    if wide {
        header.extend(["UNMANAGED", "CLOCK"]);
    }
    let mut table = table(out, &header);
    for edge in edges {
        let mut row = vec![
            Cell::new(&edge.id),
            link_cell(out, edge.link),
            Cell::new(ago_or_dash(now, edge.last_seen.as_deref())),
            Cell::new(edge.tally.placements),
            Cell::new(issue_counts(&edge.tally)),
            Cell::new(run_counts(&edge.tally)),
            match edge.held {
                Some(_) => held_cell(out),
                None => pending_cell(out, edge.tally.pending),
            },
            Cell::new(edge.agent_version.as_deref().unwrap_or("-")),
        ];
        if wide {
            let unmanaged = edge.unmanaged_rules.map_or_else(|| "-".into(), |n| n.to_string());
            row.extend([Cell::new(unmanaged), Cell::new(clock(edge))]);
        }
        table.add_row(row);
    }
    finish(table)
}

fn clock(edge: &Edge) -> String {
    let Some(ms) = edge.clock_skew_ms else { return "-".into() };
    let skew = match ms.unsigned_abs() {
        // The time that a message travels is in it as well.
        0..100 => "in step".into(),
        off => format!("{}{}.{} s", if ms < 0 { "-" } else { "+" }, off / 1_000, off % 1_000 / 100),
    };
    if edge.link.reachable() { skew } else { format!("{skew} (last known)") }
}

/// One edge and the rules on it.
pub fn edge(out: &Out, now: Timestamp, edge: &Edge, placed: &[Placement], wide: bool) -> String {
    let mut lines = vec![
        format!("Edge       {}", edge.id),
        format!(
            "Link       {} (last seen {})",
            edge.link.as_str(),
            ago_or_dash(now, edge.last_seen.as_deref())
        ),
        format!("Agent      {}", edge.agent_version.as_deref().unwrap_or("not heard of yet")),
        format!("Clock      {}", clock(edge)),
    ];
    if let Some(held) = &edge.held {
        lines.push(format!("Held       {}", reason_text(held)));
        if held.code == Code::CloudBehind.as_str() {
            lines.push(format!("           tidegate edge confirm {}", edge.id));
        }
    }
    lines.push(String::new());
    if placed.is_empty() {
        lines.push(format!("No rules on this edge. Next: tidegate rule place RULE --edge {}", edge.id));
    } else {
        lines.push(placements(out, now, placed, wide, Column::Rule));
    }
    if let Some(rules) = edge.unmanaged.as_ref().filter(|rules| !rules.is_empty()) {
        lines.push(String::new());
        lines.push("Not managed by this cloud, which does not touch them by itself (tidegate edge remove-rule EDGE RULE):".into());
        lines.push(unmanaged(out, now, rules, wide));
    }
    lines.join("\n")
}

/// Rules that the cloud does not manage, and below them why they do not run.
fn unmanaged(out: &Out, now: Timestamp, rules: &[Unmanaged], wide: bool) -> String {
    let mut header = vec!["RULE", "ORIGIN", "RUN", "SINCE"];
    if wide {
        header.push("ID");
    }
    let mut table = table(out, &header);
    let name = |rule: &Unmanaged| rule.name.clone().unwrap_or_else(|| rule.rule.clone());
    for rule in rules {
        let origin = match rule.origin.as_str() {
            "local" => "the site",
            "cloud" => "a cloud, forgotten here",
            other => other,
        };
        let mut row = vec![
            Cell::new(name(rule)),
            Cell::new(origin),
            unmanaged_run_cell(out, rule),
            Cell::new(ago_or_dash(now, rule.since.as_deref())),
        ];
        if wide {
            row.push(Cell::new(&rule.rule));
        }
        table.add_row(row);
    }
    let mut text = finish(table);
    for (rule, reason) in rules.iter().filter_map(|rule| Some((rule, rule.run_reason.as_ref()?))) {
        text.push_str(&format!("\n{}: {}", name(rule), reason_text(reason)));
    }
    for (rule, full) in rules.iter().filter_map(|rule| Some((rule, rule.queue_full.as_ref()?))) {
        text.push_str(&format!("\n{}: {}", name(rule), reason_text(&full.reason)));
    }
    text
}

/// Totals, and what is wrong.
pub fn status(out: &Out, now: Timestamp, server: &str, summary: &Summary, troubled: &[Placement]) -> String {
    let online = summary.edges.get("online").copied().unwrap_or_default();
    let edges: u32 = summary.edges.values().sum();
    let state = if summary.tally.pending > 0 {
        pending_text(summary.tally.pending)
    } else if !summary.held.is_empty() {
        "Aligned, but for what is held".into()
    } else if summary.indicator == "green" {
        "Aligned".into()
    } else {
        "Aligned as far as is known; not every edge was heard of".into()
    };
    let state = match summary.superseded_by {
        Some(epoch) => {
            format!(
                "Superseded: another controller (epoch {epoch}) leads on this broker; stop one of the two"
            )
        }
        None => state,
    };
    let mut lines = vec![format!("Server      {server}"), format!("State       {state}")];
    if !summary.held.is_empty() {
        lines.push(format!(
            "Held        {}: nothing is sent there (tidegate edge get EDGE says why)",
            summary.held.join(", ")
        ));
    }
    lines.extend(summary.broker.as_ref().map(|broker| format!("Broker      {}", broker_text(broker))));
    lines.extend([
        format!("Rules       {}, {} issued", summary.rules, summary.rules_issued),
        format!("Edges       {edges}, {online} online"),
        format!("Placements  {}", summary.tally.placements),
        format!("  issue     {}", issue_counts(&summary.tally)),
        format!("  run       {}", run_counts(&summary.tally)),
    ]);
    let refused = summary.refused_logins.as_deref().unwrap_or_default();
    if !refused.is_empty() {
        let shown = refused.iter().take(MAX_TROUBLED).map(|refused| refused_text(now, refused));
        lines.extend([
            "".into(),
            "Refused at the controller's broker (tidegate doctor says what to do):".into(),
        ]);
        lines.extend(shown.map(|text| format!("  {text}")));
        if refused.len() > MAX_TROUBLED {
            lines.push(format!("  and {} more", refused.len() - MAX_TROUBLED));
        }
    }
    if !troubled.is_empty() {
        lines.push(String::new());
        lines.push("Needs a look:".into());
        let mut table = table(out, &["PLACEMENT", "ISSUE", "RUN", "WHY"]);
        for p in troubled.iter().take(MAX_TROUBLED) {
            let why = p.reason.as_ref().or(p.run_reason.as_ref()).or(p.issue_reason.as_ref());
            table.add_row(vec![
                Cell::new(format!("{}/{}", p.rule, p.edge)),
                super::words::issue_cell(out, p),
                super::words::run_cell(out, p),
                Cell::new(why.map_or_else(|| next_step(p, &summary.held), reason_text)),
            ]);
        }
        lines.push(finish(table));
        if troubled.len() > MAX_TROUBLED {
            lines.push(format!(
                "and {} more (tidegate rule list)",
                count(troubled.len() - MAX_TROUBLED, "placement", "placements")
            ));
        }
    }
    lines.join("\n")
}

fn broker_text(broker: &Broker) -> String {
    let Broker { kind, address, up, detail } = broker;
    match (up, detail) {
        (true, _) => format!("{address} ({kind}), up"),
        (false, Some(why)) => format!("{address} ({kind}), DOWN: {why}"),
        (false, None) => format!("{address} ({kind}), DOWN"),
    }
}

/// Placements that `status` shows at the most.
const MAX_TROUBLED: usize = 5;

/// What to do for a placement that is pending without a failure.
fn next_step(p: &Placement, held: &[String]) -> String {
    match p.issue_state {
        _ if held.contains(&p.edge) => format!("the edge is held; tidegate edge get {}", p.edge),
        _ if p.in_flight.as_ref().is_some_and(|flight| flight.queued) => {
            format!("sent when the edge returns; look at the gateway, or wait: tidegate edge get {}", p.edge)
        }
        _ if p.in_flight.is_some() => format!("under way; tidegate rule get {}", p.rule),
        IssueState::NotIssued => format!("tidegate issue {} --edge {}", p.rule, p.edge),
        IssueState::UpdatesNotIssued if p.edge_version.is_some_and(|runs| runs > p.version) => format!(
            "the edge has v{}, which is newer; tidegate sync {} --edge {} puts v{} back",
            p.edge_version.unwrap_or_default(),
            p.rule,
            p.edge,
            p.version
        ),
        IssueState::UpdatesNotIssued | IssueState::Failed => {
            format!("tidegate sync {} --edge {}", p.rule, p.edge)
        }
        IssueState::Issued => format!("tidegate rule get {}", p.rule),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_clock_of_an_edge_that_is_away_is_the_last_known_one() {
        let clock_of = |link: &str, skew: Option<i64>| {
            let edge = json!({ "id": "gw-1", "link": link, "clock_skew_ms": skew });
            clock(&serde_json::from_value(edge).unwrap())
        };
        assert_eq!(clock_of("online", Some(-2_340)), "-2.3 s");
        assert_eq!(clock_of("online", Some(5)), "in step");
        assert_eq!(clock_of("offline", Some(2_340)), "+2.3 s (last known)");
        assert_eq!(clock_of("offline", Some(5)), "in step (last known)");
        assert_eq!(clock_of("unknown", None), "-");
    }
}

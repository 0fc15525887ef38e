//! Rules, placements and versions as tables.

use comfy_table::Cell;
use jiff::Timestamp;
use serde_json::Value;
use tidegate_model::placement::RunState;
use tidegate_model::rule::Fate;

use super::time::{ago, ago_or_dash};
use super::words::{issue_cell, issue_counts, link_cell, pending_cell, reason_text, run_cell, run_counts};
use super::{Out, finish, table};
use crate::api::{Explanation, Placement, Rule};

/// The list of rules.
pub fn rules(out: &Out, now: Timestamp, rules: &[Rule], wide: bool) -> String {
    let mut header = vec!["RULE", "VERSION", "REMOTE", "EDGES", "ISSUE", "RUN", "PENDING", "CHANGED"];
    if wide {
        header.push("BY");
    }
    let mut table = table(out, &header);
    for rule in rules {
        let mut row = vec![
            Cell::new(&rule.name),
            Cell::new(format!("v{}", rule.version)),
            Cell::new(remote(rule)),
            Cell::new(rule.tally.placements),
            Cell::new(if rule.tally.placements == 0 {
                "not placed".into()
            } else {
                issue_counts(&rule.tally)
            }),
            Cell::new(run_counts(&rule.tally)),
            pending_cell(out, rule.tally.pending),
            Cell::new(ago_or_dash(now, rule.changed.as_deref())),
        ];
        if wide {
            row.push(Cell::new(&rule.changed_by));
        }
        table.add_row(row);
    }
    finish(table)
}

fn remote(rule: &Rule) -> &str {
    rule.content.pointer("/remote/url").and_then(Value::as_str).unwrap_or("-")
}

/// What becomes of a topic on an edge, and what is odd about the rule's entries.
pub fn explanation(out: &Out, told: &Explanation) -> String {
    let Explanation { rule, edge, version, .. } = told;
    let runs = match (told.placed, told.edge_version) {
        (false, _) => "; it is not placed there".to_owned(),
        (true, None) => "; nothing was issued yet".to_owned(),
        (true, Some(runs)) if runs != *version => format!("; the edge still has v{runs}"),
        (true, Some(_)) => String::new(),
    };
    let mut lines = vec![format!("{rule} v{version} on {edge}{runs}")];
    if let Some(topic) = &told.topic {
        let sides = [
            ("the gateway's broker", "forwards", &told.forwards),
            ("the remote broker", "subscriptions", &told.subscriptions),
        ];
        for (broker, list, fates) in sides.into_iter().filter(|(_, _, fates)| !fates.is_empty()) {
            lines.push(format!("\n'{topic}' as a message of {broker}:"));
            let mut table = table(out, &["ENTRY", "FILTER", "BECOMES", "WHY"]);
            for fate in fates {
                let entry = format!("{list}[{}]", fate.entry);
                table.add_row([&entry, &fate.filter, &becomes(fate), &fate.why]);
            }
            lines.push(finish(table));
        }
    }
    match told.oddities.as_slice() {
        [] if told.topic.is_none() => lines.push("no two entries overlap".to_owned()),
        [] => {}
        odd => {
            lines.push(String::new());
            lines.extend(odd.iter().map(|odd| odd.what.clone()));
        }
    }
    lines.join("\n")
}

fn becomes(fate: &Fate) -> String {
    match (&fate.becomes, fate.taken) {
        (Some(topic), true) => {
            let qos = fate.qos.map(|qos| format!(", QoS {qos} at most")).unwrap_or_default();
            let retain = if fate.retain == Some(true) { ", retained if it was" } else { "" };
            format!("{topic}{qos}{retain}")
        }
        (Some(_), false) | (None, _) => "-".to_owned(),
    }
}

/// One rule: what it says in short, and where it stands.
pub fn rule(out: &Out, now: Timestamp, rule: &Rule, placed: &[Placement], wide: bool) -> String {
    let mut lines = vec![format!("Rule        {}", rule.name)];
    let by = if rule.changed_by.is_empty() { String::new() } else { format!(", by {}", rule.changed_by) };
    lines.push(format!("Version     v{} ({}{by})", rule.version, ago_or_dash(now, rule.changed.as_deref())));
    lines.push(format!("Remote      {}", remote(rule)));
    for (label, field) in [("Forwards    ", "forwards"), ("Subscribes  ", "subscriptions")] {
        let topics: Vec<&str> = rule
            .content
            .get(field)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|route| route.get("topic").and_then(Value::as_str))
            .collect();
        if !topics.is_empty() {
            lines.push(format!("{label}{}", topics.join(", ")));
        }
    }
    if let Some(mountpoint) = rule.content.get("mountpoint").and_then(Value::as_str).filter(|m| !m.is_empty())
    {
        lines.push(format!("Mountpoint  {mountpoint}"));
    }
    if rule.content.pointer("/remote/password_set").or(rule.content.get("password_set"))
        == Some(&Value::Bool(true))
    {
        lines.push("Password    set (never shown)".into());
    }
    if rule.content.pointer("/remote/tls/key_set") == Some(&Value::Bool(true)) {
        lines.push("Client key  set (never shown)".into());
    }
    lines.push(String::new());
    if placed.is_empty() {
        lines.push(format!("Not placed on any edge. Next: tidegate rule place {} --edge EDGE", rule.name));
    } else {
        lines.push(placements(out, now, placed, wide, Column::Edge));
    }
    lines.join("\n")
}

/// Which name leads a table of placements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// All are of one rule.
    Edge,
    /// All are on one edge.
    Rule,
}

/// Placements, and below them the reasons.
pub fn placements(out: &Out, now: Timestamp, placements: &[Placement], wide: bool, first: Column) -> String {
    let name = match first {
        Column::Edge => "EDGE",
        Column::Rule => "RULE",
    };
    let mut header = vec![name, "LINK", "ISSUE", "RUN", "SINCE", "CLOUD", "ON EDGE"];
    if wide {
        header.extend(["OUT", "IN", "QUEUED", "GENERATION", "REPORTED"]);
    }
    let mut table = table(out, &header);
    for p in placements {
        let name = match first {
            Column::Edge => &p.edge,
            Column::Rule => &p.rule,
        };
        let mut row = vec![
            Cell::new(name),
            link_cell(out, p.link),
            issue_cell(out, p),
            run_cell(out, p),
            Cell::new(ago_or_dash(now, p.since.as_deref())),
            Cell::new(format!("v{}", p.version)),
            Cell::new(p.edge_version.map_or_else(|| "-".into(), |v| format!("v{v}"))),
        ];
        if wide {
            let counters = p.counters.clone().unwrap_or_default();
            row.extend([
                Cell::new(counters.forwarded),
                Cell::new(counters.received),
                Cell::new(counters.queued),
                Cell::new(p.generation),
                Cell::new(ago_or_dash(now, p.as_of.as_deref())),
            ]);
        }
        table.add_row(row);
    }
    let mut text = finish(table);
    for p in placements {
        let name = match first {
            Column::Edge => &p.edge,
            Column::Rule => &p.rule,
        };
        if let Some(reason) = &p.run_reason {
            text.push_str(&format!("\n{name}: {}", reason_text(reason)));
        }
        if let Some(full) = &p.queue_full {
            let since = ago_or_dash(now, full.since.as_deref());
            text.push_str(&format!("\n{name}: {} (since {since})", reason_text(&full.reason)));
        }
        let aside = p.counters.as_ref().map_or(0, |counters| counters.set_aside);
        if aside > 0 {
            let next = format!("tidegate-edge queue show {}", p.rule);
            text.push_str(&format!(
                "\n{name}: {aside} messages are set aside: the broker does not take them. Next, on the gateway: {next}"
            ));
        }
        if p.run_state == RunState::PausedManual && p.run_by.as_deref() == Some("local") {
            let next = format!("tidegate start {} --edge {}", p.rule, p.edge);
            text.push_str(&format!("\n{name}: it was stopped on site. Next: {next}"));
        }
        // A failed attempt stays worth knowing until the next one succeeds.
        if let Some(reason) = p.issue_reason.as_ref().filter(|r| Some(*r) != p.run_reason.as_ref()) {
            text.push_str(&format!("\n{name}: the last attempt to issue failed: {}", reason_text(reason)));
        }
    }
    text
}

/// The versions of a rule, newest first.
pub fn versions(out: &Out, now: Timestamp, versions: &[Value]) -> String {
    let mut table = table(out, &["VERSION", "SAVED", "BY", "NOTE"]);
    for version in versions {
        let text = |field: &str| version.get(field).and_then(Value::as_str).unwrap_or_default();
        let by = version.pointer("/by/name").and_then(Value::as_str).unwrap_or_else(|| text("by"));
        let restored = version.get("restored_from").and_then(Value::as_u64);
        let note = match (restored, text("note")) {
            (Some(from), "") => format!("restored from v{from}"),
            (Some(from), note) => format!("restored from v{from}: {note}"),
            (None, note) => note.to_owned(),
        };
        table.add_row(vec![
            format!("v{}", version.get("version").and_then(Value::as_u64).unwrap_or_default()),
            ago(now, text("at")),
            by.to_owned(),
            note,
        ]);
    }
    finish(table)
}

//! The table of protocol.md section 6 as an oracle: for each rule that an inventory tells, what must have happened when
//! it was compared. Written after the table and not after the core.

use std::collections::BTreeMap;

use tidegate_cloud_core::PlacementRecord;
use tidegate_model::code::Code;
use tidegate_model::ids::{EdgeId, RuleId};
use tidegate_model::rule::{OnDrift, OnWipe};
use tidegate_model::version::Generation;
use tidegate_model::wire::{Header, Inventory, InventoryItem};

use crate::world::World;

/// A row of the table that applies to a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// An operation ended there with this code, which is not known or shown otherwise: the answer was lost, or it was that
    /// of another database.
    Ended(Code),
    /// An operation in flight is at its generation there, and how it ended was not told.
    NotEnded,
    /// The edge never saw the newest generation.
    Behind(Generation),
    /// It runs something else at the same generation, which the rule's policy heals or not.
    Drifts(OnDrift),
    /// The cloud took it off.
    TakenOff,
    /// The cloud took it off, and it is gone.
    Buried,
    /// The cloud never had it.
    Unmanaged,
    /// The cloud was restored from a backup.
    Ahead,
    /// It was there and is not any more.
    Wiped(OnWipe),
    /// It was taken off there before the cloud was restored from a backup.
    LeftOff,
}

impl Row {
    /// Every row, by its name in the counts.
    pub const NAMES: [&str; 13] = [
        "an answer was lost: settled as a success",
        "an answer was lost: settled as a failure",
        "an answer was not told: the same set again",
        "an edge is behind: the latest set only",
        "a rule drifts and is healed",
        "a rule drifts and an operator is asked",
        "a deleted rule is there: it is removed",
        "a removal's answer was lost: settled",
        "a rule that the cloud never had is unmanaged",
        "an edge is ahead: CLOUD_BEHIND",
        "a wiped rule is issued again",
        "a wiped rule is kept away",
        "a rule that was taken off before the backup came back is left off",
    ];

    fn name(self) -> &'static str {
        Self::NAMES[match self {
            Self::Ended(code) if code.is_success() => 0,
            Self::Ended(_) => 1,
            Self::NotEnded => 2,
            Self::Behind(_) => 3,
            Self::Drifts(OnDrift::Heal) => 4,
            Self::Drifts(OnDrift::Ask) => 5,
            Self::TakenOff => 6,
            Self::Buried => 7,
            Self::Unmanaged => 8,
            Self::Ahead => 9,
            Self::Wiped(OnWipe::Issue) => 10,
            Self::Wiped(OnWipe::Keep) => 11,
            Self::LeftOff => 12,
        }]
    }
}

/// Which rows apply to an inventory that is about to reach the controller, by the stores of both as they are now.
#[must_use]
pub fn expected(world: &World, edge: &EdgeId, header: &Header, page: &Inventory) -> Vec<(RuleId, Row)> {
    let facts = world.cloud.disk.edges.get(edge).map(|edge| &edge.facts);
    // Only one that is compared as it stands: on one page, of the session that is known.
    if page.pages != 1
        || facts.is_none_or(|f| f.store != Some(header.sid.store) || f.epoch != header.sid.epoch)
    {
        return Vec::new();
    }
    let mut items: BTreeMap<RuleId, &InventoryItem> =
        page.rules.iter().map(|item| (item.rule, item)).collect();
    let placed = world.cloud.disk.placements.values().filter(|record| record.edge == *edge);
    let mut rows: Vec<(RuleId, Row)> = Vec::new();
    for record in placed {
        if let Some(row) = row_of(world, record, items.remove(&record.rule)) {
            rows.push((record.rule, row));
        }
    }
    rows.extend(items.into_values().filter(|item| item.present).map(|item| (item.rule, Row::Unmanaged)));
    rows
}

fn row_of(world: &World, record: &PlacementRecord, item: Option<&InventoryItem>) -> Option<Row> {
    let ours = record.generation;
    let policy = world.cloud.disk.rules.get(&record.rule).map(|rule| rule.content.spec().policy);
    let sent = world.ledger.want_of(record.rule, &record.edge, ours);
    let in_flight = record.operation.is_some();
    if let Some(item) = item {
        let other = in_flight && item.generation == ours && sent.is_some_and(|want| want != item.want);
        if item.generation > ours || other {
            return Some(Row::Ahead);
        }
        // Never sent under this number: nothing can be said of what came to be under it.
        if in_flight && item.generation == ours && sent.is_none() {
            return None;
        }
    }
    let there = item.filter(|item| item.present);
    if !record.present {
        return match item {
            Some(item) if item.present => Some(Row::TakenOff),
            Some(item) if in_flight && item.generation == ours => Some(Row::Buried),
            Some(_) | None => None,
        };
    }
    let ended = item.and_then(|item| item.attempted.as_ref()).filter(|a| a.generation == ours);
    if in_flight {
        let theirs = item.map_or(Generation::default(), |item| item.generation);
        return match ended {
            _ if record.target.is_none() => None,
            _ if theirs < ours => Some(Row::Behind(ours)),
            Some(attempt) if attempt.code.is_transient() => None,
            Some(attempt) => Some(Row::Ended(attempt.code)),
            None => Some(Row::NotEnded),
        };
    }
    let at_this =
        [&record.last_issue, &record.last_run].into_iter().flatten().filter(|s| s.generation == ours);
    if let Some(attempt) = ended
        && at_this.clone().any(|shown| {
            shown.code != attempt.code && !(shown.code.is_success() && attempt.code.is_success())
        })
    {
        return Some(Row::Ended(attempt.code));
    }
    let target = record.target.as_ref()?.at;
    // What it was sent, or, from before the cloud was restored from a backup, what is desired.
    let as_wanted = |running| running == Some(target) || running == Some(record.desired.at);
    let failed = at_this.clone().any(|last| !last.code.is_success());
    match there {
        // A tombstone at the newest number: the command that took it off came from a controller that is forgotten.
        None if record.committed.is_some() && item.is_some_and(|item| item.generation >= ours) => {
            Some(Row::LeftOff)
        }
        None if record.committed.is_some() && !failed => policy.map(|policy| Row::Wiped(policy.on_wipe)),
        Some(item) if item.generation == ours && !as_wanted(item.running) && !failed => {
            policy.map(|policy| Row::Drifts(policy.on_drift))
        }
        Some(_) | None => None,
    }
}

/// Whether actions on an edge are held.
#[must_use]
pub fn is_held(world: &World, edge: &EdgeId) -> bool {
    world.cloud.core.as_ref().is_some_and(|core| core.held(edge).is_some())
}

/// Counts the rows that applied, and checks that what they ask for happened.
pub fn judge(world: &mut World, edge: &EdgeId, page: &Inventory, was_held: bool, expected: &[(RuleId, Row)]) {
    let held = was_held || is_held(world, edge);
    let behind = world.cloud.disk.edges.get(edge).is_some_and(|edge| edge.facts.cloud_behind);
    let able = world.ledger.is_able(&world.cloud.disk, edge);
    for (rule, row) in expected {
        world.coverage.count(row.name());
        let holds = match row {
            Row::Ahead => behind,
            Row::Unmanaged => {
                let view = world.cloud.core.as_ref().and_then(|core| core.edge(edge));
                let told = view.and_then(|view| view.unmanaged).unwrap_or_default();
                told.iter().any(|told| told.rule == *rule)
            }
            // Nothing is sent to it, and what is settled may wait.
            _ if held => !world.ledger.just_sent(*rule, edge),
            _ if !able => continue,
            Row::Ended(_)
            | Row::NotEnded
            | Row::Behind(_)
            | Row::Drifts(_)
            | Row::TakenOff
            | Row::Buried
            | Row::Wiped(_)
            | Row::LeftOff => happened(world, edge, *rule, *row),
        };
        if !holds {
            let item = page.rules.iter().find(|item| item.rule == *rule);
            let record = world.cloud.disk.placements.get(&(*rule, edge.clone()));
            let what = format!(
                "{edge} told what it holds of a rule, and the row {row:?} did not happen: told {item:?}, now stored {record:?}"
            );
            return world.fail(what);
        }
    }
}

fn happened(world: &World, edge: &EdgeId, rule: RuleId, row: Row) -> bool {
    let sent = world.ledger.just_sent(rule, edge);
    let record = world.cloud.disk.placements.get(&(rule, edge.clone()));
    let Some(record) = record else { return row == Row::Buried };
    let settled = record.operation.is_none() && !sent;
    match row {
        Row::Ended(code) => {
            let last = [&record.last_issue, &record.last_run];
            let mut last = last.into_iter().flatten().filter(|last| last.generation == record.generation);
            settled && last.any(|last| last.code == code)
        }
        Row::NotEnded | Row::TakenOff => sent,
        Row::Behind(generation) => sent && record.generation == generation,
        Row::Drifts(OnDrift::Heal) | Row::Wiped(OnWipe::Issue) => sent && record.operation.is_some(),
        Row::Drifts(OnDrift::Ask) => !sent,
        Row::Buried => settled,
        Row::Wiped(OnWipe::Keep) | Row::LeftOff => settled && record.target.is_none(),
        Row::Unmanaged | Row::Ahead => true,
    }
}

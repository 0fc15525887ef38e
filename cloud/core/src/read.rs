//! Reads: the views of rules, placements and edges, lists with filters and pages, and the totals.

use std::collections::BTreeMap;
use std::ops::Bound;

use tidegate_model::code::Code;
use tidegate_model::ids::{EdgeId, RuleId, RuleName};
use tidegate_model::placement::{IssueState, Link, Role, RunState, actions};
use tidegate_model::rule::{Problems, Rendered, Secrets, ValidRule};
use tidegate_model::time::Now;
use tidegate_model::wire::{Fault, Origin, PlacementState};

use crate::action::Phase;
use crate::controller::{Controller, Edge, Key, Placement};
use crate::full::queue_full;
use crate::link::Unmanaged;
use crate::record::{PlacementRecord, RuleRecord};
use crate::view::{
    EdgeView, InFlightView, MAX_HELD_SHOWN, PlacementFilter, PlacementView, Reason, RuleFilter, RuleView,
    Summary, Tally, UnmanagedRule, etag, next_step,
};

impl Controller {
    /// One rule with its placements.
    #[must_use]
    pub fn rule(&self, name: &RuleName, role: Role) -> Option<RuleView> {
        self.rule_record(name).map(|record| self.rule_view(record, Some(role)))
    }

    /// What is stored of a rule.
    #[must_use]
    pub fn rule_record(&self, name: &RuleName) -> Option<&RuleRecord> {
        self.names.get(name).and_then(|id| self.rules.get(id)).map(|rule| &**rule)
    }

    /// Whether there is a rule of this id.
    #[must_use]
    pub fn has_rule(&self, rule: RuleId) -> bool {
        self.rules.contains_key(&rule)
    }

    /// Rules by name that pass the filter, after a name, at most `limit`; and how many pass in all.
    #[must_use]
    pub fn rules(&self, filter: &RuleFilter, after: Option<&RuleName>, limit: usize) -> (Vec<RuleView>, u32) {
        let passing =
            self.names.values().map(|id| &self.rules[id]).filter(|rule| self.rule_passes(rule, filter));
        page(
            passing,
            |rule| after.is_some_and(|after| rule.name() <= after),
            limit,
            |rule| self.rule_view(rule, None),
        )
    }

    fn rule_passes(&self, rule: &RuleRecord, filter: &RuleFilter) -> bool {
        let RuleFilter { q, issue_state, run_state, edge } = filter;
        let on = self.keys_of_rule(rule.id);
        let some = |test: &dyn Fn(&PlacementRecord) -> bool| {
            on.iter().map(|key| &self.placements[key].record).any(|record| record.present && test(record))
        };
        q.as_ref().is_none_or(|q| rule.name().as_str().contains(q.as_str()))
            && issue_state.is_none_or(|state| some(&|r| r.issue_facts().state() == state))
            && run_state.is_none_or(|state| some(&|r| run_state_of(r) == state))
            && edge.as_ref().is_none_or(|edge| some(&|r| r.edge == *edge))
    }

    pub(crate) fn rule_view(&self, rule: &RuleRecord, placements: Option<Role>) -> RuleView {
        let keys = self.keys_of_rule(rule.id);
        RuleView {
            id: rule.id,
            name: rule.name().clone(),
            version: rule.version,
            etag: etag(rule),
            created: rule.created,
            changed: rule.changed,
            changed_by: rule.changed_by.name.clone(),
            content: rule.shown(),
            tally: self.tally(keys.iter()),
            placements: placements.map(|role| {
                let shown = keys.iter().filter(|key| !self.placements[*key].is_settled_removal());
                shown.filter_map(|key| self.placement_view(key, role)).collect()
            }),
        }
    }

    /// One placement.
    #[must_use]
    pub fn placement(&self, rule: &RuleName, edge: &EdgeId, role: Role) -> Option<PlacementView> {
        let key = (*self.names.get(rule)?, edge.clone());
        self.placements.get(&key).filter(|placement| !placement.is_settled_removal())?;
        self.placement_view(&key, role)
    }

    /// Placements by rule and edge that pass the filter, after one of them, at most `limit`; and how many pass in all.
    #[must_use]
    pub fn placements(
        &self,
        filter: &PlacementFilter,
        after: Option<(&RuleName, &EdgeId)>,
        limit: usize,
        role: Role,
    ) -> (Vec<PlacementView>, u32) {
        let PlacementFilter { rule, edge, issue_state, run_state } = filter;
        let mut passing: Vec<(&RuleName, &EdgeId, &Key)> = self
            .placements
            .iter()
            .filter(|(_, placement)| !placement.is_settled_removal())
            .map(|(key, placement)| (key, &placement.record))
            .filter(|(_, record)| {
                rule.as_ref().is_none_or(|rule| record.name == *rule)
                    && edge.as_ref().is_none_or(|edge| record.edge == *edge)
                    && issue_state.is_none_or(|state| record.issue_facts().state() == state)
                    && run_state.is_none_or(|state| run_state_of(record) == state)
            })
            .map(|(key, record)| (&record.name, &record.edge, key))
            .collect();
        passing.sort_unstable();
        let before =
            |(rule, edge, _): &(&RuleName, &EdgeId, &Key)| after.is_some_and(|after| (*rule, *edge) <= after);
        page(passing.into_iter(), before, limit, |(_, _, key)| {
            self.placement_view(key, role).expect("the key was listed above")
        })
    }

    /// The states of placements, in the order of their keys, after one of them, at most `limit`: all that there is, page
    /// by page, for who keeps a copy. One whose state is `None` is on its way out and is not shown.
    #[must_use]
    pub fn states(
        &self,
        after: Option<&(RuleId, EdgeId)>,
        limit: usize,
    ) -> Vec<((RuleId, EdgeId), Option<PlacementState>)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let page = self.placements.range((from, Bound::Unbounded)).take(limit);
        page.map(|(key, placement)| (key.clone(), self.state(&placement.record.name, &key.1))).collect()
    }

    /// The state of one placement; `None`: it is not there, or no longer.
    #[must_use]
    pub fn state(&self, rule: &RuleName, edge: &EdgeId) -> Option<PlacementState> {
        self.placement(rule, edge, Role::Viewer).as_ref().map(PlacementState::from)
    }

    /// Whether what the records say of an edge is what it says now. Who only looks on does not follow what it says.
    fn follows(&self, edge: &Edge) -> bool {
        edge.live.link.reachable() && edge.live.confirmed && self.superseded_by.is_none()
    }

    pub(crate) fn placement_view(&self, key: &Key, role: Role) -> Option<PlacementView> {
        let placement = self.placements.get(key)?;
        let record = &placement.record;
        let edge = self.edges.get(&key.1)?;
        let reported = record.reported.as_ref();
        let facts = self.action_facts(key, false, role);
        let issue_reason = issue_reason(record);
        let run_reason =
            reported.and_then(|r| r.run.fault.as_ref()).map(|fault| fault_reason(fault, next_step));
        let queue_full = reported.and_then(|r| queue_full(&r.run));
        let full_reason = queue_full.as_ref().map(|full| full.reason.clone());
        let failed_now = issue_reason.clone().filter(|_| facts.issue == IssueState::Failed);
        Some(PlacementView {
            rule: record.name.clone(),
            rule_id: record.rule,
            edge: record.edge.clone(),
            issue_state: facts.issue,
            reason: failed_now
                .or_else(|| run_reason.clone())
                .or(full_reason)
                .or_else(|| issue_reason.clone()),
            issue_reason,
            run_state: run_state_of(record),
            run_reason,
            run_by: reported.map(|r| r.run.by),
            since: reported.map(|r| r.run.since).filter(|since| since.0 > 0),
            version: record.desired.at.version,
            digest: record.desired.at.digest,
            edge_version: facts.running.map(|at| at.version),
            edge_digest: facts.running.map(|at| at.digest),
            generation: record.generation,
            desired_run: record.run,
            in_flight: in_flight(placement),
            removing: !record.present,
            drift: drifts(record),
            link: edge.live.link,
            last_known: reported.is_some() && !self.follows(edge),
            as_of: reported.map(|r| r.as_of),
            flapping: reported.and_then(|r| r.run.flapping),
            queue_full,
            vars: record.vars.clone(),
            counters: reported.map(|r| r.counters.clone()),
            actions: if record.present { actions(&facts) } else { Vec::new() },
        })
    }

    /// Whether an edge can be reached.
    #[must_use]
    pub fn link(&self, edge: &EdgeId) -> Option<Link> {
        self.edges.get(edge).map(|edge| edge.live.link)
    }

    /// Why actions on an edge are held, if they are.
    #[must_use]
    pub fn held(&self, edge: &EdgeId) -> Option<Code> {
        self.edges.get(edge)?.held()
    }

    /// One edge, with the rules on it that the cloud does not manage, by name.
    #[must_use]
    pub fn edge(&self, id: &EdgeId) -> Option<EdgeView> {
        let edge = self.edges.get(id)?;
        let unmanaged = edge.live.unmanaged.as_ref().map(|told| {
            let last_known = !self.follows(edge);
            let rules = told.iter().map(|(rule, told)| unmanaged_rule(*rule, told, last_known));
            let mut rules: Vec<UnmanagedRule> = rules.collect();
            rules.sort_by(|a, b| (&a.name, a.rule).cmp(&(&b.name, b.rule)));
            rules
        });
        Some(EdgeView { unmanaged, ..self.edge_in_short(id)? })
    }

    /// One edge as lists show it.
    fn edge_in_short(&self, id: &EdgeId) -> Option<EdgeView> {
        let edge = self.edges.get(id)?;
        let facts = &edge.record.facts;
        Some(EdgeView {
            id: id.clone(),
            created: edge.record.created,
            link: edge.live.link,
            last_seen: facts.last_seen,
            agent_version: facts.agent.clone(),
            features: facts.features.clone(),
            tally: self.tally(self.keys_of_edge(id).iter()),
            held: edge.held().map(|code| Reason {
                code: code.to_string(),
                detail: code.meaning().to_owned(),
                class: None,
                next: next_step(code).to_owned(),
            }),
            clock_skew_ms: edge.live.clock_skew_ms,
            unmanaged_rules: edge.live.unmanaged.as_ref().map(|told| count(told.len())),
            unmanaged: None,
            dropped_messages: edge.live.dropped,
        })
    }

    /// Edges by name, after one of them, at most `limit`; and how many there are in all.
    #[must_use]
    pub fn edges(&self, after: Option<&EdgeId>, limit: usize) -> (Vec<EdgeView>, u32) {
        let before = |id: &&EdgeId| after.is_some_and(|after| *id <= after);
        page(self.edges.keys(), before, limit, |id| self.edge_in_short(id).expect("the id was listed above"))
    }

    /// The hash of an edge's credential.
    #[must_use]
    pub fn credential(&self, edge: &EdgeId) -> Option<&str> {
        self.edges.get(edge).map(|edge| edge.record.credential.as_str())
    }

    /// What an edge would get of a rule with these secrets.
    ///
    /// # Errors
    /// What is wrong with the rule on this edge.
    pub fn preview(
        &self,
        content: &ValidRule,
        secrets: &Secrets,
        edge: &EdgeId,
        vars: &BTreeMap<String, String>,
    ) -> Result<Rendered, Problems> {
        let known = self.rule_record(content.name());
        let id = known.map_or(tidegate_model::ids::RuleId(uuid::Uuid::nil()), |rule| rule.id);
        let version = known.map_or(1, |rule| rule.secret_versions.max(1));
        self.render(content, secrets.refs(&id.to_string(), version), edge, vars)
    }

    /// The totals.
    #[must_use]
    pub fn summary(&self, now: Now) -> Summary {
        let tally = self.tally(self.placements.keys());
        let mut edges: BTreeMap<&'static str, u32> = BTreeMap::new();
        for edge in self.edges.values() {
            *edges.entry(edge.live.link.as_str()).or_default() += 1;
        }
        let issued = |rule: &RuleRecord| {
            self.keys_of_rule(rule.id).iter().any(|key| {
                let record = &self.placements[key].record;
                record.present && record.running().is_some()
            })
        };
        let doubtful = self
            .edges
            .iter()
            .any(|(id, edge)| edge.live.link != Link::Online && self.by_edge.contains_key(id));
        let held = self.edges.values().filter(|edge| edge.held().is_some());
        let held: Vec<EdgeId> = held.take(MAX_HELD_SHOWN).map(|edge| edge.record.id.clone()).collect();
        let doubtful = doubtful || !held.is_empty() || self.superseded_by.is_some();
        let indicator = match (tally.pending, doubtful) {
            (0, false) => "green",
            (0, true) => "amber",
            (_, _) => "red",
        };
        Summary {
            rules: count(self.rules.len()),
            rules_issued: count(self.rules.values().filter(|rule| issued(rule)).count()),
            edges,
            tally,
            held,
            superseded_by: self.superseded_by,
            indicator,
            as_of: now.wall,
        }
    }

    fn tally<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> Tally {
        let mut tally = Tally::default();
        for key in keys {
            let record = &self.placements[key].record;
            let queued = record.operation.as_ref().is_some_and(|o| o.queued);
            if record.present {
                let issue = record.issue_facts().state();
                tally.placements += 1;
                *tally.issue.entry(issue).or_default() += 1;
                *tally.run.entry(run_state_of(record)).or_default() += 1;
                tally.pending += u32::from(issue != IssueState::Issued || queued);
                let is_full = record.reported.as_ref().is_some_and(|r| r.run.queue_full.is_some());
                tally.queue_full += u32::from(is_full);
                let unheard = self.link(&key.1).is_none_or(|link| link == Link::Unknown);
                tally.not_known += u32::from(record.reported.is_none() && unheard);
                let followed = self.edges.get(&key.1).is_some_and(|edge| self.follows(edge));
                tally.last_known += u32::from(record.reported.is_some() && !followed);
            } else {
                tally.pending += u32::from(record.operation.is_some());
            }
        }
        tally
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// One page of a list that is in order: skips what comes before, shows at most `limit`, counts all.
fn page<T, V>(
    all: impl Iterator<Item = T>,
    before: impl Fn(&T) -> bool,
    limit: usize,
    show: impl Fn(T) -> V,
) -> (Vec<V>, u32) {
    let (mut shown, mut total) = (Vec::new(), 0_u32);
    for item in all {
        total = total.saturating_add(1);
        if !before(&item) && shown.len() < limit {
            shown.push(show(item));
        }
    }
    (shown, total)
}

/// The run state as last reported; a placement that was never reported never ran.
fn run_state_of(record: &PlacementRecord) -> RunState {
    record.reported.as_ref().map_or(RunState::NotRunning, |r| r.run.state)
}

/// The edge holds something else than it was last sent, and nothing is under way.
fn drifts(record: &PlacementRecord) -> bool {
    let (Some(target), Some(reported)) = (&record.target, &record.reported) else { return false };
    record.present
        && record.operation.is_none()
        && reported.generation == record.generation
        && reported.running != Some(target.at)
        && record
            .last_issue
            .as_ref()
            .is_none_or(|last| last.code.is_success() || last.generation != record.generation)
}

/// Why a rule that wants to run does not, with the next step for a fault that lies in the rule.
fn fault_reason(fault: &Fault, next: impl FnOnce(Code) -> &'static str) -> Reason {
    Reason {
        code: fault.code.to_string(),
        detail: fault.detail.clone(),
        class: None,
        next: match fault.code.as_parameter_error() {
            Some(code) => next(code).to_owned(),
            None => "nothing: the agent tries again by itself".to_owned(),
        },
    }
}

fn unmanaged_rule(rule: RuleId, told: &Unmanaged, last_known: bool) -> UnmanagedRule {
    let Unmanaged { name, origin, want: _, running: _, run } = told;
    // No action of the cloud reaches it.
    let next = match origin {
        Origin::Local => "correct the rule on the gateway: its file, or tidegate-edge rule apply",
        Origin::Cloud => {
            "place the rule on the edge if it is known here, so that it is managed again, or remove it there"
        }
    };
    UnmanagedRule {
        rule,
        name: name.clone(),
        origin: *origin,
        run_state: run.state,
        run_reason: run.fault.as_ref().map(|fault| fault_reason(fault, |_| next)),
        since: Some(run.since).filter(|since| since.0 > 0),
        last_known,
        queue_full: queue_full(run),
    }
}

fn issue_reason(record: &PlacementRecord) -> Option<Reason> {
    let failed = record.last_issue.as_ref().filter(|last| !last.code.is_success())?;
    Some(Reason {
        code: failed.code.to_string(),
        detail: failed.detail.clone(),
        class: failed.code.class(),
        next: next_step(if failed.code == Code::Unknown { Code::Internal } else { failed.code }).to_owned(),
    })
}

/// The operation of a placement, as people see it.
pub(crate) fn in_flight(placement: &Placement) -> Option<InFlightView> {
    let operation = placement.record.operation.as_ref()?;
    Some(InFlightView {
        id: operation.id,
        action: operation.action,
        generation: placement.record.generation,
        since: operation.since,
        by: operation.by.to_string(),
        queued: operation.queued,
        expires: operation.expires,
        received: placement.phase == Phase::AwaitResult,
    })
}

//! What a request would do (HTTP `?dry_run=true`): the same code, run on a copy of what it may touch.
//!
//! The controller itself is not touched, so that nothing has to be undone; records are shared. The copy holds the rule or the edge that the
//! request names, its placements and their edges, and the other rules on those edges, which a new one is checked against.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_model::ids::{EdgeId, RuleId, RuleName};
use tidegate_model::placement::Role;
use tidegate_model::time::Now;

use crate::controller::{Controller, Key, Turn};
use crate::io::Effect;
use crate::once::Kept;
use crate::record::Actor;
use crate::rejection::Rejection;
use crate::request::{Affected, Rehearsed, Reply, Request};
use crate::timers::Timers;

/// Placements that a rehearsal shows at the most; the others are counted.
pub const MAX_AFFECTED_SHOWN: usize = 500;

impl Controller {
    /// What a request would do.
    pub(crate) fn rehearse(
        &self,
        now: Now,
        by: &Actor,
        role: Role,
        request: Request,
    ) -> Result<Reply, Rejection> {
        let mut copy = self.copy_for(&request);
        let mut turn = Turn::new(now);
        let reply = copy.obey(&mut turn, by, role, request)?;
        let sent_to: BTreeSet<&EdgeId> = turn
            .effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Publish { edge, .. } => Some(edge),
                Effect::PublishPresence(_)
                | Effect::Disconnect(_)
                | Effect::Reply { .. }
                | Effect::Notify(_)
                | Effect::Settled { .. }
                | Effect::Warn { .. } => None,
            })
            .collect();
        let keys: Vec<&Key> = turn.dirty_placements.iter().collect();
        let affected = keys.iter().take(MAX_AFFECTED_SHOWN).filter_map(|key| {
            let before = self.placements.get(*key).map(|p| &p.record);
            let after = copy.placements.get(*key).map(|p| &p.record);
            Some(Affected {
                rule: before.or(after)?.name.clone(),
                edge: key.1.clone(),
                issue_state_before: before.filter(|r| r.present).map(|r| r.issue_facts().state()),
                sends: sent_to.contains(&key.1),
                after: copy.placement_view(key, role),
            })
        });
        let affected: Vec<Affected> = affected.collect();
        let affected_total = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        Ok(Reply::Rehearsed(Box::new(Rehearsed { reply, affected, affected_total })))
    }

    /// A controller that holds as much of this one as the request may touch or look at.
    fn copy_for(&self, request: &Request) -> Self {
        let (rule, edge) = scope(request);
        let rule = rule.and_then(|name| self.names.get(name).copied());
        let mut keys: BTreeSet<Key> = BTreeSet::new();
        let mut edges: BTreeSet<EdgeId> = edge.into_iter().cloned().collect();
        match (rule, edge) {
            (Some(rule), Some(edge)) => drop(keys.insert((rule, edge.clone()))),
            (Some(rule), None) => keys.extend(self.keys_of_rule(rule)),
            (None, Some(edge)) => keys.extend(self.keys_of_edge(edge)),
            (None, None) => {}
        }
        if let Request::ActOnMany { targets, .. } = request {
            let known = |(rule, edge): &(RuleName, EdgeId)| Some((*self.names.get(rule)?, edge.clone()));
            keys.extend(targets.iter().filter_map(known));
        }
        edges.extend(keys.iter().map(|key| key.1.clone()));
        let rules = rule.into_iter().chain(keys.iter().map(|key| key.0)).collect::<BTreeSet<RuleId>>();
        let rules: BTreeMap<_, _> =
            rules.iter().filter_map(|id| Some((*id, self.rules.get(id)?.clone()))).collect();
        let (more_rules, more_edges) = (self.rules.len() - rules.len(), self.edges.len());
        let mut copy = Self {
            settings: self.settings.clone(),
            meta: self.meta.clone(),
            names: rules.values().map(|rule| (rule.name().clone(), rule.id)).collect(),
            rules,
            edges: edges.iter().filter_map(|id| Some((id.clone(), self.edges.get(id)?.clone()))).collect(),
            placements: BTreeMap::new(),
            by_edge: BTreeMap::new(),
            by_rule: BTreeMap::new(),
            timers: Timers::default(),
            kept: Kept::default(),
            chance: self.chance,
            superseded_by: self.superseded_by,
            strangers: 0,
            messages: self.messages,
        };
        // What is not copied counts as well.
        copy.settings.max_rules = self.settings.max_rules.saturating_sub(more_rules);
        copy.settings.max_edges =
            self.settings.max_edges.saturating_sub(more_edges.saturating_sub(copy.edges.len()));
        let neighbours = edges.iter().flat_map(|edge| self.keys_of_edge(edge));
        for key in neighbours.chain(keys.iter().cloned()).collect::<BTreeSet<Key>>() {
            let Some(placement) = self.placements.get(&key) else { continue };
            copy.insert_placement(placement.record.clone());
            copy.placement_mut(&key).phase = placement.phase;
        }
        copy
    }
}

/// The rule and the edge that a request is about.
fn scope(request: &Request) -> (Option<&RuleName>, Option<&EdgeId>) {
    match request {
        Request::SaveRule { content, .. } => (Some(content.name()), None),
        Request::RestoreRule { rule, .. } | Request::DeleteRule { rule, .. } => (Some(rule), None),
        Request::Place { rule, edge, .. }
        | Request::Unplace { rule, edge }
        | Request::Act { rule, edge, .. } => (Some(rule), Some(edge)),
        // Its placements are looked up one by one.
        Request::ActOnMany { .. } => (None, None),
        Request::CreateEdge { edge, .. }
        | Request::RemoveEdge { edge, .. }
        | Request::ConfirmEdge { edge }
        | Request::RemoveUnmanaged { edge, .. } => (None, Some(edge)),
    }
}

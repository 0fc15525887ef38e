//! Which rules are on which edges, and which edges there are.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate_model::ids::{EdgeId, RuleId, RuleName};
use tidegate_model::limits;
use tidegate_model::placement::{Role, RunState, VersionDigest};
use tidegate_model::rule::{
    Problems, RenderContext, Rendered, SecretRefs, ValidRule, Wiring, client_id_clash, loop_between, render,
};
use tidegate_model::version::{Generation, RuleVersion};
use tidegate_model::wire::{DesiredRun, Origin};

use crate::controller::{Controller, Edge, Key, Turn};
use crate::edge_message::follow_local;
use crate::io::{Effect, Write};
use crate::link::EdgeLive;
use crate::reconcile::follow_stopped;
use crate::record::{Actor, EdgeRecord, Facts, Operation, PlacementRecord, StoredSecrets, Target};
use crate::rejection::Rejection;
use crate::request::Reply;
use crate::shared::Shared;
use crate::timers::TimerKey;

/// What is rendered for an edge: a rule's content and what goes with it.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) id: RuleId,
    pub(crate) version: RuleVersion,
    pub(crate) content: &'a ValidRule,
    pub(crate) secret: Option<&'a StoredSecrets>,
}

impl Controller {
    pub(crate) fn place(
        &mut self,
        turn: &mut Turn,
        rule: &RuleName,
        edge: &EdgeId,
        vars: BTreeMap<String, String>,
        role: Role,
    ) -> Result<Reply, Rejection> {
        let record = self.rule_named(rule)?;
        let id = record.id;
        let source =
            Source { id, version: record.version, content: &record.content, secret: record.secret.as_ref() };
        if !self.edges.contains_key(edge) {
            return Err(Rejection::NoSuchEdge(edge.clone()));
        }
        let desired = self.render_for(source, edge, &vars)?;
        let key = (id, edge.clone());
        let withdrawn = if self.is_leaving(rule, edge) { " again; its removal is withdrawn" } else { "" };
        let known = self.placements.get(&key).map(|p| (*p.record).clone());
        let present = known.as_ref().is_some_and(|r| r.present);
        // One that was taken off is kept for its generation, and takes no room.
        let on_edge =
            self.keys_of_edge(edge).iter().filter(|key| !self.placements[*key].is_settled_removal()).count();
        if !present && on_edge >= limits::MAX_RULES_PER_EDGE {
            let what = format!("rules on edge '{edge}'");
            return Err(Rejection::Limit { what, limit: limits::MAX_RULES_PER_EDGE });
        }
        match known {
            Some(known) if present => {
                let placement = self.placement_mut(&key);
                placement.record = Shared::new(PlacementRecord { vars, desired, ..known });
            }
            // It was taken off; its generation goes on, so that nothing that was sent then is taken for new.
            Some(known) => {
                self.timers.clear(&TimerKey::Operation(key.0, key.1.clone()));
                let mut record = new_placement(id, rule, edge, vars, desired);
                record.generation = known.generation.next();
                // The edge may not have heard of the removal, or not yet: what it holds is still what it said.
                record.reported = known.reported;
                record.committed = known.committed;
                // The removal would have stopped it; now it goes on as it does, also through a sync.
                let runs = |state| matches!(state, RunState::Running | RunState::PausedFault);
                if record.reported.as_ref().is_some_and(|reported| runs(reported.run.state)) {
                    record.run = DesiredRun::Running;
                }
                self.insert_placement(Shared::new(record));
            }
            None => self.insert_placement(Shared::new(new_placement(id, rule, edge, vars, desired))),
        }
        if self.edge_mut(edge).live.unmanaged.as_mut().is_some_and(|told| told.remove(&id).is_some()) {
            // The edge holds it already, from before the cloud was restored from a backup: it is to tell what it holds.
            self.edge_mut(edge).live.asked_at = None;
            self.ask_inventory(turn, edge);
        }
        turn.touch(&key);
        turn.tell_placement(rule, edge, format!("{rule} is placed on {edge}{withdrawn}"));
        let placement = self.placement_view(&key, role).expect("it was placed above");
        Ok(Reply::Placed { placement, created: !present })
    }

    pub(crate) fn unplace(
        &mut self,
        turn: &mut Turn,
        by: &Actor,
        rule: &RuleName,
        edge: &EdgeId,
    ) -> Result<Reply, Rejection> {
        if self.is_leaving(rule, edge) {
            // It is on its way already, and needs no second message.
            return Ok(Reply::Unplaced { pending: true });
        }
        let key = self.key_of(rule, edge)?;
        Ok(Reply::Unplaced { pending: self.take_off(turn, by, &key) })
    }

    /// Whether a rule is being taken off an edge that has not said yet that it is gone.
    fn is_leaving(&self, rule: &RuleName, edge: &EdgeId) -> bool {
        let id = self.names.get(rule);
        let placement = id.and_then(|id| self.placements.get(&(*id, edge.clone())));
        placement.is_some_and(|it| !it.record.present && it.record.operation.is_some())
    }

    /// Takes a rule off an edge; returns whether the edge still has to hear of it. The removal waits for an edge that
    /// is offline and never expires.
    pub(crate) fn take_off(&mut self, turn: &mut Turn, by: &Actor, key: &Key) -> bool {
        let id = self.next_message_id(turn.now.wall);
        let highest = self.highest_generation(key);
        let reachable = self.edges.get(&key.1).is_some_and(|edge| edge.live.link.reachable());
        let record = &mut self.placement_mut(key).record;
        let (name, edge) = (record.name.clone(), record.edge.clone());
        turn.tell_placement(&name, &edge, format!("{name} is taken off {edge} by {by}"));
        let never_sent = record.generation == Generation::default() && record.reported.is_none();
        if never_sent {
            self.drop_placement(turn, key);
            return false;
        }
        record.present = false;
        record.generation = record.generation.max(highest).next();
        record.run = DesiredRun::Stopped;
        record.target = None;
        record.operation = Some(Operation {
            id,
            action: None,
            since: turn.now.wall,
            by: by.clone(),
            queued: true,
            expires: None,
            tries: 0,
        });
        turn.touch(key);
        if reachable {
            self.send_set(turn, key);
        } else {
            self.wait_offline(turn.now, key);
        }
        true
    }

    /// Takes a rule off an edge that a cloud issued and this one has no record of: its store was restored from a backup, or the
    /// edge was forgotten while its rules stayed. It is a removal like any other from then on.
    pub(crate) fn remove_unmanaged(
        &mut self,
        turn: &mut Turn,
        by: &Actor,
        edge: &EdgeId,
        rule: RuleId,
    ) -> Result<Reply, Rejection> {
        let known = self.edges.get_mut(edge).ok_or_else(|| Rejection::NoSuchEdge(edge.clone()))?;
        let told = known.live.unmanaged.as_mut();
        let Some((told, it)) = told.and_then(|told| told.get(&rule).cloned().map(|it| (told, it))) else {
            return Err(Rejection::NoSuchUnmanaged { edge: edge.clone(), rule });
        };
        // An agent of before does not tell names; an id is a name as well.
        let name = it.name.or_else(|| RuleName::new(rule.to_string()).ok());
        let name = name.ok_or_else(|| Rejection::NoSuchUnmanaged { edge: edge.clone(), rule })?;
        if it.origin == Origin::Local {
            return Err(Rejection::OfTheSite { edge: edge.clone(), rule: name });
        }
        told.remove(&rule);
        let key = (rule, edge.clone());
        let at = it.running.unwrap_or(VersionDigest::removal(RuleVersion(1)));
        let desired = Target::unknown(at);
        let mut record = new_placement(rule, &name, edge, BTreeMap::new(), desired);
        record.generation = self.highest_generation(&key).max(Generation(1));
        self.insert_placement(Shared::new(record));
        Ok(Reply::Unplaced { pending: self.take_off(turn, by, &key) })
    }

    /// The edge said that a rule that was taken off is gone.
    pub(crate) fn removed(&mut self, turn: &mut Turn, key: &Key) {
        let rule_is_gone = !self.rules.contains_key(&key.0);
        self.timers.clear(&TimerKey::Operation(key.0, key.1.clone()));
        let record = &mut self.placement_mut(key).record;
        record.operation = None;
        record.reported = None;
        record.committed = None;
        let (name, edge) = (record.name.clone(), record.edge.clone());
        turn.touch(key);
        if rule_is_gone {
            // A rule's id is never used again, so nobody needs its generation.
            self.drop_placement(turn, key);
        }
        turn.tell_placement(&name, &edge, format!("{name} is gone from {edge}"));
    }

    /// Renders a rule for one edge and checks that it gets along with the other rules there.
    pub(crate) fn render_for(
        &self,
        source: Source<'_>,
        edge: &EdgeId,
        vars: &BTreeMap<String, String>,
    ) -> Result<Arc<Target>, Rejection> {
        let Source { id, version, content, secret } = source;
        let rule = content.name();
        let rendered = self.render(content, refs_of(id, secret), edge, vars).map_err(|problems| {
            Rejection::InvalidOnEdge { rule: rule.clone(), edge: edge.clone(), problems }
        })?;
        let others: Vec<Wiring> = self
            .keys_of_edge(edge)
            .iter()
            .filter(|key| key.0 != id)
            .map(|key| &self.placements[key].record)
            .filter(|record| record.present)
            .filter_map(|record| Wiring::of_rendered(&record.desired.bytes))
            .collect();
        let own = Wiring::from(&rendered.rule);
        let logins = others.iter().chain([&own]).map(|wiring| &wiring.login);
        // The rules that are there do not clash with each other, so a clash is with the new one, which comes last.
        if let Some(clash) = client_id_clash(logins).into_iter().next() {
            let (other, client_id) = (clash.first, clash.client_id);
            return Err(Rejection::ClientIdClash { edge: edge.clone(), other, client_id });
        }
        if let Some(found) = loop_between(&own, &others) {
            return Err(Rejection::LoopBetween { edge: edge.clone(), found });
        }
        let at = VersionDigest { version, digest: rendered.digest };
        Ok(Arc::new(Target { at, bytes: rendered.bytes, secret: secret.cloned() }))
    }

    pub(crate) fn render(
        &self,
        content: &ValidRule,
        secrets: SecretRefs,
        edge: &EdgeId,
        vars: &BTreeMap<String, String>,
    ) -> Result<Rendered, Problems> {
        let context = RenderContext {
            account: self.settings.account.clone(),
            edge: edge.clone(),
            vars: vars.clone(),
            secrets,
        };
        render(content, &context)
    }

    pub(crate) fn create_edge(
        &mut self,
        turn: &mut Turn,
        edge: EdgeId,
        credential: String,
    ) -> Result<Reply, Rejection> {
        if self.edges.contains_key(&edge) {
            return Err(Rejection::EdgeExists(edge));
        }
        if self.edges.len() >= self.settings.max_edges {
            return Err(Rejection::Limit { what: "edges".to_owned(), limit: self.settings.max_edges });
        }
        let record =
            EdgeRecord { id: edge.clone(), created: turn.now.wall, credential, facts: Facts::default() };
        self.edges.insert(edge.clone(), Edge { record: Shared::new(record), live: EdgeLive::default() });
        turn.touch_edge(&edge);
        turn.tell_edge(&edge, format!("edge {edge} was created"));
        Ok(Reply::EdgeCreated(self.edge(&edge).expect("it was created above")))
    }

    pub(crate) fn remove_edge(
        &mut self,
        turn: &mut Turn,
        edge: &EdgeId,
        leave_running: bool,
    ) -> Result<Reply, Rejection> {
        if !self.edges.contains_key(edge) {
            return Err(Rejection::NoSuchEdge(edge.clone()));
        }
        let keys = self.keys_of_edge(edge);
        let count = keys.iter().filter(|key| !self.placements[*key].is_settled_removal()).count();
        if count > 0 && !leave_running {
            return Err(Rejection::EdgeInUse { edge: edge.clone(), count });
        }
        for key in keys {
            self.drop_placement(turn, &key);
        }
        self.timers.clear(&TimerKey::Silence(edge.clone()));
        self.timers.clear(&TimerKey::Hold(edge.clone()));
        self.edges.remove(edge);
        turn.writes.push(Write::RemoveEdge(edge.clone()));
        turn.effects.push(Effect::Disconnect(edge.clone()));
        turn.tell_edge(edge, format!("edge {edge} was removed; its credential is revoked"));
        Ok(Reply::EdgeRemoved)
    }

    /// The operator looked at what the edge runs: the cloud's generations go on above the edge's, and its epoch above the
    /// highest that the edge has seen.
    pub(crate) fn confirm_edge(&mut self, turn: &mut Turn, edge: &EdgeId) -> Result<Reply, Rejection> {
        let known = self.edges.get(edge).ok_or_else(|| Rejection::NoSuchEdge(edge.clone()))?;
        if !known.record.facts.cloud_behind {
            return Err(Rejection::NothingToConfirm(edge.clone()));
        }
        let highest_ce = known.live.highest_ce;
        let keys = self.keys_of_edge(edge);
        for key in &keys {
            let ours = self.placements[key].record.generation;
            if self.highest_generation(key).0.saturating_sub(ours.0) > limits::MAX_GENERATION_LEAD {
                return Err(Rejection::GenerationTooFar(edge.clone()));
            }
        }
        if highest_ce > self.meta.epoch {
            if highest_ce - self.meta.epoch > limits::MAX_EPOCH_LEAD_MS {
                return Err(Rejection::EpochTooFar(edge.clone()));
            }
            // It takes nothing from a controller whose epoch is below the highest that it has seen.
            let why = "an edge had obeyed a controller with a higher epoch, and an operator confirmed it";
            self.rise_above(turn, highest_ce, why);
        }
        for key in keys {
            let highest = self.highest_generation(&key);
            let record = &mut self.placement_mut(&key).record;
            record.generation = record.generation.max(highest);
            if record.present && record.operation.is_none() {
                // What the edge carried out since stands.
                follow_local(record);
                follow_stopped(record);
            }
            if !record.present || record.operation.is_some() {
                // What is still to be sent must not bear a number that the edge knows with another content.
                record.generation = record.generation.next();
            }
            turn.touch(&key);
        }
        self.edge_mut(edge).record.facts.cloud_behind = false;
        turn.touch_edge(edge);
        turn.tell_edge(edge, format!("the state of edge {edge} was confirmed by an operator"));
        // What it holds was compared while actions were held: once more, now that the gap may be closed.
        self.edge_mut(edge).live.asked_at = None;
        self.ask_inventory(turn, edge);
        Ok(Reply::EdgeConfirmed(self.edge(edge).expect("it was looked up above")))
    }
}

impl crate::controller::Placement {
    /// Taken off, and the edge said so: only its generation is kept.
    pub(crate) fn is_settled_removal(&self) -> bool {
        !self.record.present && self.record.operation.is_none()
    }
}

fn new_placement(
    id: RuleId,
    rule: &RuleName,
    edge: &EdgeId,
    vars: BTreeMap<String, String>,
    desired: Arc<Target>,
) -> PlacementRecord {
    PlacementRecord {
        rule: id,
        name: rule.clone(),
        edge: edge.clone(),
        vars,
        present: true,
        generation: Generation::default(),
        desired,
        target: None,
        committed: None,
        run: DesiredRun::Stopped,
        restart: 0,
        operation: None,
        last_issue: None,
        last_run: None,
        reported: None,
    }
}

/// The names of the secrets that a rule has.
fn refs_of(rule: RuleId, stored: Option<&StoredSecrets>) -> SecretRefs {
    stored.map(|stored| stored.secrets.refs(&rule.to_string(), stored.version)).unwrap_or_default()
}

//! The controller: its state, and the one way into it.
//!
//! Owns the records and the facts that live as long as the process (sessions, timers). The verbs are in the modules
//! beside it: `rules` (save, restore, delete), `placements` (place, unplace), `action` (the five actions and how they
//! end), `link` (presence), `edge_message` (what edges say), `reconcile` (after a hello), `succession`
//! (another controller), `read` (views).

use std::collections::{BTreeMap, BTreeSet};

use tidegate_model::ids::{AccountId, EdgeId, MessageId, RuleId, RuleName};
use tidegate_model::limits;
use tidegate_model::placement::Role;
use tidegate_model::time::{Now, Wall};
use tidegate_model::version::Generation;

use crate::action::Phase;
use crate::io::{Deadline, Effect, Event, EventKind, How, Input, Output, ReplyTo, Write};
use crate::link::EdgeLive;
use crate::once::Kept;
use crate::record::{Actor, EdgeRecord, Meta, PlacementRecord, RuleRecord, Snapshot};
use crate::rejection::Rejection;
use crate::request::{Reply, Request};
use crate::shared::Shared;
use crate::succession::epoch_above;
use crate::timers::{TimerKey, Timers};

/// What an operator chooses for the controller.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The account.
    pub account: AccountId,
    /// Seconds between an edge's heartbeats.
    pub heartbeat_s: u32,
    /// Most rules.
    pub max_rules: usize,
    /// Most edges.
    pub max_edges: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            account: AccountId::default_account(),
            heartbeat_s: limits::HEARTBEAT_S,
            max_rules: 10_000,
            max_edges: 100_000,
        }
    }
}

/// Names a placement.
pub(crate) type Key = (RuleId, EdgeId);

/// An edge: what is stored of it, and what lives with the process.
#[derive(Debug, Clone)]
pub(crate) struct Edge {
    pub(crate) record: Shared<EdgeRecord>,
    pub(crate) live: EdgeLive,
}

/// A placement: what is stored of it, and in which phase its operation is.
#[derive(Debug, Clone)]
pub(crate) struct Placement {
    pub(crate) record: Shared<PlacementRecord>,
    pub(crate) phase: Phase,
}

/// The controller's whole state. See the crate's head for how it is driven.
#[derive(Debug)]
pub struct Controller {
    pub(crate) settings: Settings,
    pub(crate) meta: Meta,
    pub(crate) rules: BTreeMap<RuleId, Shared<RuleRecord>>,
    pub(crate) names: BTreeMap<RuleName, RuleId>,
    pub(crate) edges: BTreeMap<EdgeId, Edge>,
    pub(crate) placements: BTreeMap<Key, Placement>,
    pub(crate) by_edge: BTreeMap<EdgeId, BTreeSet<RuleId>>,
    pub(crate) by_rule: BTreeMap<RuleId, BTreeSet<EdgeId>>,
    pub(crate) timers: Timers,
    pub(crate) kept: Kept,
    /// What tells the epochs of this process from those of others that were started from the same store.
    pub(crate) chance: u64,
    /// The epoch of another controller that took this one's place; then this one only looks on.
    pub(crate) superseded_by: Option<u64>,
    /// Messages of edges that are not known.
    pub(crate) strangers: u64,
    pub(crate) messages: u64,
}

/// One call of [`Controller::handle`]: when it is, and what came out of it so far. A record that was touched several
/// times is written once.
pub(crate) struct Turn {
    pub(crate) now: Now,
    /// Somebody asks for something; else an edge says something, or time passed.
    pub(crate) is_request: bool,
    pub(crate) writes: Vec<Write>,
    pub(crate) effects: Vec<Effect>,
    pub(crate) dirty_edges: BTreeSet<EdgeId>,
    pub(crate) dirty_placements: BTreeSet<Key>,
    /// Placements of which something that is shown may have changed, beside the dirty ones.
    changed: BTreeSet<(RuleName, EdgeId)>,
    changed_edges: BTreeSet<EdgeId>,
}

impl Turn {
    pub(crate) fn new(now: Now) -> Self {
        Self {
            now,
            is_request: false,
            writes: Vec::new(),
            effects: Vec::new(),
            dirty_edges: BTreeSet::new(),
            dirty_placements: BTreeSet::new(),
            changed: BTreeSet::new(),
            changed_edges: BTreeSet::new(),
        }
    }

    /// Remembers that a placement has to be written.
    pub(crate) fn touch(&mut self, key: &Key) {
        self.dirty_placements.insert(key.clone());
    }

    /// Remembers that an edge has to be written.
    pub(crate) fn touch_edge(&mut self, edge: &EdgeId) {
        self.dirty_edges.insert(edge.clone());
    }

    /// What people are shown of a placement changes, although nothing of it is written.
    pub(crate) fn shows_anew(&mut self, record: &PlacementRecord) {
        self.changed.insert(name_of(record));
    }

    /// Tells the watchers something about a placement.
    pub(crate) fn tell_placement(&mut self, rule: &RuleName, edge: &EdgeId, text: String) {
        self.changed.insert((rule.clone(), edge.clone()));
        let event = Event {
            kind: EventKind::Placement,
            at: self.now.wall,
            rule: Some(rule.clone()),
            edge: Some(edge.clone()),
            text,
            was_asked_for: self.is_request,
        };
        self.effects.push(Effect::Notify(event));
    }

    /// Tells the watchers something about an edge.
    pub(crate) fn tell_edge(&mut self, edge: &EdgeId, text: String) {
        self.changed_edges.insert(edge.clone());
        let event = Event {
            kind: EventKind::Edge,
            at: self.now.wall,
            rule: None,
            edge: Some(edge.clone()),
            text,
            was_asked_for: self.is_request,
        };
        self.effects.push(Effect::Notify(event));
    }

    /// Tells the watchers something about a rule.
    pub(crate) fn tell_rule(&mut self, rule: &RuleName, text: String) {
        let event = Event {
            kind: EventKind::Rule,
            at: self.now.wall,
            rule: Some(rule.clone()),
            edge: None,
            text,
            was_asked_for: self.is_request,
        };
        self.effects.push(Effect::Notify(event));
    }
}

impl Controller {
    /// A controller with what the store holds. Its epoch rises above every earlier one, also above that of a store
    /// that was restored from a backup, because it is at least the wall clock in milliseconds. Every link is unknown
    /// until the edge says something; operations that were under way get [`limits::OFFLINE_GRACE_MS`] to be settled.
    /// `chance` is a random number, another one for each process.
    pub fn restore(settings: Settings, snapshot: Snapshot, chance: u64, now: Now) -> (Self, Output) {
        let meta = Meta { epoch: epoch_above(snapshot.meta.epoch, chance, now.wall) };
        let mut controller = Self {
            settings,
            meta: meta.clone(),
            names: snapshot.rules.iter().map(|r| (r.name().clone(), r.id)).collect(),
            rules: snapshot.rules.into_iter().map(|r| (r.id, Shared::new(r))).collect(),
            edges: BTreeMap::new(),
            placements: BTreeMap::new(),
            by_edge: BTreeMap::new(),
            by_rule: BTreeMap::new(),
            timers: Timers::default(),
            kept: Kept::default(),
            chance,
            superseded_by: None,
            strangers: 0,
            messages: 0,
        };
        for record in snapshot.edges {
            let id = record.id.clone();
            controller.edges.insert(id, Edge { record: Shared::new(record), live: EdgeLive::default() });
        }
        for record in snapshot.placements {
            let key = (record.rule, record.edge.clone());
            controller.insert_placement(Shared::new(record));
            controller.wait_offline(now, &key);
        }
        let effects = vec![Effect::PublishPresence(controller.presence())];
        let changed = controller.placements.values().map(|p| name_of(&p.record)).collect();
        let mut writes = vec![Write::PutMeta(meta)];
        writes.extend(controller.restore_answers(now, snapshot.answers));
        (controller, Output { writes, effects, changed })
    }

    /// Handles whatever happened. Any input in any state is fine; nothing is done before the writes are durable.
    pub fn handle(&mut self, now: Now, input: Input) -> Output {
        let mut turn = Turn::new(now);
        match input {
            Input::Request { reply_to, by, role, request, how } => {
                turn.is_request = true;
                self.request(&mut turn, reply_to, &by, role, *request, how);
                turn.is_request = false;
            }
            Input::FromEdge { edge, presence, payload } => {
                self.take_message(&mut turn, &edge, presence, &payload);
            }
            Input::OtherController(presence) => self.other_controller(&mut turn, &presence),
            Input::Tick => {}
        }
        while let Some(key) = self.timers.pop_due(now.monotonic) {
            match key {
                TimerKey::Silence(edge) => self.silence(&mut turn, &edge),
                TimerKey::Hold(edge) => self.hold_ends(&mut turn, &edge),
                TimerKey::Operation(rule, edge) => self.operation_due(&mut turn, &(rule, edge)),
                TimerKey::Answers => self.forget_answers(&mut turn),
            }
        }
        self.finish(turn)
    }

    /// When [`Input::Tick`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Deadline> {
        self.timers.next().map(|(at, key)| Deadline { at, what: key.what() })
    }

    /// The epoch of this run.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.meta.epoch
    }

    fn finish(&mut self, turn: Turn) -> Output {
        let Turn { mut writes, effects, dirty_edges, dirty_placements, mut changed, changed_edges, .. } =
            turn;
        for edge in changed_edges.union(&dirty_edges) {
            for key in self.keys_of_edge(edge) {
                changed.insert(name_of(&self.placements[&key].record));
            }
        }
        for edge in dirty_edges {
            if let Some(edge) = self.edges.get(&edge) {
                writes.push(Write::PutEdge(edge.record.hold()));
            }
        }
        for key in dirty_placements {
            match self.placements.get(&key) {
                Some(placement) => {
                    changed.insert(name_of(&placement.record));
                    writes.push(Write::PutPlacement(placement.record.hold()));
                }
                None => writes.push(Write::RemovePlacement { rule: key.0, edge: key.1 }),
            }
        }
        Output { writes, effects, changed }
    }

    fn request(&mut self, turn: &mut Turn, to: ReplyTo, by: &Actor, role: Role, request: Request, how: How) {
        let result = self.handle_request(turn, by, role, request, how).map(Box::new).map_err(Box::new);
        turn.effects.push(Effect::Reply { to, result });
    }

    fn handle_request(
        &mut self,
        turn: &mut Turn,
        by: &Actor,
        role: Role,
        request: Request,
        how: How,
    ) -> Result<Reply, Rejection> {
        if role == Role::Viewer {
            return Err(Rejection::Forbidden);
        }
        if let Some(epoch) = self.superseded_by {
            return Err(Rejection::Superseded { epoch });
        }
        if how.dry_run {
            return self.rehearse(turn.now, by, role, request);
        }
        let Some(once) = how.once else { return self.obey(turn, by, role, request) };
        if let Some(answer) = self.kept_answer(by, &once)? {
            return Ok(Reply::Replayed(answer));
        }
        let reply = self.obey(turn, by, role, request)?;
        self.keep_answer(turn, by, &once, &reply);
        Ok(reply)
    }

    /// Does what a request wants. A rejection leaves everything as it was.
    pub(crate) fn obey(
        &mut self,
        turn: &mut Turn,
        by: &Actor,
        role: Role,
        request: Request,
    ) -> Result<Reply, Rejection> {
        match request {
            Request::SaveRule { id, content, secrets, expect, note } => {
                self.save_rule(turn, by, id, *content, secrets, &expect, note)
            }
            Request::RestoreRule { rule, from, expect, note } => {
                self.restore_rule(turn, by, &rule, *from, &expect, note)
            }
            Request::DeleteRule { rule, expect } => self.delete_rule(turn, by, &rule, &expect),
            Request::Place { rule, edge, vars } => self.place(turn, &rule, &edge, vars, role),
            Request::Unplace { rule, edge } => self.unplace(turn, by, &rule, &edge),
            Request::Act { rule, edge, action, when_offline } => {
                self.act(turn, by, role, &rule, &edge, action, when_offline)
            }
            Request::ActOnMany { targets, action, when_offline } => {
                self.act_on_many(turn, by, role, targets, action, when_offline)
            }
            Request::CreateEdge { edge, credential } => self.create_edge(turn, edge, credential),
            Request::RemoveEdge { edge, leave_running } => self.remove_edge(turn, &edge, leave_running),
            Request::ConfirmEdge { edge } => self.confirm_edge(turn, &edge),
            Request::RemoveUnmanaged { edge, rule } => self.remove_unmanaged(turn, by, &edge, rule),
        }
    }

    /// A new message id (UUIDv7 by the wall clock; its random part counts, which is unique within an epoch).
    pub(crate) fn next_message_id(&mut self, wall: Wall) -> MessageId {
        self.messages += 1;
        let mut unique = [0; 10];
        unique[..2].copy_from_slice(&self.meta.epoch.to_be_bytes()[6..]);
        unique[2..].copy_from_slice(&self.messages.to_be_bytes());
        let millis = u64::try_from(wall.0).unwrap_or(0);
        MessageId(uuid::Builder::from_unix_timestamp_millis(millis, &unique).into_uuid())
    }

    pub(crate) fn insert_placement(&mut self, record: Shared<PlacementRecord>) {
        self.by_edge.entry(record.edge.clone()).or_default().insert(record.rule);
        self.by_rule.entry(record.rule).or_default().insert(record.edge.clone());
        let key = (record.rule, record.edge.clone());
        self.placements.insert(key, Placement { record, phase: Phase::Idle });
    }

    /// Forgets a placement and its generation.
    pub(crate) fn drop_placement(&mut self, turn: &mut Turn, key: &Key) {
        if let Some(gone) = self.placements.remove(key) {
            turn.changed.insert(name_of(&gone.record));
        }
        self.timers.clear(&TimerKey::Operation(key.0, key.1.clone()));
        unindex(&mut self.by_edge, &key.1, &key.0);
        unindex(&mut self.by_rule, &key.0, &key.1);
        turn.touch(key);
    }

    /// The placements of an edge, removed ones included.
    pub(crate) fn keys_of_edge(&self, edge: &EdgeId) -> Vec<Key> {
        self.by_edge.get(edge).into_iter().flatten().map(|rule| (*rule, edge.clone())).collect()
    }

    /// The placements of a rule, removed ones included.
    pub(crate) fn keys_of_rule(&self, rule: RuleId) -> Vec<Key> {
        self.by_rule.get(&rule).into_iter().flatten().map(|edge| (rule, edge.clone())).collect()
    }

    /// The rule of this name.
    pub(crate) fn rule_named(&self, name: &RuleName) -> Result<&RuleRecord, Rejection> {
        let id = self.names.get(name).ok_or_else(|| Rejection::NoSuchRule(name.clone()))?;
        Ok(self.rules.get(id).expect("every name leads to a rule"))
    }

    /// The placement of this rule on this edge, unless it was taken off.
    pub(crate) fn key_of(&self, rule: &RuleName, edge: &EdgeId) -> Result<Key, Rejection> {
        let id = self.rule_named(rule)?.id;
        if !self.edges.contains_key(edge) {
            return Err(Rejection::NoSuchEdge(edge.clone()));
        }
        let key = (id, edge.clone());
        match self.placements.get(&key) {
            Some(placement) if placement.record.present => Ok(key),
            Some(_) | None => Err(Rejection::NoSuchPlacement { rule: rule.clone(), edge: edge.clone() }),
        }
    }

    /// The placement of a key that is known to be there.
    pub(crate) fn placement_mut(&mut self, key: &Key) -> &mut Placement {
        self.placements.get_mut(key).expect("the caller holds a key of an existing placement")
    }

    /// The highest generation of a rule that anybody knows of on this edge.
    pub(crate) fn highest_generation(&self, key: &Key) -> Generation {
        let told =
            self.edges.get(&key.1).and_then(|e| e.live.highest.get(&key.0)).copied().unwrap_or_default();
        let reported =
            self.placements.get(key).and_then(|p| p.record.reported.as_ref()).map(|r| r.generation);
        told.max(reported.unwrap_or_default())
    }
}

/// How people name a placement.
fn name_of(record: &PlacementRecord) -> (RuleName, EdgeId) {
    (record.name.clone(), record.edge.clone())
}

fn unindex<A: Ord, B: Ord>(index: &mut BTreeMap<A, BTreeSet<B>>, from: &A, what: &B) {
    if let Some(set) = index.get_mut(from) {
        set.remove(what);
        if set.is_empty() {
            index.remove(from);
        }
    }
}

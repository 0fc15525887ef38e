//! The controller's shell: its process, its disk, and whoever asks it for something.
//!
//! Does what the real one does: hands an input to the core, commits the writes, performs the effects. Where a commit
//! fails, the process ends and is started again.

use std::collections::BTreeSet;
use std::rc::Rc;

use tidegate_cloud_core as cloud;
use tidegate_model::code::Code;
use tidegate_model::ids::{EdgeId, StoreId};
use tidegate_model::placement::{Link, Role, RunState};
use tidegate_model::wire::{Envelope, Up};

use crate::check::Lie;
use crate::operator;
use crate::step::Moment;
use crate::table;
use crate::world::{Event, Fate, World};

/// After how many ms a process is started again that ended because its disk is full.
pub(crate) const RESTART_MS: i64 = 2_000;

/// Which session of an edge stands, as the store has it.
#[derive(Debug, Clone, Copy)]
struct Standing {
    store: Option<StoreId>,
    epoch: u64,
    alive: bool,
}

impl Standing {
    fn of(facts: &cloud::Facts) -> Self {
        Self { store: facts.store, epoch: facts.epoch, alive: facts.alive }
    }
}

/// Whether an envelope may hold an inventory, without reading it: its body is a string, in which quotes are escaped.
fn may_be_inventory(payload: &[u8]) -> bool {
    std::str::from_utf8(payload).is_ok_and(|text| text.contains("\"t\":\"inventory\""))
}

impl World {
    /// Starts the controller from its disk.
    pub fn start_cloud(&mut self) {
        if self.cloud.core.is_some() {
            return;
        }
        self.note(|_| "the controller starts".to_owned());
        self.cloud.clock.started = self.time - self.cloud.rng.between(1, 50);
        let now = self.cloud.clock.now(self.time);
        let settings = cloud::Settings { heartbeat_s: self.script.heartbeat_s, ..cloud::Settings::default() };
        let chance = self.cloud.rng.number();
        let (core, output) = cloud::Controller::restore(settings, self.cloud.disk.snapshot(), chance, now);
        self.cloud.core = Some(core);
        self.perform_cloud(output);
        if self.cloud.core.is_none() {
            return;
        }
        for edge in 0..self.script.edges {
            if let Some(payload) = self.seats[edge].retained.clone() {
                self.after(20, Event::ToCloud { edge, presence: true, payload: Rc::new(payload) });
            }
        }
        self.publish_all_states();
        self.check_views(None);
    }

    /// The controller's process ends, and with it the broker, where that is a part of it.
    pub fn kill_cloud(&mut self, down_ms: i64) {
        self.note(|_| "the controller dies".to_owned());
        self.cloud.core = None;
        self.cloud.due = None;
        self.cloud.crash = None;
        self.cloud.life += 1;
        if self.script.embedded {
            self.coverage.count("the broker ends with the controller");
            self.broker_restarts(false);
        }
        self.after(down_ms, Event::StartCloud { life: self.cloud.life });
    }

    /// A payload in the name of an edge reaches the controller, if it runs.
    pub(crate) fn cloud_hears(&mut self, index: usize, presence: bool, payload: &[u8]) {
        let Some(core) = &self.cloud.core else { return };
        let edge = operator::edge_id(index);
        let was = core.link(&edge);
        let was_held = table::is_held(self, &edge);
        // Of what comes on the other topic only inventories are judged here.
        let is_judged = presence || may_be_inventory(payload);
        let read = is_judged.then(|| Envelope::read_up(payload).ok()).flatten();
        let input = cloud::Input::FromEdge { edge: edge.clone(), presence, payload: payload.to_vec() };
        match read {
            Some((header, message)) if presence => {
                let standing = self.cloud.disk.edges.get(&edge).map(|edge| Standing::of(&edge.facts));
                self.cloud_input(input);
                let is = self.cloud.core.as_ref().and_then(|core| core.link(&edge));
                if let (Some(standing), Some(is)) = (standing, is) {
                    self.judge_presence(header.sid, &message, standing, (was, is));
                }
            }
            Some((header, Up::Inventory(page))) => {
                let expected = table::expected(self, &edge, &header, &page);
                if self.cloud_input(input) {
                    table::judge(self, &edge, &page, was_held, &expected);
                }
            }
            Some(_) | None => {
                self.cloud_input(input);
            }
        }
    }

    /// Protocol.md section 5, rules 1 and 2, by the session id alone.
    fn judge_presence(
        &mut self,
        sid: tidegate_model::ids::SessionId,
        message: &Up,
        before: Standing,
        (was, is): (Option<Link>, Link),
    ) {
        let known = before.store == Some(sid.store);
        let (late, what) = match message {
            Up::Birth(_) => {
                let over = sid.epoch == before.epoch && !before.alive;
                (known && (sid.epoch < before.epoch || over), "a birth comes late")
            }
            Up::Will(_) | Up::Bye(_) => (!known || sid.epoch < before.epoch, "a will or bye comes late"),
            Up::Hello(_)
            | Up::Inventory(_)
            | Up::Received(_)
            | Up::Result(_)
            | Up::Report(_)
            | Up::Heartbeat(_)
            | Up::Pong(_) => return,
        };
        if late {
            self.coverage.count(what);
            if was.is_some_and(|was| was != is) {
                self.fail(format!(
                    "a late '{}' of {sid} made a gateway {} that was {:?}",
                    message.kind(),
                    is.as_str(),
                    was.map(Link::as_str)
                ));
            }
        }
    }

    /// Hands an input to the controller, if it runs; whether an edge's inventory was compared thereby.
    pub fn cloud_input(&mut self, input: cloud::Input) -> bool {
        let now = self.cloud.clock.now(self.time);
        let Some(core) = &mut self.cloud.core else { return false };
        let output = core.handle(now, input);
        let compared = output.effects.iter().any(
            |effect| matches!(effect, cloud::Effect::Notify(event) if event.text.ends_with("told what it holds")),
        );
        self.perform_cloud(output) && compared
    }

    fn cloud_fate(&mut self, writes: bool) -> Fate {
        if writes && self.cloud.full_until > self.time {
            self.coverage.count("a commit of the controller fails: its disk is full");
            return Fate::Dies(Moment::BeforeCommit);
        }
        match &mut self.cloud.crash {
            None => Fate::Lives,
            Some((0, moment)) => {
                let moment = *moment;
                self.cloud.crash = None;
                self.coverage.count(match moment {
                    Moment::BeforeCommit => "the controller crashes before a commit",
                    Moment::AfterCommit(_) => "the controller crashes after a commit",
                });
                Fate::Dies(moment)
            }
            Some((steps, _)) => {
                *steps -= 1;
                Fate::Lives
            }
        }
    }

    /// Commits and performs; whether the process lived through it.
    pub(crate) fn perform_cloud(&mut self, output: cloud::Output) -> bool {
        self.stats.steps += 1;
        let cloud::Output { writes, mut effects, changed } = output;
        // A step that does nothing is no place to crash at.
        let fate = if writes.is_empty() && effects.is_empty() {
            Fate::Lives
        } else {
            self.cloud_fate(!writes.is_empty())
        };
        if let Fate::Dies(Moment::BeforeCommit) = fate {
            self.kill_cloud(RESTART_MS);
            return false;
        }
        let judged = self.ledger.cloud_writes(&self.cloud.disk, &writes);
        let mut touched: BTreeSet<EdgeId> = BTreeSet::new();
        for write in &writes {
            if let cloud::Write::PutPlacement(record) = write {
                touched.insert(record.edge.clone());
            }
        }
        let committed = writes.into_iter().try_for_each(|write| self.cloud.disk.apply(write));
        if let Fate::Dies(Moment::AfterCommit(most)) = fate {
            effects.truncate(most);
        }
        let held = |edge: &EdgeId| self.cloud.core.as_ref().is_some_and(|core| core.held(edge).is_some());
        let spoken = self.ledger.cloud_effects(&self.cloud.disk, &effects, held);
        if let Err(what) = judged.and(committed).and(spoken) {
            self.fail(what);
        }
        for effect in &effects {
            if let cloud::Effect::Notify(event) = effect
                && event.kind == cloud::EventKind::Edge
            {
                touched.extend(event.edge.clone());
            }
        }
        for effect in effects {
            self.cloud_effect(effect);
        }
        if let Fate::Dies(_) = fate {
            self.kill_cloud(RESTART_MS);
            return false;
        }
        let started = self.cloud.clock.started;
        let deadline = self.cloud.core.as_ref().and_then(cloud::Controller::next_deadline);
        self.cloud.due = deadline.map(|due| due.at.0 + started);
        self.publish_states(changed);
        for edge in &touched {
            self.check_views(Some(edge));
        }
        true
    }

    fn cloud_effect(&mut self, effect: cloud::Effect) {
        match effect {
            cloud::Effect::Publish { edge, payload } => {
                let Some(index) = (0..self.script.edges).find(|i| self.agents[*i].id == edge) else { return };
                let said = if self.script.newer_cloud {
                    self.accents[index].speak(&payload, &mut self.cloud.rng)
                } else {
                    vec![payload]
                };
                for payload in said.into_iter().map(Rc::new) {
                    for wait in self.arrivals(index) {
                        self.after(wait, Event::ToEdge { edge: index, payload: payload.clone() });
                    }
                    self.last_said[index].1 = Some(payload);
                }
            }
            cloud::Effect::PublishPresence(presence) => {
                let payload = Rc::new(serde_json::to_vec(&presence).expect("it has string keys"));
                self.controller_presence = Some(payload.clone());
                for edge in 0..self.script.edges {
                    for wait in self.arrivals(edge) {
                        self.after(wait, Event::ControllerPresence { edge, payload: payload.clone() });
                    }
                }
            }
            cloud::Effect::Reply { result, .. } => {
                self.answer = Some(result.map(|reply| *reply).map_err(|rejection| *rejection));
            }
            cloud::Effect::Notify(event) => {
                if event.text.contains("DUPLICATE_EDGE") {
                    self.coverage.count("DUPLICATE_EDGE is raised");
                }
                if event.text.contains("CLOUD_BEHIND") {
                    self.coverage.count("CLOUD_BEHIND is raised");
                }
                self.note(|_| format!("  cloud: {}", event.text));
            }
            cloud::Effect::Warn { edge, what } => self.note(|_| format!("  cloud warns of {edge}: {what}")),
            cloud::Effect::Disconnect(edge) => {
                let Some(index) = (0..self.script.edges).find(|i| self.agents[*i].id == edge) else { return };
                if let Some(session) = self.seats[index].session.take() {
                    self.after(5, Event::LinkLost { agent: session.agent, conn: session.conn });
                }
            }
            cloud::Effect::Settled { code: Code::Expired, .. } => {
                self.coverage.count("a queued action expires");
            }
            cloud::Effect::Settled { .. } => {}
        }
    }

    /// What is shown of the placements (of one edge) is what the store says of them, and nothing is shown as running on
    /// an edge that cannot be reached, unless it is said to be the last known state.
    fn check_views(&mut self, edge: Option<&EdgeId>) {
        let Some(core) = &self.cloud.core else { return };
        let filter = cloud::PlacementFilter { edge: edge.cloned(), ..cloud::PlacementFilter::default() };
        let (views, _) = core.placements(&filter, None, usize::MAX, Role::Operator);
        let lie = views.iter().find_map(|view| {
            if view.run_state == RunState::Running && !view.link.reachable() && !view.last_known {
                return Some(format!(
                    "{} on {} is shown as running and cannot be reached",
                    view.rule, view.edge
                ));
            }
            let record = self.cloud.disk.placements.get(&(view.rule_id, view.edge.clone()))?;
            view.lie_about(record)
        });
        if let Some(what) = lie {
            self.fail(what);
        }
    }
}

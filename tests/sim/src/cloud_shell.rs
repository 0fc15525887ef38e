//! The controller's shell: its process, its disk, and whoever asks it for something.
//!
//! Does what the real one does: hands an input to the core, commits the writes, performs the effects.

use std::collections::BTreeSet;

use tidegate_cloud_core as cloud;
use tidegate_model::placement::{Role, RunState};

use crate::EDGES;
use crate::trace::brief;
use crate::world::{Event, Fate, World};

impl World {
    /// Starts the controller from its disk.
    pub fn start_cloud(&mut self) {
        if self.cloud.core.is_some() {
            return;
        }
        self.note(|_| "the controller starts".to_owned());
        self.cloud.clock.started = self.time - self.rng.between(1, 50);
        let now = self.cloud.clock.now(self.time);
        let settings = cloud::Settings { heartbeat_s: self.plan.heartbeat_s, ..cloud::Settings::default() };
        let (core, output) = cloud::Controller::restore(settings, self.cloud.disk.snapshot(), now);
        self.cloud.core = Some(core);
        self.perform_cloud(output);
        for edge in 0..EDGES {
            if let Some(payload) = self.seats[edge].retained.clone() {
                self.after(20, Event::ToCloud { edge, presence: true, payload });
            }
        }
        self.check_views(None);
    }

    /// The controller's process ends.
    pub fn kill_cloud(&mut self) {
        self.note(|_| "the controller dies".to_owned());
        self.cloud.core = None;
        self.cloud.due = None;
        let wait = self.rng.between(10, 60_000);
        self.after(wait, Event::StartCloud);
    }

    /// Hands an input to the controller, if it runs.
    pub fn cloud_input(&mut self, input: cloud::Input) {
        let now = self.cloud.clock.now(self.time);
        let Some(core) = &mut self.cloud.core else { return };
        let output = core.handle(now, input);
        self.perform_cloud(output);
    }

    fn perform_cloud(&mut self, output: cloud::Output) {
        self.stats.steps += 1;
        let cloud::Output { writes, mut effects, .. } = output;
        let fate = self.fate();
        if let Fate::DiesBeforeCommit = fate {
            return self.kill_cloud();
        }
        let judged = self.ledger.cloud_writes(&writes);
        let committed = writes.into_iter().try_for_each(|write| self.cloud.disk.apply(write));
        if let Fate::DiesAfterCommit(most) = fate {
            effects.truncate(most);
        }
        let spoken = self.ledger.cloud_effects(&self.cloud.disk, &effects);
        if let Err(what) = judged.and(committed).and(spoken) {
            self.fail(what);
        }
        let changed_edges: BTreeSet<_> = effects
            .iter()
            .filter_map(|effect| match effect {
                cloud::Effect::Notify(event) if event.kind == cloud::EventKind::Edge => event.edge.clone(),
                cloud::Effect::Notify(_)
                | cloud::Effect::Publish { .. }
                | cloud::Effect::PublishPresence(_)
                | cloud::Effect::Disconnect(_)
                | cloud::Effect::Reply { .. }
                | cloud::Effect::Settled { .. }
                | cloud::Effect::Warn { .. } => None,
            })
            .collect();
        for effect in effects {
            self.cloud_effect(effect);
        }
        if let Fate::DiesAfterCommit(_) = fate {
            return self.kill_cloud();
        }
        let started = self.cloud.clock.started;
        let deadline = self.cloud.core.as_ref().and_then(cloud::Controller::next_deadline);
        self.cloud.due = deadline.map(|due| due.at.0 + started);
        for edge in changed_edges {
            self.check_views(Some(&edge));
        }
    }

    fn cloud_effect(&mut self, effect: cloud::Effect) {
        match effect {
            cloud::Effect::Publish { edge, payload } => {
                let Some(index) = self.edges.iter().position(|e| e.id == edge) else { return };
                for wait in self.weather.arrivals(&mut self.rng) {
                    self.after(wait, Event::ToEdge { edge: index, payload: payload.clone() });
                }
            }
            cloud::Effect::PublishPresence(presence) => {
                let payload = serde_json::to_vec(&presence).expect("it has string keys");
                self.controller_presence = Some(payload.clone());
                for edge in 0..EDGES {
                    for wait in self.weather.arrivals(&mut self.rng) {
                        self.after(wait, Event::ControllerPresence { edge, payload: payload.clone() });
                    }
                }
            }
            cloud::Effect::Reply { result, .. } => {
                self.answer = Some(result.map(|reply| *reply).map_err(|rejection| *rejection));
            }
            cloud::Effect::Notify(event) => self.note(|_| format!("  cloud: {}", event.text)),
            cloud::Effect::Warn { edge, what } => self.note(|_| format!("  cloud warns of {edge}: {what}")),
            cloud::Effect::Disconnect(_) | cloud::Effect::Settled { .. } => {}
        }
    }

    /// Nothing is shown as running on an edge that cannot be reached, unless it is said to be the last known state.
    fn check_views(&mut self, edge: Option<&tidegate_model::ids::EdgeId>) {
        let Some(core) = &self.cloud.core else { return };
        let filter = cloud::PlacementFilter { edge: edge.cloned(), ..cloud::PlacementFilter::default() };
        let (views, _) = core.placements(&filter, None, usize::MAX, Role::Operator);
        let lie = views
            .iter()
            .find(|v| v.run_state == RunState::Running && !v.link.reachable() && !v.last_known)
            .map(|v| format!("{} on {} is shown as running and cannot be reached", v.rule, v.edge));
        if let Some(what) = lie {
            self.fail(what);
        }
    }

    /// Asks the controller for something; a refusal must change nothing.
    pub fn ask(&mut self, request: cloud::Request) {
        self.cloud_input(cloud::Input::Tick);
        self.answer = None;
        self.note(|_| format!("operator: {}", brief(&request)));
        let place = match &request {
            cloud::Request::Act { rule, edge, .. } => Some((rule.clone(), edge.clone())),
            cloud::Request::SaveRule { .. }
            | cloud::Request::ActOnMany { .. }
            | cloud::Request::RestoreRule { .. }
            | cloud::Request::DeleteRule { .. }
            | cloud::Request::Place { .. }
            | cloud::Request::Unplace { .. }
            | cloud::Request::CreateEdge { .. }
            | cloud::Request::RemoveEdge { .. }
            | cloud::Request::ConfirmEdge { .. } => None,
        };
        let now = self.cloud.clock.now(self.time);
        let Some(core) = &mut self.cloud.core else { return };
        let shown = |core: &cloud::Controller| {
            let (rule, edge) = place.as_ref()?;
            core.placement(rule, edge, Role::Operator).map(|view| format!("{view:?}"))
        };
        let before = shown(core);
        let input = cloud::Input::Request {
            reply_to: cloud::ReplyTo(1),
            by: cloud::Actor { name: "sim".to_owned(), via: "api".to_owned() },
            role: Role::Operator,
            request: Box::new(request),
            how: cloud::How::default(),
        };
        let output = core.handle(now, input);
        let refused =
            output.effects.iter().any(|effect| matches!(effect, cloud::Effect::Reply { result: Err(_), .. }));
        if refused && (!output.writes.is_empty() || shown(core) != before) {
            self.fail("a refused request changed something".to_owned());
        }
        self.perform_cloud(output);
        if let Some(Err(rejection)) = &self.answer {
            let why = rejection.to_string();
            self.note(|_| format!("  refused: {why}"));
        }
    }
}

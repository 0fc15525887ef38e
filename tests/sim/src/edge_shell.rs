//! The agents' shells: their processes, disks, connections and bridges.
//!
//! Does what the real one does: hands an input to the core, commits the writes, performs the effects.

use std::collections::BTreeSet;

use tidegate_cloud_core as cloud;
use tidegate_edge_core as edge;
use tidegate_model::ids::{AccountId, RuleId, SessionId};
use tidegate_model::rule::Feature;
use tidegate_model::wire::Fault;

use crate::EDGES;
use crate::process::Bridge;
use crate::remote::Sign;
use crate::trace::up;
use crate::world::{Event, Fate, World};

impl World {
    /// Starts an agent from its disk.
    pub fn start_edge(&mut self, index: usize) {
        let edge = &mut self.edges[index];
        if edge.core.is_some() || edge.gone {
            return;
        }
        edge.clock.started = self.time - self.rng.between(1, 50);
        let setup = edge::Setup {
            edge: edge.id.clone(),
            account: AccountId::default_account(),
            has_controller: true,
            subscribes_locally: false,
            agent: cloud::software_version(),
            features: BTreeSet::from([Feature::BridgeV1.as_str().to_owned()]),
            policy: edge::Policy::default(),
            boot: self.rng.number(),
            seed: self.rng.number(),
        };
        edge.core = Some(edge::Agent::restore(setup, edge.disk.clone()));
        self.note(|_| format!("gw-{index} starts"));
        self.edge_input(index, edge::Input::Boot);
    }

    /// An agent's process ends; it starts again after `restart` ms.
    pub fn kill_edge(&mut self, index: usize, restart: Option<i64>) {
        self.note(|_| format!("gw-{index} dies"));
        self.edges[index].kill();
        self.seat_orphaned(index);
        if let Some(wait) = restart {
            self.after(wait, Event::StartEdge { edge: index });
        }
    }

    /// Whatever session the broker holds of this edge has nobody behind it: it will notice.
    pub(crate) fn seat_orphaned(&mut self, index: usize) {
        if let Some((sid, _)) = &self.seats[index].session {
            let sid = *sid;
            let wait = self.rng.between(0, 90_000);
            self.after(wait, Event::WillDue { edge: index, sid });
        }
    }

    /// Hands an input to an agent, if it runs.
    pub fn edge_input(&mut self, index: usize, input: edge::Input) {
        let edge = &mut self.edges[index];
        let now = edge.clock.now(self.time);
        let Some(core) = &mut edge.core else { return };
        let output = core.handle(now, input);
        self.stats.steps += 1;
        let edge::Output { writes, mut effects } = output;
        let fate = self.fate();
        let restart = self.rng.between(10, 60_000);
        if let Fate::DiesBeforeCommit = fate {
            return self.kill_edge(index, Some(restart));
        }
        if let Fate::DiesAfterCommit(most) = fate {
            effects.truncate(most);
        }
        let edge = &mut self.edges[index];
        let mut judged = Ok(());
        if !writes.is_empty() {
            let before = edge.disk.clone();
            writes.iter().cloned().for_each(|write| edge.disk.apply(write));
            judged = self.ledger.edge_writes(&edge.id, &before, &edge.disk, &writes);
        }
        let spoken = self.ledger.edge_effects(&edge.id, &edge.disk, &effects);
        if let Err(what) = judged.and(spoken) {
            self.fail(what);
        }
        for effect in effects {
            self.edge_effect(index, effect);
        }
        if let Fate::DiesAfterCommit(_) = fate {
            return self.kill_edge(index, Some(restart));
        }
        let edge = &mut self.edges[index];
        edge.due =
            edge.core.as_ref().and_then(edge::Agent::next_deadline).map(|at| at.0 + edge.clock.started);
    }

    fn edge_effect(&mut self, index: usize, effect: edge::Effect) {
        use edge::Effect;
        let life = self.edges[index].life;
        match effect {
            Effect::Dial { sid, will } => {
                let wait = self.rng.delay(if self.storm { 5_000 } else { 50 });
                self.after(wait, Event::DialDone { edge: index, life, sid, will });
            }
            Effect::HangUp { sid } => {
                self.edges[index].connected.take_if(|connected| *connected == sid);
                self.seat_orphaned(index);
            }
            Effect::PublishUp(payload) => {
                if self.hears(index) {
                    for wait in self.weather.arrivals(&mut self.rng) {
                        let payload = payload.clone();
                        self.after(wait, Event::ToCloud { edge: index, presence: false, payload });
                    }
                }
            }
            Effect::PublishPresence(payload) => {
                if self.hears(index) {
                    self.presence_published(index, payload);
                }
            }
            Effect::TakeIn { rule, config } => {
                self.edges[index].taken_in.insert(rule, config);
            }
            Effect::TakeInNothing { rule } => {
                self.edges[index].taken_in.remove(&rule);
            }
            Effect::StartBridge { rule, order, config, .. }
            | Effect::ReconfigureBridge { rule, order, config, .. } => {
                self.note(|_| format!("  gw-{index} runs a bridge, {order:?}"));
                self.edges[index].bridges.insert(rule, Bridge { order, config, told: None });
                let wait = self.rng.delay(3_000);
                self.after(wait, Event::Probe { edge: index, life, rule, order });
            }
            Effect::StopBridge { rule } => {
                self.edges[index].bridges.remove(&rule);
            }
            Effect::DestroyQueue { .. } | Effect::Reply { .. } => {}
        }
    }

    /// A payload comes to the presence topic of an edge: retained, and told to both sides.
    fn presence_published(&mut self, index: usize, payload: Vec<u8>) {
        self.seats[index].retained = Some(payload.clone());
        for wait in self.weather.arrivals(&mut self.rng) {
            self.after(wait, Event::ToCloud { edge: index, presence: true, payload: payload.clone() });
        }
        for wait in self.weather.arrivals(&mut self.rng) {
            self.after(wait, Event::OwnPresence { edge: index, payload: payload.clone() });
        }
    }

    pub(crate) fn will_published(&mut self, index: usize, will: Vec<u8>) {
        self.note(|_| format!("the broker publishes {}", up(&will)));
        self.presence_published(index, will);
    }

    pub(crate) fn dial_done(&mut self, index: usize, life: u64, sid: SessionId, will: Vec<u8>) {
        if self.edges[index].life != life {
            return;
        }
        let cut = self.seats[index].cut_until > self.time;
        if cut || (self.storm && self.rng.chance(100)) {
            return self.edge_input(index, edge::Input::Disconnected { sid });
        }
        self.note(|_| format!("gw-{index} connects as {sid}"));
        if let Some(old) = self.seats[index].connect(sid, will) {
            let late = self.rng.delay(if self.storm { 60_000 } else { 100 });
            self.after(late, Event::WillPublished { edge: index, will: old });
        }
        self.edges[index].connected = Some(sid);
        let retained = [
            self.seats[index].retained.clone().map(|payload| Event::OwnPresence { edge: index, payload }),
            self.controller_presence
                .clone()
                .map(|payload| Event::ControllerPresence { edge: index, payload }),
        ];
        for event in retained.into_iter().flatten() {
            self.after(5, event);
        }
        self.edge_input(index, edge::Input::Connected { sid });
    }

    pub(crate) fn link_lost(&mut self, index: usize, life: u64, sid: SessionId) {
        let edge = &mut self.edges[index];
        if edge.life != life || edge.connected != Some(sid) {
            return;
        }
        edge.connected = None;
        self.note(|_| format!("gw-{index} lost its connection"));
        self.seat_orphaned(index);
        self.edge_input(index, edge::Input::Disconnected { sid });
    }

    pub(crate) fn probe(&mut self, index: usize, life: u64, rule: RuleId, order: edge::Order) {
        let edge = &mut self.edges[index];
        if edge.life != life {
            return;
        }
        let Some(bridge) = edge.bridges.get_mut(&rule).filter(|bridge| bridge.order == order) else { return };
        let sign = match self.remotes.sign(&bridge.config) {
            Sign::Nothing if bridge.told == Some(Sign::Running) => {
                Sign::Fault(tidegate_model::code::FaultCode::KeepAlive)
            }
            sign @ (Sign::Running | Sign::Fault(_) | Sign::Nothing) => sign,
        };
        if sign == Sign::Nothing {
            return self.after(5_000, Event::Probe { edge: index, life, rule, order });
        }
        if bridge.told == Some(sign) {
            return;
        }
        bridge.told = Some(sign);
        let event = match sign {
            Sign::Fault(code) => edge::BridgeEvent::Faulted(Fault { code, detail: format!("{code} it is") }),
            Sign::Running | Sign::Nothing => edge::BridgeEvent::Running,
        };
        self.note(|_| format!("a bridge of gw-{index}: {sign:?}"));
        self.edge_input(index, edge::Input::Bridge { rule, order, event });
    }

    /// Every bridge looks again, soon: something may have changed.
    pub(crate) fn probe_all(&mut self) {
        for index in 0..EDGES {
            let life = self.edges[index].life;
            let bridges: Vec<_> = self.edges[index].bridges.iter().map(|(r, b)| (*r, b.order)).collect();
            for (rule, order) in bridges {
                let wait = self.rng.between(10, 5_000);
                self.after(wait, Event::Probe { edge: index, life, rule, order });
            }
        }
    }
}

//! The agents' shells: their processes, disks, connections and bridges.
//!
//! Does what the real one does: hands an input to the core, commits the writes, performs the effects. Where a commit
//! fails, the process ends and is started again.

use std::collections::BTreeSet;
use std::rc::Rc;

use tidegate_cloud_core as cloud;
use tidegate_edge_core as edge;
use tidegate_model::ids::{AccountId, RuleId, SessionId};
use tidegate_model::rule::Feature;
use tidegate_model::wire::Fault;

use crate::accent::hello_of;
use crate::broker::Session;
use crate::check::Before;
use crate::cloud_shell::RESTART_MS;
use crate::process::{Bridge, Connection};
use crate::remote::Sign;
use crate::step::{Moment, Software};
use crate::trace::up;
use crate::world::{Event, Fate, World};

impl World {
    /// Starts an agent from its disk.
    pub fn start_edge(&mut self, index: usize) {
        let gone = self.is_gone(self.identity(index));
        let agent = &mut self.agents[index];
        if agent.core.is_some() || !agent.exists || gone {
            return;
        }
        agent.clock.started = self.time - agent.rng.between(1, 50);
        let known = Feature::BridgeV1.as_str().to_owned();
        let features = match agent.software {
            Software::Ours | Software::Foreign => BTreeSet::from([known]),
            Software::Older => BTreeSet::new(),
            Software::Newer => BTreeSet::from([known, "bridge.v9".to_owned()]),
        };
        let setup = edge::Setup {
            edge: agent.id.clone(),
            account: AccountId::default_account(),
            has_controller: true,
            subscribes_locally: false,
            agent: cloud::software_version(),
            features,
            policy: edge::Policy::default(),
            boot: agent.rng.number(),
            seed: agent.rng.number(),
        };
        agent.core = Some(edge::Agent::restore(setup, agent.disk.clone()));
        self.note(|world| format!("{} starts", world.name(index)));
        self.edge_input(index, edge::Input::Boot);
    }

    /// The name of a gateway, for the trace: a second one of an identity has a mark.
    pub(crate) fn name(&self, agent: usize) -> String {
        let edge = self.identity(agent);
        let mark = if agent == edge { "" } else { "'" };
        format!("gw-{edge}{mark}")
    }

    /// An agent's process ends; it starts again after `restart` ms.
    pub fn kill_edge(&mut self, index: usize, restart: Option<i64>) {
        self.note(|world| format!("{} dies", world.name(index)));
        self.agents[index].kill();
        self.seat_orphaned(index);
        if let Some(wait) = restart {
            let life = self.agents[index].life;
            self.after(wait, Event::StartEdge { agent: index, life });
        }
    }

    /// Whatever connection the broker holds of this agent has nobody behind it: it will notice.
    pub(crate) fn seat_orphaned(&mut self, index: usize) {
        let edge = self.identity(index);
        if let Some(session) = self.seats[edge].session.as_ref().filter(|session| session.agent == index) {
            let conn = session.conn;
            let wait = self.agents[index].rng.between(0, 90_000);
            self.after(wait, Event::WillDue { edge, conn });
        }
    }

    fn edge_fate(&mut self, index: usize, writes: bool) -> Fate {
        let agent = &mut self.agents[index];
        if writes && agent.full_until > self.time {
            self.coverage.count("a commit of an agent fails: its disk is full");
            return Fate::Dies(Moment::BeforeCommit);
        }
        match &mut agent.crash {
            None => Fate::Lives,
            Some((0, moment)) => {
                let moment = *moment;
                agent.crash = None;
                self.coverage.count(match moment {
                    Moment::BeforeCommit => "an agent crashes before a commit",
                    Moment::AfterCommit(_) => "an agent crashes after a commit",
                });
                Fate::Dies(moment)
            }
            Some((steps, _)) => {
                *steps -= 1;
                Fate::Lives
            }
        }
    }

    /// Hands an input to an agent, if it runs.
    pub fn edge_input(&mut self, index: usize, input: edge::Input) {
        let agent = &mut self.agents[index];
        let now = agent.clock.now(self.time);
        let Some(core) = &mut agent.core else { return };
        let output = core.handle(now, input);
        self.stats.steps += 1;
        let edge::Output { writes, mut effects } = output;
        let fate = if writes.is_empty() && effects.is_empty() {
            Fate::Lives
        } else {
            self.edge_fate(index, !writes.is_empty())
        };
        if let Fate::Dies(Moment::BeforeCommit) = fate {
            return self.kill_edge(index, Some(RESTART_MS));
        }
        if let Fate::Dies(Moment::AfterCommit(most)) = fate {
            effects.truncate(most);
        }
        let agent = &mut self.agents[index];
        let mut judged = Ok(());
        if !writes.is_empty() {
            let before = Before::of(&agent.disk, &writes);
            writes.iter().cloned().for_each(|write| agent.disk.apply(write));
            judged = self.ledger.edge_writes(&agent.id, &before, &agent.disk, &writes);
        }
        let spoken = self.ledger.edge_effects(&agent.id, &agent.disk, &effects);
        if let Err(what) = judged.and(spoken) {
            self.fail(what);
        }
        for effect in effects {
            self.edge_effect(index, effect);
        }
        if let Fate::Dies(_) = fate {
            return self.kill_edge(index, Some(RESTART_MS));
        }
        let agent = &mut self.agents[index];
        agent.due =
            agent.core.as_ref().and_then(edge::Agent::next_deadline).map(|at| at.0 + agent.clock.started);
    }

    /// After how many ms each copy of a message from or to this identity arrives.
    pub(crate) fn arrivals(&mut self, edge: usize) -> Vec<i64> {
        let arrivals = self.weather.arrivals(&mut self.agents[edge].rng);
        match arrivals.len() {
            0 => self.coverage.count("a message is lost"),
            1 => {}
            _ => self.coverage.count("a message is copied"),
        }
        arrivals
    }

    fn say_up(&mut self, index: usize, payload: Vec<u8>) {
        if !self.hears(index) {
            return;
        }
        let edge = self.identity(index);
        let agent = &mut self.agents[index];
        let said = match agent.software {
            Software::Ours | Software::Older => vec![payload],
            Software::Foreign => vec![hello_of(payload, &[2])],
            Software::Newer => agent.accent.speak(&hello_of(payload, &[1, 2]), &mut agent.rng),
        };
        for payload in said.into_iter().map(Rc::new) {
            for wait in self.arrivals(edge) {
                self.after(wait, Event::ToCloud { edge, presence: false, payload: payload.clone() });
            }
            self.last_said[edge].0 = Some(payload);
        }
    }

    fn edge_effect(&mut self, index: usize, effect: edge::Effect) {
        use edge::Effect;
        let life = self.agents[index].life;
        match effect {
            Effect::Dial { sid, will } => {
                let wait = self.agents[index].rng.delay(if self.storm { 5_000 } else { 50 });
                self.after(wait, Event::DialDone { agent: index, life, sid, will });
            }
            Effect::HangUp { sid } => {
                self.agents[index].connected.take_if(|link| link.sid == sid);
                self.seat_orphaned(index);
            }
            Effect::PublishUp(payload) => self.say_up(index, payload),
            Effect::PublishPresence(payload) => {
                if self.hears(index) {
                    self.presence_published(self.identity(index), payload);
                }
            }
            Effect::TakeIn { rule, config } => {
                self.agents[index].taken_in.insert(rule, config);
            }
            Effect::TakeInNothing { rule } => {
                self.agents[index].taken_in.remove(&rule);
            }
            Effect::StartBridge { rule, order, config, .. }
            | Effect::ReconfigureBridge { rule, order, config, .. } => {
                self.note(|world| format!("  {} runs a bridge, {order:?}", world.name(index)));
                let agent = &mut self.agents[index];
                agent.bridges.insert(rule, Bridge { order, config, told: None });
                let wait = agent.rng.delay(3_000);
                self.after(wait, Event::Probe { agent: index, life, rule, order });
            }
            Effect::StopBridge { rule } => {
                self.agents[index].bridges.remove(&rule);
            }
            Effect::DestroyQueue { .. } | Effect::Reply { .. } => {}
        }
    }

    /// A payload comes to the presence topic of an edge: retained, and told to both sides.
    fn presence_published(&mut self, edge: usize, payload: Vec<u8>) {
        self.seats[edge].retained = Some(payload.clone());
        let payload = Rc::new(payload);
        for wait in self.arrivals(edge) {
            self.after(wait, Event::ToCloud { edge, presence: true, payload: payload.clone() });
        }
        for wait in self.arrivals(edge) {
            self.after(wait, Event::OwnPresence { edge, payload: payload.clone() });
        }
    }

    pub(crate) fn will_published(&mut self, edge: usize, will: Vec<u8>) {
        self.coverage.count("a will is published");
        self.note(|_| format!("the broker publishes for gw-{edge} {}", up(&will)));
        self.presence_published(edge, will);
    }

    pub(crate) fn dial_done(&mut self, index: usize, life: u64, sid: SessionId, will: Vec<u8>) {
        if self.agents[index].life != life {
            return;
        }
        let edge = self.identity(index);
        let broker_is_down = self.script.embedded && self.cloud.core.is_none();
        let unknown = !self.cloud.disk.edges.contains_key(&self.agents[index].id);
        let cut = self.seats[edge].cut_until > self.time;
        if broker_is_down || unknown || cut || (self.storm && self.agents[index].rng.chance(100)) {
            return self.edge_input(index, edge::Input::Disconnected { sid });
        }
        self.connections += 1;
        let conn = self.connections;
        self.note(|world| format!("{} connects as {sid}", world.name(index)));
        if let Some(old) = self.seats[edge].connect(Session { conn, agent: index, sid, will }) {
            let late = self.agents[index].rng.delay(if self.storm { 60_000 } else { 100 });
            self.after(late, Event::WillPublished { edge, will: old.will });
            // The broker closes the connection that was taken over; the agent itself may have given it up already.
            self.after(5, Event::LinkLost { agent: old.agent, conn: old.conn });
        }
        self.agents[index].connected = Some(Connection { conn, sid });
        let retained = self.seats[edge].retained.clone().map(Rc::new);
        let retained = [
            retained.map(|payload| Event::OwnPresence { edge, payload }),
            self.controller_presence.clone().map(|payload| Event::ControllerPresence { edge, payload }),
        ];
        for event in retained.into_iter().flatten() {
            self.after(5, event);
        }
        self.edge_input(index, edge::Input::Connected { sid });
    }

    pub(crate) fn link_lost(&mut self, index: usize, conn: u64) {
        let Some(link) = self.agents[index].connected.take_if(|link| link.conn == conn) else { return };
        self.note(|world| format!("{} lost its connection", world.name(index)));
        self.seat_orphaned(index);
        self.edge_input(index, edge::Input::Disconnected { sid: link.sid });
    }

    pub(crate) fn probe(&mut self, index: usize, life: u64, rule: RuleId, order: edge::Order) {
        let agent = &mut self.agents[index];
        if agent.life != life {
            return;
        }
        let Some(bridge) = agent.bridges.get_mut(&rule).filter(|bridge| bridge.order == order) else {
            return;
        };
        let sign = match self.remotes.sign(&bridge.config) {
            Sign::Nothing if bridge.told == Some(Sign::Running) => {
                Sign::Fault(tidegate_model::code::FaultCode::KeepAlive)
            }
            sign @ (Sign::Running | Sign::Fault(_) | Sign::Nothing) => sign,
        };
        if sign == Sign::Nothing {
            return self.after(5_000, Event::Probe { agent: index, life, rule, order });
        }
        if bridge.told == Some(sign) {
            return;
        }
        bridge.told = Some(sign);
        let event = match sign {
            Sign::Fault(code) => edge::BridgeEvent::Faulted(Fault { code, detail: format!("{code} it is") }),
            Sign::Running | Sign::Nothing => edge::BridgeEvent::Running,
        };
        self.note(|world| format!("a bridge of {}: {sign:?}", world.name(index)));
        self.edge_input(index, edge::Input::Bridge { rule, order, event });
    }

    /// Every bridge looks again, soon: something may have changed.
    pub(crate) fn probe_all(&mut self) {
        for index in 0..self.agents.len() {
            let life = self.agents[index].life;
            let bridges: Vec<_> = self.agents[index].bridges.iter().map(|(r, b)| (*r, b.order)).collect();
            for (rule, order) in bridges {
                let wait = self.agents[index].rng.between(10, 5_000);
                self.after(wait, Event::Probe { agent: index, life, rule, order });
            }
        }
    }
}

//! The world: virtual time, the queue of what will happen, and all that exists.
//!
//! The shells around the two cores are in `cloud_shell` and `edge_shell`, what steps do in `play`.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use tidegate_cloud_core as cloud;
use tidegate_edge_core as edge;
use tidegate_model::ids::{RuleId, SessionId};

use crate::accent::Accent;
use crate::ask::Asked;
use crate::broker::Seat;
use crate::check::{Broken, Ledger};
use crate::coverage::Coverage;
use crate::network::Weather;
use crate::process::{Cloud, Edge};
use crate::remote::Remotes;
use crate::rng::Rng;
use crate::run::Stats;
use crate::script::Script;
use crate::states::Retained;
use crate::step::{At, Moment};
use crate::trace::{down, up};
use crate::{CONFIRM_EVERY_MS, operator, settled};

/// Steps at one moment of virtual time after which a core counts as spinning.
const MAX_STEPS_AT_ONCE: u32 = 2_000;

/// A payload on its way; copies share it.
pub(crate) type Payload = Rc<Vec<u8>>;

/// Something that will happen. `edge` is an identity, `agent` one of the gateways that have it.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    ToCloud {
        edge: usize,
        presence: bool,
        payload: Payload,
    },
    ToEdge {
        edge: usize,
        payload: Payload,
    },
    OwnPresence {
        edge: usize,
        payload: Payload,
    },
    ControllerPresence {
        edge: usize,
        payload: Payload,
    },
    DialDone {
        agent: usize,
        life: u64,
        sid: SessionId,
        will: Vec<u8>,
    },
    LinkLost {
        agent: usize,
        conn: u64,
    },
    WillDue {
        edge: usize,
        conn: u64,
    },
    WillPublished {
        edge: usize,
        will: Vec<u8>,
    },
    Probe {
        agent: usize,
        life: u64,
        rule: RuleId,
        order: edge::Order,
    },
    StartCloud {
        life: u64,
    },
    StartEdge {
        agent: usize,
        life: u64,
    },
    Step(usize),
    /// Once all is calm: an operator looks after what only an operator can decide.
    LookAfter,
}

/// How a step of a process ends.
pub(crate) enum Fate {
    Lives,
    Dies(Moment),
}

/// Everything there is.
#[derive(Debug)]
pub struct World {
    /// What happens.
    pub script: Script,
    /// Chance that belongs to no part of the world.
    pub rng: Rng,
    /// Virtual time, in ms.
    pub time: i64,
    /// Whether things go wrong.
    pub storm: bool,
    /// The network between brokers and clients.
    pub weather: Weather,
    /// The controller.
    pub cloud: Cloud,
    /// The gateways: one per identity, then one more per identity that only exists while that identity is cloned.
    pub agents: Vec<Edge>,
    /// What the controller's broker holds of each identity.
    pub seats: Vec<Seat>,
    /// The remote brokers.
    pub remotes: Remotes,
    /// What happened so far, as far as the invariants need it.
    pub ledger: Ledger,
    /// What happened so far, counted.
    pub coverage: Coverage,
    /// What it came to so far.
    pub stats: Stats,
    /// The first invariant that was broken.
    pub broken: Option<Broken>,
    /// How the last request was answered.
    pub answer: Option<Result<cloud::Reply, cloud::Rejection>>,
    pub(crate) controller_presence: Option<Payload>,
    /// The states that the controller retained for other systems.
    pub(crate) retained: Retained,
    /// The last request, and how many there were.
    pub(crate) last_asked: Option<Asked>,
    pub(crate) asked: u64,
    /// The last payload that each side said about an identity, for the oddities: (up, down).
    pub(crate) last_said: Vec<(Option<Payload>, Option<Payload>)>,
    /// What a newer controller says beyond ours, per identity.
    pub(crate) accents: Vec<Accent>,
    events: BTreeMap<(i64, u64), Event>,
    number: u64,
    pub(crate) connections: u64,
    at_once: (i64, u32),
    pub(crate) trace: Option<VecDeque<String>>,
}

impl World {
    /// A world with a running controller, whose edges are created and start soon.
    #[must_use]
    pub fn new(script: Script, trace: bool) -> Self {
        let (seed, edges) = (script.seed, script.edges);
        let agents = (0..2 * edges)
            .map(|i| Edge::new(operator::edge_id(i % edges), i < edges, Rng::part(seed, 2 + i as u64)))
            .collect();
        let mut world = Self {
            weather: script.weather,
            rng: Rng::part(seed, 0),
            time: 0,
            storm: true,
            cloud: Cloud::new(Rng::part(seed, 1)),
            agents,
            seats: vec![Seat::default(); edges],
            remotes: Remotes::default(),
            ledger: Ledger::default(),
            coverage: Coverage::default(),
            stats: Stats::default(),
            broken: None,
            answer: None,
            controller_presence: None,
            retained: Retained::new(),
            last_asked: None,
            asked: 0,
            last_said: vec![(None, None); edges],
            accents: vec![Accent::default(); edges],
            events: BTreeMap::new(),
            number: 0,
            connections: 0,
            at_once: (0, 0),
            trace: trace.then(VecDeque::new),
            script,
        };
        world.start_cloud();
        for agent in 0..edges {
            let edge = operator::edge_id(agent);
            world.ask(cloud::Request::CreateEdge { edge, credential: "hash".to_owned() });
            world.after(10, Event::StartEdge { agent, life: 0 });
        }
        for (nth, At(at, _)) in world.script.steps.clone().into_iter().enumerate() {
            world.after(at, Event::Step(nth));
        }
        world
    }

    /// A world in which nothing goes wrong by chance, and an operator looks after it: for scenarios played by hand.
    #[must_use]
    pub fn quiet(seed: u64, edges: usize) -> Self {
        let mut world = Self::new(Script::calm(seed, edges), true);
        world.storm = false;
        world.after(1_000, Event::LookAfter);
        world
    }

    /// The gateway that has this identity, and the second one that has it too.
    #[must_use]
    pub fn holders(&self, edge: usize) -> Vec<usize> {
        [edge, edge + self.script.edges].into_iter().filter(|agent| self.agents[*agent].exists).collect()
    }

    /// The identity of a gateway.
    pub(crate) fn identity(&self, agent: usize) -> usize {
        agent % self.script.edges
    }

    /// Checks that everything settled; the first thing that did not is kept in `broken`.
    pub fn expect_settled(&mut self) {
        self.check_states();
        if self.broken.is_none()
            && let Err(what) = settled::check(self)
        {
            self.fail(what);
        }
    }

    /// Lets virtual time pass.
    pub fn pass(&mut self, ms: i64) {
        let until = self.time + ms;
        while self.broken.is_none() {
            let due = self.agents.iter().map(|agent| agent.due).chain([self.cloud.due]).flatten().min();
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let Some(at) = [due, event].into_iter().flatten().min().filter(|at| *at <= until) else { break };
            self.time = self.time.max(at);
            self.watch_progress();
            if event == Some(at) {
                let (_, event) = self.events.pop_first().expect("it was looked at above");
                self.happen(event);
            } else if self.cloud.due == Some(at) {
                self.cloud_input(cloud::Input::Tick);
            } else if let Some(agent) = self.agents.iter().position(|agent| agent.due == Some(at)) {
                self.edge_input(agent, edge::Input::Tick);
            }
        }
        self.time = self.time.max(until);
    }

    fn watch_progress(&mut self) {
        if self.at_once.0 == self.time {
            self.at_once.1 += 1;
        } else {
            self.at_once = (self.time, 0);
        }
        if self.at_once.1 > MAX_STEPS_AT_ONCE {
            self.fail("a core spins: its deadline does not move".to_owned());
        }
    }

    pub(crate) fn after(&mut self, ms: i64, event: Event) {
        self.number += 1;
        self.events.insert((self.time + ms.max(0), self.number), event);
    }

    /// Everything that is under way between the broker and its clients is lost.
    pub(crate) fn lose_what_is_under_way(&mut self) {
        self.events.retain(|_, event| match event {
            Event::ToCloud { .. }
            | Event::ToEdge { .. }
            | Event::OwnPresence { .. }
            | Event::ControllerPresence { .. }
            | Event::WillPublished { .. } => false,
            Event::DialDone { .. }
            | Event::LinkLost { .. }
            | Event::WillDue { .. }
            | Event::Probe { .. }
            | Event::StartCloud { .. }
            | Event::StartEdge { .. }
            | Event::Step(_)
            | Event::LookAfter => true,
        });
    }

    pub(crate) fn fail(&mut self, what: Broken) {
        self.note(|_| format!("BROKEN: {what}"));
        self.broken.get_or_insert(what);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::ToCloud { edge, presence, payload } => {
                let lost = if self.cloud.core.is_some() { "" } else { " (lost)" };
                self.note_message(|| format!("gw-{edge} > cloud{lost} {}", up(&payload)));
                self.cloud_hears(edge, presence, &payload);
            }
            Event::ToEdge { edge, payload } => {
                let agent = self.listener(edge);
                let lost = if agent.is_some() { "" } else { " (lost)" };
                self.note_message(|| format!("cloud > gw-{edge}{lost} {}", down(&payload)));
                if let Some(agent) = agent {
                    self.edge_input(agent, edge::Input::Down(payload.to_vec()));
                }
            }
            Event::OwnPresence { edge, payload } => {
                if let Some(agent) = self.listener(edge) {
                    self.edge_input(agent, edge::Input::OwnPresence(payload.to_vec()));
                }
            }
            Event::ControllerPresence { edge, payload } => {
                if let Some(agent) = self.listener(edge) {
                    self.edge_input(agent, edge::Input::ControllerPresence(payload.to_vec()));
                }
            }
            Event::DialDone { agent, life, sid, will } => self.dial_done(agent, life, sid, will),
            Event::LinkLost { agent, conn } => self.link_lost(agent, conn),
            Event::WillDue { edge, conn } => {
                if let Some(session) = self.seats[edge].notice_loss(conn) {
                    self.will_published(edge, session.will);
                    let wait = self.agents[session.agent].rng.between(0, 30_000);
                    self.after(wait, Event::LinkLost { agent: session.agent, conn });
                }
            }
            Event::WillPublished { edge, will } => self.will_published(edge, will),
            Event::Probe { agent, life, rule, order } => self.probe(agent, life, rule, order),
            Event::StartCloud { life } => {
                if self.cloud.life == life {
                    self.start_cloud();
                }
            }
            Event::StartEdge { agent, life } => {
                if self.agents[agent].life == life {
                    self.start_edge(agent);
                }
            }
            Event::Step(nth) => {
                let At(_, step) = self.script.steps[nth];
                self.play(step);
            }
            Event::LookAfter => {
                self.look_after();
                self.after(CONFIRM_EVERY_MS, Event::LookAfter);
            }
        }
    }

    /// The agent that what the broker publishes for this identity reaches now.
    pub(crate) fn listener(&self, edge: usize) -> Option<usize> {
        let agent = self.seats[edge].session.as_ref()?.agent;
        self.hears(agent).then_some(agent)
    }

    /// Whether this agent and the broker hear each other now.
    pub(crate) fn hears(&self, agent: usize) -> bool {
        let seat = &self.seats[self.identity(agent)];
        self.agents[agent].connected.is_some_and(|link| seat.carries(link.conn, self.time))
    }
}

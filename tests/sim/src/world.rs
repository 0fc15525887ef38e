//! The world: virtual time, the queue of what will happen, and all that exists.
//!
//! The shells around the two cores are in `cloud_shell` and `edge_shell`, what happens by chance in `storm`.

use std::collections::{BTreeMap, VecDeque};

use tidegate_cloud_core as cloud;
use tidegate_edge_core as edge;
use tidegate_model::ids::{RuleId, SessionId};

use crate::broker::Seat;
use crate::check::{Broken, Ledger};
use crate::network::Weather;
use crate::process::{Cloud, Edge};
use crate::remote::Remotes;
use crate::rng::Rng;
use crate::run::{Plan, Stats};
use crate::trace::{down, up};
use crate::{EDGES, operator, settled};

/// Steps at one moment of virtual time after which a core counts as spinning.
const MAX_STEPS_AT_ONCE: u32 = 2_000;

/// Something that will happen.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    ToCloud { edge: usize, presence: bool, payload: Vec<u8> },
    ToEdge { edge: usize, payload: Vec<u8> },
    OwnPresence { edge: usize, payload: Vec<u8> },
    ControllerPresence { edge: usize, payload: Vec<u8> },
    DialDone { edge: usize, life: u64, sid: SessionId, will: Vec<u8> },
    LinkLost { edge: usize, life: u64, sid: SessionId },
    WillDue { edge: usize, sid: SessionId },
    WillPublished { edge: usize, will: Vec<u8> },
    Probe { edge: usize, life: u64, rule: RuleId, order: edge::Order },
    StartCloud,
    StartEdge { edge: usize },
    Wish,
    Mishap,
}

/// How a step of a process ends.
pub(crate) enum Fate {
    Lives,
    DiesBeforeCommit,
    /// So many effects are performed.
    DiesAfterCommit(usize),
}

/// Everything there is.
#[derive(Debug)]
pub struct World {
    /// What kind of run this is.
    pub plan: Plan,
    /// Chance.
    pub rng: Rng,
    /// Virtual time, in ms.
    pub time: i64,
    /// Whether things go wrong.
    pub storm: bool,
    /// The network between brokers and clients.
    pub weather: Weather,
    /// The controller.
    pub cloud: Cloud,
    /// The gateways.
    pub edges: Vec<Edge>,
    /// What the controller's broker holds of each.
    pub seats: Vec<Seat>,
    /// The remote brokers.
    pub remotes: Remotes,
    /// What happened so far.
    pub ledger: Ledger,
    /// What it came to so far.
    pub stats: Stats,
    /// The first invariant that was broken.
    pub broken: Option<Broken>,
    /// How the last request was answered.
    pub answer: Option<Result<cloud::Reply, cloud::Rejection>>,
    pub(crate) controller_presence: Option<Vec<u8>>,
    events: BTreeMap<(i64, u64), Event>,
    number: u64,
    at_once: (i64, u32),
    pub(crate) trace: Option<VecDeque<String>>,
}

impl World {
    /// A world with a running controller, whose edges are created and start soon.
    #[must_use]
    pub fn new(plan: Plan, trace: bool) -> Self {
        let mut rng = Rng::new(plan.seed);
        let edges = (0..EDGES).map(|i| Edge::new(operator::edge_id(i), u128::from(rng.number()))).collect();
        let mut world = Self {
            weather: plan.weather,
            plan,
            rng,
            time: 0,
            storm: false,
            cloud: Cloud::default(),
            edges,
            seats: vec![Seat::default(); EDGES],
            remotes: Remotes::default(),
            ledger: Ledger::default(),
            stats: Stats::default(),
            broken: None,
            answer: None,
            controller_presence: None,
            events: BTreeMap::new(),
            number: 0,
            at_once: (0, 0),
            trace: trace.then(VecDeque::new),
        };
        world.start_cloud();
        for index in 0..EDGES {
            let edge = operator::edge_id(index);
            world.ask(cloud::Request::CreateEdge { edge, credential: "hash".to_owned() });
            world.after(world.time + 10, Event::StartEdge { edge: index });
        }
        world
    }

    /// Lets all faults stop: from now on only what is under way still happens.
    pub fn calm(&mut self) {
        self.note(|_| "=== the storm is over ===".to_owned());
        self.storm = false;
        self.weather = Weather::CALM;
        self.seats.iter_mut().for_each(|seat| seat.cut_until = self.time);
        let mut rng = self.rng.clone();
        self.remotes.settle(&mut rng);
        self.rng = rng;
        self.probe_all();
        if let Some(index) = self.plan.gone {
            self.edges[index].gone = true;
            self.kill_edge(index, None);
        }
    }

    /// Checks that everything settled; the first thing that did not is kept in `broken`.
    pub fn expect_settled(&mut self) {
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
            let dues = self.edges.iter().map(|edge| edge.due).chain([self.cloud.due]);
            let due = dues.flatten().min();
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let Some(at) = [due, event].into_iter().flatten().min().filter(|at| *at <= until) else { break };
            self.time = self.time.max(at);
            self.watch_progress();
            if event == Some(at) {
                let (_, event) = self.events.pop_first().expect("it was looked at above");
                self.happen(event);
            } else if self.cloud.due == Some(at) {
                self.cloud_input(cloud::Input::Tick);
            } else if let Some(index) = self.edges.iter().position(|edge| edge.due == Some(at)) {
                self.edge_input(index, edge::Input::Tick);
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

    pub(crate) fn fail(&mut self, what: Broken) {
        self.note(|_| format!("BROKEN: {what}"));
        self.broken.get_or_insert(what);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::ToCloud { edge, presence, payload } => {
                let lost = if self.cloud.core.is_some() { "" } else { " (lost)" };
                self.note_message(|| format!("gw-{edge} > cloud{lost} {}", up(&payload)));
                let id = operator::edge_id(edge);
                self.cloud_input(cloud::Input::FromEdge { edge: id, presence, payload });
            }
            Event::ToEdge { edge, payload } => {
                let here = self.hears(edge);
                let lost = if here { "" } else { " (lost)" };
                self.note_message(|| format!("cloud > gw-{edge}{lost} {}", down(&payload)));
                if here {
                    self.edge_input(edge, edge::Input::Down(payload));
                }
            }
            Event::OwnPresence { edge, payload } => {
                if self.hears(edge) {
                    self.edge_input(edge, edge::Input::OwnPresence(payload));
                }
            }
            Event::ControllerPresence { edge, payload } => {
                if self.hears(edge) {
                    self.edge_input(edge, edge::Input::ControllerPresence(payload));
                }
            }
            Event::DialDone { edge, life, sid, will } => self.dial_done(edge, life, sid, will),
            Event::LinkLost { edge, life, sid } => self.link_lost(edge, life, sid),
            Event::WillDue { edge, sid } => {
                if let Some(will) = self.seats[edge].notice_loss(sid) {
                    self.will_published(edge, will);
                    let (life, wait) = (self.edges[edge].life, self.rng.between(0, 30_000));
                    self.after(wait, Event::LinkLost { edge, life, sid });
                }
            }
            Event::WillPublished { edge, will } => self.will_published(edge, will),
            Event::Probe { edge, life, rule, order } => self.probe(edge, life, rule, order),
            Event::StartCloud => self.start_cloud(),
            Event::StartEdge { edge } => self.start_edge(edge),
            Event::Wish => self.wish(),
            Event::Mishap => self.mishap(),
        }
    }

    /// Whether what the broker publishes for this edge reaches its agent now.
    pub(crate) fn hears(&self, index: usize) -> bool {
        let edge = &self.edges[index];
        edge.connected.is_some_and(|sid| self.seats[index].carries(sid, self.time))
    }

    pub(crate) fn fate(&mut self) -> Fate {
        if !self.storm || !self.rng.chance(self.plan.crashes) {
            return Fate::Lives;
        }
        self.stats.crashes += 1;
        match self.rng.below(3) {
            0 => Fate::DiesBeforeCommit,
            1 => Fate::DiesAfterCommit(0),
            _ => Fate::DiesAfterCommit(self.rng.below(4)),
        }
    }
}

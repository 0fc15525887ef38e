//! The world: virtual time, the queue of what will happen, and the shells around the two cores.
//!
//! A shell here does what the real ones do: hand an input to its core, commit the writes, perform the effects. Between
//! these it may crash. What happens by chance is in `storm`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::panic::AssertUnwindSafe;

use tidegate_cloud_core as cloud;
use tidegate_edge_core as edge;
use tidegate_model::ids::{RuleId, SessionId};
use tidegate_model::limits::HEARTBEAT_S;
use tidegate_model::placement::{Action, Role, RunState};
use tidegate_model::rule::{Feature, SecretInput};
use tidegate_model::wire::{Envelope, Fault, Up};

use crate::broker::Seat;
use crate::check::{Broken, Ledger};
use crate::network::Weather;
use crate::operator;
use crate::process::{Bridge, Cloud, Edge};
use crate::remote::{Remotes, Sign};
use crate::rng::Rng;
use crate::{EDGES, QUIET_MS, RULES, SETTLE_MS, TRACE_LINES, settled};

/// Lines of the trace that are kept, of which those are shown that concern the edge that failed.
const KEPT_LINES: usize = 20_000;
/// Steps at one moment of virtual time after which a core counts as spinning.
const MAX_STEPS_AT_ONCE: u32 = 2_000;

/// What kind of run this is.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where all chance comes from.
    pub seed: u64,
    /// How long things go wrong, in ms.
    pub storm_ms: i64,
    /// The network in the storm.
    pub weather: Weather,
    /// Longest pause between two wishes of the operator, in ms.
    pub wish_every_ms: i64,
    /// Longest pause between two mishaps, in ms.
    pub mishap_every_ms: i64,
    /// How many of 1,000 steps end in a crash.
    pub crashes: u32,
    /// How many rules and edges the operator and the mishaps are about: few meet each other more often.
    pub busy: (usize, usize),
    /// Seconds between heartbeats: in most runs many, because they are most of what happens in the quiet.
    pub heartbeat_s: u32,
    /// An edge that does not come back after the storm.
    pub gone: Option<usize>,
    /// Whether disks are wiped and restored from backups.
    pub wipes: bool,
}

impl Plan {
    /// The plan of a seed: some runs are mild in one respect and wild in another.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        Self {
            seed: rng.number(),
            storm_ms: rng.between(1, 7) * 60_000,
            weather: Weather::any(&mut rng),
            wish_every_ms: *rng.pick(&[2_000, 6_000, 15_000, 40_000]),
            mishap_every_ms: *rng.pick(&[3_000, 10_000, 30_000, 120_000]),
            crashes: *rng.pick(&[0, 2, 10, 40]),
            busy: (*rng.pick(&[1, 2, RULES]), *rng.pick(&[1, 2, EDGES])),
            heartbeat_s: *rng.pick(&[60, 300, 300, 300]),
            gone: rng.chance(100).then(|| rng.below(EDGES)),
            wipes: rng.chance(500),
        }
    }
}

impl Plan {
    /// Nothing goes wrong by chance: for scenarios that bring their own mishaps.
    #[must_use]
    pub fn calm(seed: u64) -> Self {
        Self {
            seed,
            storm_ms: 0,
            weather: Weather::CALM,
            wish_every_ms: 0,
            mishap_every_ms: 0,
            crashes: 0,
            busy: (RULES, EDGES),
            heartbeat_s: HEARTBEAT_S,
            gone: None,
            wipes: false,
        }
    }
}

/// What a run came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Inputs that the cores handled.
    pub steps: u64,
    /// Sets that were sent.
    pub sets: u64,
    /// Inventories that were asked for.
    pub inventories: u64,
    /// Processes that crashed in the middle of a step.
    pub crashes: u64,
}

/// A run that broke an invariant.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// Virtual time, in ms.
    pub at: i64,
    /// What is not so.
    pub what: Broken,
    /// The last things that happened, if they were recorded.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} at {} ms: {}", self.seed, self.at, self.what)?;
        for line in &self.trace {
            writeln!(f, "    {line}")?;
        }
        write!(f, "run it alone: TIDEGATE_SIM_SEED={} cargo test -p tidegate-sim --test seeds", self.seed)
    }
}

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
enum Fate {
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
    controller_presence: Option<Vec<u8>>,
    events: BTreeMap<(i64, u64), Event>,
    number: u64,
    at_once: (i64, u32),
    trace: Option<VecDeque<String>>,
}

/// Runs a seed.
///
/// # Errors
/// The first invariant that broke, with the trace of a second run.
pub fn run(seed: u64) -> Result<Stats, Box<Failure>> {
    let once = |trace| {
        let lived = AssertUnwindSafe(|| World::new(Plan::of(seed), trace).live());
        std::panic::catch_unwind(lived).unwrap_or_else(|_| {
            let what = "a core panicked, see above".to_owned();
            Err(Failure { seed, at: 0, what, trace: Vec::new() })
        })
    };
    once(false).map_err(|first| {
        let mut failure = once(true).err().unwrap_or_else(|| Failure {
            what: format!("it failed once and not again, the run is not deterministic: {}", first.what),
            ..first
        });
        failure.seed = seed;
        Box::new(failure)
    })
}

/// Runs a plan with a trace.
///
/// # Errors
/// The first invariant that broke.
pub fn run_with(plan: Plan) -> Result<Stats, Box<Failure>> {
    World::new(plan, true).live().map_err(Box::new)
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

    /// The storm, the settling, the quiet.
    fn live(mut self) -> Result<Stats, Failure> {
        self.prepare();
        self.storm = true;
        self.after(1_000, Event::Wish);
        self.after(2_000, Event::Mishap);
        self.pass(self.plan.storm_ms);
        self.calm();
        self.pass(SETTLE_MS);
        self.expect_settled();
        let asked = self.ledger.inventories_asked;
        self.pass(QUIET_MS);
        if self.ledger.inventories_asked != asked {
            self.fail("an inventory was asked for although everything had settled".to_owned());
        }
        self.expect_settled();
        self.stats.sets = self.ledger.sets;
        self.stats.inventories = self.ledger.inventories_asked;
        match self.broken {
            None => Ok(self.stats),
            Some(what) => {
                let trace = last_lines(self.trace.unwrap_or_default(), &what);
                Err(Failure { seed: self.plan.seed, at: self.time, what, trace })
            }
        }
    }

    /// Some rules are placed and issued before anything goes wrong.
    fn prepare(&mut self) {
        self.pass(5_000);
        let (rules, edges) = self.plan.busy;
        for rule in 0..rules {
            let id = u128::from(self.rng.number());
            let shape = operator::Shape::any(&mut self.rng);
            self.ask(operator::save(id, rule, shape, SecretInput::Keep));
            for edge in 0..edges {
                let (rule, edge) = (operator::rule_name(rule), operator::edge_id(edge));
                let vars = BTreeMap::new();
                self.ask(cloud::Request::Place { rule: rule.clone(), edge: edge.clone(), vars });
                if self.rng.chance(700) {
                    let (action, when_offline) = (Action::Issue, cloud::WhenOffline::Queue);
                    self.ask(cloud::Request::Act { rule, edge, action, when_offline });
                }
            }
        }
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

    pub(crate) fn note(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.trace.is_none() {
            return;
        }
        let line = format!("{:>9} {}", self.time, line(self));
        if let Some(trace) = &mut self.trace {
            if trace.len() == KEPT_LINES {
                trace.pop_front();
            }
            trace.push_back(line);
        }
    }

    /// A message; when the storm is over, the routine ones only fill the trace.
    fn note_message(&mut self, line: impl FnOnce() -> String) {
        let storm = self.storm;
        if self.trace.is_some() {
            let line = line();
            let routine = ["Heartbeat", "hello Digest", "Welcome { want: None", "Counters { forwarded: 0"];
            if storm || routine.iter().all(|word| !line.contains(word)) {
                self.note(|_| line);
            }
        }
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
    fn hears(&self, index: usize) -> bool {
        let edge = &self.edges[index];
        edge.connected.is_some_and(|sid| self.seats[index].carries(sid, self.time))
    }

    fn fate(&mut self) -> Fate {
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

    // The controller's shell.

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
        let cloud::Output { writes, mut effects } = output;
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
            cloud::Effect::Disconnect(_) => {}
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

    // The agents' shells.

    /// Starts an agent from its disk.
    pub fn start_edge(&mut self, index: usize) {
        let edge = &mut self.edges[index];
        if edge.core.is_some() || edge.gone {
            return;
        }
        edge.clock.started = self.time - self.rng.between(1, 50);
        let setup = edge::Setup {
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

    fn will_published(&mut self, index: usize, will: Vec<u8>) {
        self.note(|_| format!("the broker publishes {}", up(&will)));
        self.presence_published(index, will);
    }

    fn dial_done(&mut self, index: usize, life: u64, sid: SessionId, will: Vec<u8>) {
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

    fn link_lost(&mut self, index: usize, life: u64, sid: SessionId) {
        let edge = &mut self.edges[index];
        if edge.life != life || edge.connected != Some(sid) {
            return;
        }
        edge.connected = None;
        self.note(|_| format!("gw-{index} lost its connection"));
        self.seat_orphaned(index);
        self.edge_input(index, edge::Input::Disconnected { sid });
    }

    fn probe(&mut self, index: usize, life: u64, rule: RuleId, order: edge::Order) {
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

/// The last lines that concern the edge that the failure names, or all where it names none.
fn last_lines(trace: VecDeque<String>, what: &str) -> Vec<String> {
    let named = |text: &str, index: usize| text.contains(&format!("gw-{index}"));
    let concerned = (0..EDGES).find(|index| named(what, *index));
    let concerns = |line: &String| {
        concerned.is_none_or(|index| named(line, index) || (0..EDGES).all(|other| !named(line, other)))
    };
    let mut lines: Vec<String> = trace.into_iter().filter(concerns).collect();
    lines.split_off(lines.len().saturating_sub(TRACE_LINES))
}

fn up(payload: &[u8]) -> String {
    match Envelope::read_up(payload) {
        Ok((h, Up::Hello(hello))) => format!("{}:{} hello {:?}", h.sid.epoch, h.sq, hello.root),
        Ok((h, message)) => format!("{}:{} ce {} {message:?}", h.sid.epoch, h.sq, h.ce % 1_000_000),
        Err(error) => error.to_string(),
    }
}

fn down(payload: &[u8]) -> String {
    match Envelope::read_down(payload) {
        Ok((h, message)) => {
            let mut text = format!("{}:{} ce {} {message:?}", h.sid.epoch, h.sq, h.ce % 1_000_000);
            text.truncate(420);
            text
        }
        Err(error) => error.to_string(),
    }
}

fn brief(request: &cloud::Request) -> String {
    match request {
        cloud::Request::SaveRule { content, .. } => format!(
            "save {} {:?} at {} {:?}",
            content.name(),
            content.spec().start,
            content.spec().remote.url,
            content.spec().remote.username
        ),
        cloud::Request::RestoreRule { rule, .. } => format!("restore {rule}"),
        cloud::Request::DeleteRule { rule, .. } => format!("delete {rule}"),
        cloud::Request::Place { rule, edge, .. } => format!("place {rule} on {edge}"),
        cloud::Request::Unplace { rule, edge } => format!("unplace {rule} from {edge}"),
        cloud::Request::Act { rule, edge, action, when_offline } => {
            format!("{action} {rule} on {edge}, {when_offline:?}")
        }
        cloud::Request::CreateEdge { edge, .. } => format!("create {edge}"),
        cloud::Request::RemoveEdge { edge, .. } => format!("remove {edge}"),
        cloud::Request::ConfirmEdge { edge } => format!("confirm {edge}"),
    }
}

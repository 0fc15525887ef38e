//! A run: what kind it is, its three phases, and how it ends.
//!
//! Leaves what happens in it to the world, and what must hold to `check` and `settled`.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;

use tidegate_cloud_core as cloud;
use tidegate_model::limits::HEARTBEAT_S;
use tidegate_model::placement::Action;
use tidegate_model::rule::SecretInput;

use crate::check::Broken;
use crate::network::Weather;
use crate::rng::Rng;
use crate::world::{Event, World};
use crate::{EDGES, QUIET_MS, RULES, SETTLE_MS, operator, trace};

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
                let trace = trace::last_lines(self.trace.unwrap_or_default(), &what);
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
}

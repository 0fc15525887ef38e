//! A run as data: the seed of all chance, the weather, and every step with its moment.
//!
//! [`Script::of`] draws one from a seed; a scenario writes one by hand; the shrinker cuts one down.

use std::fmt;

use tidegate_model::limits::HEARTBEAT_S;
use tidegate_model::placement::Action;

use crate::network::Weather;
use crate::operator::Shape;
use crate::remote::REMOTES;
use crate::rng::Rng;
use crate::step::{At, Moment, Notices, Oddity, Password, REMOTE_WEATHERS, Software, Step};
use crate::{EDGES, RULES};

/// A run from beginning to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Where all chance comes from that is not a step: delays, losses, numbers of processes.
    pub seed: u64,
    /// Gateways of the world.
    pub edges: usize,
    /// The network until everything calms down.
    pub weather: Weather,
    /// Seconds between heartbeats: in most runs many, because they are most of what happens in the quiet.
    pub heartbeat_s: u32,
    /// The broker is part of the controller's process and ends with it.
    pub embedded: bool,
    /// The controller says kinds and fields that no agent knows.
    pub newer_cloud: bool,
    /// A gateway that does not come back.
    pub gone: Option<usize>,
    /// When all faults stop, in ms of virtual time.
    pub calm_at: i64,
    /// What happens, in order of time.
    pub steps: Vec<At>,
}

/// The moment before which nothing happens: everybody has connected by then.
pub const FIRST_STEP_MS: i64 = 5_000;
/// The longest jump of a wall clock, in ms.
const LONGEST_JUMP_MS: i64 = 24 * 3_600 * 1_000;
/// A silence after which everything that was queued has expired, in ms.
const LONG_SILENCE_MS: i64 = 8 * 24 * 3_600 * 1_000;
/// Seconds between heartbeats in runs with such a silence: the most that an agent takes.
const SLOW_HEARTBEAT_S: u32 = 3_600;

impl Script {
    /// Nothing happens and nothing goes wrong.
    #[must_use]
    pub fn calm(seed: u64, edges: usize) -> Self {
        Self {
            seed,
            edges,
            weather: Weather::CALM,
            heartbeat_s: HEARTBEAT_S,
            embedded: false,
            newer_cloud: false,
            gone: None,
            calm_at: FIRST_STEP_MS,
            steps: Vec::new(),
        }
    }

    /// The run of a seed: some are mild in one respect and wild in another.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let storm_ms = rng.between(1, 7) * 60_000;
        let edges = *rng.pick(&[1, 1, 2, EDGES]);
        let script = Self {
            seed: rng.number(),
            edges,
            weather: Weather::any(&mut rng),
            heartbeat_s: *rng.pick(&[60, 300, 300, 300]),
            embedded: rng.chance(300),
            newer_cloud: rng.chance(50),
            gone: rng.chance(100).then(|| rng.below(edges)),
            calm_at: FIRST_STEP_MS + storm_ms,
            steps: Vec::new(),
        };
        Draw::new(rng, script).all()
    }
}

/// What kinds of mishaps a run has.
struct Moods {
    rules: usize,
    wish_every_ms: i64,
    mishap_every_ms: i64,
    crash_every_ms: i64,
    wipes: bool,
    clones: bool,
    cloud_backups: bool,
    mixed_software: bool,
    full_disks: bool,
    removed_edges: bool,
}

/// Draws the steps of a run.
struct Draw {
    rng: Rng,
    moods: Moods,
    script: Script,
}

impl Draw {
    fn new(mut rng: Rng, script: Script) -> Self {
        let moods = Moods {
            rules: *rng.pick(&[1, 2, RULES]),
            wish_every_ms: *rng.pick(&[2_000, 6_000, 15_000, 40_000]),
            mishap_every_ms: *rng.pick(&[3_000, 10_000, 30_000, 120_000]),
            crash_every_ms: *rng.pick(&[0, 3_000, 15_000, 60_000]),
            wipes: rng.chance(400),
            clones: rng.chance(120),
            cloud_backups: rng.chance(300),
            mixed_software: rng.chance(200),
            full_disks: rng.chance(200),
            removed_edges: rng.chance(100),
        };
        Self { rng, moods, script }
    }

    fn all(mut self) -> Script {
        self.prepared();
        let (from, until) = (FIRST_STEP_MS + 1_000, self.script.calm_at);
        self.every(from, until, self.moods.wish_every_ms, Self::wish);
        self.every(from, until, self.moods.mishap_every_ms, Self::mishap);
        if self.moods.crash_every_ms > 0 {
            self.every(from, until, self.moods.crash_every_ms, Self::crash);
        }
        if self.rng.chance(6) {
            self.long_silence();
        }
        self.script.steps.sort_by_key(|At(at, _)| *at);
        self.script
    }

    /// Some rules are placed and issued before anything goes wrong.
    fn prepared(&mut self) {
        for rule in 0..self.moods.rules {
            let shape = Shape::any(&mut self.rng);
            self.step(FIRST_STEP_MS, Step::Save { rule, shape, password: Password::Keep });
            for edge in 0..self.script.edges {
                self.step(FIRST_STEP_MS, Step::Place { rule, edge, line: 0 });
                if self.rng.chance(700) {
                    let action = Action::Issue;
                    self.step(FIRST_STEP_MS, Step::Act { action, rule, edge, queue: true });
                }
            }
        }
    }

    fn step(&mut self, at: i64, step: Step) {
        self.script.steps.push(At(at, step));
    }

    fn every(&mut self, from: i64, until: i64, pause_ms: i64, draw: fn(&mut Self) -> Step) {
        let mut at = from;
        while at < until {
            let step = draw(self);
            self.step(at, step);
            at += self.rng.between(100, pause_ms);
        }
    }

    /// An edge is away for longer than anything is kept for it, while somebody wants something of it.
    fn long_silence(&mut self) {
        let edge = self.rng.below(self.script.edges);
        let from = self.script.calm_at;
        self.step(from, Step::KillEdge { edge, down_ms: LONG_SILENCE_MS });
        for nth in 0..6 {
            let rule = self.rng.below(self.moods.rules);
            let action = *self.rng.pick(&Action::ALL);
            let step = match self.rng.below(6) {
                0 => Step::Unplace { rule, edge },
                1 => Step::Delete { rule },
                2 => Step::Place { rule, edge, line: self.rng.below(2) },
                _ => Step::Act { action, rule, edge, queue: true },
            };
            self.step(from + 400_000 + nth * 10_000, step);
        }
        self.script.calm_at = from + LONG_SILENCE_MS + 60_000;
        self.script.heartbeat_s = SLOW_HEARTBEAT_S;
    }

    fn edge(&mut self) -> usize {
        self.rng.below(self.script.edges)
    }

    fn wish(&mut self) -> Step {
        let (rule, edge) = (self.rng.below(self.moods.rules), self.edge());
        let queue = self.rng.chance(300);
        let act = |action| Step::Act { action, rule, edge, queue };
        match self.rng.below(100) {
            0..=13 => {
                let password = match self.rng.below(10) {
                    0..=6 => Password::Keep,
                    7 | 8 => Password::Set(self.rng.below(2)),
                    _ => Password::Clear,
                };
                Step::Save { rule, shape: Shape::any(&mut self.rng), password }
            }
            14 => Step::Restore { rule, back: self.rng.below(3) + 1 },
            15..=29 => Step::Place { rule, edge, line: self.rng.below(2) },
            30..=35 => Step::Unplace { rule, edge },
            36 | 37 => Step::Delete { rule },
            38 => Step::Confirm { edge },
            39..=41 => Step::AskAgain,
            42..=44 => {
                let action = *self.rng.pick(&Action::ALL);
                Step::ActEverywhere { action, rule, queue }
            }
            45..=58 => act(Action::Issue),
            59..=64 => act(Action::IssueAgain),
            65..=78 => act(Action::Sync),
            79..=88 => act(Action::Start),
            _ => act(Action::Stop),
        }
    }

    fn crash(&mut self) -> Step {
        let moment = match self.rng.below(3) {
            0 => Moment::BeforeCommit,
            1 => Moment::AfterCommit(0),
            _ => Moment::AfterCommit(self.rng.below(3) + 1),
        };
        let after = u32::try_from(self.rng.below(6)).unwrap_or(0);
        if self.rng.chance(400) {
            Step::CrashCloud { after, moment }
        } else {
            Step::CrashEdge { edge: self.edge(), after, moment }
        }
    }

    fn mishap(&mut self) -> Step {
        let edge = self.edge();
        let rng = &mut self.rng;
        match rng.below(130) {
            0..=7 => Step::Cut { edge, ms: rng.between(100, 180_000) },
            8..=18 => {
                let ms = rng.between(0, 90_000);
                let notices = if rng.chance(500) { Notices::Edge(ms) } else { Notices::Broker(ms) };
                Step::Break { edge, notices }
            }
            19..=26 => Step::KillEdge { edge, down_ms: rng.between(10, 120_000) },
            27..=31 => Step::StopEdge { edge, down_ms: rng.between(10, 60_000) },
            32..=37 => Step::KillCloud { down_ms: rng.between(10, 60_000) },
            38..=41 => Step::BrokerRestarts { forgets: rng.chance(500) },
            42..=46 => {
                let ahead_ms = rng.between(-LONGEST_JUMP_MS, LONGEST_JUMP_MS);
                let cloud = rng.chance(300);
                if cloud { Step::CloudClock { ahead_ms } } else { Step::EdgeClock { edge, ahead_ms } }
            }
            47..=62 => {
                let is = if rng.chance(300) { REMOTE_WEATHERS[0] } else { *rng.pick(&REMOTE_WEATHERS) };
                Step::Remote { remote: rng.below(REMOTES), is }
            }
            63..=67 => Step::BridgeEnds { edge, nth: rng.below(RULES) },
            68..=72 => Step::Counters { edge, forwarded: rng.number() % 1_000 },
            73..=82 => Step::Local { edge, nth: rng.below(RULES), start: rng.chance(500) },
            83 => Step::ToCloud { edge, oddity: *rng.pick(&Oddity::ALL) },
            84 => Step::ToEdge { edge, oddity: *rng.pick(&Oddity::ALL) },
            85..=88 if self.moods.wipes => Step::Wipe { edge },
            89..=91 if self.moods.wipes => Step::BackUpEdge { edge },
            92..=94 if self.moods.wipes => Step::RestoreEdge { edge },
            95..=99 if self.moods.clones => Step::Clone { edge },
            100 | 101 if self.moods.clones => Step::CloneEnds { edge, original: rng.chance(500) },
            102..=104 if self.moods.cloud_backups => Step::BackUpCloud,
            105..=107 if self.moods.cloud_backups => Step::RestoreCloud,
            108..=113 if self.moods.mixed_software => {
                let all = [Software::Ours, Software::Older, Software::Newer, Software::Foreign];
                Step::Install { edge, software: *rng.pick(&all) }
            }
            114..=117 if self.moods.full_disks => Step::FillEdge { edge, ms: rng.between(10, 60_000) },
            118..=120 if self.moods.full_disks => Step::FillCloud { ms: rng.between(10, 60_000) },
            121..=123 if self.moods.removed_edges => Step::RemoveEdge { edge },
            124..=128 if self.moods.removed_edges => Step::CreateEdge { edge },
            _ => Step::Cut { edge, ms: rng.between(100, 20_000) },
        }
    }
}

/// The run in words, and then as Rust to paste into `tests/scenarios.rs`.
impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, edges, weather, heartbeat_s, embedded, newer_cloud, gone, calm_at, steps } = self;
        writeln!(f, "{edges} gateways, a heartbeat each {heartbeat_s} s; the network {weather}")?;
        if *embedded {
            writeln!(f, "the broker ends with the controller's process")?;
        }
        if *newer_cloud {
            writeln!(f, "the controller says more than the agents know")?;
        }
        steps.iter().try_for_each(|step| writeln!(f, "{step}"))?;
        let calm = At(*calm_at, Step::BackUpCloud).to_string();
        let moment = calm.split("  the ").next().unwrap_or_default();
        writeln!(f, "{moment}  all faults stop; the network is good again")?;
        if let Some(edge) = gone {
            writeln!(f, "{moment}  gw-{edge} does not come back")?;
        }
        writeln!(f, "as a scenario, for tests/sim/tests/scenarios.rs:\n")?;
        writeln!(f, "#[test]\nfn say_here_what_must_hold() {{\n    holds(Script {{")?;
        writeln!(f, "        seed: {seed},\n        edges: {edges},\n        weather: {weather:?},")?;
        writeln!(f, "        heartbeat_s: {heartbeat_s},\n        embedded: {embedded},")?;
        writeln!(
            f,
            "        newer_cloud: {newer_cloud},\n        gone: {gone:?},\n        calm_at: {calm_at},"
        )?;
        writeln!(f, "        steps: vec![")?;
        steps.iter().try_for_each(|step| writeln!(f, "            {step:?},"))?;
        writeln!(f, "        ],\n    }});\n}}")
    }
}

//! A run: its three phases, what it came to, and how a failure is told.
//!
//! Leaves what happens in it to the world, and what must hold to `check` and `settled`.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Once;

use tidegate_model::ids::MessageId;
use tidegate_model::limits::{RECEIVED_TIMEOUT_MS, RESULT_TIMEOUT_MS, TRANSIENT_PAUSE_MAX_MS};

use crate::check::Broken;
use crate::coverage::Coverage;
use crate::script::Script;
use crate::shrink::shrink;
use crate::world::World;
use crate::{QUIET_MS, SETTLE_MS, settled, trace};

/// Milliseconds between two looks at whether everything has settled.
const LOOK_MS: i64 = 60_000;
/// Milliseconds within which an operation on an edge that answers is over, or is tried again: the longest pause between two
/// tries, and what an answer may take.
const RETRY_MS: i64 = TRANSIENT_PAUSE_MAX_MS + RECEIVED_TIMEOUT_MS + RESULT_TIMEOUT_MS;

/// What runs came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Runs.
    pub runs: u64,
    /// Inputs that the cores handled.
    pub steps: u64,
    /// Sets that were sent.
    pub sets: u64,
    /// Inventories that were asked for.
    pub inventories: u64,
    /// The longest time after the last fault until everything was settled, in ms (seen each minute).
    pub settled_after_ms: i64,
    /// What really happened.
    pub coverage: Coverage,
}

impl Stats {
    /// What another run adds.
    pub fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.steps += other.steps;
        self.sets += other.sets;
        self.inventories += other.inventories;
        self.settled_after_ms = self.settled_after_ms.max(other.settled_after_ms);
        self.coverage.add(&other.coverage);
    }
}

/// A run that broke an invariant.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The seed that the run was drawn from.
    pub seed: Option<u64>,
    /// Virtual time, in ms.
    pub at: i64,
    /// What is not so.
    pub what: Broken,
    /// What happened, cut down to what the failure needs.
    pub script: Script,
    /// The last things that happened, if they were recorded.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(seed) = self.seed {
            writeln!(f, "seed {seed} fails; alone: TIDEGATE_SIM_SEED={seed} cargo sim")?;
        }
        writeln!(f, "at {} ms: {}\n\nthe shortest run that fails so:\n{}", self.at, self.what, self.script)?;
        writeln!(f, "the last things that happened:")?;
        self.trace.iter().try_for_each(|line| writeln!(f, "    {line}"))
    }
}

/// Runs a seed.
///
/// # Errors
/// The first invariant that broke, with the shortest script that breaks it so and the trace of its run.
pub fn run(seed: u64) -> Result<Stats, Box<Failure>> {
    let script = Script::of(seed);
    play(&script, false).map_err(|first| {
        if play(&script, false).err().map(|again| again.what) != Some(first.what.clone()) {
            let what = format!("it failed once and not again, the run is not deterministic: {}", first.what);
            return Box::new(Failure { seed: Some(seed), what, ..*first });
        }
        let script = shrink(&script, &first.what);
        let failure = play(&script, true).err().unwrap_or(first);
        Box::new(Failure { seed: Some(seed), ..*failure })
    })
}

/// Runs a script; with a trace, where it is asked for.
///
/// # Errors
/// The first invariant that broke. A panic of a core is one too.
pub fn play(script: &Script, trace: bool) -> Result<Stats, Box<Failure>> {
    hear_panics();
    PLAYING.with(|playing| playing.replace(Some(String::new())));
    let lived = AssertUnwindSafe(|| World::new(script.clone(), trace).live());
    let ended = std::panic::catch_unwind(lived);
    let panicked = PLAYING.with(Cell::take).unwrap_or_default();
    ended.unwrap_or_else(|_| {
        let what = format!("a core panicked: {panicked}");
        Err(Box::new(Failure { seed: None, at: 0, what, script: script.clone(), trace: Vec::new() }))
    })
}

thread_local! {
    /// While this thread plays a script: what panicked.
    static PLAYING: Cell<Option<String>> = const { Cell::new(None) };
}

/// A panic within a run is kept for its failure and not printed: the shrinker brings it about a hundred times.
fn hear_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if PLAYING.with(Cell::take).is_some() {
                PLAYING.with(|playing| playing.set(Some(info.to_string())));
            } else {
                before(info);
            }
        }));
    });
}

impl World {
    /// The storm, the settling, the quiet.
    fn live(mut self) -> Result<Stats, Box<Failure>> {
        self.pass(self.script.calm_at);
        self.calm();
        self.settle();
        let before = (self.ledger.inventories_asked, self.ledger.sets);
        self.pass(QUIET_MS);
        self.expect_settled();
        if before != (self.ledger.inventories_asked, self.ledger.sets) {
            self.fail("something was asked for or sent although everything had settled".to_owned());
        }
        match self.broken.take() {
            None => {
                self.stats.runs = 1;
                self.stats.sets = self.ledger.sets;
                self.stats.inventories = self.ledger.inventories_asked;
                self.stats.coverage = self.coverage;
                Ok(self.stats)
            }
            Some(what) => {
                let edges = self.script.edges;
                let trace = trace::last_lines(self.trace.unwrap_or_default(), &what, edges);
                Err(Box::new(Failure { seed: None, at: self.time, what, script: self.script, trace }))
            }
        }
    }

    /// What is in flight on an edge that answers is tried again soon, and not only when the edge says its routine hello.
    fn expect_retries(&mut self, waiting: &mut BTreeMap<MessageId, i64>) {
        // A heartbeat that is as seldom as the routine hello heals nothing sooner.
        let seldom = i64::from(self.script.heartbeat_s) * 1_000 > TRANSIENT_PAUSE_MAX_MS;
        let now = if seldom { Vec::new() } else { settled::in_flight(self) };
        waiting.retain(|id, _| now.iter().any(|(_, other)| other == id));
        for (what, id) in now {
            let since = *waiting.entry(id).or_insert(self.time);
            if self.time - since > RETRY_MS {
                return self.fail(format!("{what} waits, and nobody tries again"));
            }
        }
    }

    /// Waits [`SETTLE_MS`], and takes note of when everything was settled for good.
    pub fn settle(&mut self) {
        let mut since = None;
        let mut waited = 0;
        let mut waiting = BTreeMap::new();
        while waited < SETTLE_MS && self.broken.is_none() {
            self.pass(LOOK_MS);
            waited += LOOK_MS;
            self.expect_retries(&mut waiting);
            match (settled::check(self), since) {
                (Ok(()), None) => since = Some(waited),
                (Ok(()), Some(_)) => {}
                (Err(_), _) => since = None,
            }
        }
        self.stats.settled_after_ms = since.unwrap_or(SETTLE_MS);
        self.expect_settled();
    }
}

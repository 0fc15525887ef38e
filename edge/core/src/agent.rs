//! The aggregate: what is on disk, what is known in memory, and the one entrance for everything that happens.

use std::collections::{BTreeMap, BTreeSet};

use semver::Version;
use tidegate_model::ids::{AccountId, EdgeId, RuleId};
use tidegate_model::time::{Monotonic, Now};

use crate::backoff::Backoff;
use crate::dice::Dice;
use crate::io::{Effect, Input, Order, Output, Write};
use crate::link::Link;
use crate::policy::Policy;
use crate::record::{Meta, Snapshot, Tombstone};
use crate::rules::Rule;
use crate::site::Files;
use crate::view::Drops;

/// What the shell says about itself and the site.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The gateway's name: fills `{edge}` in rules of the site.
    pub edge: EdgeId,
    /// Its account: fills `{account}` in rules of the site.
    pub account: AccountId,
    /// Whether there is a controller; without one the agent dials nobody and runs what the site wrote.
    pub has_controller: bool,
    /// Version of the agent's software.
    pub agent: Version,
    /// Rule features that it can run.
    pub features: BTreeSet<String>,
    /// What the site allows.
    pub policy: Policy,
    /// Messages of devices come through subscriptions of our own at a local broker, so other forwards need its word.
    pub subscribes_locally: bool,
    /// Random number of this process: told in birth and hello, so that a cloned disk is noticed.
    pub boot: u64,
    /// Random number of this process, apart from the first: ids and jitter come from it.
    pub seed: u64,
}

/// The decisions of one gateway.
#[derive(Debug, Clone)]
pub struct Agent {
    pub(crate) setup: Setup,
    pub(crate) meta: Meta,
    pub(crate) rules: BTreeMap<RuleId, Rule>,
    pub(crate) tombstones: BTreeMap<RuleId, Tombstone>,
    pub(crate) link: Link,
    pub(crate) backoff: Backoff,
    pub(crate) dice: Dice,
    pub(crate) drops: Drops,
    pub(crate) files: Files,
    /// How far the wall clock was ahead of the controller's at the last welcome, in milliseconds.
    pub(crate) clock_skew_ms: Option<i64>,
    last_order: u64,
}

/// What one input brings about, until it becomes an [`Output`].
#[derive(Debug)]
pub(crate) struct Turn {
    pub now: Now,
    pub effects: Vec<Effect>,
    /// Rules whose run state changed and was not told yet.
    pub changed: BTreeSet<RuleId>,
    touched: BTreeSet<RuleId>,
    meta: bool,
    stones: Vec<Write>,
}

impl Turn {
    fn new(now: Now) -> Self {
        Self {
            now,
            effects: Vec::new(),
            changed: BTreeSet::new(),
            touched: BTreeSet::new(),
            meta: false,
            stones: Vec::new(),
        }
    }

    /// The record of this rule has to be written, or removed if it is not there any more.
    pub fn touch(&mut self, rule: RuleId) {
        self.touched.insert(rule);
    }

    /// The store's own record has to be written.
    pub fn touch_meta(&mut self) {
        self.meta = true;
    }

    /// A tombstone has to be written or removed.
    pub fn stone(&mut self, write: Write) {
        self.stones.push(write);
    }

    pub fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }
}

impl Agent {
    /// The agent as its disk remembers it. It does nothing until [`Input::Boot`].
    #[must_use]
    pub fn restore(setup: Setup, snapshot: Snapshot) -> Self {
        let rules =
            snapshot.rules.into_iter().map(|(id, record)| (id, Rule::new(record, Monotonic(0)))).collect();
        Self {
            dice: Dice::new(setup.seed),
            setup,
            meta: snapshot.meta,
            rules,
            tombstones: snapshot.tombstones,
            link: Link::Idle,
            backoff: Backoff::new(),
            drops: Drops::default(),
            files: Files::default(),
            clock_skew_ms: None,
            last_order: 0,
        }
    }

    /// Handles one input: any input in any state. The caller commits the writes, then performs the effects; if it cannot
    /// commit, this agent is ahead of its disk and must not be used any more.
    pub fn handle(&mut self, now: Now, input: Input) -> Output {
        let mut turn = Turn::new(now);
        match input {
            Input::Boot => self.on_boot(&mut turn),
            Input::Tick => {}
            Input::Connected { sid } => self.on_connected(sid, &mut turn),
            Input::Disconnected { sid } => self.on_disconnected(sid, &turn),
            Input::Down(payload) => {
                // What is said in answer is what is so when it is said.
                self.due_bridges(&mut turn);
                self.on_down(&payload, &mut turn);
            }
            Input::OwnPresence(payload) => self.on_own_presence(&payload, &turn),
            Input::ControllerPresence(payload) => self.on_controller_presence(&payload, &turn),
            Input::Bridge { rule, order, event } => self.on_bridge(rule, order, event, &mut turn),
            Input::Counters { rule, counters, full } => self.on_counters(rule, counters, full, &turn),
            Input::Local { rule, action, reply } => self.on_local(rule, action, reply, &mut turn),
            Input::RuleFiles { files, again } => self.on_rule_files(files, again, &mut turn),
            Input::ApplyRule { rule, reply } => self.on_apply_rule(&rule, reply, &mut turn),
            Input::RemoveRule { rule, discard, reply } => {
                self.on_remove_rule(rule, discard, reply, &mut turn);
            }
            Input::Shutdown { reason } => self.on_shutdown(reason, &mut turn),
        }
        self.due_bridges(&mut turn);
        self.due_session(&mut turn);
        self.tell_changes(&mut turn);
        self.due_reports(&mut turn);
        self.finish_turn(turn)
    }

    /// When to call [`Agent::handle`] with [`Input::Tick`] at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Monotonic> {
        let rules = self.rules.iter().flat_map(|(id, rule)| [rule.deadline(), self.report_deadline(*id)]);
        rules.chain([self.link.deadline()]).flatten().min()
    }

    /// Everything that is, or is about to be, on disk.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            meta: self.meta.clone(),
            rules: self.rules.iter().map(|(id, rule)| (*id, rule.record.clone())).collect(),
            tombstones: self.tombstones.clone(),
        }
    }

    pub(crate) fn next_order(&mut self) -> Order {
        self.last_order += 1;
        Order(self.last_order)
    }

    fn finish_turn(&self, turn: Turn) -> Output {
        let mut writes = Vec::new();
        if turn.meta {
            writes.push(Write::Meta(self.meta.clone()));
        }
        for id in turn.touched {
            writes.push(match self.rules.get(&id) {
                Some(rule) => Write::Rule(Box::new(rule.record.clone())),
                None => Write::ForgetRule(id),
            });
        }
        writes.extend(turn.stones);
        Output { writes, effects: turn.effects }
    }
}

//! Safety: what must hold after every step, whatever happens.
//!
//! Remembers what was ever issued, sent and committed, and compares with it each write and each effect of a core. An
//! effect is judged against the disk as it is after the commit of its own writes: what is said must stand there.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidegate_cloud_core as cloud;
use tidegate_cloud_core::PlacementRecord;
use tidegate_edge_core as edge;
use tidegate_model::digest::Digest;
use tidegate_model::ids::{EdgeId, RuleId};
use tidegate_model::limits::{
    INVENTORY_PAGE_RULES, MAX_DETAIL_BYTES, MAX_ENVELOPE_BYTES, MAX_RULES_PER_EDGE, MAX_TOMBSTONES,
};
use tidegate_model::placement::{IssueState, RunState, VersionDigest};
use tidegate_model::rule::{EdgeRule, Feature};
use tidegate_model::version::Generation;
use tidegate_model::wire::{Config, Down, Envelope, RunReport, SecretValue, Set, Up, Want, root};

use crate::process::CloudDisk;

/// Most effects that one input may bring about: an inventory and a set for each rule of an edge stay far below.
const MAX_EFFECTS: usize = 2_000;

/// A broken invariant, in words.
pub type Broken = String;

fn must(holds: bool, what: impl FnOnce() -> Broken) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(what()) }
}

/// What happened so far, as far as the invariants need it.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The one `want` of each generation that was ever sent.
    wants: BTreeMap<(RuleId, EdgeId, Generation), Digest>,
    /// Rendered rules that were ever sent to an edge.
    issued: BTreeSet<(RuleId, EdgeId, Digest)>,
    /// What was ever committed on an edge's disk.
    committed: BTreeSet<(RuleId, EdgeId, VersionDigest)>,
    /// Placements whose record the cloud dropped, because the edge had said that the rule is gone.
    dropped: BTreeSet<(RuleId, EdgeId)>,
    /// Placements that a backup of the cloud does not have.
    lost: BTreeSet<(RuleId, EdgeId)>,
    /// Whether the cloud was ever restored: it may have dropped what it did not know to be on an edge.
    cloud_restored: bool,
    /// Rules that were not on an edge any more, or not yet, and that a backup of its disk brought.
    brought_back: BTreeSet<(RuleId, EdgeId)>,
    /// Rendered rules, their bytes and what they say.
    read: BTreeMap<Digest, (String, Arc<EdgeRule>)>,
    /// Edges whose disk was ever restored from a backup or cloned: their numbers may fall.
    rewound: BTreeSet<EdgeId>,
    /// Inventories that the controller asked for.
    pub inventories_asked: u64,
    /// Sets that were sent.
    pub sets: u64,
    /// Hellos that were answered, by what was asked for: (nothing, an inventory).
    pub welcomes: (u64, u64),
    /// What the last step of the controller sent.
    sent: Vec<(RuleId, EdgeId)>,
}

/// The root over what an edge's disk holds.
#[must_use]
pub fn root_of_disk(disk: &edge::Snapshot) -> Digest {
    let running: Vec<_> = disk.rules.values().map(|r| (r, r.running())).collect();
    root(running.iter().map(|(r, at)| (r.rule, &r.want, at.as_ref(), r.run.transition())))
}

/// The same transition; how it is told (flapping) does not matter.
#[must_use]
pub fn same_run(a: &RunReport, b: &RunReport) -> bool {
    (a.sequence, a.state, &a.fault, a.by, a.since) == (b.sequence, b.state, &b.fault, b.by, b.since)
}

fn generation_on(disk: &edge::Snapshot, rule: RuleId) -> Option<Generation> {
    let here = disk.rules.get(&rule).map(|r| r.generation);
    here.max(disk.tombstones.get(&rule).map(|stone| stone.generation))
}

/// What an edge's disk held, before a batch of writes, of what they are about.
#[derive(Debug)]
pub struct Before {
    epoch: u64,
    highest_ce: u64,
    /// Per rule: its generation and the number of its last transition.
    rules: BTreeMap<RuleId, (Option<Generation>, u64)>,
}

impl Before {
    /// Takes note of what these writes are about to change.
    #[must_use]
    pub fn of(disk: &edge::Snapshot, writes: &[edge::Write]) -> Self {
        let rules = writes.iter().filter_map(|write| match write {
            edge::Write::Meta(_) | edge::Write::ForgetTombstone(_) => None,
            edge::Write::Rule(record) => Some(record.rule),
            edge::Write::ForgetRule(rule) => Some(*rule),
            edge::Write::Tombstone(stone) => Some(stone.rule),
        });
        let numbers = |rule| {
            let here = disk.rules.get(&rule).map(|r| r.run.sequence);
            let buried = disk.tombstones.get(&rule).map(|stone| stone.run.sequence);
            (generation_on(disk, rule), here.or(buried).unwrap_or(0))
        };
        Self {
            epoch: disk.meta.session.epoch,
            highest_ce: disk.meta.highest_ce,
            rules: rules.map(|rule| (rule, numbers(rule))).collect(),
        }
    }
}

/// What is shown and does not follow from what is stored.
pub(crate) trait Lie {
    /// What it is, if there is something.
    fn lie_about(&self, record: &PlacementRecord) -> Option<Broken>;
}

impl Lie for cloud::PlacementView {
    fn lie_about(&self, record: &PlacementRecord) -> Option<Broken> {
        let running = record.reported.as_ref().and_then(|reported| reported.running);
        let failed = record.last_issue.as_ref().filter(|last| !last.code.is_success());
        let state = match running {
            _ if failed.is_some_and(|last| last.attempted == record.desired.at) => IssueState::Failed,
            Some(running) if running == record.desired.at => IssueState::Issued,
            Some(_) => IssueState::UpdatesNotIssued,
            None => IssueState::NotIssued,
        };
        let run = record.reported.as_ref().map_or(RunState::NotRunning, |reported| reported.run.state);
        let shown = (self.issue_state, self.run_state, self.edge_version, self.edge_digest);
        let true_one = (state, run, running.map(|at| at.version), running.map(|at| at.digest));
        (shown != true_one).then(|| {
            format!("{} on {} is shown as {shown:?}, stored is {true_one:?}", record.name, record.edge)
        })
    }
}

impl Ledger {
    /// The writes of the controller: it claims only what an edge held.
    ///
    /// # Errors
    /// The broken invariant.
    pub fn cloud_writes(&mut self, disk: &CloudDisk, writes: &[cloud::Write]) -> Result<(), Broken> {
        for write in writes {
            if let cloud::Write::RemovePlacement { rule, edge } = write {
                self.dropped.insert((*rule, edge.clone()));
            }
            let cloud::Write::PutPlacement(record) = write else { continue };
            self.numbers_rise(disk, record)?;
            let reported = record.reported.as_ref().and_then(|r| r.running);
            for at in [reported, record.committed.as_ref().map(|t| t.at)].into_iter().flatten() {
                must(self.committed.contains(&(record.rule, record.edge.clone(), at)), || {
                    format!(
                        "the cloud says that {} holds {} in {}, which never was so",
                        record.edge, record.name, at.version
                    )
                })?;
            }
        }
        Ok(())
    }

    /// What the cloud holds of an edge is never replaced by something older that the edge said before.
    fn numbers_rise(&self, disk: &CloudDisk, record: &PlacementRecord) -> Result<(), Broken> {
        let Some(before) = disk.placements.get(&(record.rule, record.edge.clone())) else { return Ok(()) };
        must(record.generation >= before.generation, || {
            format!("the cloud's generation of {} on {} fell", record.name, record.edge)
        })?;
        let (Some(was), Some(is)) = (&before.reported, &record.reported) else { return Ok(()) };
        must(self.rewound.contains(&record.edge) || is.run.sequence >= was.run.sequence, || {
            let (was, is) = (was.run.sequence, is.run.sequence);
            format!("of {} on {} an older report won: {was}, then {is}", record.name, record.edge)
        })
    }

    /// A second gateway starts with an edge's disk.
    pub fn cloned(&mut self, id: &EdgeId) {
        self.rewound.insert(id.clone());
    }

    /// The cloud forgot an edge and all that was placed on it.
    pub fn edge_removed(&mut self, id: &EdgeId, rules: Vec<RuleId>) {
        self.wants.retain(|(_, edge, _), _| edge != id);
        self.lost.extend(rules.into_iter().map(|rule| (rule, id.clone())));
    }

    /// An edge's disk was restored from a backup.
    pub fn edge_restored(&mut self, id: &EdgeId, before: &edge::Snapshot, after: &edge::Snapshot) {
        let back = after.rules.keys().filter(|rule| !before.rules.contains_key(rule));
        self.brought_back.extend(back.map(|rule| (*rule, id.clone())));
        self.rewound.insert(id.clone());
    }

    /// The cloud's store was restored from a backup: what it said since then it does not know.
    pub fn cloud_restored(&mut self, before: &CloudDisk, after: &CloudDisk) {
        self.wants.clear();
        self.cloud_restored = true;
        self.lost.extend(before.placements.keys().cloned());
        self.lost.retain(|key| !after.placements.contains_key(key));
    }

    /// Whether the cloud may have no record of a rule that is on an edge: a backup of either side made it so.
    #[must_use]
    pub fn may_be_unmanaged(&self, rule: RuleId, edge: &EdgeId) -> bool {
        let key = (rule, edge.clone());
        let dropped = self.dropped.contains(&key);
        self.lost.contains(&key) || (dropped && (self.cloud_restored || self.brought_back.contains(&key)))
    }

    /// The effects of the controller, judged after the commit.
    ///
    /// # Errors
    /// The broken invariant.
    pub fn cloud_effects(
        &mut self,
        disk: &CloudDisk,
        effects: &[cloud::Effect],
        held: impl Fn(&EdgeId) -> bool,
    ) -> Result<(), Broken> {
        must(effects.len() <= MAX_EFFECTS, || format!("{} effects of one input", effects.len()))?;
        self.sent.clear();
        for effect in effects {
            let cloud::Effect::Publish { edge, payload } = effect else { continue };
            must(payload.len() <= MAX_ENVELOPE_BYTES, || format!("a message of {} bytes", payload.len()))?;
            let (header, message) = Envelope::read_down(payload).map_err(|e| e.to_string())?;
            must(header.ce == disk.meta.epoch, || "a message with an epoch that is not stored".to_owned())?;
            match message {
                Down::Set(set) => self.cloud_set(disk, edge, &set, held(edge))?,
                Down::Welcome(welcome) => {
                    let asked = welcome.want == Want::Inventory;
                    self.inventories_asked += u64::from(asked);
                    if header.re.is_some() {
                        self.welcomes.0 += u64::from(!asked);
                        self.welcomes.1 += u64::from(asked);
                    }
                }
                Down::Ping(_) => {}
            }
        }
        Ok(())
    }

    /// Whether the agent of an edge said that it can run the rules of this world; one that was never heard of may.
    #[must_use]
    pub fn is_able(&self, disk: &CloudDisk, edge: &EdgeId) -> bool {
        let Some(facts) = disk.edges.get(edge).map(|edge| &edge.facts) else { return true };
        let needs = [Feature::BridgeV1.as_str()];
        facts.agent.is_none()
            || (needs.iter().all(|need| facts.features.contains(*need)) && facts.protocols.contains(&1))
    }

    /// The one `want` that was sent under a generation.
    #[must_use]
    pub fn want_of(&self, rule: RuleId, edge: &EdgeId, generation: Generation) -> Option<Digest> {
        self.wants.get(&(rule, edge.clone(), generation)).copied()
    }

    /// Whether the last step of the controller sent a set of this rule to this edge.
    #[must_use]
    pub fn just_sent(&self, rule: RuleId, edge: &EdgeId) -> bool {
        self.sent.iter().any(|(sent, to)| *sent == rule && to == edge)
    }

    fn cloud_set(&mut self, disk: &CloudDisk, edge: &EdgeId, set: &Set, held: bool) -> Result<(), Broken> {
        self.sets += 1;
        self.sent.push((set.rule, edge.clone()));
        let is_new = !self.wants.contains_key(&(set.rule, edge.clone(), set.generation));
        must(!(held && is_new), || {
            format!("a new set of {} is sent to {edge}, whose actions are held", set.name)
        })?;
        let carries = matches!(set.config, Config::Bytes(_));
        must(!carries || self.is_able(disk, edge), || {
            format!("{} is sent to {edge}, whose agent cannot run it", set.name)
        })?;
        must(set.want == set.compute_want(), || "a set whose want does not fit".to_owned())?;
        let known = disk.placements.get(&(set.rule, edge.clone())).map(|p| p.generation);
        must(known == Some(set.generation), || {
            format!("a set of generation {} is sent, {known:?} is stored", set.generation)
        })?;
        let want = self.wants.entry((set.rule, edge.clone(), set.generation)).or_insert(set.want);
        must(*want == set.want, || {
            format!("two different sets of {} for {edge} have generation {}", set.name, set.generation)
        })?;
        if let Config::Bytes(_) = set.config {
            self.issued.insert((set.rule, edge.clone(), set.target.digest));
        }
        Ok(())
    }

    /// The writes of an agent: generations never fall, and nothing comes to its disk that was not issued.
    ///
    /// # Errors
    /// The broken invariant.
    pub fn edge_writes(
        &mut self,
        id: &EdgeId,
        before: &Before,
        after: &edge::Snapshot,
        writes: &[edge::Write],
    ) -> Result<(), Broken> {
        for write in writes {
            let rule = match write {
                edge::Write::Meta(meta) => {
                    must(meta.session.epoch >= before.epoch, || "an epoch fell".to_owned())?;
                    must(meta.highest_ce >= before.highest_ce, || "the controller's epoch fell".to_owned())?;
                    continue;
                }
                edge::Write::Rule(record) => record.rule,
                edge::Write::ForgetRule(rule) => *rule,
                edge::Write::Tombstone(stone) => stone.rule,
                // Only the bound of tombstones and a rule that comes again forget one; the second is looked at as a rule.
                edge::Write::ForgetTombstone(_) => continue,
            };
            let (was, run) = before.rules.get(&rule).copied().unwrap_or_default();
            let is = generation_on(after, rule);
            must(is >= was, || format!("the generation of {rule} on {id} fell from {was:?} to {is:?}"))?;
            let Some(record) = after.rules.get(&rule) else { continue };
            let held = record.committed.iter().chain(record.candidate.as_ref().map(|c| &c.held));
            for held in held {
                let is_issued = self.issued.contains(&(rule, id.clone(), held.target.digest));
                must(is_issued || record.site.is_some(), || {
                    format!(
                        "{id} holds {} of {}, which was never issued to it",
                        held.target.version, record.name
                    )
                })?;
                let (bytes, _) = match self.read.entry(held.target.digest) {
                    Entry::Occupied(read) => read.into_mut(),
                    Entry::Vacant(unread) => {
                        let is_it = Digest::of(held.bytes.as_bytes()) == held.target.digest;
                        must(is_it, || format!("{id} holds other bytes of {} than it says", record.name))?;
                        let read = EdgeRule::from_rendered(&held.bytes).map_err(|e| e.to_string())?;
                        unread.insert((held.bytes.clone(), Arc::new(read)))
                    }
                };
                must(*bytes == held.bytes, || {
                    format!("{id} holds other bytes of {} than it says", record.name)
                })?;
            }
            if let Some(at) = record.running() {
                self.committed.insert((rule, id.clone(), at));
            }
            must(record.run.sequence >= run, || "the number of a transition fell".to_owned())?;
        }
        must(after.rules.len() <= MAX_RULES_PER_EDGE, || format!("{} rules on {id}", after.rules.len()))?;
        must(after.tombstones.len() <= MAX_TOMBSTONES, || "too many tombstones".to_owned())
    }

    /// The effects of an agent, judged after the commit: it says and runs only what is on its disk.
    ///
    /// # Errors
    /// The broken invariant.
    pub fn edge_effects(
        &self,
        id: &EdgeId,
        disk: &edge::Snapshot,
        effects: &[edge::Effect],
    ) -> Result<(), Broken> {
        use edge::Effect;
        must(effects.len() <= MAX_EFFECTS, || format!("{} effects of one input", effects.len()))?;
        for effect in effects {
            match effect {
                Effect::PublishUp(payload) => {
                    must(payload.len() <= MAX_ENVELOPE_BYTES, || {
                        format!("a message of {} bytes", payload.len())
                    })?;
                    let (_, message) = Envelope::read_up(payload).map_err(|e| e.to_string())?;
                    says_what_is_there(disk, &message)
                        .map_err(|what| format!("{id} says in a '{}' {what}", message.kind()))?;
                }
                Effect::Dial { sid, .. } => {
                    must(*sid == disk.meta.session, || "a session is dialed that is not on disk".to_owned())?;
                }
                Effect::TakeIn { rule, config } => {
                    let committed = disk.rules.get(rule).and_then(|r| r.committed.as_ref());
                    must(self.is(committed.map(|h| h.target.digest), config), || {
                        format!("{id} takes in under a rule that is not committed")
                    })?;
                }
                Effect::StartBridge { rule, config, secrets, .. }
                | Effect::ReconfigureBridge { rule, config, secrets, .. } => {
                    let held = disk.rules.get(rule).and_then(edge::RuleRecord::current);
                    must(self.is(held.map(|h| h.target.digest), config), || {
                        format!("{id} runs what is not on its disk")
                    })?;
                    must(has_its_secret(config, secrets), || {
                        format!("{id} runs a rule without its password")
                    })?;
                }
                Effect::DestroyQueue { rule } => {
                    must(!disk.rules.contains_key(rule), || {
                        "the queue of a rule is destroyed that is there".to_owned()
                    })?;
                }
                Effect::HangUp { .. }
                | Effect::PublishPresence(_)
                | Effect::TakeInNothing { .. }
                | Effect::StopBridge { .. }
                | Effect::Reply { .. } => {}
            }
        }
        Ok(())
    }

    fn is(&self, digest: Option<Digest>, config: &Arc<EdgeRule>) -> bool {
        digest.and_then(|digest| self.read.get(&digest)).is_some_and(|(_, read)| **read == **config)
    }
}

fn has_its_secret(config: &EdgeRule, secrets: &[SecretValue]) -> bool {
    config
        .remote
        .password
        .as_ref()
        .is_none_or(|wanted| secrets.iter().any(|s| s.id == wanted.id && s.version == wanted.version))
}

fn says_what_is_there(disk: &edge::Snapshot, message: &Up) -> Result<(), Broken> {
    match message {
        Up::Hello(hello) => {
            must(hello.root == root_of_disk(disk), || "another root than its disk's".to_owned())
        }
        Up::Heartbeat(beat) => {
            must(beat.root == root_of_disk(disk), || "another root than its disk's".to_owned())
        }
        Up::Inventory(page) => {
            must(page.rules.len() <= INVENTORY_PAGE_RULES, || "too many rules on a page".to_owned())?;
            page.rules.iter().try_for_each(|item| {
                let here = disk.rules.get(&item.rule);
                let same = here.is_some_and(|r| {
                    (r.generation, r.want, r.running()) == (item.generation, item.want, item.running)
                        && same_run(&r.run, &item.run)
                });
                let stone = disk.tombstones.get(&item.rule);
                let buried = stone.is_some_and(|s| (s.generation, s.want) == (item.generation, item.want));
                must(if item.present { same } else { buried && here.is_none() }, || {
                    format!("what is not on its disk: {item:?}, there is {here:?}")
                })
            })
        }
        Up::Received(received) => {
            must(generation_on(disk, received.rule) >= Some(received.generation), || {
                "a generation that is not on its disk".to_owned()
            })
        }
        Up::Result(result) => {
            must(result.detail.len() <= MAX_DETAIL_BYTES, || "too much detail".to_owned())?;
            must(generation_on(disk, result.rule).unwrap_or_default() == result.generation, || {
                "a generation that is not on its disk".to_owned()
            })?;
            let here = disk.rules.get(&result.rule);
            must(here.and_then(edge::RuleRecord::running) == result.running, || {
                "to run what its disk does not hold".to_owned()
            })?;
            must(here.is_none_or(|r| same_run(&r.run, &result.run)), || {
                "a run state that is not on its disk".to_owned()
            })
        }
        Up::Report(report) => {
            must(disk.rules.get(&report.rule).is_some_and(|r| same_run(&r.run, &report.run)), || {
                "a run state that is not on its disk".to_owned()
            })
        }
        Up::Pong(_) | Up::Birth(_) | Up::Will(_) | Up::Bye(_) => Ok(()),
    }
}

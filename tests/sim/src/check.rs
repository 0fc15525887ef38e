//! Safety: what must hold after every step, whatever happens.
//!
//! Remembers what was ever issued, sent and committed, and compares with it each write and each effect of a core. An
//! effect is judged against the disk as it is after the commit of its own writes: what is said must stand there.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidegate_cloud_core as cloud;
use tidegate_edge_core as edge;
use tidegate_model::digest::Digest;
use tidegate_model::ids::{EdgeId, RuleId};
use tidegate_model::limits::{
    INVENTORY_PAGE_RULES, MAX_DETAIL_BYTES, MAX_ENVELOPE_BYTES, MAX_RULES_PER_EDGE, MAX_TOMBSTONES,
};
use tidegate_model::placement::VersionDigest;
use tidegate_model::rule::EdgeRule;
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
    /// Rules that were not on an edge any more, or not yet, and that a backup of its disk brought.
    brought_back: BTreeSet<(RuleId, EdgeId)>,
    /// Rendered rules, read.
    read: BTreeMap<Digest, Arc<EdgeRule>>,
    /// Inventories that the controller asked for.
    pub inventories_asked: u64,
    /// Sets that were sent.
    pub sets: u64,
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

impl Ledger {
    /// The writes of the controller: it claims only what an edge held.
    ///
    /// # Errors
    /// The broken invariant.
    pub fn cloud_writes(&mut self, writes: &[cloud::Write]) -> Result<(), Broken> {
        for write in writes {
            if let cloud::Write::RemovePlacement { rule, edge } = write {
                self.dropped.insert((*rule, edge.clone()));
            }
            let cloud::Write::PutPlacement(record) = write else { continue };
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

    /// An edge's disk was restored from a backup.
    pub fn edge_restored(&mut self, id: &EdgeId, before: &edge::Snapshot, after: &edge::Snapshot) {
        let back = after.rules.keys().filter(|rule| !before.rules.contains_key(rule));
        self.brought_back.extend(back.map(|rule| (*rule, id.clone())));
    }

    /// The cloud's store was restored from a backup: what it said since then it does not know.
    pub fn cloud_restored(&mut self, before: &CloudDisk, after: &CloudDisk) {
        self.wants.clear();
        self.lost.extend(before.placements.keys().cloned());
        self.lost.retain(|key| !after.placements.contains_key(key));
    }

    /// Whether the cloud may have no record of a rule that is on an edge: a backup of either side made it so.
    #[must_use]
    pub fn may_be_unmanaged(&self, rule: RuleId, edge: &EdgeId) -> bool {
        let key = (rule, edge.clone());
        self.lost.contains(&key) || (self.dropped.contains(&key) && self.brought_back.contains(&key))
    }

    /// The effects of the controller, judged after the commit.
    ///
    /// # Errors
    /// The broken invariant.
    pub fn cloud_effects(&mut self, disk: &CloudDisk, effects: &[cloud::Effect]) -> Result<(), Broken> {
        must(effects.len() <= MAX_EFFECTS, || format!("{} effects of one input", effects.len()))?;
        for effect in effects {
            let cloud::Effect::Publish { edge, payload } = effect else { continue };
            must(payload.len() <= MAX_ENVELOPE_BYTES, || format!("a message of {} bytes", payload.len()))?;
            let (header, message) = Envelope::read_down(payload).map_err(|e| e.to_string())?;
            must(header.ce == disk.meta.epoch, || "a message with an epoch that is not stored".to_owned())?;
            match message {
                Down::Set(set) => self.cloud_set(disk, edge, &set)?,
                Down::Welcome(welcome) => {
                    self.inventories_asked += u64::from(welcome.want == Want::Inventory);
                }
                Down::Ping(_) => {}
            }
        }
        Ok(())
    }

    fn cloud_set(&mut self, disk: &CloudDisk, edge: &EdgeId, set: &Set) -> Result<(), Broken> {
        self.sets += 1;
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
        before: &edge::Snapshot,
        after: &edge::Snapshot,
        writes: &[edge::Write],
    ) -> Result<(), Broken> {
        for write in writes {
            let rule = match write {
                edge::Write::Meta(meta) => {
                    must(meta.session.epoch >= before.meta.session.epoch, || "an epoch fell".to_owned())?;
                    must(meta.highest_ce >= before.meta.highest_ce, || {
                        "the controller's epoch fell".to_owned()
                    })?;
                    continue;
                }
                edge::Write::Rule(record) => record.rule,
                edge::Write::ForgetRule(rule) => *rule,
                edge::Write::Tombstone(stone) => stone.rule,
                // Only the bound of tombstones and a rule that comes again forget one; the second is looked at as a rule.
                edge::Write::ForgetTombstone(_) => continue,
            };
            let (was, is) = (generation_on(before, rule), generation_on(after, rule));
            must(is >= was, || format!("the generation of {rule} on {id} fell from {was:?} to {is:?}"))?;
            let Some(record) = after.rules.get(&rule) else { continue };
            let held = record.committed.iter().chain(record.candidate.as_ref().map(|c| &c.held));
            for held in held {
                must(self.issued.contains(&(rule, id.clone(), held.target.digest)), || {
                    format!(
                        "{id} holds {} of {}, which was never issued to it",
                        held.target.version, record.name
                    )
                })?;
                if let Entry::Vacant(unread) = self.read.entry(held.target.digest) {
                    let read = EdgeRule::from_rendered(&held.bytes).map_err(|e| e.to_string())?;
                    unread.insert(Arc::new(read));
                }
            }
            if let Some(at) = record.running() {
                self.committed.insert((rule, id.clone(), at));
            }
            let run = before.rules.get(&rule).map_or(0, |r| r.run.sequence);
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
        digest.and_then(|digest| self.read.get(&digest)).is_some_and(|read| **read == **config)
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
                    "what is not on its disk".to_owned()
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

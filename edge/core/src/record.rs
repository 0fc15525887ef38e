//! What is on the agent's disk, and nothing else: everything that the agent says follows from it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidegate_model::code::Code;
use tidegate_model::digest::Digest;
use tidegate_model::ids::{RuleId, RuleName, SessionId, StoreId};
use tidegate_model::placement::VersionDigest;
use tidegate_model::version::Generation;
use tidegate_model::wire::{By, DesiredRun, Origin, RunReport, SecretValue};

use crate::io::Write;

/// What is kept once per store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The store, and the epoch of the last CONNECT that was tried.
    pub session: SessionId,
    /// Highest controller epoch that was accepted; 0: none yet.
    pub highest_ce: u64,
}

/// One rule that should be here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleRecord {
    /// The rule.
    pub rule: RuleId,
    /// Its name, for people.
    pub name: RuleName,
    /// Highest generation that was accepted.
    pub generation: Generation,
    /// The `want` of that generation.
    pub want: Digest,
    /// Should it run? A local start or stop changes it without a new generation.
    pub run_desired: DesiredRun,
    /// Who said so last.
    pub desired_by: By,
    /// Restart nonce of the last accepted set.
    pub restart: u64,
    /// Last known good: what runs, or would run.
    pub committed: Option<Held>,
    /// Accepted and not committed yet.
    pub candidate: Option<Candidate>,
    /// How the accepted generation ended; `None`: under way.
    pub outcome: Option<Outcome>,
    /// The run state, with the number of its last transition.
    pub run: RunReport,
    /// Number of the transition that was told last.
    pub told: u64,
    /// What is known of a rule that the site wrote; `None`: the cloud issued it, and only the cloud changes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<OnSite>,
}

/// What is kept of a rule that the site wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnSite {
    /// Name of the file in the rules directory; `None`: it was applied by hand.
    pub file: Option<String>,
    /// Digest over what was written, the password included, so that the same again is no change. It never leaves the disk.
    pub content: Digest,
    /// Its file is gone while messages waited: it moves nothing, and its queue is kept.
    pub withdrawn: Option<Withdrawn>,
}

/// What a rule whose file is gone should do when the file comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawn {
    /// Whether it should have run.
    pub run: DesiredRun,
}

impl RuleRecord {
    /// What is committed, as version and digest.
    #[must_use]
    pub fn running(&self) -> Option<VersionDigest> {
        self.committed.as_ref().map(|held| held.target)
    }

    /// Who wrote the rule.
    #[must_use]
    pub fn origin(&self) -> Origin {
        match self.site {
            Some(_) => Origin::Local,
            None => Origin::Cloud,
        }
    }

    /// On whose behalf its content is carried out.
    #[must_use]
    pub fn author(&self) -> By {
        match self.site {
            Some(_) => By::Local,
            None => By::Cloud,
        }
    }

    /// Whether it is a rule of the site whose file is gone: it moves nothing.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        self.site.as_ref().is_some_and(|site| site.withdrawn.is_some())
    }

    /// What the agent is to run now: the candidate while there is one, else what is committed.
    #[must_use]
    pub fn current(&self) -> Option<&Held> {
        self.candidate.as_ref().map(|c| &c.held).or(self.committed.as_ref())
    }
}

/// A rendered rule with the secrets that it names. `Debug` shows no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Version and digest of the bytes.
    pub target: VersionDigest,
    /// The rendered bytes.
    pub bytes: String,
    /// Values of the secrets.
    pub secrets: Vec<SecretValue>,
}

/// A rendered rule on probation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The rule.
    pub held: Held,
    /// Whether the last known good should run when the candidate fails.
    pub fallback_run: DesiredRun,
    /// Who had said so.
    pub fallback_by: By,
}

/// How a generation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// How.
    pub code: Code,
    /// What was attempted.
    pub attempted: VersionDigest,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// A sentence for people, without secrets.
    pub detail: String,
}

/// A rule that was removed: its numbers must not start anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// The rule.
    pub rule: RuleId,
    /// Its name.
    pub name: RuleName,
    /// Generation of the removal.
    pub generation: Generation,
    /// The `want` of the removal.
    pub want: Digest,
    /// What the removal named as its target.
    pub target: VersionDigest,
    /// The last run state, with the number of its transition.
    pub run: RunReport,
    /// The how-manieth removal of this store: the lowest is forgotten first.
    pub order: u64,
    /// Who had written the rule.
    #[serde(default = "by_the_cloud")]
    pub origin: Origin,
}

/// A tombstone of the first release says nothing of it: there were no others.
fn by_the_cloud() -> Origin {
    Origin::Cloud
}

/// Everything that is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Once per store.
    pub meta: Meta,
    /// The rules that should be here.
    pub rules: BTreeMap<RuleId, RuleRecord>,
    /// The rules that were removed.
    pub tombstones: BTreeMap<RuleId, Tombstone>,
}

impl Snapshot {
    /// A store that was just made.
    #[must_use]
    pub fn fresh(store: StoreId) -> Self {
        Self {
            meta: Meta { session: SessionId { store, epoch: 0 }, highest_ce: 0 },
            rules: BTreeMap::new(),
            tombstones: BTreeMap::new(),
        }
    }

    /// What one write does to it. A shell that keeps a store does the same on disk.
    pub fn apply(&mut self, write: Write) {
        match write {
            Write::Meta(meta) => self.meta = meta,
            Write::Rule(record) => {
                self.rules.insert(record.rule, *record);
            }
            Write::ForgetRule(rule) => {
                self.rules.remove(&rule);
            }
            Write::Tombstone(stone) => {
                self.tombstones.insert(stone.rule, stone);
            }
            Write::ForgetTombstone(rule) => {
                self.tombstones.remove(&rule);
            }
        }
    }
}

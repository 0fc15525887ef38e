//! The processes of the world and their disks: what a crash leaves is the disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate_cloud_core as cloud;
use tidegate_edge_core as edge;
use tidegate_model::ids::{EdgeId, RuleId, RuleName, SessionId, StoreId};
use tidegate_model::rule::EdgeRule;
use tidegate_model::time::{Monotonic, Now, Wall};
use tidegate_model::version::RuleVersion;

use crate::accent::Accent;
use crate::remote::Sign;
use crate::rng::Rng;
use crate::step::{Moment, Software};

/// The clocks of one machine and one process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock {
    /// When the process began, in ms of virtual time.
    pub started: i64,
    /// What the wall clock shows beyond virtual time, in ms.
    pub wall_offset: i64,
}

/// The wall clock when the world begins.
const WALL_START: i64 = 1_767_225_600_000;

impl Clock {
    /// What the process reads at this moment of virtual time. Its monotonic clock begins with it.
    #[must_use]
    pub fn now(&self, time: i64) -> Now {
        Now { monotonic: Monotonic(time - self.started), wall: Wall(WALL_START + time + self.wall_offset) }
    }
}

/// The controller's store.
#[derive(Debug, Clone, Default)]
pub struct CloudDisk {
    /// Facts about the controller.
    pub meta: cloud::Meta,
    /// Rules by identity.
    pub rules: BTreeMap<RuleId, cloud::RuleRecord>,
    /// Edges.
    pub edges: BTreeMap<EdgeId, cloud::EdgeRecord>,
    /// Placements, removed ones included.
    pub placements: BTreeMap<(RuleId, EdgeId), cloud::PlacementRecord>,
    /// Answers of requests that are done once.
    pub answers: BTreeMap<tidegate_model::digest::Digest, cloud::OnceRecord>,
    /// Every version of every rule, the first one first.
    pub versions: BTreeMap<RuleId, Vec<Arc<cloud::VersionRecord>>>,
}

impl CloudDisk {
    /// Commits one write.
    ///
    /// # Errors
    /// A precondition that does not hold, in words.
    pub fn apply(&mut self, write: cloud::Write) -> Result<(), String> {
        use cloud::Write;
        match write {
            Write::PutMeta(meta) => {
                if meta.epoch <= self.meta.epoch {
                    return Err("the controller's epoch did not rise".to_owned());
                }
                self.meta = meta;
            }
            Write::PutRule { record, expect } => {
                let known = self.rules.get(&record.id).map(|rule| rule.version);
                if known != expect {
                    return Err(format!("the store has {known:?} of a rule, {expect:?} was expected"));
                }
                self.rules.insert(record.id, *record);
            }
            Write::PutVersion(record) => {
                let versions = self.versions.entry(record.rule).or_default();
                let last = versions.last().map(|last| last.version);
                let next = last.map_or(RuleVersion::FIRST, RuleVersion::next);
                if record.version != next {
                    return Err(format!("{} follows {last:?}", record.version));
                }
                versions.push(Arc::from(record));
            }
            Write::RemoveRule(id) => {
                self.rules.remove(&id);
            }
            Write::PutEdge(record) => {
                self.edges.insert(record.id.clone(), Arc::unwrap_or_clone(record));
            }
            Write::RemoveEdge(id) => {
                self.edges.remove(&id);
            }
            Write::PutPlacement(record) => {
                self.placements.insert((record.rule, record.edge.clone()), Arc::unwrap_or_clone(record));
            }
            Write::RemovePlacement { rule, edge } => {
                self.placements.remove(&(rule, edge));
            }
            Write::PutAnswer(record) => {
                self.answers.insert(record.id, *record);
            }
            Write::RemoveAnswer(id) => {
                self.answers.remove(&id);
            }
        }
        Ok(())
    }

    /// What a controller is restored from.
    #[must_use]
    pub fn snapshot(&self) -> cloud::Snapshot {
        cloud::Snapshot {
            meta: self.meta.clone(),
            rules: self.rules.values().cloned().collect(),
            edges: self.edges.values().cloned().collect(),
            placements: self.placements.values().cloned().collect(),
            answers: self.answers.values().cloned().collect(),
        }
    }

    /// The rules that are or were placed on an edge.
    #[must_use]
    pub fn placements_on(&self, edge: &EdgeId) -> Vec<RuleId> {
        self.placements.keys().filter(|(_, on)| on == edge).map(|(rule, _)| *rule).collect()
    }

    /// The placement of a rule by its name, if it is meant to be there.
    #[must_use]
    pub fn placement(&self, rule: &RuleName, edge: &EdgeId) -> Option<&cloud::PlacementRecord> {
        self.placements.values().find(|p| p.present && p.name == *rule && p.edge == *edge)
    }
}

/// The controller.
#[derive(Debug)]
pub struct Cloud {
    /// While it runs.
    pub core: Option<cloud::Controller>,
    /// Its store.
    pub disk: CloudDisk,
    /// A copy of the store that somebody made once.
    pub backup: Option<CloudDisk>,
    /// Until when its disk takes no write, in ms of virtual time.
    pub full_until: i64,
    /// Its clocks.
    pub clock: Clock,
    /// When it wants to be woken, in ms of virtual time.
    pub due: Option<i64>,
    /// Crashes that wait for a step: (steps before it, when in that step).
    pub crash: Option<(u32, Moment)>,
    /// Counts its processes.
    pub life: u64,
    /// Chance around it.
    pub rng: Rng,
}

impl Cloud {
    /// A controller with an empty store that does not run yet.
    #[must_use]
    pub fn new(rng: Rng) -> Self {
        Self {
            core: None,
            disk: CloudDisk::default(),
            backup: None,
            full_until: 0,
            clock: Clock::default(),
            due: None,
            crash: None,
            life: 0,
            rng,
        }
    }
}

/// A bridge as the shell of an agent keeps it.
#[derive(Debug, Clone)]
pub struct Bridge {
    /// The order that made it what it is.
    pub order: edge::Order,
    /// What it runs.
    pub config: Arc<EdgeRule>,
    /// What it last told the core under this order.
    pub told: Option<Sign>,
}

/// A connection as an agent's shell knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// Its number.
    pub conn: u64,
    /// The session that was dialed.
    pub sid: SessionId,
}

/// A gateway: its agent and its disk.
#[derive(Debug)]
pub struct Edge {
    /// Its name.
    pub id: EdgeId,
    /// Whether there is such a gateway: a clone is not there at first, and either may go for ever.
    pub exists: bool,
    /// While the agent runs.
    pub core: Option<edge::Agent>,
    /// Its disk.
    pub disk: edge::Snapshot,
    /// A copy of the disk that somebody made once.
    pub backup: Option<edge::Snapshot>,
    /// Until when its disk takes no write, in ms of virtual time.
    pub full_until: i64,
    /// Which software it is.
    pub software: Software,
    /// What newer software says beyond ours.
    pub accent: Accent,
    /// Its clocks.
    pub clock: Clock,
    /// When it wants to be woken, in ms of virtual time.
    pub due: Option<i64>,
    /// Counts its processes, so that what was meant for an earlier one is told apart.
    pub life: u64,
    /// Crashes that wait for a step: (steps before it, when in that step).
    pub crash: Option<(u32, Moment)>,
    /// The connection, as far as the agent's shell knows.
    pub connected: Option<Connection>,
    /// Its bridges.
    pub bridges: BTreeMap<RuleId, Bridge>,
    /// What is taken in for which rule.
    pub taken_in: BTreeMap<RuleId, Arc<EdgeRule>>,
    /// Chance around it.
    pub rng: Rng,
}

impl Edge {
    /// A gateway with an empty disk and no agent.
    #[must_use]
    pub fn new(id: EdgeId, exists: bool, mut rng: Rng) -> Self {
        Self {
            id,
            exists,
            core: None,
            disk: edge::Snapshot::fresh(StoreId(u128::from(rng.number()))),
            backup: None,
            full_until: 0,
            software: Software::Ours,
            accent: Accent::default(),
            clock: Clock::default(),
            due: None,
            life: 0,
            crash: None,
            connected: None,
            bridges: BTreeMap::new(),
            taken_in: BTreeMap::new(),
            rng,
        }
    }

    /// The process is gone; the disk stays.
    pub fn kill(&mut self) {
        self.core = None;
        self.due = None;
        self.life += 1;
        self.crash = None;
        self.connected = None;
        self.bridges.clear();
        self.taken_in.clear();
    }
}

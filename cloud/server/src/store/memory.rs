//! A store that forgets everything when the process ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_cloud_core::{
    EdgeRecord, Meta, OnceRecord, PlacementRecord, RuleRecord, Snapshot, VersionRecord, Write,
};
use tidegate_model::digest::Digest;
use tidegate_model::ids::{EdgeId, RuleId};
use tidegate_model::version::RuleVersion;

use super::{MAX_PAGE, Pending, Store, StoreError, expect};

/// Keeps records in memory.
#[derive(Debug, Default)]
pub struct Memory {
    records: Mutex<Records>,
}

#[derive(Debug, Default)]
struct Records {
    meta: Meta,
    rules: BTreeMap<RuleId, RuleRecord>,
    versions: BTreeMap<(RuleId, RuleVersion), VersionRecord>,
    edges: BTreeMap<EdgeId, EdgeRecord>,
    placements: BTreeMap<(RuleId, EdgeId), PlacementRecord>,
    answers: BTreeMap<Digest, OnceRecord>,
}

impl Records {
    fn put(&mut self, write: Write) {
        match write {
            Write::PutMeta(meta) => self.meta = meta,
            Write::PutRule { record, .. } => drop(self.rules.insert(record.id, *record)),
            Write::PutVersion(record) => {
                self.versions.insert((record.rule, record.version), *record);
            }
            Write::RemoveRule(id) => drop(self.rules.remove(&id)),
            Write::PutEdge(record) => {
                drop(self.edges.insert(record.id.clone(), Arc::unwrap_or_clone(record)))
            }
            Write::RemoveEdge(id) => drop(self.edges.remove(&id)),
            Write::PutPlacement(record) => {
                self.placements.insert((record.rule, record.edge.clone()), Arc::unwrap_or_clone(record));
            }
            Write::RemovePlacement { rule, edge } => drop(self.placements.remove(&(rule, edge))),
            Write::PutAnswer(record) => drop(self.answers.insert(record.id, *record)),
            Write::RemoveAnswer(id) => drop(self.answers.remove(&id)),
        }
    }
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Records> {
        // Nothing that holds the lock can fail half-way.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply_all(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        let mut records = self.lock();
        expect::check(&writes, |id| Ok::<_, StoreError>(records.rules.get(&id).map(|r| r.version)))?;
        writes.into_iter().for_each(|write| records.put(write));
        Ok(())
    }
}

fn ready<'a, T: Send + 'a>(value: T) -> Pending<'a, T> {
    Box::pin(std::future::ready(Ok(value)))
}

impl Store for Memory {
    fn load(&self) -> Pending<'_, Snapshot> {
        let records = self.lock();
        ready(Snapshot {
            meta: records.meta.clone(),
            rules: records.rules.values().cloned().collect(),
            edges: records.edges.values().cloned().collect(),
            placements: records.placements.values().cloned().collect(),
            answers: records.answers.values().cloned().collect(),
        })
    }

    fn apply(&self, writes: Vec<Write>) -> Pending<'_, ()> {
        Box::pin(std::future::ready(self.apply_all(writes)))
    }

    fn versions(
        &self,
        rule: RuleId,
        before: Option<RuleVersion>,
        limit: usize,
    ) -> Pending<'_, Vec<VersionRecord>> {
        let below = (rule, before.unwrap_or(RuleVersion(u64::MAX)));
        let records = self.lock();
        let range = records.versions.range((rule, RuleVersion(0))..below);
        ready(range.rev().take(limit.min(MAX_PAGE)).map(|(_, record)| record.clone()).collect())
    }

    fn version(&self, rule: RuleId, version: RuleVersion) -> Pending<'_, Option<VersionRecord>> {
        ready(self.lock().versions.get(&(rule, version)).cloned())
    }

    fn all_versions(
        &self,
        after: Option<(RuleId, RuleVersion)>,
        limit: usize,
    ) -> Pending<'_, Vec<VersionRecord>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let records = self.lock();
        let range = records.versions.range((after.map_or(Unbounded, Excluded), Unbounded));
        ready(range.take(limit.min(MAX_PAGE)).map(|(_, record)| record.clone()).collect())
    }

    fn health(&self) -> Pending<'_, ()> {
        ready(())
    }
}

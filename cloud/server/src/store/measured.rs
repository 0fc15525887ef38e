//! Any store, with the time that each of its operations takes.

use std::sync::Arc;
use std::time::Instant;

use tidegate_cloud_core::{Snapshot, VersionRecord, Write};
use tidegate_model::ids::RuleId;
use tidegate_model::version::RuleVersion;

use super::{Pending, Store};
use crate::metrics::{Metrics, StoreOp};

/// A store that is measured.
pub(crate) struct Measured {
    store: Arc<dyn Store>,
    metrics: Metrics,
}

impl Measured {
    pub(crate) fn new(store: Arc<dyn Store>, metrics: Metrics) -> Self {
        Self { store, metrics }
    }

    fn timed<'a, T: 'a>(&'a self, op: StoreOp, work: Pending<'a, T>) -> Pending<'a, T> {
        Box::pin(async move {
            let began = Instant::now();
            let result = work.await;
            self.metrics.stored(op, began.elapsed());
            result
        })
    }
}

impl Store for Measured {
    fn load(&self) -> Pending<'_, Snapshot> {
        self.timed(StoreOp::Load, self.store.load())
    }

    fn apply(&self, writes: Vec<Write>) -> Pending<'_, ()> {
        self.timed(StoreOp::Apply, self.store.apply(writes))
    }

    fn versions(
        &self,
        rule: RuleId,
        before: Option<RuleVersion>,
        limit: usize,
    ) -> Pending<'_, Vec<VersionRecord>> {
        self.timed(StoreOp::Read, self.store.versions(rule, before, limit))
    }

    fn version(&self, rule: RuleId, version: RuleVersion) -> Pending<'_, Option<VersionRecord>> {
        self.timed(StoreOp::Read, self.store.version(rule, version))
    }

    fn all_versions(
        &self,
        after: Option<(RuleId, RuleVersion)>,
        limit: usize,
    ) -> Pending<'_, Vec<VersionRecord>> {
        self.timed(StoreOp::Read, self.store.all_versions(after, limit))
    }

    fn health(&self) -> Pending<'_, ()> {
        self.timed(StoreOp::Health, self.store.health())
    }
}

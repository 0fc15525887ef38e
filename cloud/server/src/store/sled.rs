//! The store on disk: the controller's records in `tidegate-records`, which owns durability, damage and migration.
//!
//! Owns what lies where (trees and keys), and what a write of the core is there. One thread writes; reads run on threads of
//! their own. Any failure poisons the store: what is on disk is known only after it was opened again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_cloud_core::{
    EdgeRecord, Meta, OnceRecord, PlacementRecord, RuleRecord, Snapshot, VersionRecord, Write,
};
use tidegate_model::ids::RuleId;
use tidegate_model::version::RuleVersion;
use tidegate_records::{Error, Layout, META, Options, Order, Reader, Step, Tree};

use super::{MAX_PAGE, Pending, Store, StoreError};

mod keys;
#[cfg(test)]
#[allow(clippy::wildcard_enum_match_arm, reason = "a test names what it wants; anything else fails it")]
mod tests;
mod writer;

use writer::Writer;

const RULES: Tree = Tree(1);
const VERSIONS: Tree = Tree(2);
const EDGES: Tree = Tree(3);
const PLACEMENTS: Tree = Tree(4);
const ANSWERS: Tree = Tree(5);

/// Schema 1 had no seal; `tidegate-records` writes it with the schema's number, and nothing else changed. Placements of
/// schema 2 hold each rendered rule as often as they name it; they are read as they are.
static LAYOUT: Layout = Layout {
    trees: &["meta", "rules", "versions", "edges", "placements", "answers"],
    schema: 3,
    steps: &[
        Step { to: 2, what: "all records are sealed together", run: |_| Ok(Vec::new()) },
        Step { to: 3, what: "a rendered rule is written once per placement", run: |_| Ok(Vec::new()) },
    ],
    early_schema: |_| None,
};

/// Records in a directory.
#[derive(Debug)]
pub struct Sled {
    dir: Arc<Path>,
    reader: Reader,
    writer: Writer,
}

impl Sled {
    /// Opens the directory, or makes it (mode 0700), and reads every record once. `cache_mib` bounds the cache, in MiB.
    ///
    /// # Errors
    /// [`StoreError`]: it is open elsewhere, damaged, of a later version, or cannot be read or written.
    pub async fn open(dir: PathBuf, cache_mib: u64) -> Result<Self, StoreError> {
        let at = dir.clone();
        let opening = tokio::task::spawn_blocking(move || {
            let options = Options { cache_bytes: cache_mib.saturating_mul(1024 * 1024), reserve_bytes: 0 };
            let opened =
                tidegate_records::open(&dir, &LAYOUT, options).map_err(|e| StoreError::from_disk(&dir, e))?;
            let reader = opened.records.reader();
            check(&reader).map_err(|e| StoreError::from_disk(&dir, e))?;
            let writer = Writer::start(&dir, opened.records)?;
            Ok(Self { dir: dir.into(), reader, writer })
        });
        opening.await.unwrap_or_else(|error| {
            Err(StoreError::Failed { doing: "opening", dir: at, why: error.to_string() })
        })
    }

    fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Reader) -> Result<T, Error> + Send + 'static,
    ) -> Pending<'_, T> {
        let reader = self.reader.clone();
        Box::pin(async move {
            let read = tokio::task::spawn_blocking(move || look(&reader)).await;
            let failed =
                |why: String| StoreError::Failed { doing: "reading", dir: self.dir.to_path_buf(), why };
            read.map_err(|error| failed(error.to_string()))?
                .map_err(|error| StoreError::from_disk(&self.dir, error))
        })
    }
}

/// That every record is one, and lies under its key.
fn check(reader: &Reader) -> Result<(), Error> {
    snapshot(reader)?;
    reader.each::<VersionRecord>(VERSIONS, |r| keys::version(r.rule, r.version), drop)
}

fn snapshot(reader: &Reader) -> Result<Snapshot, Error> {
    Ok(Snapshot {
        meta: reader.get::<Meta>(META, keys::META)?.unwrap_or_default(),
        rules: reader.all::<RuleRecord>(RULES, |r| keys::rule(r.id))?,
        edges: reader.all::<EdgeRecord>(EDGES, |r| keys::edge(&r.id))?,
        placements: reader.all::<PlacementRecord>(PLACEMENTS, |r| keys::placement(r.rule, &r.edge))?,
        answers: reader.all::<OnceRecord>(ANSWERS, |r| keys::answer(&r.id))?,
    })
}

impl Store for Sled {
    fn load(&self) -> Pending<'_, Snapshot> {
        self.read(snapshot)
    }

    fn apply(&self, writes: Vec<Write>) -> Pending<'_, ()> {
        Box::pin(self.writer.apply(writes))
    }

    fn versions(
        &self,
        rule: RuleId,
        before: Option<RuleVersion>,
        limit: usize,
    ) -> Pending<'_, Vec<VersionRecord>> {
        self.read(move |reader| {
            let from = keys::version(rule, RuleVersion(0));
            let below = keys::version(rule, before.unwrap_or(RuleVersion(u64::MAX)));
            reader.page(VERSIONS, (from, Some(below)), Order::Descending, limit.min(MAX_PAGE))
        })
    }

    fn version(&self, rule: RuleId, version: RuleVersion) -> Pending<'_, Option<VersionRecord>> {
        self.read(move |reader| reader.get(VERSIONS, &keys::version(rule, version)))
    }

    fn all_versions(
        &self,
        after: Option<(RuleId, RuleVersion)>,
        limit: usize,
    ) -> Pending<'_, Vec<VersionRecord>> {
        self.read(move |reader| {
            let from = after.map_or_else(Vec::new, |(rule, version)| keys::version(rule, version.next()));
            reader.page(VERSIONS, (from, None), Order::Ascending, limit.min(MAX_PAGE))
        })
    }

    fn health(&self) -> Pending<'_, ()> {
        Box::pin(self.writer.apply(Vec::new()))
    }
}

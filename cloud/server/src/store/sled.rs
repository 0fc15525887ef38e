//! The store on disk: sled 0.34, by the rules that were measured for it (docs/adr).
//!
//! * One thread writes. It takes what waits, applies it in one transaction over all trees, flushes, and then syncs the
//!   database file itself, because sled's flush alone is not durable on Linux. Only then it answers.
//! * Any failure poisons the store: what is on disk is known only after it was opened again.
//! * Reads run on threads of their own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_cloud_core::{
    EdgeRecord, Meta, OnceRecord, PlacementRecord, RuleRecord, Snapshot, VersionRecord, Write,
};
use tidegate_model::ids::RuleId;
use tidegate_model::version::RuleVersion;

use super::{MAX_PAGE, Pending, Store, StoreError};

mod keys;
mod open;
#[cfg(test)]
#[allow(clippy::wildcard_enum_match_arm, reason = "a test names what it wants; anything else fails it")]
mod tests;
mod value;
mod writer;

use open::Trees;
use writer::Writer;

/// Records in a directory.
#[derive(Debug)]
pub struct Sled {
    dir: Arc<Path>,
    trees: Trees,
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
            let trees = open::open(&dir, cache_mib)?;
            let writer = Writer::start(&dir, trees.clone())?;
            Ok(Self { dir: dir.into(), trees, writer })
        });
        opening.await.unwrap_or_else(|error| {
            Err(StoreError::Failed { doing: "opening", dir: at, why: error.to_string() })
        })
    }

    fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Reader) -> Result<T, StoreError> + Send + 'static,
    ) -> Pending<'_, T> {
        let reader = Reader { dir: Arc::clone(&self.dir), trees: self.trees.clone() };
        Box::pin(async move {
            let dir = Arc::clone(&self.dir);
            tokio::task::spawn_blocking(move || look(&reader)).await.unwrap_or_else(|error| {
                Err(StoreError::Failed { doing: "reading", dir: dir.to_path_buf(), why: error.to_string() })
            })
        })
    }
}

/// What a thread that reads needs.
struct Reader {
    dir: Arc<Path>,
    trees: Trees,
}

impl Reader {
    fn all<T: serde::de::DeserializeOwned>(&self, tree: &sled::Tree) -> Result<Vec<T>, StoreError> {
        value::scan(tree, |_, record| Ok(record)).map_err(|e| e.at(&self.dir))
    }

    fn get<T: serde::de::DeserializeOwned>(
        &self,
        tree: &sled::Tree,
        key: &[u8],
    ) -> Result<Option<T>, StoreError> {
        value::get(tree, key).map_err(|e| e.at(&self.dir))
    }

    fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let meta: Option<Meta> = self.get(&self.trees.meta, keys::META)?;
        let rules: Vec<RuleRecord> = self.all(&self.trees.rules)?;
        let edges: Vec<EdgeRecord> = self.all(&self.trees.edges)?;
        let placements: Vec<PlacementRecord> = self.all(&self.trees.placements)?;
        let answers: Vec<OnceRecord> = self.all(&self.trees.answers)?;
        Ok(Snapshot { meta: meta.unwrap_or_default(), rules, edges, placements, answers })
    }

    fn versions(
        &self,
        keys: impl Iterator<Item = Result<Vec<u8>, value::ValueError>>,
        limit: usize,
    ) -> Result<Vec<VersionRecord>, StoreError> {
        let mut found = Vec::new();
        for key in keys.take(limit.min(MAX_PAGE)) {
            let key = key.map_err(|e| e.at(&self.dir))?;
            // A key that is listed has its record: records are removed with their keys.
            found.extend(self.get::<VersionRecord>(&self.trees.versions, &key)?);
        }
        Ok(found)
    }
}

impl Store for Sled {
    fn load(&self) -> Pending<'_, Snapshot> {
        self.read(Reader::snapshot)
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
            reader.versions(value::heads(reader.trees.versions.range(from..below).rev()), limit)
        })
    }

    fn version(&self, rule: RuleId, version: RuleVersion) -> Pending<'_, Option<VersionRecord>> {
        self.read(move |reader| reader.get(&reader.trees.versions, &keys::version(rule, version)))
    }

    fn all_versions(
        &self,
        after: Option<(RuleId, RuleVersion)>,
        limit: usize,
    ) -> Pending<'_, Vec<VersionRecord>> {
        self.read(move |reader| {
            let from = after.map_or_else(Vec::new, |(rule, version)| keys::version(rule, version.next()));
            reader.versions(value::heads(reader.trees.versions.range(from..)), limit)
        })
    }

    fn health(&self) -> Pending<'_, ()> {
        Box::pin(self.writer.apply(Vec::new()))
    }
}

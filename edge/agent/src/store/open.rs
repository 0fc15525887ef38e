//! Opening the store: make it, read it whole, or set it aside.

use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use tidegate_edge_core::{Meta, RuleRecord, Snapshot, Tombstone};
use tidegate_model::ids::StoreId;

use super::value::{BadValue, decode, encode};
use super::writer::{META_KEY, Trees, chunk_key};
use super::{SCHEMA_VERSION, StoreError};

/// Bytes of sled's cache; its default would be 1 GB.
const CACHE_BYTES: u64 = 16 << 20;
/// sled collects garbage in the thread that flushes this often, in milliseconds.
const FLUSH_EVERY_MS: u64 = 500;
const SCHEMA_KEY: &[u8] = b"schema_version";

/// What opening found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// A store from before.
    Existing,
    /// None; it was made.
    Made,
    /// A damaged one, which was set aside; an empty one was made.
    SetAside {
        /// Where the damaged one is now.
        kept: PathBuf,
        /// What was wrong with it.
        reason: String,
    },
}

enum Failure {
    Damaged(String),
    Fatal(StoreError),
}

impl From<BadValue> for Failure {
    fn from(bad: BadValue) -> Self {
        Self::Damaged(bad.to_string())
    }
}

impl From<sled::Error> for Failure {
    fn from(error: sled::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}

pub(super) fn open(
    dir: &Path,
    new_store: StoreId,
    stamp: i64,
) -> Result<(Trees, Snapshot, Opened), StoreError> {
    let fatal = |reason: String| StoreError::Open { dir: dir.to_owned(), reason };
    match read(dir, new_store) {
        Ok((trees, snapshot, is_new)) => {
            let opened = if is_new { Opened::Made } else { Opened::Existing };
            Ok((trees, snapshot, opened))
        }
        Err(Failure::Fatal(error)) => Err(error),
        Err(Failure::Damaged(reason)) => {
            let name = dir.file_name().map_or_else(|| "store".into(), |n| n.to_string_lossy().into_owned());
            let kept = dir.with_file_name(format!("{name}.damaged-{stamp}"));
            fs::rename(dir, &kept)
                .map_err(|e| fatal(format!("{reason}; and it cannot be set aside: {e}")))?;
            match read(dir, new_store) {
                Ok((trees, snapshot, _)) => Ok((trees, snapshot, Opened::SetAside { kept, reason })),
                Err(Failure::Fatal(error)) => Err(error),
                Err(Failure::Damaged(reason)) => Err(fatal(reason)),
            }
        }
    }
}

/// The open database, what is in it, and whether it was made just now.
fn read(dir: &Path, new_store: StoreId) -> Result<(Trees, Snapshot, bool), Failure> {
    let is_new = !dir.join("db").exists();
    fs::create_dir_all(dir)
        .map_err(|e| Failure::Fatal(StoreError::Open { dir: dir.to_owned(), reason: e.to_string() }))?;
    let db = open_db(dir)?;
    let trees = Trees {
        meta: db.open_tree("meta")?,
        rules: db.open_tree("rules")?,
        tombstones: db.open_tree("tombstones")?,
        file: File::options()
            .append(true)
            .open(dir.join("db"))
            .map_err(|e| Failure::Damaged(format!("its file cannot be opened: {e}")))?,
        db,
    };
    let snapshot = match trees.meta.get(SCHEMA_KEY)? {
        None if is_new => make(&trees, new_store)?,
        // sled takes a file whose beginning it cannot read for an empty one.
        None => return Err(Failure::Damaged("its file is there and nothing in it can be read".to_owned())),
        Some(version) => {
            let found = decode::<u32>(&[version])?;
            if found != SCHEMA_VERSION {
                return Err(Failure::Fatal(StoreError::Schema { dir: dir.to_owned(), found }));
            }
            load(&trees)?
        }
    };
    Ok((trees, snapshot, is_new))
}

/// sled may panic over a damaged file, and it may trip over a snapshot that a crash left half written.
fn open_db(dir: &Path) -> Result<sled::Db, Failure> {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().ends_with(".generating") {
            let _ = fs::remove_file(entry.path());
        }
    }
    let config =
        || sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(Some(FLUSH_EVERY_MS));
    let attempt = || match catch_unwind(AssertUnwindSafe(|| config().open())) {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the database library panicked while it read the file".to_owned()),
    };
    attempt().or_else(|first| {
        let mut moved = false;
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("snap.") {
                moved |= fs::rename(entry.path(), dir.join(format!("bad-{name}"))).is_ok();
            }
        }
        if moved { attempt() } else { Err(first) }.map_err(Failure::Damaged)
    })
}

fn make(trees: &Trees, new_store: StoreId) -> Result<Snapshot, Failure> {
    let snapshot = Snapshot::fresh(new_store);
    for (number, chunk) in encode(&snapshot.meta).into_iter().enumerate() {
        trees.meta.insert(chunk_key(META_KEY, u16::try_from(number).unwrap_or(u16::MAX)), chunk)?;
    }
    for chunk in encode(&SCHEMA_VERSION) {
        trees.meta.insert(SCHEMA_KEY, chunk)?;
    }
    trees.db.flush()?;
    trees.file.sync_data().map_err(|e| Failure::Damaged(e.to_string()))?;
    Ok(snapshot)
}

fn load(trees: &Trees) -> Result<Snapshot, Failure> {
    let meta: Vec<sled::IVec> =
        trees.meta.scan_prefix(META_KEY).values().collect::<Result<_, _>>().map_err(Failure::from)?;
    let meta: Meta = decode(&meta)?;
    let rules: Vec<RuleRecord> = values(&trees.rules)?;
    let tombstones: Vec<Tombstone> = values(&trees.tombstones)?;
    Ok(Snapshot {
        meta,
        rules: rules.into_iter().map(|record| (record.rule, record)).collect(),
        tombstones: tombstones.into_iter().map(|stone| (stone.rule, stone)).collect(),
    })
}

/// Every value of a tree whose keys are an id and a chunk number.
fn values<T: DeserializeOwned>(tree: &sled::Tree) -> Result<Vec<T>, Failure> {
    let mut out = Vec::new();
    let mut chunks: Vec<sled::IVec> = Vec::new();
    let mut current: Option<Vec<u8>> = None;
    for entry in tree.iter() {
        let (key, chunk) = entry?;
        let id = key.get(..16).ok_or(BadValue::Incomplete)?.to_vec();
        if current.as_ref().is_some_and(|c| *c != id) {
            out.push(decode(&chunks)?);
            chunks.clear();
        }
        current = Some(id);
        chunks.push(chunk);
    }
    if current.is_some() {
        out.push(decode(&chunks)?);
    }
    Ok(out)
}

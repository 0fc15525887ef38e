//! Opening a database: leftovers removed, one repair tried, the schema compared, every record read once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use tidegate_cloud_core::{EdgeRecord, OnceRecord, PlacementRecord, RuleRecord, VersionRecord};

use super::{keys, value};
use crate::data_dir::{make_private, write_private};
use crate::store::StoreError;

/// Schema that this version writes and the highest that it reads.
pub(super) const SCHEMA: u32 = 1;
/// Where snapshots that could not be read are set aside.
const QUARANTINE: &str = "quarantine";
/// File that says that the schema was committed once: from then on a database without it lost its contents. sled itself
/// takes a file that it cannot make sense of for a new database.
const MADE: &str = "made";
/// How often sled collects garbage, in milliseconds; durability does not rest on it.
const FLUSH_EVERY_MS: u64 = 500;

/// The open database. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Trees {
    pub(super) db: sled::Db,
    pub(super) meta: sled::Tree,
    pub(super) rules: sled::Tree,
    pub(super) versions: sled::Tree,
    pub(super) edges: sled::Tree,
    pub(super) placements: sled::Tree,
    pub(super) answers: sled::Tree,
}

/// Puts an error of sled into our words.
pub(super) fn sled_error(doing: &'static str, dir: &Path, error: &sled::Error) -> StoreError {
    let dir = dir.to_owned();
    match error {
        sled::Error::Corruption { .. } => StoreError::Damaged { dir, what: error.to_string() },
        // What sled says of a `conf` file that it cannot read. No other version of sled ever wrote here.
        sled::Error::Unsupported(_) => {
            StoreError::Damaged { dir, what: "its configuration cannot be read".to_owned() }
        }
        // sled has no error of its own for it.
        sled::Error::Io(io) if io.to_string().contains("could not acquire lock") => {
            StoreError::Locked { dir }
        }
        sled::Error::Io(_) | sled::Error::CollectionNotFound(_) | sled::Error::ReportableBug(_) => {
            StoreError::Failed { doing, dir, why: error.to_string() }
        }
    }
}

pub(super) fn open(dir: &Path, cache_mib: u64) -> Result<Trees, StoreError> {
    make_private(dir).map_err(|error| failed(dir, error.to_string()))?;
    for leftover in snapshots(dir)?.into_iter().filter(|p| p.extension().is_some_and(|e| e == "generating")) {
        std::fs::remove_file(&leftover).map_err(|error| failed(dir, error.to_string()))?;
    }
    let trees = match guarded(dir, || trees(dir, cache_mib)) {
        Err(StoreError::Damaged { what, .. }) => {
            // A snapshot only speeds opening up: without it sled reads the log itself.
            let aside = quarantine(dir)?;
            tracing::warn!(store = %dir.display(), what, aside, "the store did not open; its snapshots are set aside for one more try");
            if aside == 0 {
                return Err(StoreError::Damaged { dir: dir.to_owned(), what });
            }
            guarded(dir, || trees(dir, cache_mib))?
        }
        result => result?,
    };
    guarded(dir, || check(dir, &trees))?;
    Ok(trees)
}

fn failed(dir: &Path, why: String) -> StoreError {
    StoreError::Failed { doing: "opening", dir: dir.to_owned(), why }
}

/// sled panics at some damages; here they become errors like the others.
fn guarded<T>(dir: &Path, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(StoreError::Damaged { dir: dir.to_owned(), what: "the database cannot be read".to_owned() })
    })
}

fn snapshots(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = std::fs::read_dir(dir).map_err(|error| failed(dir, error.to_string()))?;
    let paths = entries.filter_map(|entry| entry.ok().map(|e| e.path()));
    let is_snapshot = |path: &PathBuf| {
        path.file_name().and_then(|n| n.to_str()).is_some_and(|name| name.starts_with("snap."))
    };
    Ok(paths.filter(is_snapshot).collect())
}

/// Sets snapshots aside; says how many.
fn quarantine(dir: &Path) -> Result<usize, StoreError> {
    let aside = dir.join(QUARANTINE);
    let snapshots = snapshots(dir)?;
    make_private(&aside).map_err(|error| failed(dir, error.to_string()))?;
    for path in &snapshots {
        let name = path.file_name().unwrap_or_default();
        std::fs::rename(path, aside.join(name)).map_err(|error| failed(dir, error.to_string()))?;
    }
    Ok(snapshots.len())
}

/// Remembers that the schema is committed.
pub(super) fn made(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join(MADE);
    if path.exists() {
        return Ok(());
    }
    write_private(&path, "").map_err(|error| failed(dir, error.to_string()))
}

fn trees(dir: &Path, cache_mib: u64) -> Result<Trees, StoreError> {
    let error = |error| sled_error("opening", dir, &error);
    let db = sled::Config::new()
        .path(dir)
        .cache_capacity(cache_mib.saturating_mul(1024 * 1024))
        .flush_every_ms(Some(FLUSH_EVERY_MS))
        .open()
        .map_err(error)?;
    let tree = |name: &str| db.open_tree(name).map_err(error);
    Ok(Trees {
        meta: tree("meta")?,
        rules: tree("rules")?,
        versions: tree("versions")?,
        edges: tree("edges")?,
        placements: tree("placements")?,
        answers: tree("answers")?,
        db,
    })
}

/// Compares the schema and reads every record.
fn check(dir: &Path, trees: &Trees) -> Result<(), StoreError> {
    let schema: Option<u32> = value::get(&trees.meta, keys::SCHEMA_VERSION).map_err(|e| e.at(dir))?;
    match schema {
        Some(SCHEMA) => {}
        Some(found) if found > SCHEMA => {
            return Err(StoreError::TooNew { dir: dir.to_owned(), found, known: SCHEMA });
        }
        Some(found) => {
            return Err(StoreError::Damaged {
                dir: dir.to_owned(),
                what: format!("schema {found} never existed"),
            });
        }
        None if !dir.join(MADE).exists() => {}
        None => {
            let what = "its contents are gone: the file db is not what was written".to_owned();
            return Err(StoreError::Damaged { dir: dir.to_owned(), what });
        }
    }
    scan::<RuleRecord>(dir, &trees.rules, |r| keys::rule(r.id))?;
    scan::<VersionRecord>(dir, &trees.versions, |r| keys::version(r.rule, r.version))?;
    scan::<EdgeRecord>(dir, &trees.edges, |r| keys::edge(&r.id))?;
    scan::<PlacementRecord>(dir, &trees.placements, |r| keys::placement(r.rule, &r.edge))?;
    scan::<OnceRecord>(dir, &trees.answers, |r| keys::answer(&r.id))
}

fn scan<T: DeserializeOwned>(
    dir: &Path,
    tree: &sled::Tree,
    key_of: impl Fn(&T) -> Vec<u8>,
) -> Result<(), StoreError> {
    let scanned = value::scan(tree, |key, record: T| {
        if key_of(&record) == key {
            Ok(())
        } else {
            Err(value::ValueError::Damaged("a record lies under the key of another".to_owned()))
        }
    });
    scanned.map(drop).map_err(|e| e.at(dir))
}

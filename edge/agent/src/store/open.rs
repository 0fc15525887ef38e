//! Opening the store: make it, read it whole, or set it aside.

use std::fs;
use std::path::{Path, PathBuf};

use tidegate_edge_core::{Meta, RuleRecord, Snapshot, Tombstone};
use tidegate_model::ids::StoreId;
use tidegate_records::{Change, Error, META, Options, Records};

use super::{LAYOUT, META_KEY, RULES, StoreError, TOMBSTONES};

/// Bytes of the database's cache.
const CACHE_BYTES: u64 = 16 << 20;
/// Bytes on disk that belong to the store ahead of its end: on a full disk it stays writable while queues do not.
const RESERVE_BYTES: u64 = 8 << 20;
/// Damaged stores that are kept for a look; older ones are deleted.
const MAX_SET_ASIDE: usize = 3;

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

pub(super) fn open(
    dir: &Path,
    new_store: StoreId,
    stamp: i64,
) -> Result<(Records, Snapshot, Opened), StoreError> {
    match read(dir, new_store) {
        Ok((records, snapshot, is_new)) => {
            let opened = if is_new { Opened::Made } else { Opened::Existing };
            Ok((records, snapshot, opened))
        }
        Err(damaged @ Error::Damaged { .. }) => {
            let reason = damaged.to_string();
            let kept = set_aside(dir, stamp).map_err(|e| StoreError::Open {
                dir: dir.to_owned(),
                reason: format!("{reason}; and it cannot be set aside: {e}"),
            })?;
            let (records, snapshot, _) = read(dir, new_store).map_err(|e| StoreError::from_disk(dir, e))?;
            Ok((records, snapshot, Opened::SetAside { kept, reason }))
        }
        Err(error) => Err(StoreError::from_disk(dir, error)),
    }
}

/// The open store, what is in it, and whether it was made just now.
fn read(dir: &Path, new_store: StoreId) -> Result<(Records, Snapshot, bool), Error> {
    let options = Options { cache_bytes: CACHE_BYTES, reserve_bytes: RESERVE_BYTES };
    let mut records = tidegate_records::open(dir, &LAYOUT, options)?.records;
    let reader = records.reader();
    let Some(meta) = reader.get::<Meta>(META, META_KEY)? else {
        let snapshot = Snapshot::fresh(new_store);
        let meta = Change::put(META, META_KEY.to_vec(), &snapshot.meta).map_err(|why| Error::Failed {
            doing: "making",
            dir: dir.to_owned(),
            why,
        })?;
        records.commit(&[meta])?;
        return Ok((records, snapshot, true));
    };
    let rules = reader.all::<RuleRecord>(RULES, |r| r.rule.0.as_bytes().to_vec())?;
    let tombstones = reader.all::<Tombstone>(TOMBSTONES, |t| t.rule.0.as_bytes().to_vec())?;
    let snapshot = Snapshot {
        meta,
        rules: rules.into_iter().map(|record| (record.rule, record)).collect(),
        tombstones: tombstones.into_iter().map(|stone| (stone.rule, stone)).collect(),
    };
    Ok((records, snapshot, false))
}

/// Gives a damaged store a name of its own, and deletes the oldest of those from before beyond [`MAX_SET_ASIDE`].
fn set_aside(dir: &Path, stamp: i64) -> std::io::Result<PathBuf> {
    let name = dir.file_name().map_or_else(|| "store".into(), |n| n.to_string_lossy().into_owned());
    let prefix = format!("{name}.damaged-");
    let mut there: Vec<(i64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(dir.parent().unwrap_or(Path::new(".")))? {
        let entry = entry?;
        let file = entry.file_name().to_string_lossy().into_owned();
        if let Some(stamp) = file.strip_prefix(&prefix).and_then(|s| s.parse().ok()) {
            there.push((stamp, entry.path()));
        }
    }
    there.sort_unstable();
    let surplus = (there.len() + 1).saturating_sub(MAX_SET_ASIDE);
    for (_, oldest) in there.iter().take(surplus) {
        fs::remove_dir_all(oldest)?;
    }
    // Two within one millisecond, or a clock that was set back, get names of their own.
    let free = (stamp..).map(|stamp| dir.with_file_name(format!("{prefix}{stamp}")));
    let kept = free.into_iter().find(|path| !path.exists()).unwrap_or_else(|| dir.with_file_name(&prefix));
    fs::rename(dir, &kept)?;
    Ok(kept)
}

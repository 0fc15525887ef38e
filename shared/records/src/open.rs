//! Opening: leftovers removed, one repair tried, an older schema migrated, everything read and compared once.

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::disk::make_private;
use crate::mark::{self, Mark};
use crate::migrate::{self, Raw};
use crate::seal::Seal;
use crate::value;
use crate::write::{SCHEMA_VERSION, SEAL};
use crate::{DB, Error, Layout, META, Opened, Options, Records, db_file};

/// Where snapshots that could not be read are set aside.
const QUARANTINE: &str = "quarantine";
/// A file with which schema 1 of the controller's store said what `mark` says: that the store was made once.
const EARLY_MARK: &str = "made";
/// How often sled collects garbage, in milliseconds; durability does not rest on it.
const FLUSH_EVERY_MS: u64 = 500;
/// How long a database that was closed just now may take to give its lock back.
const CLOSES_WITHIN: Duration = Duration::from_secs(10);

/// Opens the store in `dir`, or makes it (mode 0700), migrates it if it is older, and reads everything once. Blocks.
///
/// # Errors
/// [`Error`]: it is open elsewhere, damaged, of a later version, or the operating system refused.
pub fn open(dir: &Path, layout: &Layout, options: Options) -> Result<Opened, Error> {
    let failed = |error: io::Error| Error::failed("opening", dir, error);
    let was_made = [mark::NAME, EARLY_MARK, DB].iter().any(|name| dir.join(name).exists());
    if !was_made {
        make(dir, layout, options)?;
    }
    if !db_file(dir).exists() {
        return Err(Error::damaged(dir, "it is missing"));
    }
    for leftover in snapshots(dir)?.into_iter().filter(|p| p.extension().is_some_and(|e| e == "generating")) {
        fs::remove_file(&leftover).map_err(failed)?;
    }
    let marked = mark::read(dir).map_err(failed)?;
    let (db, trees) = match guarded(dir, || reopen(dir, layout, options, was_made)) {
        Err(Error::Damaged { file, what }) => {
            // A snapshot only speeds opening up: without it sled reads the log itself.
            let aside = quarantine(dir)?;
            tracing::warn!(store = %dir.display(), what, aside, "the store did not open; its snapshots are set aside for one more try");
            if aside == 0 {
                return Err(Error::Damaged { file, what });
            }
            guarded(dir, || start(dir, layout, options))?
        }
        result => result?,
    };
    let found = guarded(dir, || schema(dir, layout, &trees))?;
    let records = |db, trees, seal| Records::new(dir, db, trees, seal, options);
    let mut records = match found {
        Some(found) if found > layout.schema => {
            return Err(Error::TooNew { dir: dir.to_owned(), found, known: layout.schema });
        }
        Some(found) if found == layout.schema => {
            let seal = guarded(dir, || check(dir, &trees))?;
            let lost = marked.unwrap_or(0).saturating_sub(seal.commits);
            if lost > 0 {
                return Err(Error::damaged(dir, format!("its last {lost} commits are gone")));
            }
            records(db, trees, seal)?
        }
        Some(found) => {
            let steps = migrate::steps(dir, layout, found)?;
            guarded(dir, || raw_seal(dir, &trees))?;
            drop((db, trees));
            let copy = migrate::copy_aside(dir, found)?;
            let (db, trees) = guarded(dir, || reopen(dir, layout, options, false))?;
            let mut changes = Vec::new();
            for step in steps {
                let to = step.to;
                let what = step.what;
                let run = || (step.run)(&Raw { trees: &trees });
                let changed = guarded(dir, || {
                    run().map_err(|why| Error::damaged(dir, format!("as schema {found}: {why}")))
                })?;
                tracing::info!(store = %dir.display(), to, what, changed = changed.len(), "migrating the store");
                changes.extend(changed);
            }
            let seal = guarded(dir, || raw_seal(dir, &trees))?;
            let mut records = records(db, trees, seal)?;
            records.migrate(&changes, layout.schema)?;
            guarded(dir, || check(dir, &records.trees))?;
            tracing::info!(store = %dir.display(), from = found, to = layout.schema, copy = %copy.display(),
                "the store was migrated; the copy is for the older version, and may be deleted");
            records
        }
        None => return Err(Error::damaged(dir, "its contents are gone: it is not what was written")),
    };
    records.mark = Some(Mark::make(dir, records.seal.commits).map_err(failed)?);
    records.reserve.keep(&records.file);
    Ok(Opened { records, is_new: !was_made })
}

/// sled panics at some damages; here they become errors like the others.
fn guarded<T>(dir: &Path, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::damaged(dir, "sled cannot make sense of it")))
}

fn snapshots(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(dir).map_err(|error| Error::failed("opening", dir, error))?;
    let paths = entries.filter_map(|entry| entry.ok().map(|e| e.path()));
    let is_snapshot = |path: &PathBuf| {
        path.file_name().and_then(|n| n.to_str()).is_some_and(|name| name.starts_with("snap."))
    };
    Ok(paths.filter(is_snapshot).collect())
}

/// Sets snapshots aside, in place of those from before; says how many.
fn quarantine(dir: &Path) -> Result<usize, Error> {
    let failed = |error: io::Error| Error::failed("opening", dir, error);
    let snapshots = snapshots(dir)?;
    if snapshots.is_empty() {
        return Ok(0);
    }
    let aside = dir.join(QUARANTINE);
    if aside.exists() {
        fs::remove_dir_all(&aside).map_err(failed)?;
    }
    make_private(&aside).map_err(failed)?;
    for path in &snapshots {
        let name = path.file_name().unwrap_or_default();
        fs::rename(path, aside.join(name)).map_err(failed)?;
    }
    Ok(snapshots.len())
}

fn start(dir: &Path, layout: &Layout, options: Options) -> Result<(sled::Db, Vec<sled::Tree>), Error> {
    let error = |error| Error::from_sled("opening", dir, &error);
    let db = sled::Config::new()
        .path(dir)
        .cache_capacity(options.cache_bytes)
        .flush_every_ms(Some(FLUSH_EVERY_MS))
        .open()
        .map_err(error)?;
    let trees =
        layout.trees.iter().map(|name| db.open_tree(name)).collect::<Result<_, _>>().map_err(error)?;
    Ok((db, trees))
}

/// Opens a database; one that this process closed just now gives its lock back a little later.
fn reopen(
    dir: &Path,
    layout: &Layout,
    options: Options,
    is_first: bool,
) -> Result<(sled::Db, Vec<sled::Tree>), Error> {
    let began = Instant::now();
    loop {
        match start(dir, layout, options) {
            Err(Error::Locked { .. }) if !is_first && began.elapsed() < CLOSES_WITHIN => {
                std::thread::sleep(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}

/// Makes an empty store beside its place, and gives it its name when it is whole and durable. sled syncs neither its
/// configuration nor a directory: where the power goes before that, there would be something that cannot be opened.
fn make(dir: &Path, layout: &Layout, options: Options) -> Result<(), Error> {
    let failed = |error: io::Error| Error::failed("making", dir, error);
    let mut new = dir.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    if new.exists() {
        fs::remove_dir_all(&new).map_err(failed)?;
    }
    make_private(&new).map_err(failed)?;
    let (db, trees) = guarded(&new, || start(&new, layout, options))?;
    let mut records = Records::new(&new, db, trees, Seal::default(), options)?;
    records.migrate(&[], layout.schema)?;
    File::open(new.join("conf")).and_then(|conf| conf.sync_all()).map_err(failed)?;
    Mark::make(&new, records.seal.commits).map_err(failed)?;
    drop(records);
    // An empty directory may stand there already.
    fs::rename(&new, dir).map_err(failed)?;
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)
}

/// The schema of what is there; `None`: nothing is.
fn schema(dir: &Path, layout: &Layout, trees: &[sled::Tree]) -> Result<Option<u32>, Error> {
    let Some(meta) = trees.get(META.0) else { return Ok(None) };
    if let Some(early) = (layout.early_schema)(&Raw { trees }) {
        return Ok(Some(early));
    }
    let error = |error: value::ValueError| error.at("opening", dir);
    let json = value::get(meta, SCHEMA_VERSION).map_err(error)?;
    json.map(|json| value::parse(SCHEMA_VERSION, &json)).transpose().map_err(error)
}

/// Reads every record, and holds all of them together to the seal.
fn check(dir: &Path, trees: &[sled::Tree]) -> Result<Seal, Error> {
    let error = |error: value::ValueError| error.at("opening", dir);
    let mut seen = Seal::default();
    let mut sealed = None;
    for (number, tree) in trees.iter().enumerate() {
        let is_seal = |key: &[u8]| number == META.0 && key.starts_with(SEAL);
        let piece = |key: &[u8], value: &[u8]| {
            if !is_seal(key) {
                seen.add(number, key, value);
            }
        };
        let record = |key: &[u8], json: Vec<u8>| {
            if is_seal(key) {
                sealed = Some(value::parse::<Seal>(key, &json)?);
            }
            Ok(())
        };
        value::scan(tree, piece, record).map_err(error)?;
    }
    let Some(sealed) = sealed else { return Err(Error::damaged(dir, "its seal is gone")) };
    if seen.pieces != sealed.pieces {
        let what = format!("it holds {} pieces of records where {} were written", seen.pieces, sealed.pieces);
        return Err(Error::damaged(dir, what));
    }
    if seen.sum != sealed.sum {
        return Err(Error::damaged(dir, "its records are not all from the last commit"));
    }
    Ok(sealed)
}

/// Count and sum of what is stored, whatever it is; compared with the seal where there is one.
fn raw_seal(dir: &Path, trees: &[sled::Tree]) -> Result<Seal, Error> {
    let mut seen = Seal::default();
    let mut has_seal = false;
    for (number, tree) in trees.iter().enumerate() {
        for entry in tree {
            let (key, value) = entry.map_err(|error| Error::from_sled("opening", dir, &error))?;
            if number == META.0 && key.starts_with(SEAL) {
                has_seal = true;
            } else {
                seen.add(number, &key, &value);
            }
        }
    }
    if has_seal { check(dir, trees) } else { Ok(seen) }
}

//! Backup and restore of a controller that does not run. One that runs is exported over its API (`GET /api/v1/admin/export`).

use std::path::{Path, PathBuf};

use tokio::sync::mpsc;

use crate::data_dir::{DataDir, DataDirError};
use crate::os;
use crate::run::{RunError, STORE_DIR, open_store};
use crate::settings::{Settings, StoreKind};
use crate::store::{self, MAX_WAITING_CHUNKS, Sled, Store, StoreError};

pub use crate::store::{Check, Counts, ExportSummary, check_file};

/// Where an import is filled, beside the store whose place it takes when it is whole.
const IMPORT_DIR: &str = "store.import";

/// Why an import did not happen; nothing that was there is touched.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file, the directory's lock or its store.
    #[error(transparent)]
    Run(#[from] RunError),
    /// There is something already.
    #[error(
        "the data directory {} holds something (rules: {rules}, edges: {edges}, placements: {placements}), and an import replaces nothing; \
         choose an empty directory (--data-dir), or move {} away", .dir.display(), .dir.join(STORE_DIR).display()
    )]
    NotEmpty {
        /// The data directory.
        dir: PathBuf,
        /// Rules in it.
        rules: usize,
        /// Edges in it.
        edges: usize,
        /// Placements in it.
        placements: usize,
    },
    /// The settings say that the store is in memory.
    #[error(
        "an import is kept on disk, but the settings say store = \"memory\"; leave that out (--data-dir DIR)"
    )]
    InMemory,
    /// The filled store cannot take its place.
    #[error("putting the imported store into {} failed: {why}; nothing was imported", .dir.display())]
    InPlace {
        /// The data directory.
        dir: PathBuf,
        /// Why.
        why: String,
    },
}

impl From<StoreError> for ImportError {
    fn from(error: StoreError) -> Self {
        Self::Run(error.into())
    }
}

impl From<DataDirError> for ImportError {
    fn from(error: DataDirError) -> Self {
        Self::Run(error.into())
    }
}

/// Gives everything that the controller of these settings holds, in pieces of the file, to `take`.
///
/// # Errors
/// [`RunError`]: the data directory is missing, in use or cannot be read.
pub async fn export<E>(
    settings: &Settings,
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<Result<(), E>, RunError> {
    if !settings.data_dir.join(STORE_DIR).exists() {
        return Err(RunError::NoStore { dir: settings.data_dir.clone() });
    }
    let dir = DataDir::open(&settings.data_dir)?;
    let store = open_store(settings, &dir).await?;
    let frozen = store::frozen(store.load().await?);
    let (chunks, mut coming) = mpsc::channel::<Vec<u8>>(MAX_WAITING_CHUNKS);
    let taking = async {
        while let Some(chunk) = coming.recv().await {
            if let Err(error) = take(&chunk) {
                // The exporter notices that nobody takes any more.
                coming.close();
                return Err(error);
            }
        }
        Ok(())
    };
    let (exported, taken) =
        tokio::join!(store::export(frozen, &*store, store::nothing_new(), chunks), taking);
    match taken {
        Ok(()) => exported.map(Ok).map_err(RunError::from),
        Err(error) => Ok(Err(error)),
    }
}

/// Fills the data directory of these settings from a file that an export made: all of it or nothing. Edges that went on
/// since then are noticed at their next hello (`CLOUD_BEHIND`).
///
/// # Errors
/// [`ImportError`]: the file is not whole, the data directory is in use or holds something, or the disk refused.
pub async fn import(settings: &Settings, file: &Path) -> Result<ExportSummary, ImportError> {
    if settings.store == StoreKind::Memory {
        return Err(ImportError::InMemory);
    }
    let checked = check_file(file).await?;
    let dir = DataDir::open(&settings.data_dir)?;
    let (place, part) = (dir.join(STORE_DIR), dir.join(IMPORT_DIR));
    let in_place = |error: std::io::Error| ImportError::InPlace {
        dir: settings.data_dir.clone(),
        why: os::plain(&error),
    };
    if place.exists() {
        let there = Sled::open(place.clone(), settings.cache_mib).await?.load().await?;
        let (rules, edges, placements) = (there.rules.len(), there.edges.len(), there.placements.len());
        if rules + edges + placements > 0 {
            return Err(ImportError::NotEmpty { dir: settings.data_dir.clone(), rules, edges, placements });
        }
    }
    remove(&part).map_err(in_place)?;
    let filled = {
        let store = Sled::open(part.clone(), settings.cache_mib).await?;
        store::fill(&store, file).await
    };
    if !matches!(&filled, Ok(summary) if *summary == checked) {
        // Best effort: the next import removes it too.
        let _ = remove(&part);
        filled?;
        return Err(StoreError::Transfer {
            file: file.to_owned(),
            why: "it changed while it was read; take it again".to_owned(),
        }
        .into());
    }
    remove(&place).map_err(in_place)?;
    std::fs::rename(&part, &place).map_err(in_place)?;
    std::fs::File::open(&settings.data_dir).and_then(|dir| dir.sync_all()).map_err(in_place)?;
    Ok(checked)
}

/// Removes a directory, if it is there.
fn remove(dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;

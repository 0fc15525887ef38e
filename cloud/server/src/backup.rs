//! Export and import of a controller that does not run: the way to back up, to move, and back from a damaged store.

use std::path::PathBuf;

use crate::data_dir::DataDir;
use crate::run::{RunError, open_store};
use crate::settings::Settings;
use crate::store::{ExportSummary, Store, export_to, import_from};

/// Writes everything that the controller of these settings holds to a new file (mode 0600: it holds the rules' passwords).
///
/// # Errors
/// [`RunError`]: the data directory is in use or cannot be read, or the file exists or cannot be written.
pub async fn export(settings: &Settings, file: PathBuf) -> Result<ExportSummary, RunError> {
    let dir = DataDir::open(&settings.data_dir)?;
    let store = open_store(settings, &dir).await?;
    Ok(export_to(&*store as &dyn Store, file).await?)
}

/// Fills the empty store of these settings from a file that [`export`] wrote. Edges that went on since then are noticed at
/// their next hello (`CLOUD_BEHIND`).
///
/// # Errors
/// [`RunError`]: the data directory is in use, the store is not empty, or the file is not whole.
pub async fn import(settings: &Settings, file: PathBuf) -> Result<ExportSummary, RunError> {
    let dir = DataDir::open(&settings.data_dir)?;
    let store = open_store(settings, &dir).await?;
    Ok(import_from(&*store as &dyn Store, file).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_exported_fills_an_empty_controller_and_no_other() {
        let tmp = tempfile::tempdir().unwrap();
        let at = |name: &str| Settings::with_data_dir(tmp.path().join(name));
        let file = tmp.path().join("backup.jsonl");
        let out = export(&at("one"), file.clone()).await.unwrap();
        assert_eq!(import(&at("two"), file.clone()).await.unwrap().sha256, out.sha256);
        let again = export(&at("one"), file.clone()).await.unwrap_err().to_string();
        assert!(again.contains("backup.jsonl"), "{again}");
        let _in_use = DataDir::open(&at("one").data_dir).unwrap();
        let locked = export(&at("one"), tmp.path().join("other")).await.unwrap_err().to_string();
        assert!(locked.contains("in use"), "{locked}");
    }
}

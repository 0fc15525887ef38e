//! Everything in one file: a line of JSON per record, and a last line with counts and a SHA-256 over all lines before.
//!
//! Backup, compaction and moving to another store are all this. The file holds the rules' passwords: it is written with
//! mode 0600. An import is checked as a whole before its first record is written, and needs an empty store.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tidegate_cloud_core::{EdgeRecord, Meta, PlacementRecord, RuleRecord, VersionRecord, Write};

use super::{MAX_PAGE, Store, StoreError};

/// Version of the file's format.
const FORMAT: u32 = 1;
/// Longest line, in bytes.
const MAX_LINE_BYTES: u64 = 4 * 1024 * 1024;
/// Records of an import that are written at once.
const IMPORT_BATCH: usize = 100;

/// How many records of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Rules.
    pub rules: u64,
    /// Versions of rules.
    pub versions: u64,
    /// Edges.
    pub edges: u64,
    /// Placements.
    pub placements: u64,
}

/// What was exported or imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportSummary {
    /// How many records.
    pub counts: Counts,
    /// SHA-256 of all lines but the last, in hexadecimal digits.
    pub sha256: String,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line {
    Header { format: u32 },
    Meta { record: Meta },
    Rule { record: Box<RuleRecord> },
    Version { record: Box<VersionRecord> },
    Edge { record: Box<EdgeRecord> },
    Placement { record: Box<PlacementRecord> },
    End { summary: ExportSummary },
}

impl Line {
    fn count(&self, counts: &mut Counts) {
        match self {
            Self::Rule { .. } => counts.rules += 1,
            Self::Version { .. } => counts.versions += 1,
            Self::Edge { .. } => counts.edges += 1,
            Self::Placement { .. } => counts.placements += 1,
            Self::Header { .. } | Self::Meta { .. } | Self::End { .. } => {}
        }
    }

    fn write(self) -> Option<Write> {
        match self {
            Self::Meta { record } => Some(Write::PutMeta(record)),
            Self::Rule { record } => Some(Write::PutRule { record, expect: None }),
            Self::Version { record } => Some(Write::PutVersion(record)),
            Self::Edge { record } => Some(Write::PutEdge(record)),
            Self::Placement { record } => Some(Write::PutPlacement(record)),
            Self::Header { .. } | Self::End { .. } => None,
        }
    }
}

fn failed(doing: &'static str, file: &Path) -> impl Fn(String) -> StoreError + Clone + use<> {
    let file = file.to_owned();
    move |why| StoreError::Transfer { doing, file: file.clone(), why }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}

struct Exporter {
    out: BufWriter<File>,
    hash: Sha256,
    counts: Counts,
}

impl Exporter {
    fn create(file: &Path) -> Result<Self, String> {
        let out =
            File::options().write(true).create_new(true).mode(0o600).open(file).map_err(|e| e.to_string())?;
        Ok(Self { out: BufWriter::new(out), hash: Sha256::new(), counts: Counts::default() })
    }

    fn line(&mut self, line: &Line) -> Result<(), String> {
        let mut text = serde_json::to_vec(line).map_err(|e| e.to_string())?;
        text.push(b'\n');
        self.hash.update(&text);
        line.count(&mut self.counts);
        self.out.write_all(&text).map_err(|e| e.to_string())
    }

    fn finish(mut self) -> Result<ExportSummary, String> {
        let summary = ExportSummary { counts: self.counts, sha256: hex(&self.hash.finalize()) };
        let end = Line::End { summary: summary.clone() };
        serde_json::to_writer(&mut self.out, &end).map_err(|e| e.to_string())?;
        self.out.write_all(b"\n").map_err(|e| e.to_string())?;
        let file = self.out.into_inner().map_err(|e| e.to_string())?;
        file.sync_all().map_err(|e| e.to_string())?;
        Ok(summary)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes everything that the store holds to a new file.
///
/// # Errors
/// [`StoreError::Transfer`] if the file exists or cannot be written; or the store's own errors.
pub async fn export_to(store: &dyn Store, file: PathBuf) -> Result<ExportSummary, StoreError> {
    let failed = failed("exporting to", &file);
    let snapshot = store.load().await?;
    let mut exporter = blocking(move || {
        let mut exporter = Exporter::create(&file)?;
        exporter.line(&Line::Header { format: FORMAT })?;
        exporter.line(&Line::Meta { record: snapshot.meta })?;
        for record in snapshot.rules {
            exporter.line(&Line::Rule { record: Box::new(record) })?;
        }
        for record in snapshot.edges {
            exporter.line(&Line::Edge { record: Box::new(record) })?;
        }
        for record in snapshot.placements {
            exporter.line(&Line::Placement { record: Box::new(record) })?;
        }
        Ok(exporter)
    })
    .await
    .map_err(failed.clone())?;
    let mut after = None;
    loop {
        let page = store.all_versions(after, MAX_PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some((last.rule, last.version));
        exporter = blocking(move || {
            page.into_iter()
                .try_for_each(|record| exporter.line(&Line::Version { record: Box::new(record) }))?;
            Ok(exporter)
        })
        .await
        .map_err(failed.clone())?;
    }
    blocking(move || exporter.finish()).await.map_err(failed)
}

/// Reads lines until the last one; gives each record to `take`.
fn read(file: &Path, mut take: impl FnMut(Line) -> Result<(), String>) -> Result<ExportSummary, String> {
    let mut input = BufReader::new(File::open(file).map_err(|e| e.to_string())?);
    let (mut hash, mut counts, mut number) = (Sha256::new(), Counts::default(), 0_u64);
    loop {
        let mut text = Vec::new();
        number += 1;
        (&mut input).take(MAX_LINE_BYTES).read_until(b'\n', &mut text).map_err(|e| e.to_string())?;
        if text.last() != Some(&b'\n') {
            return Err(format!(
                "line {number}: the file ends before its last line, or the line is too long"
            ));
        }
        // What the reader says may quote a password.
        let line: Line = serde_json::from_slice(&text).map_err(|e| {
            format!("line {number}: it is not a record of this format (column {})", e.column())
        })?;
        match line {
            Line::Header { format } if format != FORMAT => {
                return Err(format!("it has format {format}, this version reads {FORMAT}"));
            }
            Line::End { summary } => {
                if summary.counts != counts || summary.sha256 != hex(&hash.finalize()) {
                    return Err(
                        "its counts or its SHA-256 do not fit its contents; it was changed or cut".to_owned()
                    );
                }
                return Ok(summary);
            }
            line @ (Line::Header { .. }
            | Line::Meta { .. }
            | Line::Rule { .. }
            | Line::Version { .. }
            | Line::Edge { .. }
            | Line::Placement { .. }) => {
                if number == 1 && !matches!(line, Line::Header { .. }) {
                    return Err("it does not begin with a header".to_owned());
                }
                hash.update(&text);
                line.count(&mut counts);
                take(line)?;
            }
        }
    }
}

/// Fills an empty store from a file that [`export_to`] wrote.
///
/// # Errors
/// [`StoreError::Transfer`]: the store is not empty, or the file is not whole; nothing was written then. Or the store's own
/// errors: then the store is partly filled, and its directory has to be removed before the next try.
pub async fn import_from(store: &dyn Store, file: PathBuf) -> Result<ExportSummary, StoreError> {
    let failed = failed("importing", &file);
    let there = store.load().await?;
    if !(there.rules.is_empty() && there.edges.is_empty() && there.placements.is_empty()) {
        return Err(failed("the store is not empty".to_owned()));
    }
    let checked = file.clone();
    blocking(move || read(&checked, |_| Ok(()))).await.map_err(failed.clone())?;
    let (sender, mut batches) = tokio::sync::mpsc::channel::<Vec<Write>>(2);
    let reading = tokio::task::spawn_blocking(move || {
        let mut batch = Vec::new();
        let gone = || "the store stopped taking records".to_owned();
        let summary = read(&file, |line| {
            batch.extend(line.write());
            if batch.len() >= IMPORT_BATCH {
                sender.blocking_send(std::mem::take(&mut batch)).map_err(|_| gone())?;
            }
            Ok(())
        })?;
        sender.blocking_send(batch).map_err(|_| gone())?;
        Ok(summary)
    });
    while let Some(batch) = batches.recv().await {
        store.apply(batch).await?;
    }
    reading.await.unwrap_or_else(|error| Err(error.to_string())).map_err(failed)
}

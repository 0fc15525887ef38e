//! Everything in one file: a line of JSON per record, and a last line with counts and a SHA-256 over all lines before.
//!
//! Owns the format and the writing of it; `import` reads it. Backup, compaction and moving to another store are all this.
//! The file holds the rules' passwords: who keeps it, keeps it to themselves (mode 0600).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tidegate_cloud_core::{
    EdgeRecord, Frozen, Meta, PlacementRecord, RuleRecord, Snapshot, VersionRecord, Write,
};
use tidegate_model::ids::RuleId;
use tidegate_model::version::RuleVersion;
use tokio::sync::mpsc;

use super::{MAX_PAGE, Pending, Store, StoreError};

/// Version of the file's format. In format 1 a placement holds each rendered rule as often as it names it.
pub(super) const FORMAT: u32 = 2;
/// Bytes of lines that go to the receiver together, about.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks that may wait for their receiver; the export waits with the next one.
pub(crate) const MAX_WAITING_CHUNKS: usize = 4;

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

/// One line of the file.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Line<'a> {
    Header { format: u32 },
    Meta { record: Meta },
    Rule { record: Cow<'a, RuleRecord> },
    Version { record: Cow<'a, VersionRecord> },
    Edge { record: Cow<'a, EdgeRecord> },
    Placement { record: Cow<'a, PlacementRecord> },
    End { summary: ExportSummary },
}

impl Line<'_> {
    pub(super) fn count(&self, counts: &mut Counts) {
        match self {
            Self::Rule { .. } => counts.rules += 1,
            Self::Version { .. } => counts.versions += 1,
            Self::Edge { .. } => counts.edges += 1,
            Self::Placement { .. } => counts.placements += 1,
            Self::Header { .. } | Self::Meta { .. } | Self::End { .. } => {}
        }
    }

    pub(super) fn write(self) -> Option<Write> {
        match self {
            Self::Meta { record } => Some(Write::PutMeta(record)),
            Self::Rule { record } => {
                Some(Write::PutRule { record: Box::new(record.into_owned()), expect: None })
            }
            Self::Version { record } => Some(Write::PutVersion(Box::new(record.into_owned()))),
            Self::Edge { record } => Some(Write::PutEdge(Arc::new(record.into_owned()))),
            Self::Placement { record } => Some(Write::PutPlacement(Arc::new(record.into_owned()))),
            Self::Header { .. } | Self::End { .. } => None,
        }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes lines, and counts and hashes them.
struct Exporter {
    chunks: mpsc::Sender<Vec<u8>>,
    chunk: Vec<u8>,
    hash: Sha256,
    counts: Counts,
}

impl Exporter {
    async fn line(&mut self, line: &Line<'_>) -> Result<(), StoreError> {
        let from = self.chunk.len();
        serde_json::to_writer(&mut self.chunk, line)
            .map_err(|error| StoreError::Export { why: error.to_string() })?;
        self.chunk.push(b'\n');
        self.hash.update(&self.chunk[from..]);
        line.count(&mut self.counts);
        if self.chunk.len() >= CHUNK_BYTES { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), StoreError> {
        let chunk = std::mem::take(&mut self.chunk);
        self.chunks
            .send(chunk)
            .await
            .map_err(|_| StoreError::Export { why: "its receiver went away".to_owned() })
    }

    async fn finish(mut self) -> Result<(), StoreError> {
        let summary = ExportSummary { counts: self.counts, sha256: hex(&self.hash.clone().finalize()) };
        self.line(&Line::End { summary }).await?;
        self.flush().await
    }
}

/// Tells whether a rule is there now. A running controller is asked for rules that it did not have when it was frozen:
/// those that it has by now were made later and are left out; the others were deleted before, and their versions stay.
pub(crate) type IsThere = Box<dyn Fn(RuleId) -> Pending<'static, bool> + Send + Sync>;

/// Sends the whole export in chunks: the records as they were frozen, then the versions of the store that were there then.
/// Memory: what is frozen, one page of versions and [`MAX_WAITING_CHUNKS`] chunks.
///
/// # Errors
/// The store's own errors, or [`StoreError::Export`]: the receiver went away.
pub(crate) async fn export(
    frozen: Frozen,
    store: &dyn Store,
    is_there: IsThere,
    chunks: mpsc::Sender<Vec<u8>>,
) -> Result<(), StoreError> {
    let mut exporter = Exporter { chunks, chunk: Vec::new(), hash: Sha256::new(), counts: Counts::default() };
    exporter.line(&Line::Header { format: FORMAT }).await?;
    exporter.line(&Line::Meta { record: frozen.meta }).await?;
    let highest: BTreeMap<RuleId, RuleVersion> = frozen.rules.iter().map(|r| (r.id, r.version)).collect();
    for record in frozen.rules {
        exporter.line(&Line::Rule { record: Cow::Borrowed(&record) }).await?;
    }
    for record in frozen.edges {
        exporter.line(&Line::Edge { record: Cow::Borrowed(&record) }).await?;
    }
    for record in frozen.placements {
        exporter.line(&Line::Placement { record: Cow::Borrowed(&record) }).await?;
    }
    let mut after = None;
    // The rule that was asked after last, and whether its versions are left out: they come rule by rule.
    let mut asked: Option<(RuleId, bool)> = None;
    loop {
        let page = store.all_versions(after, MAX_PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some((last.rule, last.version));
        for record in page {
            let later = match (highest.get(&record.rule), asked) {
                (Some(highest), _) => record.version > *highest,
                (None, Some((rule, later))) if rule == record.rule => later,
                (None, _) => {
                    let later = is_there(record.rule).await?;
                    asked = Some((record.rule, later));
                    later
                }
            };
            if !later {
                exporter.line(&Line::Version { record: Cow::Owned(record) }).await?;
            }
        }
    }
    exporter.finish().await
}

/// What a store holds, for an export of a controller that does not run.
pub(crate) fn frozen(snapshot: Snapshot) -> Frozen {
    // Kept answers hold for a day and for the callers of this controller: they are no part of a backup.
    let Snapshot { meta, rules, edges, placements, answers: _ } = snapshot;
    Frozen {
        meta,
        rules: rules.into_iter().map(Arc::new).collect(),
        edges: edges.into_iter().map(Arc::new).collect(),
        placements: placements.into_iter().map(Arc::new).collect(),
    }
}

/// For a controller that does not run: nothing is made while it is exported.
pub(crate) fn nothing_new() -> IsThere {
    Box::new(|_| Box::pin(std::future::ready(Ok(false))))
}

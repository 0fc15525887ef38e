//! The one thread that writes.

use std::path::Path;

use tidegate_edge_core::Write;
use tidegate_records::{Change, META, Records};
use tokio::sync::mpsc;

use super::{Batch, META_KEY, RULES, StoreError, TOMBSTONES};

/// Batches that become one transaction at the most.
const MAX_BATCHES_PER_COMMIT: usize = 256;

/// Commits batches until the store is closed or fails.
pub(super) fn run(dir: &Path, mut records: Records, mut waiting: mpsc::Receiver<Batch>) {
    while let Some(first) = waiting.blocking_recv() {
        let mut batches = vec![first];
        while batches.len() < MAX_BATCHES_PER_COMMIT
            && let Ok(batch) = waiting.try_recv()
        {
            batches.push(batch);
        }
        let changes: Result<Vec<Change>, String> =
            batches.iter().flat_map(|batch| &batch.writes).map(change).collect();
        let result = match changes {
            Ok(changes) => records.commit(&changes).map_err(|error| StoreError::from_disk(dir, error)),
            Err(why) => Err(StoreError::Write(why)),
        };
        for batch in batches {
            // Nobody waits any more when the agent's loop has ended.
            let _ = batch.done.send(result.clone());
        }
        if result.is_err() {
            return;
        }
    }
}

/// What a write of the core is on disk.
fn change(write: &Write) -> Result<Change, String> {
    match write {
        Write::Meta(meta) => Change::put(META, META_KEY.to_vec(), meta),
        Write::Rule(record) => Change::put(RULES, record.rule.0.as_bytes().to_vec(), record),
        Write::ForgetRule(rule) => Ok(Change::remove(RULES, rule.0.as_bytes().to_vec())),
        Write::Tombstone(stone) => Change::put(TOMBSTONES, stone.rule.0.as_bytes().to_vec(), stone),
        Write::ForgetTombstone(rule) => Ok(Change::remove(TOMBSTONES, rule.0.as_bytes().to_vec())),
    }
}

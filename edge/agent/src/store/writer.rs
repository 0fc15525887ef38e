//! The one thread that writes.

use std::fs::File;

use sled::transaction::{ConflictableTransactionError, TransactionError, Transactional, TransactionalTree};
use tidegate_edge_core::Write;
use tidegate_model::ids::RuleId;
use tokio::sync::mpsc;

use super::value::{encode, siblings};
use super::{Batch, StoreError};

/// Batches that become one transaction at the most.
const MAX_BATCHES_PER_COMMIT: usize = 256;
/// Key of the one value of the tree `meta`.
pub(super) const META_KEY: &[u8] = b"meta";

/// The open database.
pub(super) struct Trees {
    pub db: sled::Db,
    pub meta: sled::Tree,
    pub rules: sled::Tree,
    pub tombstones: sled::Tree,
    /// sled's own file, for the sync that sled does not do.
    pub file: File,
}

/// Commits batches until the store is closed or fails.
pub(super) fn run(trees: &Trees, mut waiting: mpsc::Receiver<Batch>) {
    while let Some(first) = waiting.blocking_recv() {
        let mut batches = vec![first];
        while batches.len() < MAX_BATCHES_PER_COMMIT
            && let Ok(batch) = waiting.try_recv()
        {
            batches.push(batch);
        }
        let result = commit(trees, &batches);
        for batch in batches {
            // Nobody waits any more when the agent's loop has ended.
            let _ = batch.done.send(result.clone());
        }
        if result.is_err() {
            return;
        }
    }
    if let Err(error) = sync(trees) {
        tracing::error!(%error, "the store was closed without a last sync");
    }
}

fn commit(trees: &Trees, batches: &[Batch]) -> Result<(), StoreError> {
    let writes = || batches.iter().flat_map(|batch| &batch.writes);
    (&trees.meta, &trees.rules, &trees.tombstones)
        .transaction(|(meta, rules, tombstones)| {
            for write in writes() {
                match write {
                    Write::Meta(value) => put(meta, META_KEY, &encode(value))?,
                    Write::Rule(record) => put(rules, record.rule.0.as_bytes(), &encode(record))?,
                    Write::ForgetRule(RuleId(rule)) => put(rules, rule.as_bytes(), &[])?,
                    Write::Tombstone(stone) => put(tombstones, stone.rule.0.as_bytes(), &encode(stone))?,
                    Write::ForgetTombstone(RuleId(rule)) => put(tombstones, rule.as_bytes(), &[])?,
                }
            }
            Ok::<(), ConflictableTransactionError<std::convert::Infallible>>(())
        })
        .map_err(|error| match error {
            TransactionError::Abort(never) => match never {},
            TransactionError::Storage(error) => StoreError::Write(error.to_string()),
        })?;
    sync(trees)
}

fn sync(trees: &Trees) -> Result<(), StoreError> {
    trees.db.flush().map_err(|e| StoreError::Write(e.to_string()))?;
    trees.file.sync_data().map_err(|e| StoreError::Write(e.to_string()))
}

/// Replaces the chunks of a value; no chunks remove it.
fn put(
    tree: &TransactionalTree,
    key: &[u8],
    chunks: &[Vec<u8>],
) -> Result<(), ConflictableTransactionError<std::convert::Infallible>> {
    let before = tree.get(chunk_key(key, 0))?.and_then(|chunk| siblings(&chunk).ok()).unwrap_or(0);
    let mut number = 0;
    for chunk in chunks {
        tree.insert(chunk_key(key, number), chunk.as_slice())?;
        number += 1;
    }
    for surplus in number..before {
        tree.remove(chunk_key(key, surplus))?;
    }
    Ok(())
}

/// The key of one chunk: fixed width, so that the chunks of a value stand together in order.
pub(super) fn chunk_key(key: &[u8], number: u16) -> Vec<u8> {
    let mut out = key.to_vec();
    out.extend_from_slice(&number.to_be_bytes());
    out
}

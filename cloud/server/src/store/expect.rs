//! Preconditions of writes, as data.

use std::collections::BTreeMap;

use tidegate_cloud_core::Write;
use tidegate_model::ids::RuleId;
use tidegate_model::version::RuleVersion;

use super::StoreError;

/// Checks the preconditions of a batch in its order: each write sees those before it. `stored` tells the version that the
/// store holds. Returns the versions after the batch, of the rules that it writes.
pub(super) fn check<E: From<StoreError>>(
    writes: &[Write],
    mut stored: impl FnMut(RuleId) -> Result<Option<RuleVersion>, E>,
) -> Result<BTreeMap<RuleId, Option<RuleVersion>>, E> {
    let mut written: BTreeMap<RuleId, Option<RuleVersion>> = BTreeMap::new();
    for write in writes {
        match write {
            Write::PutRule { record, expect } => {
                let found = match written.get(&record.id) {
                    Some(version) => *version,
                    None => stored(record.id)?,
                };
                if found != *expect {
                    return Err(StoreError::Conflict { rule: record.id, expected: *expect, found }.into());
                }
                written.insert(record.id, Some(record.version));
            }
            Write::RemoveRule(id) => {
                written.insert(*id, None);
            }
            Write::PutMeta(_)
            | Write::PutVersion(_)
            | Write::PutEdge(_)
            | Write::RemoveEdge(_)
            | Write::PutPlacement(_)
            | Write::RemovePlacement { .. }
            | Write::PutAnswer(_)
            | Write::RemoveAnswer(_) => {}
        }
    }
    Ok(written)
}

//! What differs between two versions of a rule: field by field, and line by line. No password, only whether it changed.

use serde::Serialize;
use serde_json::Value;
use similar::TextDiff;
use tidegate_cloud_core::VersionRecord;
use tidegate_model::ids::RuleName;
use utoipa::ToSchema;

/// Lines of the file around each change.
const CONTEXT_LINES: usize = 3;

/// What differs between two versions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Diff {
    /// The rule.
    pub(super) rule: RuleName,
    /// The older version.
    pub(super) from: u64,
    /// The newer version.
    pub(super) to: u64,
    /// The fields that differ.
    pub(super) changes: Vec<Change>,
    /// The two files as a unified diff; empty where they are the same.
    pub(super) unified: String,
}

/// A field that differs.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Change {
    /// Where it stands.
    pointer: String,
    /// What became of it.
    op: Op,
    /// Its value before; passwords have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Value)]
    from: Option<Value>,
    /// Its value since; passwords have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Value)]
    to: Option<Value>,
}

/// What became of a field.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Op {
    Added,
    Changed,
    Removed,
}

/// The fields that differ, by JSON pointer.
pub(super) fn changes(old: &VersionRecord, new: &VersionRecord) -> Vec<Change> {
    let mut changes = Vec::new();
    compare(&mut changes, String::new(), Some(&old.shown()), Some(&new.shown()));
    let (before, after) = (old.secrets(), new.secrets());
    for (pointer, before, after) in
        [("/remote/password", before.password, after.password), ("/remote/tls/key", before.key, after.key)]
    {
        if before.is_some() && after.is_some() && before != after {
            changes.push(Change { pointer: pointer.to_owned(), op: Op::Changed, from: None, to: None });
        }
    }
    changes
}

fn compare(changes: &mut Vec<Change>, pointer: String, old: Option<&Value>, new: Option<&Value>) {
    match (old, new) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let added = new.keys().filter(|key| !old.contains_key(*key));
            for key in old.keys().chain(added) {
                let escaped = key.replace('~', "~0").replace('/', "~1");
                compare(changes, format!("{pointer}/{escaped}"), old.get(key), new.get(key));
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            for index in 0..old.len().max(new.len()) {
                compare(changes, format!("{pointer}/{index}"), old.get(index), new.get(index));
            }
        }
        (Some(old), Some(new)) if old == new => {}
        (None, None) => {}
        (old, new) => {
            let op = match (old, new) {
                (Some(_), Some(_)) | (None, None) => Op::Changed,
                (Some(_), None) => Op::Removed,
                (None, Some(_)) => Op::Added,
            };
            changes.push(Change { pointer, op, from: old.cloned(), to: new.cloned() });
        }
    }
}

/// The two files as a unified diff; empty where they are the same.
pub(super) fn unified(old: &VersionRecord, new: &VersionRecord) -> String {
    let (before, after) = (old.content.canonical_toml(), new.content.canonical_toml());
    let header = |record: &VersionRecord| format!("{} {}", record.content.name(), record.version);
    TextDiff::from_lines(&before, &after)
        .unified_diff()
        .context_radius(CONTEXT_LINES)
        .header(&header(old), &header(new))
        .to_string()
}

//! What differs between two versions of a rule: field by field, and line by line. No password, only whether it changed.

use serde_json::{Value, json};
use similar::TextDiff;
use tidegate_cloud_core::VersionRecord;

/// Lines of the file around each change.
const CONTEXT_LINES: usize = 3;

/// The fields that differ, by JSON pointer.
pub(super) fn changes(old: &VersionRecord, new: &VersionRecord) -> Vec<Value> {
    let mut changes = Vec::new();
    let content = |record: &VersionRecord| record.content.to_json(record.secret.is_some());
    compare(&mut changes, String::new(), Some(&content(old)), Some(&content(new)));
    let secret = |record: &VersionRecord| record.secret.as_ref().map(|s| s.value.clone());
    if let (Some(before), Some(after)) = (secret(old), secret(new))
        && before != after
    {
        changes.push(json!({ "pointer": "/remote/password", "op": "changed" }));
    }
    changes
}

fn compare(changes: &mut Vec<Value>, pointer: String, old: Option<&Value>, new: Option<&Value>) {
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
        (Some(old), Some(new)) => {
            changes.push(json!({ "pointer": pointer, "op": "changed", "from": old, "to": new }));
        }
        (Some(old), None) => changes.push(json!({ "pointer": pointer, "op": "removed", "from": old })),
        (None, Some(new)) => changes.push(json!({ "pointer": pointer, "op": "added", "to": new })),
        (None, None) => {}
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

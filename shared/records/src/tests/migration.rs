//! From an older schema to the present one.

use super::*;

/// Schema 3 has other texts than schema 1: each step says what it changes of the store as it was found.
static LATER: Layout = Layout {
    trees: &["meta", "data", "more", "new"],
    schema: 3,
    steps: &[
        Step { to: 2, what: "in capitals", run: |raw| capitals(raw, DATA) },
        Step { to: 3, what: "the other tree too", run: |raw| capitals(raw, MORE) },
    ],
    early_schema: |_| None,
};

fn capitals(raw: &Raw<'_>, tree: Tree) -> Result<Vec<RawChange>, String> {
    let mut changes = Vec::new();
    for (key, value) in raw.entries(tree)? {
        let json: (String, String) =
            serde_json::from_slice(value.get(7..).unwrap_or_default()).map_err(|e| e.to_string())?;
        let key = &key[..key.len() - 2];
        let json = serde_json::to_vec(&(json.0, json.1.to_uppercase())).unwrap();
        changes.extend(pieces(tree, key, &json)?);
    }
    Ok(changes)
}

fn old_store(dir: &Path) -> Model {
    let mut model = Model::new();
    let changes =
        [put(&mut model, DATA, "a", "one".to_owned()), put(&mut model, MORE, "b", "two".to_owned())];
    opened(dir).commit(&changes).unwrap();
    model
}

#[test]
fn an_older_schema_is_copied_aside_and_migrated_step_by_step() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("store");
    let model = old_store(&dir);
    // A leftover of an attempt that was interrupted.
    std::fs::create_dir_all(tmp.path().join("store.schema-1.part/x")).unwrap();
    for _ in 0..2 {
        let records = open(&dir, &LATER, OPTIONS).unwrap().records;
        let found = contents(&records.reader()).unwrap();
        assert_eq!(found.values().collect::<Vec<_>>(), ["ONE", "TWO"]);
    }
    // The older version refuses the new store, and goes on with the copy.
    let error = open(&dir, &LAYOUT, OPTIONS).unwrap_err();
    assert_eq!(error, Error::TooNew { dir: dir.clone(), found: 3, known: 1 });
    assert_eq!(contents(&opened(&tmp.path().join("store.schema-1")).reader()).unwrap(), model);
    assert!(!tmp.path().join("store.schema-1.part").exists());
}

#[test]
fn a_migration_that_cannot_be_done_leaves_the_old_store() {
    static IMPOSSIBLE: Layout = Layout {
        trees: &["meta", "data", "more"],
        schema: 2,
        steps: &[Step { to: 2, what: "impossible", run: |_| Err("a part of a value is missing".to_owned()) }],
        early_schema: |_| None,
    };
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("store");
    let model = old_store(&dir);
    let error = open(&dir, &IMPOSSIBLE, OPTIONS).unwrap_err().to_string();
    assert!(error.contains("as schema 1: a part of a value is missing"), "{error}");
    // No room for the copy: a file stands where it should go, and cannot be removed as a directory.
    std::fs::remove_dir_all(tmp.path().join("store.schema-1")).unwrap();
    std::fs::write(tmp.path().join("store.schema-1.part"), "").unwrap();
    let error = open(&dir, &LATER, OPTIONS).unwrap_err();
    assert!(matches!(&error, Error::Failed { doing: "migrating", .. }), "{error}");
    assert!(error.to_string().contains("it was not changed"), "{error}");
    assert_eq!(contents(&opened(&dir).reader()).unwrap(), model);
}

#[test]
fn a_schema_without_a_way_from_it_is_damage() {
    static GAP: Layout = Layout {
        trees: &["meta", "data", "more"],
        schema: 3,
        steps: &[Step { to: 3, what: "", run: |_| Ok(Vec::new()) }],
        early_schema: |_| None,
    };
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("store");
    old_store(&dir);
    assert!(matches!(open(&dir, &GAP, OPTIONS), Err(Error::Damaged { .. })));
}

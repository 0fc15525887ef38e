//! What the controller makes of its records on disk; durability and damage themselves are tested in `tidegate-records`.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use tidegate_cloud_core::{Meta, Write};

use super::*;
use crate::store::conformance::exported;
use crate::store::conformance::{edge, placement, put_rule, rule, version};
use crate::store::{Memory, fill};

const CACHE_MIB: u64 = 8;

async fn filled(dir: &Path) {
    let store = Sled::open(dir.to_owned(), CACHE_MIB).await.unwrap();
    let writes = vec![
        Write::PutMeta(Meta { epoch: 3 }),
        put_rule(1, 1, None),
        Write::PutVersion(Box::new(version(1, 1))),
        Write::PutEdge(Arc::new(edge("gw-1"))),
        Write::PutPlacement(Arc::new(placement(1, "gw-1", 30_000))),
    ];
    store.apply(writes).await.unwrap();
}

/// Changes records behind the store's back, by the rules of the records.
fn tamper(dir: &Path, changes: &[tidegate_records::Change]) {
    let options = Options { cache_bytes: 1 << 20, reserve_bytes: 0 };
    tidegate_records::open(dir, &LAYOUT, options).unwrap().records.commit(changes).unwrap();
}

#[tokio::test]
async fn what_was_written_is_there_after_a_reopen() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("store");
    filled(&dir).await;
    assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    let store = Sled::open(dir.clone(), CACHE_MIB).await.unwrap();
    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.meta.epoch, loaded.rules), (3, vec![rule(1, 1)]));
    assert_eq!(loaded.placements, [placement(1, "gw-1", 30_000)]);
}

#[tokio::test]
async fn a_second_opening_is_told_that_another_tidegate_has_it() {
    let tmp = tempfile::tempdir().unwrap();
    let _held = Sled::open(tmp.path().join("store"), CACHE_MIB).await.unwrap();
    let error = Sled::open(tmp.path().join("store"), CACHE_MIB).await.unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    assert!(error.to_string().contains("another tidegate"), "{error}");
}

#[tokio::test]
async fn a_damaged_store_names_the_file_and_the_way_back_which_works() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("store");
    filled(&dir).await;
    let backup = tmp.path().join("backup.jsonl");
    let before = {
        let store = Sled::open(dir.clone(), CACHE_MIB).await.unwrap();
        std::fs::write(&backup, exported(&store).await).unwrap();
        store.load().await.unwrap()
    };
    let mut bytes = std::fs::read(dir.join("db")).unwrap();
    let middle = bytes.iter().rposition(|byte| *byte != 0).unwrap() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(dir.join("db"), bytes).unwrap();
    let error = Sled::open(dir.clone(), CACHE_MIB).await.unwrap_err();
    assert!(matches!(&error, StoreError::Damaged { file, .. } if *file == dir.join("db")), "{error}");
    for part in ["store/db is damaged", "move the directory", "import the last export", "edges go on running"]
    {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(!error.to_string().contains("pässword"));
    // What the sentence says.
    std::fs::rename(&dir, tmp.path().join("store.damaged")).unwrap();
    let store = Sled::open(dir.clone(), CACHE_MIB).await.unwrap();
    fill(&store, &backup).await.unwrap();
    let after = store.load().await.unwrap();
    assert_eq!((after.rules, after.edges), (before.rules, before.edges));
    assert_eq!(after.placements, before.placements);
}

#[tokio::test]
async fn a_record_that_is_none_or_lies_elsewhere_is_found_when_opening() {
    let tmp = tempfile::tempdir().unwrap();
    for (name, tree, key) in
        [("none", RULES, keys::rule(rule(7, 1).id)), ("elsewhere", EDGES, keys::edge(&edge("gw-2").id))]
    {
        let dir = tmp.path().join(name);
        filled(&dir).await;
        let change = if tree == RULES {
            tidegate_records::Change::put(tree, key, &"pässword").unwrap()
        } else {
            tidegate_records::Change::put(tree, key, &edge("gw-1")).unwrap()
        };
        tamper(&dir, &[change]);
        let error = Sled::open(dir, CACHE_MIB).await.unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert!(!error.to_string().contains("pässword"), "{error}");
    }
}

#[tokio::test]
async fn a_later_schema_is_not_touched_and_says_what_to_run() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("store");
    filled(&dir).await;
    tamper(&dir, &[tidegate_records::Change::put(META, b"schema_version".to_vec(), &99_u32).unwrap()]);
    let error = Sled::open(dir, CACHE_MIB).await.unwrap_err();
    assert!(matches!(error, StoreError::TooNew { found: 99, .. }), "{error}");
    assert!(error.to_string().contains("run the version that wrote it, or a later one"), "{error}");
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_told_with_what_to_do() {
    let error = Sled::open("/dev/null/store".into(), CACHE_MIB).await.unwrap_err().to_string();
    assert!(error.contains("making the store /dev/null/store failed"), "{error}");
}

#[tokio::test]
async fn an_error_poisons_the_store() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("store");
    filled(&dir).await;
    let store = Sled::open(dir.clone(), CACHE_MIB).await.unwrap();
    store.health().await.unwrap();
    // Its file is exchanged under it: what it writes from now on nobody would find again.
    std::fs::rename(dir.join("db"), tmp.path().join("elsewhere")).unwrap();
    std::fs::write(dir.join("db"), "").unwrap();
    let first = store.health().await.unwrap_err();
    assert!(matches!(first, StoreError::Failed { .. }), "{first}");
    let then = store.apply(vec![put_rule(2, 1, None)]).await.unwrap_err();
    assert!(matches!(then, StoreError::Poisoned { .. }), "{then}");
    assert!(matches!(store.health().await, Err(StoreError::Poisoned { .. })));
}

/// A store of schema 1 as this software wrote it at commit 5fa1ddc, and what was exported from it then.
#[tokio::test]
async fn a_store_of_schema_1_is_migrated_and_holds_what_it_held() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/schema-1");
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("store");
    std::fs::create_dir_all(dir.join("blobs")).unwrap();
    for file in std::fs::read_dir(golden.join("store")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), dir.join(file.file_name())).unwrap();
    }
    let expected = Memory::default();
    fill(&expected, &golden.join("export.jsonl")).await.unwrap();
    let expected = expected.load().await.unwrap();
    assert!(!expected.placements.is_empty() && !expected.rules.is_empty());
    for _ in 0..2 {
        let store = Sled::open(dir.clone(), CACHE_MIB).await.unwrap();
        let found = store.load().await.unwrap();
        assert_eq!((&found.meta, &found.rules), (&expected.meta, &expected.rules));
        assert_eq!((&found.edges, &found.placements), (&expected.edges, &expected.placements));
        assert!(!store.all_versions(None, 10).await.unwrap().is_empty());
    }
    assert!(tmp.path().join("store.schema-1/db").exists(), "the copy for the older version");
}

use std::os::unix::fs::PermissionsExt as _;

use tidegate_cloud_core::{Meta, Write};

use super::*;
use crate::store::conformance::{edge, placement, put_rule, rule, version};

const CACHE_MIB: u64 = 8;

async fn filled(dir: &Path) {
    let store = Sled::open(dir.to_owned(), CACHE_MIB).await.unwrap();
    let writes = vec![
        Write::PutMeta(Meta { epoch: 3 }),
        put_rule(1, 1, None),
        Write::PutVersion(Box::new(version(1, 1))),
        Write::PutEdge(Box::new(edge("gw-1"))),
        Write::PutPlacement(Box::new(placement(1, "gw-1", 30_000))),
    ];
    store.apply(writes).await.unwrap();
}

/// Changes the database behind the store's back.
fn tamper(dir: &Path, tree: &str, change: impl Fn(&sled::Tree)) {
    let db = sled::open(dir).unwrap();
    change(&db.open_tree(tree).unwrap());
    db.flush().unwrap();
}

async fn damage(dir: &Path) -> String {
    match Sled::open(dir.to_owned(), CACHE_MIB).await.unwrap_err() {
        StoreError::Damaged { what, .. } => what,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn what_was_written_is_there_after_a_reopen() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("store");
    filled(&dir).await;
    assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    // What sled leaves of a snapshot that it did not finish.
    std::fs::write(dir.join("snap.00000000000000FF.generating"), "half").unwrap();
    let store = Sled::open(dir.clone(), CACHE_MIB).await.unwrap();
    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.meta.epoch, loaded.rules), (3, vec![rule(1, 1)]));
    assert_eq!(loaded.placements, [placement(1, "gw-1", 30_000)]);
    assert!(!dir.join("snap.00000000000000FF.generating").exists());
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
async fn torn_and_changed_values_are_found_when_opening() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("store");
    filled(&dir).await;
    let key = |number: u16| {
        [keys::placement(rule(1, 1).id, &edge("gw-1").id), number.to_be_bytes().to_vec()].concat()
    };

    let whole = |tree: &sled::Tree| tree.get(key(2)).unwrap().unwrap();
    let saved = std::cell::RefCell::new(Vec::new());
    tamper(&dir, "placements", |tree| {
        saved.replace(whole(tree).to_vec());
        tree.remove(key(2)).unwrap();
    });
    assert!(damage(&dir).await.contains("lacks a piece"));
    tamper(&dir, "placements", |tree| {
        let mut changed = saved.borrow().clone();
        changed[100] ^= 1;
        tree.insert(key(2), changed).unwrap();
    });
    assert!(damage(&dir).await.contains("wrong checksum"));
    tamper(&dir, "placements", |tree| {
        tree.insert(key(2), saved.borrow().clone()).unwrap();
        tree.insert(key(40), saved.borrow().clone()).unwrap();
    });
    assert!(damage(&dir).await.contains("without a beginning"));
    tamper(&dir, "placements", |tree| drop(tree.remove(key(40)).unwrap()));
    Sled::open(dir.clone(), CACHE_MIB).await.unwrap();
    tamper(&dir, "edges", |tree| {
        let moved = tree.get([keys::edge(&edge("gw-1").id), vec![0, 0]].concat()).unwrap().unwrap();
        tree.insert([keys::edge(&edge("gw-2").id), vec![0, 0]].concat(), moved).unwrap();
    });
    assert!(damage(&dir).await.contains("under the key of another"));
}

#[tokio::test]
async fn an_unreadable_configuration_of_sled_is_damage_too() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("store");
    filled(&dir).await;
    std::fs::write(dir.join("conf"), [0xa7; 200]).unwrap();
    assert!(damage(&dir).await.contains("configuration"));
}

#[tokio::test]
async fn no_value_is_larger_than_8_kb() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("store");
    filled(&dir).await;
    tamper(&dir, "placements", |tree| {
        let sizes: Vec<usize> = tree.iter().map(|entry| entry.unwrap().1.len()).collect();
        assert!(sizes.len() > 4 && sizes.iter().all(|size| *size < 8 * 1024), "{sizes:?}");
    });
}

#[tokio::test]
async fn a_later_schema_is_not_touched() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("store");
    filled(&dir).await;
    tamper(&dir, "meta", |tree| {
        let pieces = value::encode(&99_u32).unwrap();
        tree.insert([keys::SCHEMA_VERSION, &[0, 0]].concat(), pieces[0].clone()).unwrap();
    });
    let error = Sled::open(dir, CACHE_MIB).await.unwrap_err();
    assert!(matches!(error, StoreError::TooNew { found: 99, .. }), "{error}");
}

#[tokio::test]
async fn a_torn_database_file_gives_an_error_or_a_whole_earlier_state() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("store");
    filled(&dir).await;
    let whole = std::fs::read(dir.join("db")).unwrap();
    for part in 0..8 {
        let mut torn = whole.clone();
        let from = whole.len() * part / 8;
        torn[from..].fill(0);
        std::fs::write(dir.join("db"), torn).unwrap();
        match Sled::open(dir.clone(), CACHE_MIB).await {
            Ok(store) => {
                // What it gives is what was written: nothing half.
                let loaded = store.load().await.unwrap();
                assert!(loaded.rules.is_empty() || loaded.rules == [rule(1, 1)]);
                assert_eq!(loaded.rules.is_empty(), loaded.placements.is_empty());
            }
            Err(StoreError::Damaged { .. } | StoreError::Failed { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn a_database_that_lost_its_contents_is_not_taken_for_a_new_one() {
    let tmp = tempfile::tempdir().unwrap();
    for (name, garbage) in [("empty", Vec::new()), ("noise", vec![0x5a; 100_000])] {
        let dir = tmp.path().join(name);
        filled(&dir).await;
        std::fs::write(dir.join("db"), garbage).unwrap();
        assert!(damage(&dir).await.contains("contents are gone"), "{name}");
    }
}

#[tokio::test]
async fn an_error_poisons_the_store() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("store");
    filled(&dir).await;
    let store = Sled::open(dir.clone(), CACHE_MIB).await.unwrap();
    // Damage that the next write meets: the record of the rule that it compares with.
    let key = [keys::rule(rule(1, 1).id), vec![0, 0]].concat();
    store.trees.rules.insert(key, b"garbage".as_slice()).unwrap();
    let first = store.apply(vec![put_rule(1, 2, Some(1))]).await.unwrap_err();
    assert!(matches!(first, StoreError::Damaged { .. }), "{first}");
    let then = store.apply(vec![put_rule(2, 1, None)]).await.unwrap_err();
    assert!(matches!(then, StoreError::Poisoned { .. }), "{then}");
    assert!(matches!(store.health().await, Err(StoreError::Poisoned { .. })));
}

use std::path::Path;

use tidegate_edge_core::{Held, RuleRecord, Snapshot, Tombstone, Write};
use tidegate_model::digest::Digest;
use tidegate_model::ids::{RuleId, RuleName, StoreId};
use tidegate_model::placement::VersionDigest;
use tidegate_model::version::{Generation, RuleVersion};
use tidegate_model::wire::{By, DesiredRun, Origin, RunReport};

use super::{Opened, Store, StoreError};

const STORE: StoreId = StoreId(42);

fn record(rule: u128, bytes: usize) -> RuleRecord {
    let target = VersionDigest { version: RuleVersion(1), digest: Digest::of(b"x") };
    RuleRecord {
        rule: RuleId(uuid::Uuid::from_u128(rule)),
        name: RuleName::new("r").unwrap(),
        generation: Generation(3),
        want: Digest::of(b"want"),
        run_desired: DesiredRun::Running,
        desired_by: By::Cloud,
        restart: 0,
        committed: Some(Held { target, bytes: "\"".repeat(bytes), secrets: Vec::new() }),
        candidate: None,
        outcome: None,
        run: RunReport::never_ran(),
        told: 0,
        site: None,
    }
}

fn stone(rule: u128) -> Tombstone {
    Tombstone {
        rule: RuleId(uuid::Uuid::from_u128(rule)),
        name: RuleName::new("r").unwrap(),
        generation: Generation(4),
        want: Digest::of(b"gone"),
        target: VersionDigest::removal(RuleVersion(1)),
        run: RunReport::never_ran(),
        order: 1,
        origin: Origin::Cloud,
    }
}

#[tokio::test]
async fn what_was_committed_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let (store, mut expected, opened) = Store::open(&path, STORE, 0).unwrap();
    assert_eq!((opened, &expected), (Opened::Made, &Snapshot::fresh(STORE)));
    // Large values are many chunks; they grow, shrink and vanish.
    let mut meta = expected.meta.clone();
    meta.session.epoch = 9;
    for batch in [
        vec![
            Write::Meta(meta),
            Write::Rule(Box::new(record(1, 64 * 1024))),
            Write::Rule(Box::new(record(2, 10))),
        ],
        vec![Write::Rule(Box::new(record(2, 30_000)))],
        vec![Write::Rule(Box::new(record(1, 5)))],
        vec![Write::ForgetRule(RuleId(uuid::Uuid::from_u128(2))), Write::Tombstone(stone(2))],
        vec![Write::Tombstone(stone(3)), Write::ForgetTombstone(RuleId(uuid::Uuid::from_u128(3)))],
    ] {
        for write in batch.clone() {
            expected.apply(write);
        }
        store.commit(batch).await.unwrap();
    }
    store.close();
    let (store, found, opened) = Store::open(&path, StoreId(7), 0).unwrap();
    assert_eq!(opened, Opened::Existing);
    assert_eq!(found, expected);
    assert_eq!((found.rules.len(), found.tombstones.len()), (1, 1));
    store.close();
}

#[tokio::test]
async fn a_copy_taken_after_a_commit_holds_it_as_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let (store, _, _) = Store::open(&path, STORE, 0).unwrap();
    store.commit(vec![Write::Rule(Box::new(record(1, 60_000)))]).await.unwrap();
    // What another process would find if this one died here: the files as they are.
    let crashed = dir.path().join("crashed");
    std::fs::create_dir(&crashed).unwrap();
    for entry in std::fs::read_dir(&path).unwrap().flatten().filter(|e| e.file_type().unwrap().is_file()) {
        std::fs::copy(entry.path(), crashed.join(entry.file_name())).unwrap();
    }
    let (copy, found, _) = Store::open(&crashed, StoreId(7), 0).unwrap();
    assert_eq!(found.rules.len(), 1);
    assert_eq!(found.meta.session.store, STORE);
    copy.close();
    store.close();
}

/// Turns one bit in the middle of what was written.
fn flip_a_bit(dir: &Path) {
    let mut bytes = std::fs::read(dir.join("db")).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end / 2] ^= 4;
    std::fs::write(dir.join("db"), bytes).unwrap();
}

#[tokio::test]
async fn a_damaged_store_is_set_aside_and_an_empty_one_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    // Two at the same moment, then later ones: the last three are kept.
    for (round, stamp) in [12, 12, 20, 21, 22].into_iter().enumerate() {
        let (store, found, _) = Store::open(&path, STORE, 0).unwrap();
        assert_eq!(found, Snapshot::fresh(STORE));
        store.commit(vec![Write::Rule(Box::new(record(1, 60_000)))]).await.unwrap();
        store.close();
        flip_a_bit(&path);
        let (store, found, opened) = Store::open(&path, STORE, stamp).unwrap();
        assert_eq!(found, Snapshot::fresh(STORE));
        match opened {
            Opened::SetAside { kept, reason } => {
                assert!(
                    kept.join("db").exists() && reason.contains("store/db is damaged"),
                    "{round}: {reason}"
                );
            }
            Opened::Existing | Opened::Made => panic!("{opened:?}"),
        }
        store.close();
    }
    let mut there: Vec<String> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    there.sort();
    assert_eq!(there, ["store", "store.damaged-20", "store.damaged-21", "store.damaged-22"]);
}

#[tokio::test]
async fn a_later_schema_is_neither_touched_nor_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    Store::open(&path, STORE, 0).unwrap().0.close();
    let options = tidegate_records::Options { cache_bytes: 1 << 20, reserve_bytes: 0 };
    let mut records = tidegate_records::open(&path, &super::LAYOUT, options).unwrap().records;
    let number = tidegate_records::Change::put(tidegate_records::META, b"schema_version".to_vec(), &99_u32);
    records.commit(&[number.unwrap()]).unwrap();
    drop(records);
    let error = Store::open(&path, STORE, 0).unwrap_err();
    assert!(matches!(error, StoreError::TooNew { found: 99, .. }), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// A store of schema 1 as this software wrote it at commit 5fa1ddc: three rules issued, one of them stopped.
#[tokio::test]
async fn a_store_of_schema_1_is_migrated_and_holds_what_it_held() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/schema-1/store");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    std::fs::create_dir(&path).unwrap();
    for file in ["db", "conf"] {
        std::fs::copy(golden.join(file), path.join(file)).unwrap();
    }
    let mut before = None;
    for _ in 0..2 {
        let (store, found, opened) = Store::open(&path, StoreId(7), 0).unwrap();
        assert_eq!(opened, Opened::Existing);
        assert_ne!(found.meta.session.store, StoreId(7));
        let rules: Vec<(&str, u64, DesiredRun)> =
            found.rules.values().map(|r| (r.name.as_str(), r.generation.0, r.run_desired)).collect();
        assert_eq!(
            rules,
            [
                ("camera-up", 1, DesiredRun::Running),
                ("press-up", 2, DesiredRun::Stopped),
                ("line-up", 1, DesiredRun::Running)
            ]
        );
        assert!(found.rules.values().all(|rule| rule.committed.is_some()));
        assert!(before.is_none_or(|before| before == found));
        before = Some(found);
        store.close();
    }
    assert!(dir.path().join("store.schema-1/db").exists(), "the copy for the older version");
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let error = Store::open(std::path::Path::new("/dev/null/store"), STORE, 0).unwrap_err();
    assert!(
        matches!(&error, StoreError::Open { .. }) && error.to_string().contains("/dev/null/store"),
        "{error}"
    );
}

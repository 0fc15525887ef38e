use std::io::{Read, Seek, SeekFrom, Write as _};

use tidegate_edge_core::{Held, RuleRecord, Snapshot, Tombstone, Write};
use tidegate_model::digest::Digest;
use tidegate_model::ids::{RuleId, RuleName, StoreId};
use tidegate_model::placement::VersionDigest;
use tidegate_model::version::{Generation, RuleVersion};
use tidegate_model::wire::{By, DesiredRun, RunReport};

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

#[tokio::test]
async fn a_damaged_store_is_set_aside_and_an_empty_one_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let (store, _, _) = Store::open(&path, STORE, 0).unwrap();
    store.commit(vec![Write::Rule(Box::new(record(1, 60_000)))]).await.unwrap();
    store.close();
    let mut file = std::fs::File::options().read(true).write(true).open(path.join("db")).unwrap();
    let mut all = Vec::new();
    file.read_to_end(&mut all).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(&all.iter().map(|b| b ^ 0x5a).collect::<Vec<u8>>()).unwrap();
    drop(file);
    let (store, found, opened) = Store::open(&path, StoreId(7), 12).unwrap();
    assert_eq!(found, Snapshot::fresh(StoreId(7)));
    match opened {
        Opened::SetAside { kept, .. } => assert!(kept.ends_with("store.damaged-12") && kept.exists()),
        Opened::Existing | Opened::Made => panic!("{opened:?}"),
    }
    store.close();
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let error = Store::open(std::path::Path::new("/dev/null/store"), STORE, 0).unwrap_err();
    assert!(
        matches!(&error, StoreError::Open { .. }) && error.to_string().contains("/dev/null/store"),
        "{error}"
    );
}

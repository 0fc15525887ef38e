//! What a store promises while nothing goes wrong.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// What sled leaves of a snapshot that it did not finish.
const HALF: &str = "snap.00000000000000FF.generating";

#[test]
fn what_was_committed_is_there_after_reopening() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("store");
    let mut model = Model::new();
    let mut dice = Dice(1);
    assert!(open(&dir, &LAYOUT, OPTIONS).unwrap().is_new);
    assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    for _ in 0..4 {
        let Opened { mut records, is_new } = open(&dir, &LAYOUT, OPTIONS).unwrap();
        assert!(!is_new && !dir.join(HALF).exists());
        assert_eq!(contents(&records.reader()).unwrap(), model);
        fill(&mut records, &mut model, 20, &mut dice);
        assert_eq!(contents(&records.reader()).unwrap(), model);
        records.probe().unwrap();
        std::fs::write(dir.join(HALF), "half").unwrap();
    }
}

#[test]
fn pages_go_both_ways_and_end_before_their_bound() {
    let tmp = tempfile::tempdir().unwrap();
    let mut records = opened(&tmp.path().join("store"));
    let mut model = Model::new();
    let changes: Vec<Change> =
        (0..20).map(|n| put(&mut model, DATA, &format!("k{n:02}"), "x".repeat(n * 2_000))).collect();
    records.commit(&changes).unwrap();
    let keys = |range: (Vec<u8>, Option<Vec<u8>>), order, limit| -> Vec<String> {
        let page: Vec<(String, String)> = records.reader().page(DATA, range, order, limit).unwrap();
        page.into_iter().map(|(key, _)| key).collect()
    };
    let range = || (b"k05".to_vec(), Some(b"k09".to_vec()));
    assert_eq!(keys(range(), Order::Ascending, 3), ["k05", "k06", "k07"]);
    assert_eq!(keys(range(), Order::Descending, 9), ["k08", "k07", "k06", "k05"]);
    assert_eq!(keys((Vec::new(), None), Order::Ascending, 99).len(), 20);
}

#[test]
fn a_second_opening_is_refused_and_a_store_that_was_moved_away_notices() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("store");
    let records = opened(&dir);
    assert_eq!(open(&dir, &LAYOUT, OPTIONS).unwrap_err(), Error::Locked { dir: dir.clone() });
    std::fs::rename(&dir, tmp.path().join("away")).unwrap();
    assert!(matches!(records.probe(), Err(Error::Failed { .. })));
}

#[test]
fn no_value_is_as_large_as_what_sled_puts_into_a_file_of_its_own() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("store");
    let mut records = opened(&dir);
    records.commit(&[put(&mut Model::new(), DATA, "big", "x".repeat(200_000))]).unwrap();
    let sizes: Vec<usize> = records.trees[1].iter().map(|entry| entry.unwrap().1.len()).collect();
    assert!(sizes.len() > 20 && sizes.iter().all(|size| *size < 8 * 1024), "{sizes:?}");
    drop(records);
    assert_eq!(std::fs::read_dir(dir.join("blobs")).unwrap().count(), 0);
}

#[test]
#[cfg(target_os = "linux")]
fn space_ahead_of_the_end_belongs_to_the_database() {
    use std::os::unix::fs::MetadataExt as _;
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("store");
    let mut records = opened(&dir);
    let mut model = Model::new();
    for _ in 0..30 {
        fill(&mut records, &mut model, 5, &mut Dice(3));
        let file = std::fs::metadata(dir.join("db")).unwrap();
        // Where the file system cannot do it there is no reserve.
        if records.reserve.bytes_kept() {
            assert!(file.blocks() * 512 >= file.len() + OPTIONS.reserve_bytes, "{file:?}");
        }
    }
}

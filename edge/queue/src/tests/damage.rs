//! Bytes that went bad under records that had been acknowledged.

use std::{path::Path, sync::Arc};

use super::{
    Told, append,
    disk::{Dice, FakeDisk},
    id_of, read_all, record, run, small,
};
use crate::{
    Record, Recovery, WhenFull,
    core::Core,
    record::RECORD_HEADER,
    segment::{SEGMENT_HEADER, name},
    writer::Writer,
};

fn open(disk: &FakeDisk) -> (Core, Writer, Recovery) {
    Core::open(Arc::new(disk.clone()), Path::new("q"), small(WhenFull::Block, 64 << 10), 0).unwrap()
}

/// A log of records 1 to `count`, each in a batch of its own; all are of the same size on disk, which is returned.
fn filled(count: u64) -> (FakeDisk, usize) {
    let disk = FakeDisk::default();
    let told = Told::default();
    let (core, mut writer, _) = open(&disk);
    for id in 1..=count {
        append(&core, &told, id, Record { source: None, ..record(id, 100) });
        run(&core, &mut writer);
    }
    assert!(told.lock().unwrap().iter().all(|(id, result)| result.as_ref().unwrap() == id));
    drop((core, writer));
    disk.crash(&mut Dice(3));
    (disk, RECORD_HEADER + 3 + 100)
}

/// Flips a byte in the record at `index` of the segment that begins with `base`.
fn flip(disk: &FakeDisk, base: u64, index: usize, record_len: usize, byte: usize) {
    disk.edit(&name(base), |bytes| bytes[SEGMENT_HEADER as usize + index * record_len + byte] ^= 0x40);
}

fn ids(core: &Core) -> Vec<u64> {
    read_all(core).iter().map(|stored| id_of(&stored.record)).collect()
}

#[test]
fn a_bad_record_in_the_middle_is_skipped_and_counted() {
    // 6 records of 143 bytes fit into a segment of 1024: segments 1, 7, 13, 19.
    for byte in [0, 5, 9, 13, 39, 100] {
        let (disk, len) = filled(20);
        flip(&disk, 7, 2, len, byte); // record 9
        flip(&disk, 19, 0, len, byte); // record 19, in the newest segment but not its last
        let (core, _writer, recovery) = open(&disk);
        assert_eq!((recovery.records, recovery.skipped_bad, recovery.truncated_bytes), (18, 2, 0));
        let expected: Vec<u64> = (1..=20).filter(|id| ![9, 19].contains(id)).collect();
        assert_eq!(ids(&core), expected, "byte {byte}");
        assert_eq!(core.stats().dropped.corrupt, 2);
        core.release(10);
        assert_eq!(core.stats().queued, 9);
    }
}

#[test]
fn a_bad_last_record_is_cut_off() {
    let (disk, len) = filled(20);
    flip(&disk, 19, 1, len, 60);
    let (core, mut writer, recovery) = open(&disk);
    assert_eq!((recovery.records, recovery.skipped_bad), (19, 0));
    assert_eq!(recovery.truncated_bytes, len as u64);
    let told = Told::default();
    append(&core, &told, 21, record(21, 100));
    run(&core, &mut writer);
    assert_eq!(ids(&core), (1..=19).chain([21]).collect::<Vec<_>>());
}

#[test]
fn a_segment_that_is_gone_is_counted() {
    let (disk, _) = filled(20);
    disk.edit(&name(7), Vec::clear);
    let (core, _writer, recovery) = open(&disk);
    assert_eq!((recovery.records, recovery.skipped_bad), (14, 6));
    assert_eq!(ids(&core), (1..=6).chain(13..=20).collect::<Vec<_>>());
}

#[test]
fn damage_that_shows_while_reading_is_counted_once() {
    let (disk, len) = filled(20);
    let (core, _writer, _) = open(&disk);
    flip(&disk, 1, 5, len, 50); // the last of its segment
    flip(&disk, 13, 0, len, 2); // the first of its segment
    let expected: Vec<u64> = (1..=20).filter(|id| ![6, 13].contains(id)).collect();
    assert_eq!(ids(&core), expected);
    assert_eq!(ids(&core), expected);
    assert_eq!(core.stats().dropped.corrupt, 2);
    assert_eq!(core.stats().queued, 18);
}

#[test]
fn a_bad_cursor_means_the_oldest_segment() {
    let (disk, _) = filled(20);
    let (core, mut writer, _) = open(&disk);
    core.release(8);
    run(&core, &mut writer);
    core.finish(&mut writer);
    drop((core, writer));
    let (core, writer, recovery) = open(&disk);
    assert_eq!((recovery.records, recovery.cursor_lost), (12, false));
    drop((core, writer));
    disk.edit("cursor", |bytes| bytes[9] ^= 1);
    let (core, _writer, recovery) = open(&disk);
    assert_eq!((recovery.records, recovery.cursor_lost), (14, true));
    assert_eq!(ids(&core), (7..=20).collect::<Vec<_>>());
}

//! What is set aside is beside the line or in it, whatever happens.

use std::{io, path::Path, sync::Arc};

use super::{
    Told, append,
    disk::{Dice, FakeDisk},
    id_of, read_all, record, run, small,
};
use crate::{MAX_ASIDE, Queue, QueueConfig, WhenFull, core::Core};

fn open(disk: &FakeDisk) -> (Core, crate::writer::Writer) {
    let config = small(WhenFull::Block, 64 << 10);
    let (core, writer, _) = Core::open(Arc::new(disk.clone()), Path::new("q"), config, 0).unwrap();
    (core, writer)
}

fn filled(config: QueueConfig, records: u64, size: usize) -> (Queue, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = Queue::open(&dir.path().join("q"), config, 0).unwrap();
    for id in 1..=records {
        let (tx, rx) = std::sync::mpsc::channel();
        queue.append(record(id, size), move |result| tx.send(result).unwrap());
        assert_eq!(rx.recv().unwrap().unwrap(), id);
    }
    (queue, dir)
}

#[test]
fn it_is_kept_with_its_reason_and_survives_a_restart() {
    let (queue, dir) = filled(small(WhenFull::Block, 64 << 10), 3, 100);
    assert_eq!(queue.set_aside(1, "too large".to_owned(), 77).unwrap(), Some(record(1, 100)));
    queue.release(1);
    assert_eq!(queue.set_aside(1, "gone already".to_owned(), 78).unwrap(), None, "it is not in the line");
    assert_eq!(queue.read_from(1, 10, 10_000).unwrap()[0].offset, 2, "the line goes on behind it");
    queue.close();
    drop(queue);
    let (queue, _) = Queue::open(&dir.path().join("q"), small(WhenFull::Block, 64 << 10), 0).unwrap();
    let found = queue.view().asides(0, 10, 10_000).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].offset, &found[0].record, found[0].reason.as_str(), found[0].since_ms),
        (1, &record(1, 100), "too large", 77)
    );
    let stats = queue.stats();
    assert_eq!((stats.aside, stats.queued, stats.dropped.total()), (1, 2, 0));
    assert!(stats.aside_bytes > 150);
    queue.close();
    drop(queue);
    Queue::destroy(&dir.path().join("q")).unwrap();
    assert!(!dir.path().join("q").exists());
}

#[test]
fn it_is_bounded_in_bytes_and_in_number_and_what_goes_is_counted() {
    // A quarter of 64 KiB: 1,000 bytes each, 16 at the most.
    let (queue, _dir) = filled(small(WhenFull::Block, 64 << 10), 30, 900);
    for offset in 1..=30 {
        assert!(queue.set_aside(offset, String::new(), 0).unwrap().is_some());
    }
    let stats = queue.stats();
    assert!(stats.aside_bytes <= 16 << 10, "{stats:?}");
    assert_eq!(stats.aside + stats.dropped.aside, 30);
    let left = queue.view().asides(0, 100, 1 << 20).unwrap();
    assert_eq!(left.last().unwrap().offset, 30, "the oldest go");
    assert_eq!(left.len() as u64, stats.aside);
    // One that is larger than the bound is kept all the same.
    let (queue, _dir) = filled(small(WhenFull::Block, 64 << 10), 1, 20_000);
    assert!(queue.set_aside(1, String::new(), 0).unwrap().is_some());
    assert_eq!(queue.stats().aside, 1);
    let mut asides = crate::aside::Asides::default();
    for offset in 0..=MAX_ASIDE as u64 {
        assert_eq!(asides.surplus(u64::MAX), None);
        asides.insert(offset, 1);
    }
    assert_eq!(asides.surplus(u64::MAX), Some(0));
}

#[test]
fn wherever_power_is_lost_or_the_disk_fails_the_record_is_in_the_line_or_aside() {
    for after in 0..40 {
        for power in [false, true] {
            let disk = FakeDisk::default();
            let (core, mut writer) = open(&disk);
            let told = Told::default();
            for id in 1..=3 {
                append(&core, &told, id, record(id, 200));
            }
            run(&core, &mut writer);
            if power {
                disk.power_off(after);
            } else {
                disk.fail(after, io::ErrorKind::StorageFull);
            }
            let moved = core.set_aside(&writer, 1, "refused".to_owned(), 5);
            if moved.is_ok() {
                core.release(1);
                run(&core, &mut writer);
            } else {
                assert_eq!(read_all(&core).len(), 3, "a failure leaves the line as it was");
            }
            drop((core, writer));
            disk.crash(&mut Dice(after * 2 + u64::from(power)));
            let (core, _writer) = open(&disk);
            let aside: Vec<u64> =
                core.asides(0, 9, 9_999).unwrap().iter().map(|a| id_of(&a.record)).collect();
            let line: Vec<u64> = read_all(&core).iter().map(|stored| id_of(&stored.record)).collect();
            assert!(line == [1, 2, 3] || (line == [2, 3] && aside == [1]), "{after}: {line:?} {aside:?}");
            assert!(moved.is_err() || aside == [1], "{after}: what was set aside is there");
            assert_eq!(core.stats().dropped.total(), 0, "{after}: nothing was lost");
        }
    }
}

#[test]
fn a_damaged_file_is_counted_where_the_line_does_not_have_the_record() {
    for released in [false, true] {
        let disk = FakeDisk::default();
        let (core, mut writer) = open(&disk);
        append(&core, &Told::default(), 1, record(1, 50));
        append(&core, &Told::default(), 2, record(2, 50));
        run(&core, &mut writer);
        assert!(core.set_aside(&writer, 1, "refused".to_owned(), 5).unwrap().is_some());
        if released {
            core.release(1);
        }
        run(&core, &mut writer);
        core.finish(&mut writer);
        drop((core, writer));
        disk.edit(&crate::aside::name(1), |bytes| bytes[60] ^= 1);
        let (core, _writer) = open(&disk);
        assert_eq!((core.stats().aside, core.stats().dropped.aside), (0, u64::from(released)));
    }
}

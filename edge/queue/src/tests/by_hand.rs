//! Records that are dropped by hand stay dropped; all others stay, in order.

use std::{path::Path, sync::Arc};

use proptest::prelude::*;

use super::{
    Told, append,
    disk::{Dice, FakeDisk},
    id_of, read_all, record, run, small,
};
use crate::{Queue, QueueConfig, QueueError, Record, Removed, View, WhenFull, core::Core, writer::Writer};

fn open(disk: &FakeDisk, config: &QueueConfig) -> (Core, Writer) {
    let (core, writer, recovery) =
        Core::open(Arc::new(disk.clone()), Path::new("q"), config.clone(), 0).unwrap();
    assert_eq!(recovery.skipped_bad, 0, "what was dropped by hand is no damage");
    (core, writer)
}

fn drop_where(core: &Core, writer: &Writer, is_meant: &dyn Fn(&Record) -> bool) -> Removed {
    let runs = core.runs_of(Some(is_meant)).unwrap();
    core.drop_runs(writer, &runs).unwrap()
}

fn ids(core: &Core) -> Vec<u64> {
    let mut found = Vec::new();
    loop {
        let some = core.look_from(found.last().map_or(0, |(offset, _)| offset + 1), 7, 2_000).unwrap();
        if some.is_empty() {
            return found.into_iter().map(|(_, id)| id).collect();
        }
        found.extend(some.iter().map(|stored| (stored.offset, id_of(&stored.record))));
    }
}

fn of_topic(topic: &'static str) -> impl Fn(&Record) -> bool {
    move |record| record.topic == topic
}

#[test]
fn one_topic_is_dropped_over_segments_and_stays_dropped() {
    let (disk, config) = (FakeDisk::default(), small(WhenFull::Block, 64 << 10));
    let (core, mut writer) = open(&disk, &config);
    (1..=60).for_each(|id| append(&core, &Told::default(), id, record(id, 100)));
    run(&core, &mut writer);
    assert!(disk.segments().len() > 5);
    let removed = drop_where(&core, &writer, &of_topic("t/3"));
    assert_eq!(removed, Removed { dropped: 9, in_hand: 0, has_more: false });
    let left: Vec<u64> = (1..=60).filter(|id| id % 7 != 3).collect();
    assert_eq!(ids(&core), left);
    assert_eq!(core.stats().queued, 51);
    assert_eq!(drop_where(&core, &writer, &of_topic("t/3")).dropped, 0, "there are none any more");
    drop_where(&core, &writer, &of_topic("t/4"));
    drop((core, writer));
    disk.crash(&mut Dice(3));
    let (core, _writer) = open(&disk, &config);
    let left: Vec<u64> = (1..=60).filter(|id| ![3, 4].contains(&(id % 7))).collect();
    assert_eq!(ids(&core), left);
    assert_eq!((core.stats().queued, core.stats().dropped.corrupt), (left.len() as u64, 0));
}

#[test]
fn what_the_reader_has_in_its_hands_stays_until_it_begins_anew() {
    let (disk, config) = (FakeDisk::default(), small(WhenFull::Block, 64 << 10));
    let (core, mut writer) = open(&disk, &config);
    (1..=10).for_each(|id| append(&core, &Told::default(), id, record(id, 20)));
    run(&core, &mut writer);
    assert_eq!(core.read_cached(1, 4, 10_000).unwrap().len(), 4);
    let runs = core.runs_of(None).unwrap();
    assert_eq!(core.drop_runs(&writer, &runs).unwrap(), Removed { dropped: 6, in_hand: 4, has_more: false });
    assert_eq!(ids(&core), [1, 2, 3, 4]);
    core.release(2);
    core.rewind(3);
    let runs = core.runs_of(None).unwrap();
    assert_eq!(core.drop_runs(&writer, &runs).unwrap().dropped, 2);
    let stats = core.stats();
    assert_eq!((stats.queued, stats.bytes, stats.released, stats.dropped.by_hand), (0, 0, 10, 8));
    append(&core, &Told::default(), 11, record(11, 20));
    run(&core, &mut writer);
    assert_eq!(ids(&core), [11], "the line goes on");
}

#[test]
fn a_queue_that_was_full_has_room_again() {
    let (disk, config) = (FakeDisk::default(), small(WhenFull::Block, 4_096));
    let (core, mut writer) = open(&disk, &config);
    let told = Told::default();
    (1..=100).for_each(|id| append(&core, &told, id, record(id, 100)));
    run(&core, &mut writer);
    assert!(core.is_full());
    let before = told.lock().unwrap().len();
    assert!(drop_where(&core, &writer, &|_| true).dropped > 0);
    run(&core, &mut writer);
    assert!(told.lock().unwrap().len() > before, "who waited is let in");
}

#[test]
fn looking_changes_nothing_and_nobody_opens_what_is_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("q");
    let config = small(WhenFull::Block, 64 << 10);
    assert!(matches!(View::peek(&at), Err(QueueError::Io { .. })));
    let (queue, _) = Queue::open(&at, config.clone(), 0).unwrap();
    for id in 1..=3 {
        let (tx, rx) = std::sync::mpsc::channel();
        queue.append(record(id, 30), move |result| tx.send(result).unwrap());
        rx.recv().unwrap().unwrap();
    }
    assert!(matches!(View::peek(&at), Err(QueueError::Locked { .. })));
    assert_eq!(queue.view().read_from(1, 10, 10_000).unwrap().len(), 3);
    assert_eq!(queue.drop_where(None).unwrap().in_hand, 0, "who looks has nothing in its hands");
    queue.set_aside(3, "gone".to_owned(), 0).unwrap();
    queue.append(record(4, 30), |_| {});
    queue.close();
    drop(queue);
    let files = || {
        let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(&at)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.display().to_string(), std::fs::read(&path).unwrap()))
            .collect();
        files.sort();
        files
    };
    let before = files();
    let view = View::peek(&at).unwrap();
    assert_eq!(view.read_from(0, 10, 10_000).unwrap()[0].offset, 4);
    assert_eq!(view.stats().queued, 1);
    assert!(View::peek(&at).is_ok(), "many may look");
    assert!(matches!(Queue::open(&at, config.clone(), 0), Err(QueueError::Locked { .. })));
    drop(view);
    assert_eq!(files(), before);
    assert!(Queue::open(&at, config, 0).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Against a model: appended, dropped, released, and cut off power in between.
    #[test]
    fn exactly_what_was_dropped_is_gone(
        acts in prop::collection::vec((0u8..5, 0u64..7, 1u64..9), 1..40),
        seed in any::<u64>(),
    ) {
        let (disk, config) = (FakeDisk::default(), small(WhenFull::Block, 1 << 20));
        let (mut core, mut writer) = open(&disk, &config);
        let mut model: Vec<u64> = Vec::new();
        let mut next = 1;
        for (act, pick, count) in acts {
            match act {
                0 | 1 => {
                    for id in next..next + count {
                        append(&core, &Told::default(), id, record(id, 60));
                        model.push(id);
                    }
                    next += count;
                    run(&core, &mut writer);
                }
                2 => {
                    core.rewind(0);
                    let topic = format!("t/{pick}");
                    let removed = drop_where(&core, &writer, &|record| record.topic == topic);
                    let before = model.len();
                    model.retain(|id| id % 7 != pick);
                    prop_assert_eq!(removed.dropped, (before - model.len()) as u64);
                }
                3 => {
                    let found = core.read_from(0, usize::try_from(count).unwrap(), 1 << 20).unwrap();
                    if let Some(last) = found.last() {
                        core.release(last.offset);
                        model.retain(|id| *id > id_of(&last.record));
                    }
                    run(&core, &mut writer);
                }
                _ => {
                    drop((core, writer));
                    disk.crash(&mut Dice(seed ^ pick));
                    (core, writer) = open(&disk, &config);
                    // The cursor may be stale: what was released comes again, what was dropped does not.
                    let there = ids(&core);
                    prop_assert!(there.ends_with(&model), "{:?} for {:?}", there, model);
                    if let (Some(first), Some(stale)) = (model.first(), there.first()) {
                        prop_assert!(stale <= first);
                    }
                    model = there;
                }
            }
            prop_assert_eq!(&read_ids(&core), &model);
            prop_assert_eq!(core.stats().queued, model.len() as u64);
        }
    }
}

fn read_ids(core: &Core) -> Vec<u64> {
    read_all(core).iter().map(|stored| id_of(&stored.record)).collect()
}

//! The queue against a model, with failures and power cuts at every write.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, Mutex},
};

use proptest::prelude::*;

use super::{
    Told, append,
    disk::{Dice, FakeDisk},
    id_of, read_all, record, run, small,
};
use crate::{QueueConfig, WhenFull, core::Core, core::Step, writer::Writer};

#[derive(Debug, Clone)]
enum Act {
    /// Records of these sizes are handed over.
    Append(Vec<usize>),
    /// The writer works so many steps.
    Steps(usize),
    /// The reader is done with that many more.
    Release(usize),
    /// A changing disk operation fails soon.
    Fail(u64),
    /// The power goes soon, at a disk operation.
    PowerOff(u64),
    /// The power comes back; perhaps it goes again during recovery.
    Crash(u64, Option<u64>),
    /// The process is killed; what it wrote stays in the page cache.
    Kill,
    /// A clean restart.
    Restart,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => prop::collection::vec(0usize..400, 1..6).prop_map(Act::Append),
        6 => (1usize..8).prop_map(Act::Steps),
        3 => (1usize..6).prop_map(Act::Release),
        1 => (1u64..12).prop_map(Act::Fail),
        2 => (1u64..12).prop_map(Act::PowerOff),
        2 => (any::<u64>(), prop::option::of(1u64..6)).prop_map(|(seed, again)| Act::Crash(seed, again)),
        1 => Just(Act::Kill),
        1 => Just(Act::Restart),
    ];
    prop::collection::vec(act, 1..60)
}

struct Harness {
    disk: FakeDisk,
    config: QueueConfig,
    halves: Option<(Core, Writer)>,
    told: Told,
    sizes: Vec<usize>,
    /// Acknowledged, or seen after a restart: these must stay.
    kept: BTreeMap<u64, u64>,
    released: u64,
    highest: u64,
}

impl Harness {
    fn new(config: QueueConfig) -> Harness {
        let mut harness = Harness {
            disk: FakeDisk::default(),
            config,
            halves: None,
            told: Arc::new(Mutex::new(Vec::new())),
            sizes: Vec::new(),
            kept: BTreeMap::new(),
            released: 0,
            highest: 0,
        };
        harness.open();
        harness
    }

    fn core(&self) -> &Core {
        &self.halves.as_ref().unwrap().0
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Append(sizes) => {
                for size in sizes {
                    let id = self.sizes.len() as u64;
                    self.sizes.push(size);
                    append(self.core(), &self.told, id, record(id, size));
                }
            }
            Act::Steps(steps) => {
                let (core, writer) = self.halves.as_mut().unwrap();
                for _ in 0..steps {
                    if core.step(writer) == Step::Idle {
                        break;
                    }
                }
                self.settle();
            }
            Act::Release(count) => {
                let found = self.core().read_from(1, count, usize::MAX).unwrap();
                if let Some(last) = found.last() {
                    self.released = self.released.max(last.offset);
                    self.core().release(last.offset);
                }
            }
            Act::Fail(after) => self.disk.fail(after, io::ErrorKind::Other),
            Act::PowerOff(after) => self.disk.power_off(after),
            Act::Crash(seed, again) => {
                let mut dice = Dice(seed);
                drop(self.halves.take());
                self.settle();
                self.disk.crash(&mut dice);
                if let Some(after) = again {
                    self.disk.power_off(after);
                    drop(Core::open(Arc::new(self.disk.clone()), Path::new("q"), self.config.clone(), 0));
                    self.disk.crash(&mut dice);
                }
                self.open();
            }
            Act::Kill => {
                drop(self.halves.take());
                self.settle();
                self.disk.calm();
                self.open();
            }
            Act::Restart => {
                let (core, mut writer) = self.halves.take().unwrap();
                core.close();
                core.finish(&mut writer);
                drop((core, writer));
                self.settle();
                // With the power off even a clean stop ends in a crash.
                self.disk.crash(&mut Dice(1));
                self.open();
            }
        }
    }

    /// Takes in what appends were told.
    fn settle(&mut self) {
        for (id, result) in self.told.lock().unwrap().drain(..) {
            if let Ok(offset) = result {
                assert!(offset > self.highest, "offset {offset} was used before");
                self.highest = offset;
                self.kept.insert(offset, id);
            }
        }
    }

    /// Opens the queue and checks what is in it.
    fn open(&mut self) {
        let disk = Arc::new(self.disk.clone());
        let (core, writer, recovery) = Core::open(disk, Path::new("q"), self.config.clone(), 0).unwrap();
        let found = read_all(&core);
        assert_eq!(recovery.skipped_bad, 0, "a torn end was taken for damage");
        assert_eq!(recovery.records, found.len() as u64);
        assert_eq!(core.stats().queued, found.len() as u64);
        self.halves = Some((core, writer));
        self.check(&found);
        for stored in found {
            self.highest = self.highest.max(stored.offset);
            self.kept.insert(stored.offset, id_of(&stored.record));
        }
    }

    fn check(&self, found: &[crate::Stored]) {
        for pair in found.windows(2) {
            assert!(pair[0].offset < pair[1].offset);
            assert!(id_of(&pair[0].record) < id_of(&pair[1].record), "order lost");
        }
        for stored in found {
            let id = id_of(&stored.record);
            assert_eq!(stored.record, record(id, self.sizes[usize::try_from(id).unwrap()]));
        }
        let there: BTreeMap<u64, u64> =
            found.iter().map(|stored| (stored.offset, id_of(&stored.record))).collect();
        let oldest = there.keys().next().copied().unwrap_or(u64::MAX);
        for (offset, id) in self.kept.range(self.released + 1..) {
            let dropped = self.config.when_full == WhenFull::DropOldest && *offset < oldest;
            assert!(dropped || there.get(offset) == Some(id), "acknowledged record {offset} lost");
        }
    }
}

fn play(config: QueueConfig, acts: Vec<Act>) {
    let mut harness = Harness::new(config);
    for act in acts {
        harness.act(act);
    }
    harness.disk.crash(&mut Dice(7)); // whatever was to fail is over
    let (core, writer) = harness.halves.as_mut().unwrap();
    run(core, writer);
    harness.settle();
    let found = read_all(harness.core());
    harness.check(&found);
    assert_eq!(harness.core().stats().queued, found.len() as u64);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_blocking_queue_keeps_every_acknowledged_record(acts in acts()) {
        play(small(WhenFull::Block, 8192), acts);
    }

    #[test]
    fn a_dropping_queue_loses_only_its_oldest(acts in acts()) {
        let config = small(WhenFull::DropOldest, 4096);
        let bound = usize::try_from(config.max_bytes).unwrap();
        let mut harness = Harness::new(config);
        for act in acts {
            harness.act(act);
        }
        // One segment more while segments are exchanged, one kept back by a deletion that failed, the cursor.
        let segment = 1024;
        assert!(harness.disk.bytes() <= bound + 3 * segment, "{} bytes", harness.disk.bytes());
    }
}

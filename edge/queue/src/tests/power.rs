//! Loss of power: the real writes of a queue on a real disk are recorded, and each prefix of them is opened again, with what
//! was not synced kept, lost or torn.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use tidegate_faults::{Cut, Dice, Disk, Op, Recording, record as record_writes, write_to};

use super::{id_of, record, small};
use crate::{Queue, WhenFull};

/// Crash states that are opened, unless `TIDEGATE_POWER_CUTS` says otherwise.
const CUTS: usize = 1_500;
/// Added to a released number, to tell it from an acknowledged one in the recording.
const RELEASED: u64 = 1 << 32;

fn size(id: u64) -> usize {
    usize::try_from(id * 37 % 400).unwrap()
}

/// Appends in bursts, releases and reopens; what was acknowledged is noted on the tape in the callback itself.
fn recorded(dir: &Path) -> Vec<(PathBuf, Op)> {
    let tape: Arc<Recording> = Arc::new(record_writes(dir));
    let mut id = 0;
    for _ in 0..3 {
        let (queue, _) = Queue::open(&dir.join("queue"), small(WhenFull::Block, 64 << 10), 0).unwrap();
        for burst in 1..=20 {
            let told = Arc::new(Mutex::new(Vec::new()));
            for _ in 0..burst % 7 {
                id += 1;
                let (tape, told, mine) = (Arc::clone(&tape), Arc::clone(&told), id);
                queue.append(record(mine, size(mine)), move |result| {
                    assert_eq!(result.unwrap(), mine);
                    tape.note(mine);
                    told.lock().unwrap().push(mine);
                });
            }
            while told.lock().unwrap().len() < burst % 7 {
                std::thread::yield_now();
            }
            if burst % 5 == 0 {
                // The note comes first: from then on what is released may be gone.
                tape.note(RELEASED + id - 3);
                queue.release(id - 3);
            }
        }
        queue.close();
    }
    Arc::into_inner(tape).expect("all callbacks ran").finish()
}

#[test]
fn after_a_loss_of_power_every_acknowledged_record_is_there_in_order_and_nothing_else() {
    let tmp = tempfile::tempdir().unwrap();
    let ops = recorded(tmp.path());
    assert!(ops.iter().filter(|(_, op)| *op == Op::Sync).count() > 60);
    let cuts = std::env::var("TIDEGATE_POWER_CUTS").map_or(CUTS, |n| n.parse().unwrap());
    let (mut disk, mut acknowledged, mut released, mut done) = (Disk::default(), 0, 0, 0);
    let dir = tmp.path().join("found");
    for (number, (name, op)) in ops.iter().enumerate() {
        disk.apply(name, op);
        match op {
            Op::Note(note) if *note > RELEASED => released = note - RELEASED,
            Op::Note(note) => acknowledged = *note,
            Op::Create | Op::Write { .. } | Op::Len(_) | Op::AtLeast(_) | Op::Sync => {}
            Op::Rename { .. } | Op::Remove | Op::Nothing => {}
        }
        while done * ops.len() < (number + 1) * cuts {
            let dice = Dice(done as u64);
            let cut = match done % 5 {
                0 => Cut::Nothing,
                1 => Cut::All,
                2 => Cut::Torn(dice),
                _ => Cut::Some(dice),
            };
            done += 1;
            write_to(&disk.cut(cut.clone()), &dir);
            let (queue, recovery) =
                Queue::open(&dir.join("queue"), small(WhenFull::Block, 64 << 10), 0).unwrap();
            let at = format!("write {number} ({cut:?})");
            assert_eq!(recovery.skipped_bad, 0, "{at}: a torn end was taken for damage");
            let mut found = Vec::new();
            loop {
                let from = found.last().map_or(1, |last| last + 1);
                let some = queue.read_from(from, 64, 1 << 20).unwrap();
                if some.is_empty() {
                    break;
                }
                for stored in some {
                    let id = id_of(&stored.record);
                    assert_eq!((stored.offset, &stored.record), (id, &record(id, size(id))), "{at}");
                    found.push(id);
                }
            }
            // Without a hole; from no later than what is released, to no earlier than what is acknowledged.
            assert!(found.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{at}: {found:?}");
            let (first, last) = (found.first().copied(), found.last().copied());
            assert!(first.is_none_or(|first| first <= released + 1), "{at}: {first:?} after {released}");
            assert!(last.unwrap_or(released) >= acknowledged, "{at}: {last:?} of {acknowledged}");
            drop(queue);
            std::fs::remove_dir_all(&dir).unwrap();
        }
    }
}

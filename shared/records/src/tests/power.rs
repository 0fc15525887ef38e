//! Loss of power: the real writes of a store are recorded, and each prefix of them is opened again, with what was not synced
//! kept, lost or torn.

use std::path::PathBuf;

use tidegate_faults::{Cut, Disk, Op, record, write_to};

use super::*;

/// Crash states that are opened, unless `TIDEGATE_POWER_CUTS` says otherwise.
const CUTS: usize = 150;

/// The writes of some commits over three openings, and what the store held after each commit.
fn recorded(dir: &Path) -> (Vec<(PathBuf, Op)>, Vec<Model>) {
    std::fs::create_dir_all(dir).unwrap();
    let recording = record(dir);
    let mut states = vec![Model::new()];
    let mut dice = Dice(21);
    for _ in 0..3 {
        let mut records = opened(&dir.join("store"));
        for _ in 0..25 {
            let mut model = states[states.len() - 1].clone();
            fill(&mut records, &mut model, 1, &mut dice);
            states.push(model);
            recording.note(states.len() as u64 - 1);
        }
    }
    (recording.finish(), states)
}

#[test]
fn after_a_loss_of_power_everything_that_was_committed_is_there_and_nothing_else() {
    let tmp = tempfile::tempdir().unwrap();
    let (ops, states) = recorded(&tmp.path().join("real"));
    let syncs = ops.iter().filter(|(name, op)| *op == Op::Sync && name.ends_with("db")).count();
    assert!(syncs >= states.len() - 1, "each commit has its sync: {syncs}");
    let cuts = std::env::var("TIDEGATE_POWER_CUTS").map_or(CUTS, |n| n.parse().unwrap());
    let (mut disk, mut told, mut done) = (Disk::default(), 0, 0);
    let mut unopenable = Vec::new();
    for (number, (name, op)) in ops.iter().enumerate() {
        disk.apply(name, op);
        if let Op::Note(commit) = op {
            told = usize::try_from(*commit).unwrap();
        }
        // Spread evenly over the recording.
        while done * ops.len() < (number + 1) * cuts {
            let seed = tidegate_faults::Dice(done as u64);
            let cut = match done % 5 {
                0 => Cut::Nothing,
                1 => Cut::All,
                2 => Cut::Torn(seed),
                _ => Cut::Some(seed),
            };
            done += 1;
            let dir = tmp.path().join("found");
            write_to(&disk.cut(cut.clone()), &dir);
            match open(&dir.join("store"), &LAYOUT, OPTIONS) {
                Ok(opened) => {
                    let found = contents(&opened.records.reader()).unwrap();
                    // The commit under way may be there, as a whole, or not.
                    let allowed = &states[told..states.len().min(told + 2)];
                    assert!(
                        allowed.contains(&found),
                        "write {number} ({cut:?}): not the state after commit {told}"
                    );
                }
                Err(error) => unopenable.push(format!("write {number} ({cut:?}): {error}")),
            }
            std::fs::remove_dir_all(&dir).unwrap();
        }
    }
    assert!(unopenable.is_empty(), "{} of {done}: {unopenable:#?}", unopenable.len());
}

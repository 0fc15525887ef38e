//! Damage: what is read is what was written, or there is an error that names the file. Never a panic.

use std::fs;
use std::path::PathBuf;

use super::*;

fn filled(dir: &Path, commits: usize, seed: u64) -> Model {
    let mut model = Model::new();
    let mut dice = Dice(seed);
    // Two openings, so that there is a snapshot, and a tail of the log behind it.
    fill(&mut opened(dir), &mut model, commits / 2, &mut dice);
    fill(&mut opened(dir), &mut model, commits - commits / 2, &mut dice);
    model
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        } else {
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    }
}

fn damage_of(dir: &Path) -> (PathBuf, String) {
    match open(dir, &LAYOUT, OPTIONS) {
        Err(Error::Damaged { file, what }) => (file, what),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it opened"),
    }
}

/// Changes the database behind the store's back.
fn tamper(dir: &Path, tree: &str, change: impl Fn(&sled::Tree)) {
    let db = sled::open(dir).unwrap();
    change(&db.open_tree(tree).unwrap());
    db.flush().unwrap();
}

#[test]
fn torn_changed_vanished_and_old_values_are_found_when_opening() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("store");
    let mut model = Model::new();
    let mut records = opened(&dir);
    records.commit(&[put(&mut model, DATA, "big", "0123456789".repeat(3_000))]).unwrap();
    records.commit(&[put(&mut model, DATA, "a", "first".to_owned())]).unwrap();
    let first = records.trees[1].get(b"a\0\0").unwrap().unwrap();
    records.commit(&[put(&mut model, DATA, "a", "second".to_owned())]).unwrap();
    drop(records);
    let piece = |number: u8| [b"big".as_slice(), &[0, number]].concat();
    let saved = std::cell::RefCell::new(Vec::new());
    let tampered = |change: &dyn Fn(&sled::Tree)| {
        tamper(&dir, "data", change);
        let (file, what) = damage_of(&dir);
        assert_eq!(file, dir.join("db"));
        what
    };
    let what = tampered(&|tree| drop(saved.replace(tree.remove(piece(2)).unwrap().unwrap().to_vec())));
    assert!(what.contains("lacks a piece"), "{what}");
    let what = tampered(&|tree| {
        let mut changed = saved.borrow().clone();
        changed[100] ^= 1;
        tree.insert(piece(2), changed).unwrap();
    });
    assert!(what.contains("wrong checksum"), "{what}");
    let what = tampered(&|tree| {
        tree.insert(piece(2), saved.borrow().clone()).unwrap();
        tree.insert(piece(40), saved.borrow().clone()).unwrap();
    });
    assert!(what.contains("without a beginning"), "{what}");
    // Each value is whole, and yet they are not what the last commit wrote.
    let what = tampered(&|tree| {
        tree.remove(piece(40)).unwrap();
        tree.insert(b"a\0\0", first.clone()).unwrap();
    });
    assert!(what.contains("not all from the last commit"), "{what}");
    let what = tampered(&|tree| drop(tree.remove(b"a\0\0").unwrap()));
    assert!(what.contains("pieces of records"), "{what}");
}

#[test]
fn a_database_that_lost_its_last_commits_is_told_from_one_that_is_whole() {
    let tmp = tempfile::tempdir().unwrap();
    let (dir, early) = (tmp.path().join("store"), tmp.path().join("early"));
    let mut model = Model::new();
    let mut dice = Dice(5);
    fill(&mut opened(&dir), &mut model, 10, &mut dice);
    copy(&dir, &early);
    let before = model.clone();
    fill(&mut opened(&dir), &mut model, 3, &mut dice);
    // The whole directory from before is a backup of its own; its database under the newer mark is a loss.
    assert_eq!(contents(&opened(&early).reader()).unwrap(), before);
    fs::copy(dir.join("mark"), early.join("mark")).unwrap();
    assert_eq!(damage_of(&early).1, "its last 3 commits are gone");
    // The witness itself may go.
    fs::remove_file(dir.join("mark")).unwrap();
    assert_eq!(contents(&opened(&dir).reader()).unwrap(), model);
    fs::write(dir.join("mark"), [7; 24]).unwrap();
    assert_eq!(contents(&opened(&dir).reader()).unwrap(), model);
}

#[test]
fn a_database_that_lost_everything_is_not_taken_for_a_new_one() {
    let tmp = tempfile::tempdir().unwrap();
    for (name, garbage) in [("empty", Vec::new()), ("noise", vec![0x5a; 100_000])] {
        let dir = tmp.path().join(name);
        filled(&dir, 4, 1);
        fs::write(dir.join("db"), garbage).unwrap();
        assert!(damage_of(&dir).1.contains("contents are gone"), "{name}");
        // Nor the second time, after sled made something of it.
        assert!(damage_of(&dir).1.contains("contents are gone"), "{name}");
        fs::remove_file(dir.join("db")).unwrap();
        assert_eq!(damage_of(&dir), (dir.join("db"), "it is missing".to_owned()));
    }
}

#[test]
fn an_unreadable_configuration_of_sled_is_named() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("store");
    filled(&dir, 4, 1);
    fs::write(dir.join("conf"), [0xa7; 200]).unwrap();
    assert_eq!(damage_of(&dir).0, dir.join("conf"));
}

/// One damage at a random place.
fn damage(dir: &Path, dice: &mut Dice) -> String {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|path| path.is_file());
    files.sort();
    // Most damages to the file that holds the records.
    let file = if dice.below(4) > 0 { dir.join("db") } else { files[dice.below(files.len())].clone() };
    let mut bytes = fs::read(&file).unwrap();
    let at = dice.below(bytes.len());
    let what = match dice.below(6) {
        0 => {
            bytes.truncate(at);
            "cut off"
        }
        1 => {
            let page = at - at % 4096;
            let end = (page + 4096).min(bytes.len());
            bytes[page..end].fill(0);
            "a page of zeros"
        }
        2 | 3 => {
            bytes[at] ^= 1 << dice.below(8);
            "a flipped bit"
        }
        4 => {
            let sector = at - at % 512;
            let from = dice.below(bytes.len());
            let from = from - from % 512;
            let len = 512.min(bytes.len() - sector).min(bytes.len() - from);
            bytes.copy_within(from..from + len, sector);
            "another sector"
        }
        _ => {
            fs::remove_file(&file).unwrap();
            return format!("{} deleted", file.display());
        }
    };
    fs::write(&file, bytes).unwrap();
    format!("{} at byte {at}: {what}", file.display())
}

#[test]
fn any_damage_is_an_error_that_names_a_file_or_harmless() {
    let tmp = tempfile::tempdir().unwrap();
    let whole = tmp.path().join("whole");
    let model = filled(&whole, 60, 11);
    let cases = std::env::var("TIDEGATE_DAMAGES").map_or(150, |n| n.parse().unwrap());
    let (mut noticed, mut harmless) = (0, 0);
    for seed in 0..cases {
        let dir = tmp.path().join("damaged");
        copy(&whole, &dir);
        let what = damage(&dir, &mut Dice(seed));
        let first = match open(&dir, &LAYOUT, OPTIONS) {
            Ok(opened) => {
                assert_eq!(
                    contents(&opened.records.reader()).unwrap(),
                    model,
                    "seed {seed}, {what}: silently wrong"
                );
                harmless += 1;
                None
            }
            Err(Error::Damaged { file, .. }) => {
                assert!(file.starts_with(&dir), "seed {seed}, {what}");
                noticed += 1;
                Some(file)
            }
            Err(other) => panic!("seed {seed}, {what}: {other}"),
        };
        if first.is_some() {
            // sled mends what it can while it opens; that must not make the damage good.
            assert!(
                open(&dir, &LAYOUT, OPTIONS).is_err(),
                "seed {seed}, {what}: the second opening believed it"
            );
        }
        fs::remove_dir_all(&dir).unwrap();
    }
    assert!(noticed > cases / 10 && harmless > cases / 10, "{noticed} noticed, {harmless} harmless");
}

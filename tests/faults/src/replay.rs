//! Plays a recording again, and loses power at any point of it.
//!
//! As strict as POSIX allows: only `fsync` of a file makes its bytes durable, and only `fsync` of its directory its name. What
//! was not synced is kept, lost or torn, each write for itself; a torn one stops at a multiple of 512 bytes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::record::Op;

/// The size of what a disk writes as a whole, in bytes.
const SECTOR: u64 = 512;

/// Small deterministic randomness.
#[derive(Debug, Clone)]
pub struct Dice(pub u64);

impl Dice {
    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % bound.max(1)
    }
}

/// What becomes of that which was not synced when the power goes.
#[derive(Debug, Clone)]
pub enum Cut {
    /// All of it is lost.
    Nothing,
    /// All of it is there.
    All,
    /// All of it is there, but the last write is torn at a random sector.
    Torn(Dice),
    /// Each change is kept, lost or torn.
    Some(Dice),
}

/// The files of a directory.
pub type Image = BTreeMap<PathBuf, Vec<u8>>;

/// A disk in the making: what is durable, and what was done since.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    name_changes: Vec<NameChange>,
}

#[derive(Debug, Clone, Default)]
struct Inode {
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Len(u64),
    AtLeast(u64),
}

#[derive(Debug, Clone)]
enum NameChange {
    Create(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl Disk {
    /// Does what was recorded.
    pub fn apply(&mut self, name: &Path, op: &Op) {
        match op {
            Op::Create => {
                self.inodes.push(Inode::default());
                self.change_names(NameChange::Create(name.to_owned(), self.inodes.len() - 1));
            }
            Op::Write { at, data } => self.change(name, Change::Write(*at, data.clone())),
            Op::Len(len) => self.change(name, Change::Len(*len)),
            Op::AtLeast(len) => self.change(name, Change::AtLeast(*len)),
            Op::Sync => self.sync(name),
            Op::Rename { to } => self.change_names(NameChange::Rename(name.to_owned(), to.clone())),
            Op::Remove => self.change_names(NameChange::Remove(name.to_owned())),
            Op::Nothing | Op::Note(_) => {}
        }
    }

    fn change(&mut self, name: &Path, change: Change) {
        if let Some(inode) = self.names.get(name) {
            self.inodes[*inode].unsynced.push(change);
        }
    }

    fn change_names(&mut self, change: NameChange) {
        apply_name(&mut self.names, &change);
        self.name_changes.push(change);
    }

    fn sync(&mut self, name: &Path) {
        match self.names.get(name) {
            Some(inode) => {
                let inode = &mut self.inodes[*inode];
                for change in std::mem::take(&mut inode.unsynced) {
                    apply(&mut inode.durable, &change);
                }
            }
            // A directory: its names. Those of a directory within it are not this one's.
            None => {
                let (here, elsewhere): (Vec<_>, Vec<_>) =
                    std::mem::take(&mut self.name_changes).into_iter().partition(|change| change.is_in(name));
                here.iter().for_each(|change| apply_name(&mut self.durable_names, change));
                self.name_changes = elsewhere;
            }
        }
    }

    /// The power goes: what is found afterwards.
    #[must_use]
    pub fn cut(&self, cut: Cut) -> Image {
        let mut names = self.durable_names.clone();
        let kept = match &cut {
            Cut::Nothing => 0,
            Cut::All | Cut::Torn(_) => self.name_changes.len(),
            // File systems keep the order of names.
            Cut::Some(dice) => dice.clone().below(self.name_changes.len() + 1),
        };
        self.name_changes.iter().take(kept).for_each(|change| apply_name(&mut names, change));
        let mut dice = match &cut {
            Cut::Nothing | Cut::All => Dice(0),
            Cut::Torn(dice) | Cut::Some(dice) => dice.clone(),
        };
        let mut image = Image::new();
        for (name, number) in names {
            let inode = &self.inodes[number];
            let mut bytes = inode.durable.clone();
            let last = inode.unsynced.len().wrapping_sub(1);
            for (at, change) in inode.unsynced.iter().enumerate() {
                let fate = match &cut {
                    Cut::Nothing => 0,
                    Cut::All => 2,
                    Cut::Torn(_) => {
                        if at == last {
                            1
                        } else {
                            2
                        }
                    }
                    Cut::Some(_) => dice.below(3),
                };
                match fate {
                    0 => {}
                    1 => apply(&mut bytes, &torn(change, &mut dice)),
                    _ => apply(&mut bytes, change),
                }
            }
            image.insert(name, bytes);
        }
        image
    }
}

impl NameChange {
    fn is_in(&self, dir: &Path) -> bool {
        match self {
            Self::Create(name, _) | Self::Remove(name) => name.parent() == Some(dir),
            Self::Rename(from, _) => from.parent() == Some(dir),
        }
    }
}

fn apply_name(names: &mut BTreeMap<PathBuf, usize>, change: &NameChange) {
    match change {
        NameChange::Create(name, inode) => {
            names.insert(name.clone(), *inode);
        }
        NameChange::Rename(from, to) => {
            // A directory takes what is in it along.
            let moved: Vec<PathBuf> = names.keys().filter(|name| name.starts_with(from)).cloned().collect();
            for name in moved {
                let rest = name.strip_prefix(from).unwrap_or(Path::new(""));
                let new = if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) };
                if let Some(inode) = names.remove(&name) {
                    names.insert(new, inode);
                }
            }
        }
        NameChange::Remove(name) => {
            names.remove(name);
        }
    }
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    let size = |len: u64| usize::try_from(len).unwrap_or(usize::MAX);
    match change {
        Change::Write(at, data) => {
            let (from, to) = (size(*at), size(*at) + data.len());
            if bytes.len() < to {
                bytes.resize(to, 0);
            }
            bytes[from..to].copy_from_slice(data);
        }
        Change::Len(len) => bytes.resize(size(*len), 0),
        Change::AtLeast(len) => bytes.resize(bytes.len().max(size(*len)), 0),
    }
}

/// A part of a write: some of its sectors from the beginning or up to the end. A change of the length is not torn.
fn torn(change: &Change, dice: &mut Dice) -> Change {
    let Change::Write(at, data) = change else { return change.clone() };
    let end = at + data.len() as u64;
    let sectors = end.div_ceil(SECTOR) - at / SECTOR;
    let boundary = (at / SECTOR + dice.below(usize::try_from(sectors).unwrap_or(1) + 1) as u64) * SECTOR;
    let split = usize::try_from(boundary.clamp(*at, end) - at).unwrap_or(0);
    if dice.below(2) == 0 {
        Change::Write(*at, data[..split].to_vec())
    } else {
        Change::Write(at + split as u64, data[split..].to_vec())
    }
}

/// Writes the files of an image into a directory, which must not exist yet.
///
/// # Panics
/// When it cannot be written.
pub fn write_to(image: &Image, dir: &Path) {
    std::fs::create_dir(dir).expect("the test's directory can be written");
    for (name, bytes) in image {
        let path = dir.join(name);
        let parent = path.parent().expect("it is below the directory");
        std::fs::create_dir_all(parent).expect("the test's directory can be written");
        std::fs::write(path, bytes).expect("the test's directory can be written");
    }
}

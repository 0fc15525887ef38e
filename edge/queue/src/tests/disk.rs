//! A disk in memory that keeps only what was synced, and fails or loses power on demand.

use std::{
    any::Any,
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use crate::disk::{Disk, DiskFile};

/// The disk. Clones share it.
#[derive(Clone, Default)]
pub(super) struct FakeDisk(Arc<Mutex<World>>);

#[derive(Default)]
struct World {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    name_changes: Vec<NameChange>,
    /// Changing operations so far.
    operations: u64,
    fail_at: Option<(u64, io::ErrorKind)>,
    power_off_at: Option<u64>,
    locked: bool,
}

#[derive(Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Len(u64),
}

enum NameChange {
    Create(String, usize),
    Remove(String),
}

/// Small deterministic randomness for the choices of a crash.
pub(super) struct Dice(pub u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound.max(1)
    }
}

impl FakeDisk {
    /// The `after`-th changing operation from now on fails, once.
    pub(super) fn fail(&self, after: u64, kind: io::ErrorKind) {
        let mut world = self.world();
        world.fail_at = Some((world.operations + after, kind));
    }

    /// From the `after`-th changing operation on nothing works, until [`FakeDisk::crash`].
    pub(super) fn power_off(&self, after: u64) {
        let mut world = self.world();
        world.power_off_at = Some(world.operations + after);
    }

    /// Nothing is to fail any more; a power cut that was to come does not.
    pub(super) fn calm(&self) {
        let mut world = self.world();
        world.fail_at = None;
        world.power_off_at = None;
    }

    /// Loses power: each unsynced change is kept, lost or torn; the power is back on.
    pub(super) fn crash(&self, dice: &mut Dice) {
        let mut world = self.world();
        for inode in &mut world.inodes {
            for change in std::mem::take(&mut inode.unsynced) {
                match (dice.below(3), change) {
                    (0, _) => {}
                    (1, Change::Write(pos, data)) => {
                        let (from, to) = (dice.below(data.len()), dice.below(data.len() + 1));
                        let torn = if from < to { from..to } else { 0..to };
                        write(&mut inode.durable, pos + torn.start as u64, &data[torn]);
                    }
                    (_, change) => apply(&mut inode.durable, &change),
                }
            }
            inode.now = inode.durable.clone();
        }
        let kept = dice.below(world.name_changes.len() + 1);
        let changes: Vec<NameChange> = world.name_changes.drain(..).take(kept).collect();
        for change in changes {
            rename(&mut world.durable_names, change);
        }
        world.names = world.durable_names.clone();
        world.locked = false;
        drop(world);
        self.calm();
    }

    /// Changes bytes of a file, durably.
    pub(super) fn edit(&self, name: &str, edit: impl Fn(&mut Vec<u8>)) {
        let mut world = self.world();
        let inode = world.names[name];
        let inode = &mut world.inodes[inode];
        edit(&mut inode.now);
        inode.durable = inode.now.clone();
        inode.unsynced.clear();
    }

    /// Names of the segments.
    pub(super) fn segments(&self) -> Vec<String> {
        self.world().names.keys().filter(|name| name.ends_with(".seg")).cloned().collect()
    }

    /// Length of all files together, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let world = self.world();
        world.names.values().map(|inode| world.inodes[*inode].now.len()).sum()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
}

impl World {
    /// Counts a changing operation; tells whether it may happen.
    fn change(&mut self) -> io::Result<()> {
        self.operations += 1;
        if self.power_off_at.is_some_and(|at| self.operations >= at) {
            return Err(io::Error::other("no power"));
        }
        match self.fail_at {
            Some((at, kind)) if self.operations >= at => {
                self.fail_at = None;
                Err(kind.into())
            }
            Some(_) | None => Ok(()),
        }
    }
}

struct FakeFile {
    disk: FakeDisk,
    inode: usize,
}

struct FakeLock(FakeDisk);

impl Drop for FakeLock {
    fn drop(&mut self) {
        self.0.world().locked = false;
    }
}

impl Disk for FakeDisk {
    fn lock(&self) -> io::Result<Option<Box<dyn Any + Send>>> {
        let mut world = self.world();
        if std::mem::replace(&mut world.locked, true) {
            return Ok(None);
        }
        Ok(Some(Box::new(FakeLock(self.clone()))))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.world().names.keys().cloned().collect())
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Box<dyn DiskFile>> {
        let mut world = self.world();
        world.change()?;
        let inode = match world.names.get(name) {
            Some(inode) => *inode,
            None => {
                world.inodes.push(Inode::default());
                let inode = world.inodes.len() - 1;
                world.names.insert(name.to_owned(), inode);
                world.name_changes.push(NameChange::Create(name.to_owned(), inode));
                inode
            }
        };
        for change in [Change::Len(0), Change::Len(len)] {
            apply(&mut world.inodes[inode].now, &change);
            world.inodes[inode].unsynced.push(change);
        }
        Ok(Box::new(FakeFile { disk: self.clone(), inode }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let inode = *self.world().names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(FakeFile { disk: self.clone(), inode }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        world.change()?;
        world.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        world.name_changes.push(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut world = self.world();
        world.change()?;
        for change in std::mem::take(&mut world.name_changes) {
            rename(&mut world.durable_names, change);
        }
        Ok(())
    }
}

impl DiskFile for FakeFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.world().inodes[self.inode].now.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        let world = self.disk.world();
        let from = world.inodes[self.inode].now.get(usize::try_from(pos).unwrap()..).unwrap_or(&[]);
        let len = from.len().min(buf.len());
        buf[..len].copy_from_slice(&from[..len]);
        Ok(len)
    }

    fn write_at(&self, data: &[u8], pos: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        let result = world.change();
        // A failing write may have written a part.
        let data = if result.is_ok() { data } else { &data[..data.len() / 2] };
        let inode = &mut world.inodes[self.inode];
        write(&mut inode.now, pos, data);
        inode.unsynced.push(Change::Write(pos, data.to_vec()));
        result
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.disk.world();
        let result = world.change();
        if world.power_off_at.is_some_and(|at| world.operations >= at) {
            return result; // what happened to the changes, the crash decides
        }
        let inode = &mut world.inodes[self.inode];
        // After a failed sync Linux calls the pages clean: no later sync writes them.
        let changes = std::mem::take(&mut inode.unsynced);
        if result.is_ok() {
            for change in changes {
                apply(&mut inode.durable, &change);
            }
        }
        result
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        world.change()?;
        let inode = &mut world.inodes[self.inode];
        apply(&mut inode.now, &Change::Len(len));
        inode.unsynced.push(Change::Len(len));
        Ok(())
    }
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(pos, data) => write(bytes, *pos, data),
        Change::Len(len) => bytes.resize(usize::try_from(*len).unwrap(), 0),
    }
}

fn write(bytes: &mut Vec<u8>, pos: u64, data: &[u8]) {
    let pos = usize::try_from(pos).unwrap();
    if bytes.len() < pos + data.len() {
        bytes.resize(pos + data.len(), 0);
    }
    bytes[pos..pos + data.len()].copy_from_slice(data);
}

fn rename(names: &mut BTreeMap<String, usize>, change: NameChange) {
    match change {
        NameChange::Create(name, inode) => {
            names.insert(name, inode);
        }
        NameChange::Remove(name) => {
            names.remove(&name);
        }
    }
}

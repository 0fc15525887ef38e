//! From an older schema to the present one: a copy first, then all steps in one commit.
//!
//! A step reads the old entries and says which change. The copy is the directory as the older version left it, so that
//! version can be started on it again. A crash at any moment leaves the old store, or the new one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::{Error, Layout, Tree, disk, value};

/// One entry of a tree, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawChange {
    /// Its tree.
    pub tree: Tree,
    /// Its whole key.
    pub key: Vec<u8>,
    /// Its value; `None`: it goes.
    pub value: Option<Vec<u8>>,
}

/// Key and value of an entry.
pub type Entry = (Vec<u8>, Vec<u8>);

/// The entries of a store of an older schema.
#[derive(Debug)]
pub struct Raw<'s> {
    pub(crate) trees: &'s [sled::Tree],
}

impl Raw<'_> {
    /// All entries of a tree in the order of their keys.
    ///
    /// # Errors
    /// A sentence: the tree cannot be read.
    pub fn entries(&self, tree: Tree) -> Result<Vec<Entry>, String> {
        let tree = self.trees.get(tree.0).ok_or("there is no such tree")?;
        tree.iter()
            .map(|entry| entry.map(|(k, v)| (k.to_vec(), v.to_vec())).map_err(|e| e.to_string()))
            .collect()
    }
}

/// The entries of a record as this version writes it: number of the piece after `key`, and value.
///
/// # Errors
/// A sentence: the record is too large.
pub fn pieces(tree: Tree, key: &[u8], json: &[u8]) -> Result<Vec<RawChange>, String> {
    let pieces = value::encode(json).ok_or("a record is too large")?;
    let numbered = (0..).zip(pieces);
    Ok(numbered
        .map(|(number, piece)| RawChange { tree, key: value::piece_key(key, number), value: Some(piece) })
        .collect())
}

/// From one schema to the next.
#[derive(Debug)]
pub struct Step {
    /// The schema that it leads to, from the one below.
    pub to: u32,
    /// What it does, for the log.
    pub what: &'static str,
    /// The entries that change. The step sees the store as it was before the first step: one that builds on another one's
    /// result calls it.
    pub run: fn(&Raw<'_>) -> Result<Vec<RawChange>, String>,
}

/// The steps from `found` on, none left out.
pub(crate) fn steps(dir: &Path, layout: &Layout, found: u32) -> Result<Vec<&'static Step>, Error> {
    let steps: Vec<&Step> = layout.steps.iter().filter(|step| step.to > found).collect();
    let wanted: Vec<u32> = (found + 1..=layout.schema).collect();
    if steps.iter().map(|step| step.to).collect::<Vec<_>>() == wanted {
        Ok(steps)
    } else {
        Err(Error::damaged(dir, format!("it says schema {found}, which never existed")))
    }
}

/// Where the copy of a store of this schema lies.
pub(crate) fn copy_dir(dir: &Path, schema: u32) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(format!(".schema-{schema}"));
    name.into()
}

/// Copies a store that nobody writes, durably. The copy has its name only when it is whole.
pub(crate) fn copy_aside(dir: &Path, schema: u32) -> Result<PathBuf, Error> {
    let to = copy_dir(dir, schema);
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let copied = || {
        for leftover in [&part, &to] {
            if leftover.exists() {
                fs::remove_dir_all(leftover)?;
            }
        }
        copy_tree(dir, &part)?;
        fs::rename(&part, &to)?;
        File::open(to.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    copied().map_err(|error| {
        // What a full disk left of the copy is in the way of the next attempt.
        let _ = fs::remove_dir_all(&part);
        let why = format!("copying it to {} first: {error}; it was not changed", to.display());
        Error::failed("migrating", dir, why)
    })?;
    Ok(to)
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    disk::make_private(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            File::open(&target)?.sync_all()?;
        }
    }
    File::open(to)?.sync_all()
}

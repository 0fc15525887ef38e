//! Records on disk, for controller and agent alike: sled 0.34 behind the rules that were measured for it.
//!
//! Owns how records become bytes, when they are durable, how damage is found, and how an older schema becomes the present
//! one. What a record means, which belong together and what follows from damage is for others to know: the controller stops
//! and tells how to restore, the agent sets the directory aside and is issued again.
//!
//! # What is promised (reasons and figures in docs/adr/0012)
//!
//! * [`Records::commit`] is all or nothing over all trees, and durable when it returns: one transaction, sled's flush, and an
//!   own `fdatasync`, because sled's flush is none on Linux. After an error what is on disk is known only after a new opening.
//! * What is read is what was written. Each record carries a checksum, and the `seal` that every commit writes covers all of
//!   them together: opening reads everything and compares, so that a record that vanished, came back from earlier, or lies
//!   under another key is noticed as well as a changed one.
//! * A database that lost its last commits is noticed too: the file `mark` beside it knows how many there were.
//! * sled's panics over damaged files become [`Error::Damaged`].
//!
//! # On disk
//!
//! ```text
//! {dir}/db, conf, blobs/, snap.…   sled's own
//! {dir}/mark                       commits that were durable: magic, u64, CRC; never ahead of the database
//! {dir}/quarantine/                snapshots that sled could not read, of the last such opening
//! {dir}.new/                       a store that is being made
//! {dir}.schema-1/                  the directory as it was before it was migrated from schema 1
//! ```

use std::path::{Path, PathBuf};

mod disk;
mod error;
mod mark;
mod migrate;
mod open;
mod read;
mod seal;
#[cfg(test)]
mod tests;
mod value;
mod write;

pub use error::Error;
pub use migrate::{Entry, Raw, RawChange, Step, pieces};
pub use open::open;
pub use read::{Order, Reader};
pub use write::{Change, Records};

/// A tree of records, by its place in [`Layout::trees`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tree(pub usize);

/// The tree that holds the schema's number and the seal beside records of the caller: the first one.
pub const META: Tree = Tree(0);

/// What a store consists of.
#[derive(Debug)]
pub struct Layout {
    /// Names of the trees; the first is [`META`]. A tree may be added at the end without a migration.
    pub trees: &'static [&'static str],
    /// Schema that this version writes, and the highest that it reads.
    pub schema: u32,
    /// How to come from each schema to the next, in order.
    pub steps: &'static [Step],
    /// Reads the schema's number where it was not written by this crate yet.
    pub early_schema: fn(&Raw<'_>) -> Option<u32>,
}

/// What the caller chooses.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Bound on sled's cache, in bytes.
    pub cache_bytes: u64,
    /// Bytes on disk that the database keeps for itself ahead of its end, so that it stays writable on a full disk. 0: none.
    pub reserve_bytes: u64,
}

/// An open store, and whether it was made just now.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub records: Records,
    /// There was none before.
    pub is_new: bool,
}

/// Name of the file that sled keeps everything in.
const DB: &str = "db";

fn db_file(dir: &Path) -> PathBuf {
    dir.join(DB)
}

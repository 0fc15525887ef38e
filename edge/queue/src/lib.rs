//! The durable store-and-forward queue of a bridge.
//!
//! Owns: records between "accepted from the source" and "acknowledged by the target", on disk, in order.
//! Leaves to others: what a topic means, whom to send a record to, when to send it again, what time it is.
//!
//! # What is promised
//!
//! * The callback of [`Queue::append`] says `Ok` only after the record survived an `fdatasync`.
//! * Records are read in the order in which they were accepted, under offsets 1, 2, 3 … that are never used for two
//!   accepted records, not even after every segment was deleted or the process restarted.
//! * An accepted record is there until it is released, dropped by [`WhenFull::DropOldest`], too old, found
//!   damaged, or dropped by hand; each of the last four is counted in [`DropCounts`]. One that its target never takes may be set aside
//!   ([`Queue::set_aside`]): kept beside the line, within bounds of its own.
//! * After a crash the cursor may be stale: released records come again (duplicates), never the other way round.
//!
//! # On disk
//!
//! ```text
//! {dir}/lock                        held while a queue is open
//! {dir}/cursor                      last released offset, 24 bytes, never synced
//! {dir}/00000000000000000001.seg    preallocated; the name is the first offset that may be in it
//! {dir}/00000000000000018230.seg    the newest one is written to, the others are only read
//! {dir}/00000000000000000007.aside  the record that stood at offset 7 and was set aside, with the reason
//! {dir}/00000000000000000002.holes  what was dropped by hand out of the middle
//! ```
//!
//! A segment is a header and a row of records (see `record.rs` for the bytes). Each record names the first offset of
//! the batch it was written with: a batch is written only after the one before was synced, so a record proves that
//! everything before its batch had been acknowledged. That is how recovery tells damage (skip and count) from the
//! torn, never acknowledged end of the log (cut off). The newest segment is never deleted, so its name carries the
//! next offset over a restart.
//!
//! # Threads
//!
//! One writer thread per queue does every write, `fdatasync`, deletion and cursor update; what arrives while it
//! syncs becomes the next batch. No other call waits for it, but [`Queue::read_from`], which may read files.

mod aside;
mod by_hand;
mod catalog;
mod config;
mod core;
mod cursor;
mod disk;
mod error;
mod holes;
mod queue;
mod record;
mod recover;
mod scan;
mod segment;
mod state;
mod stats;
mod tail;
mod view;
mod writer;

#[cfg(test)]
mod tests;

pub use aside::{Aside, MAX_ASIDE};
pub use by_hand::Removed;
pub use config::{QueueConfig, WhenFull};
pub use error::{AppendError, AsideError, DropError, QueueError, ReadError};
pub use holes::MAX_HOLES;
pub use queue::Queue;
pub use record::{MAX_TOPIC_BYTES, Record, Source, Stored, UNKNOWN_AGE};
pub use stats::{DropCounts, MAX_SOURCES, QueueStats, Recovery};
pub use view::View;

//! A simulated world: one controller, five agents, a bad network; virtual time, one seed.
//!
//! The cores are the real ones. Everything around them is played here and is allowed to be as bad as the protocol
//! admits: the network loses, copies, delays, reorders and partitions; the brokers deliver Last Wills late; processes
//! crash before and after the commit of a step's writes; disks are wiped and restored from backups; wall clocks jump;
//! remote brokers refuse, vanish and come back; an operator clicks at random.
//!
//! A run has three phases. In the **storm** everything happens and the safety invariants of architecture.md section 9
//! are checked after every step ([`check`]). Then all faults stop, and within [`SETTLE_MS`] desired must be reported
//! everywhere. Then nothing happens for [`QUIET_MS`], and nothing may be asked for: both cores agree on every root.
//!
//! The same seed gives the same run. A run that fails says at which step and why; run again with a trace, it shows the
//! last [`TRACE_LINES`] things that happened.
//!
//! Leaves to others: sockets, disks, real brokers (the end-to-end tests).

pub mod broker;
pub mod check;
mod cloud_shell;
mod edge_shell;
pub mod network;
pub mod operator;
pub mod process;
pub mod remote;
pub mod rng;
pub mod run;
pub mod settled;
mod storm;
mod trace;
pub mod world;

pub use run::{Failure, Plan, Stats, run, run_with};
pub use world::World;

/// Milliseconds after the last fault within which everything must have settled: a routine hello (15 min and a fifth),
/// a hold for `DUPLICATE_EDGE` (5 min) and the retries of an operation fit.
pub const SETTLE_MS: i64 = 30 * 60 * 1_000;
/// Milliseconds after that during which nobody may ask for an inventory.
pub const QUIET_MS: i64 = 60 * 60 * 1_000;
/// Edges of the world.
pub const EDGES: usize = 5;
/// Names that rules can have.
pub const RULES: usize = 5;
/// Lines of a failed run's trace that are shown.
pub const TRACE_LINES: usize = 80;

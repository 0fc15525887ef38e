//! A simulated world: one controller, up to five gateways, a bad network; virtual time, one seed.
//!
//! The cores are the real ones. Everything around them is played here and is allowed to be as bad as the protocol
//! admits: the network loses, copies, delays, reorders and partitions; the brokers deliver Last Wills late and forget
//! all; processes crash before and after the commit of a step's writes; disks are full, wiped, cloned and restored from
//! backups, the controller's too; wall clocks jump; agents of other versions speak; remote brokers refuse, vanish and
//! come back; an operator clicks at random.
//!
//! A run is data ([`Script`]): the seed of all chance and a list of [`Step`]s. It has three phases. In the **storm**
//! everything happens and the safety invariants of architecture.md section 9 are checked after every step ([`check`],
//! [`table`]). Then all faults stop, and within [`SETTLE_MS`] desired must be reported everywhere. Then nothing happens
//! for [`QUIET_MS`], and nothing may be asked for or sent: both cores agree on every root.
//!
//! The same script gives the same run. One that fails is cut down to the shortest that fails so ([`shrink`]), told in
//! words, printed as a scenario to paste, with the last [`TRACE_LINES`] things that happened. What really happened is
//! counted ([`coverage`]), so that nobody believes in faults that never occur.
//!
//! Leaves to others: sockets, disks, real brokers (the end-to-end tests).

mod accent;
mod ask;
pub mod broker;
pub mod check;
mod cloud_shell;
pub mod coverage;
mod edge_shell;
pub mod many;
pub mod network;
pub mod operator;
mod play;
pub mod process;
pub mod remote;
pub mod rng;
pub mod run;
pub mod script;
pub mod settled;
pub mod shrink;
mod states;
pub mod step;
pub mod table;
mod trace;
pub mod world;

pub use coverage::Coverage;
pub use run::{Failure, Stats, play, run};
pub use script::Script;
pub use step::{At, Step};
pub use world::World;

/// Everything that a scenario is written with, as the shrinker prints it.
pub mod words {
    pub use crate::network::Weather;
    pub use crate::operator::Shape;
    pub use crate::remote::Weather::*;
    pub use crate::step::{Moment::*, Notices::*, Oddity::*, Password::*, Software::*, Step::*};
    pub use crate::{At, Script};
    pub use tidegate_model::code::FaultCode::{Auth, Dns, SubscribeRefused, Tcp};
    pub use tidegate_model::placement::Action::{self, *};
}

/// Milliseconds after the last fault within which everything must have settled: a routine hello (15 min and a fifth),
/// a hold for `DUPLICATE_EDGE` (5 min) and the retries of an operation fit.
pub const SETTLE_MS: i64 = 30 * 60 * 1_000;
/// Milliseconds after that during which nobody may ask for or send anything but heartbeats and routine hellos.
pub const QUIET_MS: i64 = 60 * 60 * 1_000;
/// Milliseconds between two looks of the operator after edges that wait for a confirmation, once all is calm.
pub const CONFIRM_EVERY_MS: i64 = 2 * 60 * 1_000;
/// Identities that gateways can have.
pub const EDGES: usize = 5;
/// Names that rules can have.
pub const RULES: usize = 5;
/// Lines of a failed run's trace that are shown.
pub const TRACE_LINES: usize = 80;

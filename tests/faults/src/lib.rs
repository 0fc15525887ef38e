//! Disks that fail, for tests only: no program of Tidegate knows of it.
//!
//! The functions of libc through which Rust writes to files are defined here a second time (`hooks`). Linked into a test, or
//! preloaded into a real, unchanged process with `LD_PRELOAD`, they come before libc's. Outside of what a test asked for
//! they only pass calls on to the kernel.
//!
//! * [`record`]: everything that this process writes below a directory, in its true order. [`Disk`] plays it again up to any
//!   point, and loses power there: what was not synced is kept, lost or torn.
//! * [`Fault`]: the environment that makes a preloaded process end (`kill -9`) at its n-th write, or find its disk full.

#![cfg(target_os = "linux")]

mod fault;
mod hooks;
mod record;
mod replay;

pub use fault::Fault;
pub use record::{Op, Recording, record};
pub use replay::{Cut, Dice, Disk, Image, write_to};

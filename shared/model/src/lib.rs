//! What cloud and edge must agree on: ids, rules, versions, states, wire messages.
//!
//! Pure: no IO, no clock, no randomness, no async runtime (ARCHITECTURE.md, invariant 1).

pub mod code;
pub mod digest;
pub mod doctor;
pub mod ids;
pub mod limits;
pub mod placement;
pub mod plain;
pub mod rule;
mod text;
pub mod time;
pub mod topic;
pub mod version;
pub mod wire;

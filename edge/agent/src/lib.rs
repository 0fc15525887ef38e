//! The agent on a gateway: store, cloud session, local broker, bridges.
//!
//! The shell around `tidegate-edge-core`: it turns what happens into inputs, makes decisions durable, then acts. The
//! one loop is in `run.rs`; everything else is a hand of it.
//!
//! ```text
//! devices -> local broker -> intake (tap) -> queues -> bridges -> remote brokers
//!            (or another one -> a session) -'
//!                                                         |
//! controller <-> cloud session <-> the loop (core, store) <- control socket
//! ```

mod asks;
mod bridges;
mod clock;
mod cloud;
pub mod control;
pub mod doctor;
mod effects;
mod error;
mod intake;
mod local;
mod metrics;
mod pulse;
pub mod queues;
mod rules_dir;
mod run;
pub mod settings;
mod startup;
mod store;

pub mod bridge;

pub use error::RunError;
pub use pulse::Pulse;
pub use rules_dir::{Reload, check as check_rules, located, read_rule};
pub use run::Gateway;
pub use settings::AgentConfig;
pub use store::StoreError;

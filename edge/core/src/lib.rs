//! The gateway's decisions, without IO: which commands to accept, how to apply them, what to report, when to speak.
//!
//! [`Agent`] is the whole of it: `restore` it from what is on disk, `handle` one [`Input`] at a time, commit the writes
//! of the [`Output`], then perform its effects. It reads no clock, no environment and no randomness: the moment comes
//! with each call, randomness from the seed that [`Setup`] brings.
//!
//! Leaves to others: MQTT, files, bridges and queues (the agent crate), and the words of the protocol (the model).

mod accept;
mod agent;
mod apply;
pub mod backoff;
mod clash;
mod dice;
mod down;
mod io;
mod link;
mod orders;
mod policy;
pub mod rate;
mod record;
pub mod redelivery;
mod report;
mod results;
mod rules;
mod session;
mod sets;
mod site;
pub mod suspicion;
mod timing;
mod trial;
mod view;
pub mod window;

pub use agent::{Agent, Setup};
pub use io::{
    BridgeEvent, Effect, Input, Keeper, LocalAction, LocalAnswer, LocalRefusal, Order, Output, QueuesFull,
    ReplyId, RuleFile, SiteRule, Write,
};
pub use policy::Policy;
pub use record::{Candidate, Held, Meta, OnSite, Outcome, RuleRecord, Snapshot, Tombstone, Withdrawn};
pub use timing::{COUNTERS_EVERY_MS, REPORT_PAUSE_MS};
pub use view::{Drops, FileTrouble, LinkView, RuleView};

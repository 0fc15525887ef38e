//! What travels between controller and agent: topics, the envelope and the messages.
//!
//! The contract is docs/protocol.md together with one golden JSON file per message in `shared/model/golden/`.

/// Major version of this protocol: the number in every topic, and the one that an agent names in its hello.
pub const PROTOCOL: u32 = 1;

mod control;
mod envelope;
mod message;
mod told;
mod topics;

pub use control::{
    Ack, AckBody, Ask, BadCommand, COMMAND_TYPE, Command, InvalidTid, PlacementState, StateQueueFull,
    StateReason, Tid,
};
pub use envelope::{Envelope, Header, WireError};
pub use message::{
    Attempt, Birth, By, Bye, Config, ControllerPresence, Counters, DesiredRun, Down, Dropped, Fault,
    Heartbeat, Hello, HelloLimits, Inventory, InventoryItem, Origin, Ping, QueueFull, Received, Report,
    RunReport, SecretValue, Set, SetResult, Transition, Up, Want, Welcome, Will, root,
};
pub use told::one_line;
pub use topics::{EdgeTopic, Topics};

//! The embedded MQTT 3.1.1 broker of the cloud controller and of the edge agent.
//!
//! Owns everything between a client's socket and its owner: listener, CONNECT with its codes, rights, taps that take a
//! message before it is acknowledged, keep-alive, wills, take-over, subscriptions, sessions, packet ids, retained messages,
//! and a bound on everything a client can make grow. Uses rumqttd's packet codec; see docs/adr/0003 for why not
//! its router. Leaves to its owner: who may connect ([`Gate`]), what becomes of messages ([`Tap`]), and what it
//! means that a client comes or goes ([`Watcher`]).
//!
//! ```text
//! socket -> codec -> connection -> tap -> hub (retained, tree) -> session -> connection -> codec -> socket
//!                        |  ^       |
//!                        |  '-------'  acknowledged when the tap has taken it
//!                        '-> will, take-over, keep-alive
//! ```
//!
//! Limits of what it promises: a message that a tap took is as safe as the tap makes it; one that no tap took is
//! in memory, and lost when the process ends. Messages queued for a persistent session do not outlive the
//! process, its subscriptions do.

mod broker;
mod codec;
mod config;
mod connect;
mod connect_packet;
mod connection;
mod files;
mod filter;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod held;
mod hub;
mod keeper;
mod lobby;
mod message;
mod pool;
mod reader;
mod retained;
mod session;
mod slot;
mod state;
mod stats;
mod store;
mod tap;
mod tree;
mod watchdog;
mod watcher;
mod will;
mod writer;

pub use broker::{Broker, PublishError, StartError};
pub use config::{BrokerConfig, Limits};
pub use files::raise_open_files;
pub use filter::{TopicError, covers, matches};
pub use gate::{AllowAll, ConnectRequest, Decision, Gate, Password, Permit, Refusal, Rights};
pub use hub::{ConnectedClient, Delivery, SendError};
pub use message::{Message, Qos};
pub use stats::Stats;
pub use tap::{Offer, PassAll, Source, Tap, TapResult};
pub use watchdog::Health;
pub use watcher::{DisconnectReason, Event, Quiet, Watcher};

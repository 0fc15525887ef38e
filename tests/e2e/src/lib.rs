//! What the end-to-end tests stand on: real processes, real brokers, devices and sinks of our own, and cables to cut.
//!
//! ```text
//! Device -> agent (tidegate-edge) -> [Proxy] -> Mosquitto -> Sink
//!                |
//!             [Proxy]
//!                |
//!           controller (tidegate serve) <- Cli (tidegate … -o json)
//! ```
//!
//! Owns starting, killing and watching; the scenarios are in `tests/`. Everything waits for a condition with a
//! deadline ([`wait`]), and everything that is started ends with the value that stands for it, also on a panic, when
//! it prints the end of its log. Depends on no crate that it tests: it knows the
//! binaries as an operator does.

pub mod agent;
pub mod cloud_broker;
pub mod controller;
pub mod device;
pub mod faults;
pub mod full;
pub mod mosquitto;
pub mod mqtt;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod rule;
pub mod sink;
pub mod tls;
pub mod wait;
pub mod world;

pub use agent::{Agent, Local};
pub use cloud_broker::CloudBroker;
pub use controller::{Answer, Controller};
pub use device::Device;
pub use faults::Faults;
pub use mosquitto::Mosquitto;
pub use mqtt::Login;
pub use proxy::Proxy;
pub use rule::Rule;
pub use sink::Sink;
pub use wait::{PATIENCE, until, within};
pub use world::World;

//! The agent on a gateway: store, cloud session, local broker, bridges.

pub mod bridge;

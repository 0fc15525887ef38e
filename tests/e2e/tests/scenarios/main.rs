//! The scenarios: what Tidegate promises, tried on real processes. Each is a story that an operator could tell.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod cables;
mod clients;
mod crashes;
mod crowd;
mod dev;
mod disks;
mod doctor;
mod every_write;
mod external_cloud;
mod external_local;
mod flow;
mod full_queue;
mod lists;
mod migrate;
mod mqtt_control;
mod run_states;
mod set_aside;
mod tls;
mod upgrade;

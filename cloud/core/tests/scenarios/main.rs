//! Scenarios: a controller, its store and one scripted edge, in virtual time.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test fails by panicking")]

mod any_order;
mod once;
mod presence;
mod reconcile;
mod rehearse;
mod removals;
mod reports;
mod states;
mod succession;
mod unmanaged;
mod world;

//! The API through its router, over the store in memory; no socket.

mod conventions;
mod harness;
mod placements;
mod rules;
mod secrets;
mod stream;

//! The API through its router, over the store in memory; no socket.

mod conventions;
mod dry_run;
mod explain;
mod export;
mod harness;
mod import;
mod once;
mod openapi;
mod placements;
mod rules;
mod secrets;
mod stream;
mod wrong_requests;

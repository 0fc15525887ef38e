//! The whole controller in this process: real sockets on loopback, a scripted agent, HTTP from outside.

mod edge;
mod external;
mod failing;
mod journey;
mod limits;
mod refused;
mod starting;
mod world;

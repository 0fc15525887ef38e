//! Who somebody is: the administrator by bearer token, an edge by its credential.
//!
//! Owns how secrets are made, kept as hashes and compared, and who was refused lately. Leaves to others where they come in (`http`,
//! `transport`) and what their owners may do.

mod admin;
mod credential;
mod refused;
mod token;

pub use admin::AdminAuth;
pub use credential::{Credentials, NoRandomness};
pub(crate) use refused::{RefusedLogin, RefusedLogins, RefusedWhy};
pub use token::Token;

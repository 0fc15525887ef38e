//! Who somebody is: the administrator by bearer token, an edge by its credential.
//!
//! Owns how secrets are made, kept as hashes and compared. Leaves to others where they come in (`http`,
//! `transport`) and what their owners may do.

mod admin;
mod credential;
mod token;

pub use admin::AdminAuth;
pub use credential::{Credentials, NoRandomness};
pub use token::Token;

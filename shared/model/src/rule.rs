//! Sync rules: what an operator writes, what is wrong with it, and what an agent gets to run.
//!
//! A rule goes through four forms, each a type, so that nothing is checked twice:
//!
//! ```text
//! text --parse--> Draft --validate--> ValidRule --render(edge, variables)--> Rendered bytes --EdgeRule::from_rendered-->
//! ```
//!
//! * [`Draft`]: fields have the right types; the text's places are remembered for messages.
//! * [`ValidRule`]: makes sense as a whole; the cloud stores this, the secrets beside it.
//! * [`Rendered`]: the exact bytes for one edge, with a digest; stored and sent, never made again by an upgrade.
//! * [`EdgeRule`]: what the agent runs.
//!
//! Leaves to others: versions and history (cloud core), where secrets are kept (stores), queues and connections (agent).

mod check;
mod decode;
mod edge;
mod explain;
mod feature;
mod located;
mod loops;
pub mod mosquitto;
mod parse;
mod problem;
mod quantity;
mod reader;
mod render;
mod rendered;
mod resolve;
mod secret;
mod spec;
mod template;
mod tls;
mod url;
mod valid;

pub use check::Limits;
pub use decode::FileField;
pub use edge::{
    Change, ClientIdClash, Delivery, EdgeQueue, EdgeRemote, EdgeRule, EdgeTls, Login, Route, client_id_clash,
    is_unsupported,
};
pub use explain::{Explained, Fate, Oddity, explain, oddities};
pub use feature::{Feature, missing_features, requires};
pub use loops::{LoopBetween, Wiring, loop_between};
pub use parse::{Draft, Format, parse, parse_on_site};
pub use problem::{CODES, Place, Problem, Problems};
pub use quantity::{Bytes, InvalidQuantity, Seconds};
pub use render::{RenderContext, Rendered, render};
pub use secret::{Secret, SecretInput, SecretInputs, SecretRef, SecretRefs, Secrets};
pub use spec::{
    DEFAULT_CLIENT_ID, DrainSpec, OnDrift, OnWipe, PolicySpec, Qos, QueueSpec, RemoteSpec, RouteSpec,
    RuleSpec, Start, TlsSpec, VarSpec, WhenFull,
};
pub use template::BUILT_IN as BUILT_IN_VARIABLES;
pub use url::{BrokerAddress, InvalidBrokerUrl};
pub use valid::ValidRule;

#[cfg(test)]
mod tests;

//! The controller as a process: settings, store, MQTT transport, HTTP API and the one loop around the pure core.
//!
//! Takes no decision of its own: an event becomes an [`tidegate_cloud_core::Input`], what the core answers is first
//! written and then done. Start at [`run()`].
//!
//! ```text
//! edge --MQTT--> transport --.                        .--> store (one batch, durable)
//! people --HTTP--> http -----+--> run: the one loop --+
//! clock ---------------------'    (tidegate-cloud-core) '--> then: transport, replies, events
//! ```

pub mod auth;
pub mod backup;
pub mod data_dir;
mod events;
mod http;
mod metrics;
pub mod os;
mod run;
pub mod settings;
pub mod store;
mod systems;
mod transport;

pub use run::{Alive, Ready, RunError, run};
pub use settings::{Flags, LogFormat, Settings, SettingsError, StoreKind};

//! Why the agent does not run, in words for the person who has to act.

use std::path::PathBuf;

use tidegate_broker::StartError;

use crate::store::StoreError;

/// Why the agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data directory cannot be used.
    #[error("using the data directory {}: {source}", dir.display())]
    DataDir {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another agent uses the data directory.
    #[error("the data directory {} is in use by process {holder}; stop it, or give this agent a directory of its own", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// Who holds it, as it wrote itself down.
        holder: String,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The local broker.
    #[error(transparent)]
    Broker(#[from] StartError),
    /// The control socket.
    #[error("opening the control socket {}: {source}", path.display())]
    Control {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The port for metrics.
    #[error(
        "serving metrics on {address}: {source}; choose another address with metrics = \"127.0.0.1:PORT\""
    )]
    Metrics {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
    /// The local broker does not answer any more.
    #[error(
        "the local broker does not answer any more: {0}; the agent stops for its supervisor to start it again"
    )]
    Unhealthy(String),
}

//! `serve` and `dev`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Where the controller keeps what it remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StoreArg {
    /// On disk
    Sled,
    /// In memory: nothing survives a restart
    Memory,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormatArg {
    /// For people
    Text,
    /// One JSON object per line
    Json,
}

/// `serve`
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Settings file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the API listens [default: 127.0.0.1:7180]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub http: Option<SocketAddr>,
    /// Where the controller's broker listens, for edges [default: 127.0.0.1:7183]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub mqtt: Option<SocketAddr>,
    /// A broker of somebody else, in place of the controller's own; give the password in a file or in TIDEGATE_BROKER,
    /// since others on this machine can read command lines
    #[arg(long, value_name = "mqtt://USER@HOST:PORT")]
    pub broker: Option<String>,
    /// File that holds the controller's password there
    #[arg(long, value_name = "FILE")]
    pub broker_password_file: Option<PathBuf>,
    /// Directory of the store and the admin token
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Which store [default: sled]
    #[arg(long, value_enum, value_name = "STORE")]
    pub store: Option<StoreArg>,
    /// Allow addresses that are not loopback, although there is no TLS yet
    #[arg(long)]
    pub allow_remote: bool,
    /// How log lines are written [default: text]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormatArg>,
    /// Check the settings and end
    #[arg(long)]
    pub check: bool,
    /// Print the settings that result, and end
    #[arg(long)]
    pub print: bool,
}

/// `dev`
#[derive(Debug, Clone, Args)]
pub struct DevArgs {
    /// Where the API listens; port 0: any free one
    #[arg(long, default_value = "127.0.0.1:7180", value_name = "ADDRESS:PORT")]
    pub http: SocketAddr,
    /// Where the controller's broker listens
    #[arg(long, default_value = "127.0.0.1:7183", value_name = "ADDRESS:PORT")]
    pub mqtt: SocketAddr,
    /// Where the gateway's local broker listens
    #[arg(long, default_value = "127.0.0.1:7283", value_name = "ADDRESS:PORT")]
    pub edge_mqtt: SocketAddr,
    /// Where the broker that plays the remote side listens
    #[arg(long, default_value = "127.0.0.1:7383", value_name = "ADDRESS:PORT")]
    pub remote_mqtt: SocketAddr,
    /// Directory for all data [default: $XDG_DATA_HOME/tidegate/dev, else ~/.local/share/tidegate/dev]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// `export`
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The file to make; standard output if left out
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Directory of a controller that does not run, instead of the server
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Settings file (TOML) of that controller
    #[arg(long, value_name = "FILE", requires = "data_dir")]
    pub config: Option<PathBuf>,
}

/// `import`
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The controller's data directory: empty, or not there yet
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Settings file (TOML) of the controller
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

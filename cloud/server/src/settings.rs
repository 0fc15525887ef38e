//! What an operator may choose: read from one TOML file, then the environment, then flags; the later wins.
//!
//! Owns the names, the defaults and the checks of settings, and is the one place of the controller that reads the
//! environment. All problems are told at once, each with its place. Knows nothing of what is done with a setting.
//!
//! ```toml
//! http = "127.0.0.1:7180"     # TIDEGATE_HTTP          API
//! mqtt = "127.0.0.1:7183"     # TIDEGATE_MQTT          the controller's broker, for edges
//! broker = "mqtt://u@h"       # TIDEGATE_BROKER        a broker of somebody else in place of the controller's own
//! broker_password_file = "/f" # TIDEGATE_BROKER_PASSWORD_FILE  the password there, so that it stays out of `ps`
//! data_dir = "/var/lib/x"     # TIDEGATE_DATA_DIR      store, admin token
//! store = "sled"              # TIDEGATE_STORE         or "memory": nothing survives a restart
//! cache_mib = 128             # TIDEGATE_CACHE_MIB     memory for the store's cache, in MiB
//! allow_remote = false        # TIDEGATE_ALLOW_REMOTE  needed for an address that is not loopback
//! http_rate = 2000            # TIDEGATE_HTTP_RATE     requests per second and client address; 0: no bound
//! metrics_public = false      # TIDEGATE_METRICS_PUBLIC  /metrics without a token
//! log_format = "text"         # TIDEGATE_LOG_FORMAT    or "json": one object per line
//! ```
//!
//! The data directory is, unless it is set, `$XDG_STATE_HOME/tidegate`, else `$HOME/.local/state/tidegate`, else
//! `./tidegate-data`.

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

mod broker;
mod file;
mod keys;
#[cfg(test)]
mod tests;

pub use broker::ExternalBroker;
use keys::{Draft, Key, Place};

/// Where the API listens unless told otherwise.
pub const DEFAULT_HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7180);
/// Where the controller's broker listens unless told otherwise.
pub const DEFAULT_MQTT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7183);
/// Memory for the store's cache unless told otherwise, in MiB.
pub const DEFAULT_CACHE_MIB: u64 = 128;
/// Least and most MiB of the store's cache.
pub const CACHE_MIB: std::ops::RangeInclusive<u64> = 8..=65_536;
/// Requests per second of one client address unless told otherwise.
pub const DEFAULT_HTTP_RATE: u32 = 2_000;
/// Most that may be set.
pub const MAX_HTTP_RATE: u32 = 1_000_000;
/// Environment variable that names the settings file.
pub const CONFIG_ENV: &str = "TIDEGATE_CONFIG";

/// Where the controller keeps what it remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StoreKind {
    /// On disk, in the data directory.
    #[default]
    Sled,
    /// In memory: nothing survives a restart. For trying out and for tests.
    Memory,
}

/// A text that names no [`StoreKind`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a store is 'sled' or 'memory'")]
pub struct InvalidStoreKind;

impl FromStr for StoreKind {
    type Err = InvalidStoreKind;
    fn from_str(text: &str) -> Result<Self, InvalidStoreKind> {
        match text {
            "sled" => Ok(Self::Sled),
            "memory" => Ok(Self::Memory),
            _ => Err(InvalidStoreKind),
        }
    }
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sled => "sled",
            Self::Memory => "memory",
        })
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// A text that names no [`LogFormat`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a log format is 'text' or 'json'")]
pub struct InvalidLogFormat;

impl FromStr for LogFormat {
    type Err = InvalidLogFormat;
    fn from_str(text: &str) -> Result<Self, InvalidLogFormat> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(InvalidLogFormat),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// Everything that an operator chose, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where the API listens; port 0 lets the system choose.
    pub http: SocketAddr,
    /// Where the controller's broker listens; port 0 lets the system choose. Not used with `broker`.
    pub mqtt: SocketAddr,
    /// A broker of somebody else; then the controller starts none of its own.
    pub broker: Option<ExternalBroker>,
    /// File that holds the controller's password there.
    pub broker_password_file: Option<PathBuf>,
    /// Directory of the store and the admin token; made with mode 0700 if it is missing.
    pub data_dir: PathBuf,
    /// Which store.
    pub store: StoreKind,
    /// Memory for the store's cache, in MiB; within [`CACHE_MIB`].
    pub cache_mib: u64,
    /// Addresses other than loopback are allowed, although there is no TLS yet.
    pub allow_remote: bool,
    /// Requests per second that one client address may go on making; five times as many at once. 0: no bound.
    pub http_rate: u32,
    /// `/metrics` needs no token.
    pub metrics_public: bool,
    /// How log lines are written.
    pub log_format: LogFormat,
}

/// What the command line says; `None`: nothing, so that the environment and the file count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--http`
    pub http: Option<SocketAddr>,
    /// `--mqtt`
    pub mqtt: Option<SocketAddr>,
    /// `--broker`
    pub broker: Option<String>,
    /// `--broker-password-file`
    pub broker_password_file: Option<PathBuf>,
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--store`
    pub store: Option<StoreKind>,
    /// `--allow-remote`
    pub allow_remote: Option<bool>,
    /// `--log-format`
    pub log_format: Option<LogFormat>,
}

/// One thing that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingProblem {
    /// Where it was set: `tidegate.toml:3:8`, `TIDEGATE_HTTP`, `--http`.
    pub place: String,
    /// What is wrong and what to do, for people.
    pub what: String,
}

impl fmt::Display for SettingProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("the settings file {} cannot be read: {}", .path.display(), crate::os::plain(.source))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// All that is wrong, one per line.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Wrong(Vec<SettingProblem>),
}

impl Settings {
    /// The defaults, with this data directory.
    #[must_use]
    pub fn with_data_dir(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            http: DEFAULT_HTTP,
            mqtt: DEFAULT_MQTT,
            broker: None,
            broker_password_file: None,
            data_dir: data_dir.into(),
            store: StoreKind::default(),
            cache_mib: DEFAULT_CACHE_MIB,
            allow_remote: false,
            http_rate: DEFAULT_HTTP_RATE,
            metrics_public: false,
            log_format: LogFormat::default(),
        }
    }

    /// Reads the file (`file`, else the one that [`CONFIG_ENV`] names, else none), then the environment, then `flags`.
    ///
    /// # Errors
    /// [`SettingsError`]: the file cannot be read, or everything that is wrong in any of the three.
    pub fn load(file: Option<&Path>, flags: &Flags) -> Result<Self, SettingsError> {
        let env: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        let var = |name: &str| env.iter().find(|(n, v)| n == name && !v.is_empty()).map(|(_, v)| v.clone());
        let path = file.map(Path::to_owned).or_else(|| var(CONFIG_ENV).map(PathBuf::from));
        let text = match path {
            None => None,
            Some(path) => match std::fs::read_to_string(&path) {
                Ok(text) => Some((path, text)),
                Err(source) => return Err(SettingsError::Read { path, source }),
            },
        };
        let mut settings = Self::resolve(text.as_ref().map(|(p, t)| (p.as_path(), t.as_str())), &var, flags)?;
        settings.read_password()?;
        Ok(settings)
    }

    fn read_password(&mut self) -> Result<(), SettingsError> {
        if let (Some(broker), Some(file)) = (&mut self.broker, &self.broker_password_file) {
            broker.read_password(file).map_err(|what| {
                let place = Key::BrokerPasswordFile.name().to_owned();
                SettingsError::Wrong(vec![SettingProblem { place, what }])
            })?;
        }
        Ok(())
    }

    /// The pure part of [`Settings::load`].
    fn resolve(
        file: Option<(&Path, &str)>,
        env: &dyn Fn(&str) -> Option<OsString>,
        flags: &Flags,
    ) -> Result<Self, SettingsError> {
        let mut draft = Draft::default();
        if let Some((path, text)) = file {
            file::read(path, text, &mut draft);
        }
        for key in Key::ALL {
            if let Some(value) = env(key.env()) {
                draft.set_text(key, &value, Place::Env(key));
            }
        }
        draft.set_flags(flags);
        draft.finish(default_data_dir(env))
    }

    /// The settings as a TOML file that sets each of them, for `--print`. No secret is shown: the password of a broker
    /// is left out, the admin token lies in the data directory.
    #[must_use]
    pub fn print(&self) -> String {
        let quoted = |text: String| toml::Value::String(text).to_string();
        let mut broker = String::new();
        if let Some(external) = &self.broker {
            broker = format!("broker = {}\n", quoted(external.to_string()));
            match &self.broker_password_file {
                Some(file) => {
                    broker += &format!("broker_password_file = {}\n", quoted(file.display().to_string()));
                }
                None if external.password.is_some() => broker += "# its password is set and not shown\n",
                None => {}
            }
        }
        format!(
            "http = {}\nmqtt = {}\n{broker}data_dir = {}\nstore = {}\ncache_mib = {}\nallow_remote = {}\n\
             http_rate = {}\nmetrics_public = {}\nlog_format = {}\n",
            quoted(self.http.to_string()),
            quoted(self.mqtt.to_string()),
            quoted(self.data_dir.display().to_string()),
            quoted(self.store.to_string()),
            self.cache_mib,
            self.allow_remote,
            self.http_rate,
            self.metrics_public,
            quoted(self.log_format.to_string())
        )
    }

    /// File with the admin token in clear, mode 0600.
    #[must_use]
    pub fn admin_token_file(&self) -> PathBuf {
        self.data_dir.join("admin.token")
    }
}

fn default_data_dir(env: &dyn Fn(&str) -> Option<OsString>) -> PathBuf {
    let state = env("XDG_STATE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let state = state.or_else(|| env("HOME").map(|home| PathBuf::from(home).join(".local/state")));
    state.map_or_else(|| PathBuf::from("tidegate-data"), |dir| dir.join("tidegate"))
}

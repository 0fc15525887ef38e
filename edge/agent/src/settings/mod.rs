//! The agent's settings: one TOML file, then the environment, then flags. Unknown keys are refused, and all problems are
//! told at once.
//!
//! Reads the files that settings name (password, users, policy). The only module of the agent that looks at the
//! environment.

mod files;
mod layers;
mod local;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tidegate_edge_core::Policy;
use tidegate_model::ids::{AccountId, EdgeId};
use tidegate_model::rule::Secret;

pub(crate) use files::{secret as first_line, whole};
use layers::Layers;
pub use layers::{DATA_DIR_ENV, DEFAULT_DATA_DIR, Flags};
pub use local::{LocalAccess, LocalBroker, LocalSide};

/// Settings that are of use only with a controller: where one is given, there is one.
const CONTROLLER_KEYS: [&str; 4] =
    ["controller.url", "controller.username", "controller.password", "controller.password_file"];
/// Port of a broker where its URL names none.
const MQTT_PORT: u16 = 1883;

/// Everything that an agent needs to run.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// The gateway's name, as the cloud knows it.
    pub name: EdgeId,
    /// The account that it belongs to.
    pub account: AccountId,
    /// The controller; `None`: the agent runs the rules of its directory alone.
    pub controller: Option<Controller>,
    /// Where the site's own rules stand, one per file; `None`: nowhere.
    pub rules_dir: Option<PathBuf>,
    /// Where everything is kept; made with mode 0700 when missing.
    pub data_dir: PathBuf,
    /// What devices connect to.
    pub local: LocalSide,
    /// What the site allows rules to do.
    pub policy: Policy,
    /// Where counters are served as Prometheus text, on loopback; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// Which log lines are written, in the syntax of `RUST_LOG`.
    pub log: String,
    /// How log lines are written.
    pub log_format: LogFormat,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The controller's broker, and how to log in there.
#[derive(Debug, Clone)]
pub struct Controller {
    /// Where it is.
    pub address: ControllerAddress,
    /// User name; the gateway's name unless set.
    pub username: String,
    /// Password; `None`: an anonymous login.
    pub password: Option<Secret>,
}

/// Host and port of the controller's broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerAddress {
    /// Name or address; an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl std::fmt::Display for ControllerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write_address(f, &self.host, self.port)
    }
}

fn write_address(f: &mut std::fmt::Formatter<'_>, host: &str, port: u16) -> std::fmt::Result {
    if host.contains(':') { write!(f, "mqtt://[{host}]:{port}") } else { write!(f, "mqtt://{host}:{port}") }
}

/// One thing that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The setting and where it comes from, as in `local.listen (file agent.toml)`.
    pub place: String,
    /// What is wrong and what to do.
    pub what: String,
}

/// Everything that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct InvalidSettings(pub Vec<Problem>);

impl InvalidSettings {
    fn text(&self) -> String {
        let mut out = String::from("the settings cannot be used:");
        for Problem { place, what } in &self.0 {
            // A text takes everything.
            let _ = write!(out, "\n  {place}: {what}");
        }
        out
    }
}

impl AgentConfig {
    /// Reads file, environment and flags of this process.
    ///
    /// # Errors
    /// [`InvalidSettings`]: every problem at once.
    pub fn from_process(file: Option<&Path>, flags: &Flags) -> Result<Self, InvalidSettings> {
        Self::from_layers(file, environment(), flags)
    }

    /// The files that hold secrets with these settings: the settings file, if a password stands in it, and those that it
    /// names.
    #[must_use]
    pub fn secret_files(file: Option<&Path>, flags: &Flags) -> Vec<PathBuf> {
        let mut layers = Layers::read(file, environment(), flags);
        let in_settings = ["controller.password", "local.password"].into_iter();
        let in_url =
            layers.text("local.broker").is_some_and(|url| url.contains('@')).then_some("local.broker");
        let settings = in_settings.chain(in_url).find_map(|key| layers.file_of(key).map(Path::to_owned));
        let named = ["controller.password_file", "local.password_file", "local.users_file"];
        settings.into_iter().chain(named.into_iter().filter_map(|key| layers.path(key))).collect()
    }

    fn from_layers(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
        flags: &Flags,
    ) -> Result<Self, InvalidSettings> {
        let mut layers = Layers::read(file, environment, flags);
        let rules_dir = layers.path("rules_dir");
        let rules_dir = rules_dir.filter(|dir| layers.check("rules_dir", files::directory(dir)).is_some());
        let is_alone = layers.has("rules_dir") && !CONTROLLER_KEYS.iter().any(|key| layers.has(key));
        let name = name(&mut layers, is_alone);
        let account =
            layers.optional("account", |t| AccountId::new(t)).unwrap_or_else(AccountId::default_account);
        let controller = if is_alone {
            None
        } else {
            let help =
                "write mqtt://host or mqtt://host:port; or name a rules_dir to run without a controller";
            layers.required("controller.url", help, address)
        };
        let username = layers.text("controller.username");
        let password = password(&mut layers, "controller.password", "controller.password_file");
        let data_dir = layers.path("data_dir").unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR));
        let local = local::read(&mut layers);
        let policy = match layers.path("policy_file") {
            Some(path) => layers.check("policy_file", files::policy(&path)).unwrap_or_default(),
            None => Policy::default(),
        };
        let metrics = layers.optional("metrics", metrics_address);
        let log = layers.optional("log", log_filter).unwrap_or_else(|| "info".to_owned());
        let log_format = layers.optional("log_format", log_format).unwrap_or_default();
        let problems = layers.problems();
        let Some(name) = name.filter(|_| problems.is_empty()) else { return Err(InvalidSettings(problems)) };
        let username = username.unwrap_or_else(|| name.to_string());
        let controller = controller.map(|address| Controller { address, username, password });
        Ok(Self { name, account, controller, rules_dir, data_dir, local, policy, metrics, log, log_format })
    }

    /// The settings in force, for people; passwords are hidden.
    #[must_use]
    pub fn describe(&self) -> String {
        let list = |items: &[String]| if items.is_empty() { "none".to_owned() } else { items.join(", ") };
        let local = match &self.local {
            LocalSide::Embedded { listen, access: LocalAccess::Anonymous } => {
                format!("local.listen         {listen}\nlocal users          everybody\n")
            }
            LocalSide::Embedded { listen, access: LocalAccess::Users(users) } => {
                let users: Vec<String> =
                    users.iter().map(|(user, _)| format!("{user} (password ******)")).collect();
                format!("local.listen         {listen}\nlocal users          {}\n", list(&users))
            }
            LocalSide::External(broker) => format!(
                "local.broker         {broker}\nlocal.username       {}\nlocal.password       {}\n",
                broker.username.as_deref().unwrap_or("none"),
                if broker.password.is_some() { "******" } else { "none" }
            ),
        };
        let hosts = self.policy.hosts.as_ref().map_or_else(|| "any".to_owned(), |hosts| list(hosts));
        let topics = self.policy.topics.as_ref().map_or_else(
            || "any".to_owned(),
            |topics| list(&topics.iter().map(ToString::to_string).collect::<Vec<_>>()),
        );
        let queue =
            self.policy.max_queue_bytes.map_or_else(|| "any".to_owned(), |bytes| format!("{bytes} bytes"));
        let none = || "none".to_owned();
        let controller = match &self.controller {
            Some(Controller { address, username, password }) => {
                let password = if password.is_some() { "******" } else { "none" };
                format!(
                    "controller.url       {address}\ncontroller.username  {username}\ncontroller.password  {password}\n"
                )
            }
            None => "controller           none, this agent runs its own rules\n".to_owned(),
        };
        let rules_dir = self.rules_dir.as_ref().map_or_else(none, |dir| dir.display().to_string());
        let metrics = self.metrics.map_or_else(none, |address| address.to_string());
        let log_format = match self.log_format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        format!(
            "name                 {}\naccount              {}\n{controller}rules_dir            {rules_dir}\n\
             data_dir             {}\n{local}\
             policy hosts         {hosts}\npolicy topics        {topics}\npolicy queue         {queue}\n\
             metrics              {metrics}\nlog                  {}\nlog_format           {log_format}\n",
            self.name,
            self.account,
            self.data_dir.display(),
            self.log,
        )
    }
}

/// The environment of this process.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
}

/// The name that was given; alone, an agent is called as its machine unless it has a name.
fn name(layers: &mut Layers, is_alone: bool) -> Option<EdgeId> {
    if is_alone && !layers.has("name") {
        let host = files::host_name();
        let named = host.as_deref().and_then(|host| EdgeId::new(host).ok());
        if named.is_none() {
            layers.note(
                "name",
                "it is missing, and the name of this machine is none; name this gateway".to_owned(),
            );
        }
        return named;
    }
    layers.required("name", "name this gateway as it is registered in the cloud", |t| EdgeId::new(t))
}

fn metrics_address(text: &str) -> Result<SocketAddr, String> {
    let address = text
        .parse::<SocketAddr>()
        .map_err(|_| "write an address and a port, as in 127.0.0.1:9790".to_owned())?;
    if address.ip().is_loopback() {
        return Ok(address);
    }
    Err(format!("{address} is not on this machine; anybody could read it there, so use a loopback address"))
}

fn log_filter(text: &str) -> Result<String, String> {
    match tidegate_logs::check_filter(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("it is no filter: {error}; write info or debug, or tidegate_edge=debug")),
    }
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("write text or json".to_owned()),
    }
}

fn address(url: &str) -> Result<ControllerAddress, String> {
    let rest = match url.split_once("://") {
        Some(("mqtt", rest)) => rest.trim_end_matches('/'),
        Some(("mqtts", _)) => {
            return Err("TLS comes in a later release; use mqtt:// over a private network".to_owned());
        }
        Some(_) | None => return Err("write mqtt://host or mqtt://host:port".to_owned()),
    };
    if rest.contains('@') {
        return Err("put the password into controller.password_file, not into the URL".to_owned());
    }
    let (host, port) = host_and_port(rest, "write mqtt://host or mqtt://host:port")?;
    Ok(ControllerAddress { host, port })
}

/// Reads `host`, `host:port` or `[address]:port`; `form` is how the whole is written.
fn host_and_port(text: &str, form: &str) -> Result<(String, u16), String> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            let port = port.parse().ok().filter(|port| *port != 0);
            (host, port.ok_or_else(|| format!("the port of '{text}' is not a number from 1 to 65535"))?)
        }
        Some(_) | None => (text, MQTT_PORT),
    };
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() || host.contains(['/', '?', '#', ' ']) {
        return Err(format!("'{text}' names no host; {form}"));
    }
    Ok((host.to_owned(), port))
}

/// Written where it is, or in a file of its own.
fn password(layers: &mut Layers, inline: &str, file: &str) -> Option<Secret> {
    let written = layers.optional(inline, |text| {
        if text.is_empty() {
            Err("it is empty; leave it out for a login without one")
        } else {
            Ok(Secret::new(text))
        }
    });
    let path = layers.path(file);
    if written.is_some() {
        return written;
    }
    path.and_then(|path| layers.check(file, files::secret(&path)))
}

#[cfg(test)]
mod tests;

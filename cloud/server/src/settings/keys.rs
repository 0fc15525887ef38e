//! The names of the settings, and a draft of them that remembers where each was set.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::broker::{BrokerDraft, ExternalBroker};
use super::{CACHE_MIB, DEFAULT_CACHE_MIB, DEFAULT_HTTP, DEFAULT_HTTP_RATE, DEFAULT_MQTT, MAX_HTTP_RATE};
use super::{Flags, LogFormat, SettingProblem, Settings, SettingsError, StoreKind};

/// A setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Http,
    Mqtt,
    Broker,
    BrokerPasswordFile,
    DataDir,
    Store,
    CacheMib,
    AllowRemote,
    HttpRate,
    MetricsPublic,
    LogFormat,
}

impl Key {
    pub(super) const ALL: [Self; 11] = [
        Self::Http,
        Self::Mqtt,
        Self::Broker,
        Self::BrokerPasswordFile,
        Self::DataDir,
        Self::Store,
        Self::CacheMib,
        Self::AllowRemote,
        Self::HttpRate,
        Self::MetricsPublic,
        Self::LogFormat,
    ];

    /// Its name in the file.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Mqtt => "mqtt",
            Self::Broker => "broker",
            Self::BrokerPasswordFile => "broker_password_file",
            Self::DataDir => "data_dir",
            Self::Store => "store",
            Self::CacheMib => "cache_mib",
            Self::AllowRemote => "allow_remote",
            Self::HttpRate => "http_rate",
            Self::MetricsPublic => "metrics_public",
            Self::LogFormat => "log_format",
        }
    }

    /// Its name in the environment.
    pub(super) fn env(self) -> &'static str {
        match self {
            Self::Http => "TIDEGATE_HTTP",
            Self::Mqtt => "TIDEGATE_MQTT",
            Self::Broker => "TIDEGATE_BROKER",
            Self::BrokerPasswordFile => "TIDEGATE_BROKER_PASSWORD_FILE",
            Self::DataDir => "TIDEGATE_DATA_DIR",
            Self::Store => "TIDEGATE_STORE",
            Self::CacheMib => "TIDEGATE_CACHE_MIB",
            Self::AllowRemote => "TIDEGATE_ALLOW_REMOTE",
            Self::HttpRate => "TIDEGATE_HTTP_RATE",
            Self::MetricsPublic => "TIDEGATE_METRICS_PUBLIC",
            Self::LogFormat => "TIDEGATE_LOG_FORMAT",
        }
    }

    fn flag(self) -> &'static str {
        match self {
            Self::Http => "--http",
            Self::Mqtt => "--mqtt",
            Self::Broker => "--broker",
            Self::BrokerPasswordFile => "--broker-password-file",
            Self::DataDir => "--data-dir",
            Self::Store => "--store",
            Self::CacheMib => "cache_mib",
            Self::AllowRemote => "--allow-remote",
            Self::HttpRate => "http_rate",
            Self::MetricsPublic => "metrics_public",
            Self::LogFormat => "--log-format",
        }
    }
}

/// Where a setting was set.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// In the file, at this line and column.
    File(String),
    /// In the environment.
    Env(Key),
    /// On the command line.
    Flag(Key),
}

impl Place {
    fn text(&self) -> String {
        match self {
            Self::File(place) => place.clone(),
            Self::Env(key) => key.env().to_owned(),
            Self::Flag(key) => key.flag().to_owned(),
        }
    }
}

/// Settings that are being gathered.
#[derive(Debug, Default)]
pub(super) struct Draft {
    http: Option<(SocketAddr, Place)>,
    mqtt: Option<(SocketAddr, Place)>,
    external: BrokerDraft,
    data_dir: Option<PathBuf>,
    store: Option<StoreKind>,
    cache_mib: Option<u64>,
    allow_remote: Option<bool>,
    http_rate: Option<u32>,
    metrics_public: Option<bool>,
    log_format: Option<LogFormat>,
    problems: Vec<SettingProblem>,
}

impl Draft {
    pub(super) fn problem(&mut self, place: &Place, what: impl Into<String>) {
        self.problems.push(SettingProblem { place: place.text(), what: what.into() });
    }

    /// Sets one from its text. A text that does not fit is a problem.
    pub(super) fn set_text(&mut self, key: Key, raw: &OsStr, place: Place) {
        if key == Key::DataDir {
            self.data_dir = Some(PathBuf::from(raw));
            return;
        }
        let Some(text) = raw.to_str() else {
            return self.problem(&place, format!("{} is not UTF-8", key.name()));
        };
        match key {
            Key::Http | Key::Mqtt => match text.parse() {
                Ok(address) if key == Key::Http => self.http = Some((address, place)),
                Ok(address) => self.mqtt = Some((address, place)),
                Err(_) => self.problem(
                    &place,
                    format!(
                        "{} is an address and a port, such as 127.0.0.1:7180 or [::1]:7180, not '{text}'",
                        key.name()
                    ),
                ),
            },
            Key::Broker => match ExternalBroker::parse(text) {
                Ok(broker) => self.external.broker = Some((broker, place)),
                Err(error) => self.problem(&place, error),
            },
            Key::BrokerPasswordFile => self.external.password_file = Some((PathBuf::from(text), place)),
            Key::Store => match text.parse() {
                Ok(store) => self.store = Some(store),
                Err(error) => self.problem(&place, format!("{error}, not '{text}'")),
            },
            Key::LogFormat => match text.parse() {
                Ok(format) => self.log_format = Some(format),
                Err(error) => self.problem(&place, format!("{error}, not '{text}'")),
            },
            Key::CacheMib => match text.parse() {
                Ok(mib) if CACHE_MIB.contains(&mib) => self.cache_mib = Some(mib),
                Ok(_) | Err(_) => self.problem(
                    &place,
                    format!(
                        "cache_mib is a whole number of MiB from {} to {}, not '{text}'",
                        CACHE_MIB.start(),
                        CACHE_MIB.end()
                    ),
                ),
            },
            Key::AllowRemote | Key::MetricsPublic => match text {
                "true" | "1" => self.set_flag(key, true),
                "false" | "0" => self.set_flag(key, false),
                _ => self.problem(&place, format!("{} is true or false, not '{text}'", key.name())),
            },
            Key::HttpRate => match text.parse() {
                Ok(rate) if rate <= MAX_HTTP_RATE => self.http_rate = Some(rate),
                Ok(_) | Err(_) => self.problem(
                    &place,
                    format!("http_rate is a number of requests per second up to {MAX_HTTP_RATE}, 0 for no bound, not '{text}'"),
                ),
            },
            Key::DataDir => {}
        }
    }

    fn set_flag(&mut self, key: Key, flag: bool) {
        if key == Key::MetricsPublic {
            self.metrics_public = Some(flag);
        } else {
            self.allow_remote = Some(flag);
        }
    }

    pub(super) fn set_flags(&mut self, flags: &Flags) {
        if let Some(address) = flags.http {
            self.http = Some((address, Place::Flag(Key::Http)));
        }
        if let Some(address) = flags.mqtt {
            self.mqtt = Some((address, Place::Flag(Key::Mqtt)));
        }
        if let Some(url) = &flags.broker {
            self.set_text(Key::Broker, OsStr::new(url), Place::Flag(Key::Broker));
        }
        if let Some(file) = &flags.broker_password_file {
            self.external.password_file = Some((file.clone(), Place::Flag(Key::BrokerPasswordFile)));
        }
        self.data_dir = flags.data_dir.clone().or_else(|| self.data_dir.take());
        self.store = flags.store.or(self.store);
        self.log_format = flags.log_format.or(self.log_format);
        self.allow_remote = flags.allow_remote.or(self.allow_remote);
    }

    pub(super) fn finish(mut self, default_data_dir: PathBuf) -> Result<Settings, SettingsError> {
        let allow_remote = self.allow_remote.unwrap_or(false);
        if !allow_remote {
            for (address, place) in [self.http.clone(), self.mqtt.clone()].into_iter().flatten() {
                if !address.ip().is_loopback() {
                    self.problem(
                        &place,
                        format!(
                            "{address} can be reached from other machines, and there is no TLS yet: tokens and \
                             passwords would cross the network in clear; use a loopback address, or set \
                             allow_remote = true (--allow-remote) where the network is trusted"
                        ),
                    );
                }
            }
        }
        let BrokerDraft { broker, password_file } = std::mem::take(&mut self.external);
        if let Some((broker, place)) = &broker
            && !allow_remote
            && !broker.is_loopback()
        {
            self.problem(
                place,
                format!(
                    "{} is another machine, and there is no TLS yet: passwords would cross the network in clear; set \
                     allow_remote = true (--allow-remote) where the network is trusted",
                    broker.address
                ),
            );
        }
        let broker = broker.map(|(broker, _)| broker);
        if let Some((_, place)) = &password_file {
            match &broker {
                None => self.problem(place, "a password is of no use without broker (--broker)"),
                Some(broker) if broker.password.is_some() => self.problem(
                    place,
                    "the password is in the URL of the broker and in this file; leave it out of the URL",
                ),
                Some(broker) if broker.username.is_none() => {
                    self.problem(place, "a password needs a user name: mqtt://user@host:port");
                }
                Some(_) => {}
            }
        }
        if !self.problems.is_empty() {
            return Err(SettingsError::Wrong(self.problems));
        }
        Ok(Settings {
            http: self.http.map_or(DEFAULT_HTTP, |(address, _)| address),
            mqtt: self.mqtt.map_or(DEFAULT_MQTT, |(address, _)| address),
            broker,
            broker_password_file: password_file.map(|(file, _)| file),
            data_dir: self.data_dir.unwrap_or(default_data_dir),
            store: self.store.unwrap_or_default(),
            cache_mib: self.cache_mib.unwrap_or(DEFAULT_CACHE_MIB),
            allow_remote,
            http_rate: self.http_rate.unwrap_or(DEFAULT_HTTP_RATE),
            metrics_public: self.metrics_public.unwrap_or(false),
            log_format: self.log_format.unwrap_or_default(),
        })
    }
}

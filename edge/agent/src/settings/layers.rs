//! Where a setting comes from: a later layer wins over an earlier one.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::Problem;

/// Every setting, as in the file; `controller.url` is `TIDEGATE_EDGE_CONTROLLER_URL` in the environment.
const KEYS: [&str; 19] = [
    "name",
    "account",
    "data_dir",
    "policy_file",
    "rules_dir",
    "log",
    "log_format",
    "metrics",
    "controller.url",
    "controller.username",
    "controller.password",
    "controller.password_file",
    "local.listen",
    "local.anonymous",
    "local.users_file",
    "local.broker",
    "local.username",
    "local.password",
    "local.password_file",
];
const PREFIX: &str = "TIDEGATE_EDGE_";
/// Names the data directory for commands that read no settings.
pub const DATA_DIR_ENV: &str = "TIDEGATE_EDGE_DATA_DIR";
/// Where the agent keeps everything unless told otherwise.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/tidegate-edge";
/// Largest settings file, in bytes.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// Settings that were given on the command line.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `name`
    pub name: Option<String>,
    /// `controller.url`
    pub controller_url: Option<String>,
    /// `data_dir`
    pub data_dir: Option<String>,
    /// `local.listen`
    pub listen: Option<String>,
    /// `rules_dir`
    pub rules_dir: Option<String>,
    /// `log_format`
    pub log_format: Option<String>,
    /// `metrics`
    pub metrics: Option<String>,
    /// `local.broker`
    pub local_broker: Option<String>,
}

/// Which layer a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    File(String),
    Environment(String),
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(name) => write!(f, "file {name}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag => f.write_str("command line"),
        }
    }
}

/// The values of all layers, and what is wrong with them so far.
#[derive(Debug)]
pub(super) struct Layers {
    values: BTreeMap<String, (String, Source)>,
    problems: Vec<Problem>,
    /// Nothing of the file was read: what is missing may stand in it.
    is_unread: bool,
}

impl Layers {
    pub fn read(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
        flags: &Flags,
    ) -> Self {
        let mut layers = Self { values: BTreeMap::new(), problems: Vec::new(), is_unread: false };
        if let Some(path) = file {
            layers.read_file(path);
        }
        for (name, value) in environment {
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            let is_it = |key: &&&str| key.replace('.', "_").to_ascii_uppercase() == rest;
            match KEYS.iter().find(is_it) {
                Some(key) => layers.insert(key, value, Source::Environment(name)),
                None => {
                    let what =
                        "no setting of this name; remove it, or see the README for the settings".to_owned();
                    layers.problems.push(Problem { place: format!("environment {name}"), what });
                }
            }
        }
        for (key, value) in [
            ("name", &flags.name),
            ("controller.url", &flags.controller_url),
            ("data_dir", &flags.data_dir),
            ("local.listen", &flags.listen),
            ("rules_dir", &flags.rules_dir),
            ("log_format", &flags.log_format),
            ("metrics", &flags.metrics),
            ("local.broker", &flags.local_broker),
        ] {
            if let Some(value) = value {
                layers.insert(key, value.clone(), Source::Flag);
            }
        }
        layers
    }

    fn insert(&mut self, key: &str, value: String, source: Source) {
        self.values.insert(key.to_owned(), (value, source));
    }

    fn read_file(&mut self, path: &Path) {
        let shown = path.display().to_string();
        let mut fail = |what: String| {
            self.is_unread = true;
            self.problems.push(Problem { place: format!("file {shown}"), what });
        };
        let text = match std::fs::metadata(path) {
            Ok(meta) if meta.len() > MAX_FILE_BYTES => {
                return fail(format!("it is larger than {MAX_FILE_BYTES} bytes; is it the settings file?"));
            }
            Ok(_) => std::fs::read_to_string(path),
            Err(error) => Err(error),
        };
        let table = match text.map(|text| text.parse::<toml::Table>()) {
            Ok(Ok(table)) => table,
            Ok(Err(error)) => return fail(format!("it is not TOML: {error}")),
            Err(error) => return fail(format!("it cannot be read: {error}")),
        };
        self.flatten("", table, &Source::File(shown));
    }

    fn flatten(&mut self, prefix: &str, table: toml::Table, source: &Source) {
        for (name, value) in table {
            let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
            let text = match value {
                toml::Value::Table(inner) if KEYS.iter().any(|k| k.starts_with(&format!("{key}."))) => {
                    self.flatten(&key, inner, source);
                    continue;
                }
                toml::Value::String(text) => text,
                toml::Value::Boolean(flag) => flag.to_string(),
                toml::Value::Integer(_)
                | toml::Value::Float(_)
                | toml::Value::Datetime(_)
                | toml::Value::Array(_)
                | toml::Value::Table(_)
                    if KEYS.contains(&key.as_str()) =>
                {
                    self.problem(&key, source, "it must be a text in quotes, or true or false".to_owned());
                    continue;
                }
                toml::Value::Integer(_)
                | toml::Value::Float(_)
                | toml::Value::Datetime(_)
                | toml::Value::Array(_)
                | toml::Value::Table(_) => String::new(),
            };
            if KEYS.contains(&key.as_str()) {
                self.insert(&key, text, source.clone());
            } else {
                let what = format!("no setting of this name; the settings are {}", KEYS.join(", "));
                self.problem(&key, source, what);
            }
        }
    }

    fn problem(&mut self, key: &str, source: &Source, what: String) {
        self.problems.push(Problem { place: format!("{key} ({source})"), what });
    }

    /// A problem of a setting wherever it comes from.
    pub fn note(&mut self, key: &str, what: String) {
        match self.values.get(key).map(|(_, source)| source.clone()) {
            Some(source) => self.problem(key, &source, what),
            None => self.problems.push(Problem { place: key.to_owned(), what }),
        }
    }

    pub fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// The settings file, if the value of this key comes from there.
    pub fn file_of(&self, key: &str) -> Option<&Path> {
        match self.values.get(key) {
            Some((_, Source::File(name))) => Some(Path::new(name)),
            Some((_, Source::Environment(_) | Source::Flag)) | None => None,
        }
    }

    fn take(&self, key: &str) -> Option<(String, Source)> {
        self.values.get(key).cloned()
    }

    pub fn text(&self, key: &str) -> Option<String> {
        self.take(key).map(|(value, _)| value)
    }

    pub fn path(&mut self, key: &str) -> Option<PathBuf> {
        self.optional(key, |text| {
            if text.is_empty() { Err("it is empty; name a path".to_owned()) } else { Ok(PathBuf::from(text)) }
        })
    }

    /// A value that may be missing.
    pub fn optional<T, E: fmt::Display>(
        &mut self,
        key: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let (value, source) = self.take(key)?;
        read(&value).map_err(|error| self.problem(key, &source, error.to_string())).ok()
    }

    /// A value that must be there.
    pub fn required<T, E: fmt::Display>(
        &mut self,
        key: &str,
        help: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        if !self.values.contains_key(key) {
            if !self.is_unread {
                self.note(key, format!("it is missing; {help}"));
            }
            return None;
        }
        self.optional(key, read)
    }

    /// Keeps what is wrong with the file that a setting names.
    pub fn check<T>(&mut self, key: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|what| self.note(key, what)).ok()
    }

    pub fn problems(self) -> Vec<Problem> {
        self.problems
    }
}

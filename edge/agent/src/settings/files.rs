//! The files that settings name: a password, local users, the site's policy. Errors never quote a secret.

use std::path::Path;

use serde::Deserialize;
use tidegate_edge_core::Policy;
use tidegate_model::limits::MAX_CREDENTIAL_BYTES;
use tidegate_model::rule::{Bytes, Secret};
use tidegate_model::topic::TopicFilter;

/// Largest of these files, in bytes.
const MAX_BYTES: u64 = 256 * 1024;
/// Users that a file may name.
const MAX_USERS: usize = 1_000;

fn read(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("{} cannot be read: {error}", path.display());
    if std::fs::metadata(path).map_err(failed)?.len() > MAX_BYTES {
        return Err(format!("{} is larger than {MAX_BYTES} bytes", path.display()));
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// The first line of a file.
pub(crate) fn secret(path: &Path) -> Result<Secret, String> {
    let text = read(path)?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() || line.len() > MAX_CREDENTIAL_BYTES {
        return Err(format!(
            "the first line of {} is no password of 1 to {MAX_CREDENTIAL_BYTES} bytes",
            path.display()
        ));
    }
    Ok(Secret::new(line))
}

/// All of a file, as a secret.
pub(crate) fn whole(path: &Path) -> Result<Secret, String> {
    read(path).map(Secret::new)
}

/// Whether rules can be read there.
pub(super) fn directory(path: &Path) -> Result<(), String> {
    std::fs::read_dir(path)
        .map(drop)
        .map_err(|error| format!("{} is no directory that can be read: {error}", path.display()))
}

/// The first part of this machine's name, in small letters.
pub(super) fn host_name() -> Option<String> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    host.trim().split('.').next().map(str::to_ascii_lowercase)
}

/// Lines of `user:password`; empty lines and lines that begin with `#` are left out.
pub(super) fn users(path: &Path) -> Result<Vec<(String, Secret)>, String> {
    let text = read(path)?;
    let mut users: Vec<(String, Secret)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at = || format!("line {} of {}", number + 1, path.display());
        let (user, password) =
            line.split_once(':').ok_or_else(|| format!("{} is not user:password", at()))?;
        if user.is_empty() || password.is_empty() {
            return Err(format!("{} has an empty user or password", at()));
        }
        if users.iter().any(|(known, _)| known == user) {
            return Err(format!("{} names '{user}' a second time", at()));
        }
        users.push((user.to_owned(), Secret::new(password)));
        if users.len() > MAX_USERS {
            return Err(format!("{} names more than {MAX_USERS} users", path.display()));
        }
    }
    if users.is_empty() { Err(format!("{} names no user", path.display())) } else { Ok(users) }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    hosts: Option<Vec<String>>,
    topics: Option<Vec<TopicFilter>>,
    max_queue_bytes: Option<Bytes>,
}

/// What the site allows, as TOML: `hosts`, `topics`, `max_queue_bytes`.
pub(super) fn policy(path: &Path) -> Result<Policy, String> {
    let file: PolicyFile = toml::from_str(&read(path)?)
        .map_err(|error| format!("{} cannot be used: {error}", path.display()))?;
    let max_queue_bytes = file.max_queue_bytes.map(|bytes| bytes.0);
    Ok(Policy { hosts: file.hosts, topics: file.topics, max_queue_bytes })
}

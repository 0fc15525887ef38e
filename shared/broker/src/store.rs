//! The state directory: retained messages as an append log, sessions as one small file. Reads and writes files; decides
//! nothing about their contents.
//!
//! `retained.log` is a sequence of records, the last one of a topic counts:
//!
//! ```text
//! u32 length of what follows the checksum | u32 checksum | u8 kind (0-2: message of that level, 255: deleted)
//!     | u16 length of topic | topic | payload
//! ```
//!
//! Changes are appended within a second of the publish, with one `fdatasync` per batch: a power cut can lose the last
//! second of *retained* state (what must not be lost goes through a tap). The log is written anew at start and when
//! it is four times the size of what it holds; that goes to a new file which is synced and renamed. A torn record at the end
//! is set aside in `retained.damaged`. `sessions.json` is written anew, synced and renamed at each change, before the client hears of it.

use crate::hub::SavedSessions;
use crate::message::{Message, Qos};
use crate::retained::Changes;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const RETAINED: &str = "retained.log";
const SESSIONS: &str = "sessions.json";
/// Extension of the file that takes what could not be read of the log; the last damage only.
const DAMAGED: &str = "damaged";
const DELETED: u8 = 255;
/// Length, checksum, kind and length of the topic.
const HEAD_BYTES: usize = 4 + 4 + 1 + 2;
/// Below this size the log is not worth writing anew.
const MIN_REWRITE_BYTES: u64 = 1024 * 1024;
/// A log larger than this many times its contents is written anew.
const REWRITE_FACTOR: u64 = 4;

/// The open state directory.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    log: Option<File>,
    log_bytes: u64,
}

/// What was in the directory.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub retained: BTreeMap<Arc<str>, Arc<Message>>,
    pub sessions: Vec<LoadedSession>,
}

/// A client id and its subscriptions.
pub(crate) type LoadedSession = (String, Vec<(String, Qos)>);

impl Store {
    /// Opens or makes the directory and reads what it holds.
    pub fn open(dir: &Path) -> io::Result<(Self, Loaded)> {
        fs::create_dir_all(dir)?;
        let retained = read_log(&dir.join(RETAINED))?;
        let sessions = read_sessions(&dir.join(SESSIONS))?;
        let store = Self { dir: dir.to_owned(), log: None, log_bytes: 0 };
        Ok((store, Loaded { retained, sessions }))
    }

    /// True when the log should be written anew instead of being appended to.
    pub fn wants_rewrite(&self, live_bytes: usize) -> bool {
        self.log.is_none() || self.log_bytes > MIN_REWRITE_BYTES.max(REWRITE_FACTOR * live_bytes as u64)
    }

    /// Makes the log hold `changes`; on an error the next call must be a whole one.
    pub fn save_retained(&mut self, changes: &Changes) -> io::Result<()> {
        let mut records = Vec::new();
        for (topic, message) in &changes.topics {
            append_record(&mut records, topic, message.as_deref());
        }
        if changes.whole {
            self.log = None;
            let path = self.dir.join(RETAINED);
            replace(&path, &records)?;
            self.log = Some(OpenOptions::new().append(true).open(&path)?);
            self.log_bytes = records.len() as u64;
            return Ok(());
        }
        let Some(mut log) = self.log.take() else {
            return Err(io::Error::other("the retained log is not open, it must be written anew"));
        };
        log.write_all(&records)?;
        log.sync_data()?;
        self.log_bytes += records.len() as u64;
        self.log = Some(log);
        Ok(())
    }
}

/// Writes `sessions.json` in `dir` anew.
pub(crate) fn save_sessions(dir: &Path, sessions: &SavedSessions) -> io::Result<()> {
    let numbers = |filters: &BTreeMap<Arc<str>, Qos>| -> BTreeMap<String, u8> {
        filters.iter().map(|(filter, qos)| (filter.to_string(), *qos as u8)).collect()
    };
    let plain: BTreeMap<&str, BTreeMap<String, u8>> =
        sessions.iter().map(|(id, f)| (&**id, numbers(f))).collect();
    replace(&dir.join(SESSIONS), &serde_json::to_vec(&plain).map_err(io::Error::other)?)
}

/// Writes a new file beside `path`, syncs it, and renames it onto `path`.
fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let mut file = private().write(true).truncate(true).open(&new)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// Files that only the owner may read: payloads may be confidential.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).mode(0o600);
    options
}

fn append_record(out: &mut Vec<u8>, topic: &str, message: Option<&Message>) {
    let (kind, payload) = message.map_or((DELETED, &[][..]), |m| (m.qos as u8, &m.payload[..]));
    let mut body = Vec::with_capacity(3 + topic.len() + payload.len());
    body.push(kind);
    let topic_length = u16::try_from(topic.len()).expect("a topic is checked against 65,535 bytes");
    body.extend_from_slice(&topic_length.to_be_bytes());
    body.extend_from_slice(topic.as_bytes());
    body.extend_from_slice(payload);
    let length = u32::try_from(body.len()).expect("a message is far smaller than 4 GiB");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&checksum(&body).to_be_bytes());
    out.extend_from_slice(&body);
}

/// FNV-1a: enough to tell a torn record from a whole one.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn read_optional(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
}

fn read_log(path: &Path) -> io::Result<BTreeMap<Arc<str>, Arc<Message>>> {
    let log = read_optional(path)?;
    let mut rest = &log[..];
    let mut messages = BTreeMap::new();
    while let Some((record, next)) = read_record(rest) {
        rest = next;
        match record.message {
            Some(message) => messages.insert(record.topic, Arc::new(message)),
            None => messages.remove(&record.topic),
        };
    }
    if !rest.is_empty() {
        let aside = path.with_extension(DAMAGED);
        tracing::warn!(path = %path.display(), aside = %aside.display(), bytes = rest.len(),
            "the end of the retained log is torn or damaged and was set aside");
        private().write(true).truncate(true).open(&aside)?.write_all(rest)?;
    }
    Ok(messages)
}

struct Record {
    topic: Arc<str>,
    message: Option<Message>,
}

/// The first record of `log` and what follows it; `None` at the end and where a record is torn.
fn read_record(log: &[u8]) -> Option<(Record, &[u8])> {
    if log.len() < HEAD_BYTES {
        return None;
    }
    let length = usize::try_from(u32::from_be_bytes(log[..4].try_into().ok()?)).ok()?;
    let sum = u32::from_be_bytes(log[4..8].try_into().ok()?);
    let body = log[8..].get(..length)?;
    if length < 3 || checksum(body) != sum {
        return None;
    }
    let topic_length = usize::from(u16::from_be_bytes([body[1], body[2]]));
    let topic: Arc<str> = std::str::from_utf8(body[3..].get(..topic_length)?).ok()?.into();
    let payload = Bytes::copy_from_slice(&body[3 + topic_length..]);
    let message =
        Qos::from_number(body[0]).map(|qos| Message::new(Arc::clone(&topic), payload, qos).retained());
    Some((Record { topic, message }, &log[8 + length..]))
}

fn read_sessions(path: &Path) -> io::Result<Vec<LoadedSession>> {
    let bytes = read_optional(path)?;
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let plain: BTreeMap<String, BTreeMap<String, u8>> = serde_json::from_slice(&bytes).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))
    })?;
    let filters = |f: BTreeMap<String, u8>| {
        f.into_iter().filter_map(|(filter, qos)| Some((filter, Qos::from_number(qos)?))).collect()
    };
    Ok(plain.into_iter().map(|(id, f)| (id, filters(f))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(whole: bool, topics: &[(&str, Option<&'static [u8]>)]) -> Changes {
        let one = |(topic, payload): &(&str, Option<&'static [u8]>)| {
            let message = payload.map(|p| Arc::new(Message::new(*topic, p, Qos::AtLeastOnce).retained()));
            (Arc::from(*topic), message)
        };
        Changes { topics: topics.iter().map(one).collect(), whole }
    }

    #[test]
    fn the_log_reads_back_and_a_torn_end_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, loaded) = Store::open(dir.path()).unwrap();
        assert!(loaded.retained.is_empty() && store.wants_rewrite(0));
        store.save_retained(&changes(true, &[("a", Some(b"1")), ("ü/b", Some(b"2"))])).unwrap();
        store.save_retained(&changes(false, &[("a", None), ("c", Some(&[0, 255]))])).unwrap();
        let path = dir.path().join(RETAINED);
        let whole = fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let (_, loaded) = Store::open(dir.path()).unwrap();
            assert!(loaded.retained.len() <= 3);
            let left = loaded.retained.len();
            assert!(left >= usize::from(cut > whole.len() / 2), "{left} of a log cut at {cut}");
        }
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        assert!(dir.path().join("retained.damaged").exists());
        let (_, loaded) = Store::open(dir.path()).unwrap();
        let topics: Vec<_> = loaded.retained.keys().map(|t| t.to_string()).collect();
        assert_eq!(topics, ["c", "ü/b"]);
        assert_eq!(&loaded.retained["c"].payload[..], &[0, 255]);
        assert!(loaded.retained["c"].retain);
    }

    #[test]
    fn sessions_read_back_and_damage_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let filters = BTreeMap::from([(Arc::from("a/#"), Qos::ExactlyOnce)]);
        save_sessions(dir.path(), &BTreeMap::from([(Arc::from("c1"), filters)])).unwrap();
        let (_, loaded) = Store::open(dir.path()).unwrap();
        assert_eq!(loaded.sessions, [("c1".to_owned(), vec![("a/#".to_owned(), Qos::ExactlyOnce)])]);
        fs::write(dir.path().join(SESSIONS), b"{").unwrap();
        assert!(Store::open(dir.path()).unwrap_err().to_string().contains("sessions.json"));
    }
}

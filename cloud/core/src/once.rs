//! Requests that are done once however often they are sent (HTTP `Idempotency-Key`).
//!
//! A caller that lost the answer cannot know whether the request was done. With a key of its own it may repeat the
//! request: the answer of the first one is kept in the same atomic batch as what the request changed, so that after any
//! crash either both are there or neither. The one loop handles requests one after the other: two of the same key that
//! come together are one deed and one replay, and none is ever refused because the other still runs (docs/adr/0010).
//!
//! A refused request changed nothing and is not kept: the same key may ask again.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use tidegate_model::digest::Digest;
use tidegate_model::time::{Now, Wall};

use crate::controller::{Controller, Turn};
use crate::io::Write;
use crate::record::Actor;
use crate::rejection::Rejection;
use crate::request::Reply;
use crate::timers::TimerKey;

/// Longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 128;
/// Milliseconds for which an answer is kept.
pub const KEEP_ANSWER_MS: i64 = 24 * 3_600 * 1_000;
/// Answers that are kept at the most; then the oldest is forgotten before its time.
pub const MAX_KEPT_ANSWERS: usize = 20_000;
/// Bytes of all kept answers together at the most; then the oldest are forgotten before their time.
pub const MAX_KEPT_BYTES: usize = 64 * 1024 * 1024;

/// A caller's key: 1 to [`MAX_KEY_BYTES`] visible ASCII characters, as a UUID has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnceKey(String);

/// A text that is no [`OnceKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key has 1 to {MAX_KEY_BYTES} visible ASCII characters, such as a random UUID has")]
pub struct InvalidKey;

impl OnceKey {
    /// Reads a key; quotes around it, which an HTTP structured field has, do not count.
    ///
    /// # Errors
    /// [`InvalidKey`]
    pub fn new(text: &str) -> Result<Self, InvalidKey> {
        let text = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
        let fits = (1..=MAX_KEY_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if fits { Ok(Self(text.to_owned())) } else { Err(InvalidKey) }
    }
}

/// An answer as it is told again: the core keeps it and does not look into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptAnswer {
    /// The HTTP status.
    pub status: u16,
    /// Headers that belong to the answer itself.
    pub headers: Vec<(String, String)>,
    /// The body; without secrets.
    pub body: String,
}

impl KeptAnswer {
    fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        headers + self.body.len()
    }
}

/// That a request is to be done once.
#[derive(Debug, Clone)]
pub struct Once {
    /// The caller's key.
    pub key: OnceKey,
    /// Digest of everything that the request says. The same key with another digest is refused.
    pub request: Digest,
    /// How the shell tells a reply: a function of the reply and nothing else, without secrets.
    pub render: fn(&Reply) -> KeptAnswer,
}

/// A kept answer in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnceRecord {
    /// Digest of the caller's name and key: another caller's key never meets this one.
    pub id: Digest,
    /// [`Once::request`]
    pub request: Digest,
    /// When it was done.
    pub at: Wall,
    /// What was answered.
    pub answer: KeptAnswer,
}

/// The kept answers, and in which order they are forgotten.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    by_id: BTreeMap<Digest, OnceRecord>,
    by_age: BTreeSet<(Wall, Digest)>,
    bytes: usize,
}

impl Kept {
    fn insert(&mut self, record: OnceRecord) {
        self.remove(&record.id);
        self.bytes += record.answer.bytes();
        self.by_age.insert((record.at, record.id));
        self.by_id.insert(record.id, record);
    }

    fn remove(&mut self, id: &Digest) {
        if let Some(record) = self.by_id.remove(id) {
            self.bytes -= record.answer.bytes();
            self.by_age.remove(&(record.at, record.id));
        }
    }

    /// Takes out one that is to be forgotten now: too old, or beyond what may be kept.
    fn pop_superfluous(&mut self, now: Wall) -> Option<Digest> {
        let (at, id) = *self.by_age.first()?;
        let too_many = self.by_id.len() > MAX_KEPT_ANSWERS || self.bytes > MAX_KEPT_BYTES;
        if !too_many && at.plus_ms(KEEP_ANSWER_MS) > now {
            return None;
        }
        self.remove(&id);
        Some(id)
    }
}

fn id_of(by: &Actor, key: &OnceKey) -> Digest {
    // A name has no line break.
    Digest::of(format!("{}\n{}", by.name, key.0).as_bytes())
}

impl Controller {
    /// The answer that is kept for this key; `None`: the request is to be done.
    ///
    /// # Errors
    /// [`Rejection::KeyReused`]: the key belongs to another request.
    pub fn kept_answer(&self, by: &Actor, once: &Once) -> Result<Option<KeptAnswer>, Rejection> {
        match self.kept.by_id.get(&id_of(by, &once.key)) {
            None => Ok(None),
            Some(record) if record.request == once.request => Ok(Some(record.answer.clone())),
            Some(_) => Err(Rejection::KeyReused),
        }
    }

    /// How many answers are kept.
    #[must_use]
    pub fn kept_answers(&self) -> usize {
        self.kept.by_id.len()
    }

    /// Keeps the answer of a request that was done, with the writes of this turn.
    pub(crate) fn keep_answer(&mut self, turn: &mut Turn, by: &Actor, once: &Once, reply: &Reply) {
        let record = OnceRecord {
            id: id_of(by, &once.key),
            request: once.request,
            at: turn.now.wall,
            answer: (once.render)(reply),
        };
        turn.writes.push(Write::PutAnswer(Box::new(record.clone())));
        self.kept.insert(record);
        self.forget_answers(turn);
    }

    /// Takes over what the store holds.
    pub(crate) fn restore_answers(&mut self, now: Now, records: Vec<OnceRecord>) -> Vec<Write> {
        records.into_iter().for_each(|record| self.kept.insert(record));
        let mut turn = Turn::new(now);
        self.forget_answers(&mut turn);
        turn.writes
    }

    /// Forgets what is too old or too much, and sets the next moment. The wall clock counts, which may have jumped: it is
    /// looked at again after at most [`KEEP_ANSWER_MS`].
    pub(crate) fn forget_answers(&mut self, turn: &mut Turn) {
        let now = turn.now;
        while let Some(id) = self.kept.pop_superfluous(now.wall) {
            turn.writes.push(Write::RemoveAnswer(id));
        }
        match self.kept.by_age.first() {
            Some((at, _)) => {
                let left = at.plus_ms(KEEP_ANSWER_MS).0.saturating_sub(now.wall.0).clamp(1, KEEP_ANSWER_MS);
                self.timers.set(TimerKey::Answers, now.monotonic.plus_ms(left));
            }
            None => self.timers.clear(&TimerKey::Answers),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: usize, bytes: usize) -> OnceRecord {
        OnceRecord {
            id: Digest::of(&number.to_be_bytes()),
            request: Digest::of(b""),
            at: Wall(i64::try_from(number).unwrap()),
            answer: KeptAnswer { status: 200, headers: Vec::new(), body: "x".repeat(bytes) },
        }
    }

    #[test]
    fn keys_are_visible_and_bounded() {
        assert_eq!(OnceKey::new("\"a-1\""), OnceKey::new("a-1"));
        let longest = "k".repeat(MAX_KEY_BYTES);
        assert!(OnceKey::new(&longest).is_ok());
        for bad in ["", "\"\"", "a b", "\u{e9}", "a\n", &format!("{longest}k")] {
            assert_eq!(OnceKey::new(bad), Err(InvalidKey), "{bad:?}");
        }
    }

    #[test]
    fn the_oldest_is_forgotten_first_when_there_are_too_many_or_too_large_ones() {
        let mut kept = Kept::default();
        for number in 0..MAX_KEPT_ANSWERS + 2 {
            kept.insert(record(number, 1));
        }
        let now = Wall(0);
        assert_eq!(kept.pop_superfluous(now), Some(record(0, 1).id));
        assert_eq!(kept.pop_superfluous(now), Some(record(1, 1).id));
        assert_eq!(kept.pop_superfluous(now), None);
        kept.insert(record(9_000_000, MAX_KEPT_BYTES));
        let mut forgotten = 0;
        while kept.pop_superfluous(now).is_some() {
            forgotten += 1;
        }
        assert_eq!((forgotten, kept.by_id.len(), kept.bytes), (MAX_KEPT_ANSWERS, 1, MAX_KEPT_BYTES));
        assert_eq!(kept.by_age.len(), 1);
    }
}

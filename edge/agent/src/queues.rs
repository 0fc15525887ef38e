//! What is in the queues of a rule, for people: shown, exported, dropped by hand. The same for the queues of a running agent
//! and for those on the disk of one that does not run (`at_rest.rs`).

pub mod at_rest;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use tidegate_edge_queue::{Aside, DropError, Queue, ReadError, Record, Removed, Stored, UNKNOWN_AGE, View};
use tidegate_model::topic::TopicFilter;

/// Most messages that are shown of a queue, and of what lies beside it.
pub const MAX_SHOWN: usize = 100;
/// Most bytes of a payload that are shown.
const MAX_SHOWN_BYTES: usize = 1_024;
/// Most messages of a page of an export.
const PAGE_MESSAGES: usize = 500;
/// Most bytes of topics and payloads of a page, unless a single one is larger; an answer of the agent has 4 MiB.
const PAGE_BYTES: usize = 1 << 20;

/// Which way messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From devices to the remote broker.
    Forwards,
    /// From the remote broker to the local one.
    Subscriptions,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Forwards, Self::Subscriptions];

    /// Its folder under that of the rule.
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Self::Forwards => "out",
            Self::Subscriptions => "in",
        }
    }

    /// As people and programs know it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Forwards => "forwards",
            Self::Subscriptions => "subscriptions",
        }
    }
}

/// The queues of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picture {
    /// The rule.
    pub rule: String,
    /// One for each direction.
    pub directions: Vec<DirectionPicture>,
}

/// The queue of one direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectionPicture {
    /// Which.
    pub direction: Direction,
    /// Messages that wait.
    pub messages: u64,
    /// Their bytes on disk.
    pub bytes: u64,
    /// Age of the oldest; `None`: there is none, or the clock was not set when it came.
    pub oldest_age_ms: Option<u64>,
    /// The first of them.
    pub next: Vec<MessagePicture>,
    /// Messages that lie aside.
    pub set_aside: u64,
    /// Their bytes on disk.
    pub set_aside_bytes: u64,
    /// The first of them.
    pub aside: Vec<MessagePicture>,
}

/// A message, without its payload unless that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessagePicture {
    /// Position in the line.
    pub offset: u64,
    /// The topic at the target.
    pub topic: String,
    /// Bytes of the payload.
    pub bytes: u64,
    /// 0 or 1.
    pub qos: u8,
    /// The retain flag.
    pub retain: bool,
    /// How long ago it was accepted; `None`: the clock was not set then.
    pub age_ms: Option<u64>,
    /// Why it lies aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The first 1,024 bytes of the payload, as base64, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
}

/// A line of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Which way it goes.
    pub direction: Direction,
    /// Position in the line.
    pub offset: u64,
    /// When it was accepted (RFC 3339); `None`: the clock was not set.
    pub at: Option<String>,
    /// The topic at the target.
    pub topic: String,
    /// 0 or 1.
    pub qos: u8,
    /// The retain flag.
    pub retain: bool,
    /// The payload as base64.
    pub payload: String,
    /// It lies aside, for this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_aside: Option<String>,
}

/// Some lines of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// In the order of the queue.
    pub lines: Vec<Line>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<u64>,
}

/// Which messages are to be dropped: all of the line, as far as nothing else is said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// Only of this direction.
    pub direction: Option<Direction>,
    /// Only those that were accepted before this moment (wall clock, ms).
    pub before_ms: Option<i64>,
    /// Only of these topics, as they are called at the target.
    pub topic: Option<TopicFilter>,
    /// Those that lie aside, in place of those in the line.
    pub aside: bool,
}

impl Selection {
    fn is_all(&self) -> bool {
        self.before_ms.is_none() && self.topic.is_none()
    }

    fn means(&self, record: &Record) -> bool {
        let is_old = self.before_ms.is_none_or(|before| record.at_ms < before);
        is_old && self.topic.as_ref().is_none_or(|filter| filter.matches_text(&record.topic))
    }
}

/// What became of a drop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Messages that are gone.
    pub dropped: u64,
    /// Messages that were meant and stay, since they are on their way or next.
    pub on_their_way: u64,
    /// More are meant than can be dropped at once: they stay.
    pub has_more: bool,
}

/// One direction as it is now; at most `count` messages each, payloads if wanted.
///
/// # Errors
/// [`ReadError`] when the disk does not let it read.
pub fn picture(
    direction: Direction,
    view: &View,
    count: usize,
    payload: bool,
    now_ms: i64,
) -> Result<DirectionPicture, ReadError> {
    let stats = view.stats();
    let count = count.min(MAX_SHOWN);
    let mut next: Vec<MessagePicture> = Vec::new();
    while next.len() < count {
        let from = next.last().map_or(0, |last| last.offset + 1);
        let found = view.read_from(from, count - next.len(), PAGE_BYTES)?;
        if found.is_empty() {
            break;
        }
        let shown =
            found.into_iter().map(|Stored { offset, record }| message(offset, &record, payload, now_ms));
        next.extend(shown);
    }
    let mut aside: Vec<MessagePicture> = Vec::new();
    while aside.len() < count {
        let from = aside.last().map_or(0, |last| last.offset + 1);
        let found = view.asides(from, count - aside.len(), PAGE_BYTES)?;
        if found.is_empty() {
            break;
        }
        aside.extend(found.into_iter().map(|Aside { offset, record, reason, .. }| MessagePicture {
            reason: Some(reason),
            ..message(offset, &record, payload, now_ms)
        }));
    }
    Ok(DirectionPicture {
        direction,
        messages: stats.queued,
        bytes: stats.bytes,
        oldest_age_ms: stats.oldest_at_ms.and_then(|at| age(at, now_ms)),
        next,
        set_aside: stats.aside,
        set_aside_bytes: stats.aside_bytes,
        aside,
    })
}

fn message(offset: u64, record: &Record, payload: bool, now_ms: i64) -> MessagePicture {
    let shown = &record.payload[..record.payload.len().min(MAX_SHOWN_BYTES)];
    MessagePicture {
        offset,
        topic: record.topic.clone(),
        bytes: record.payload.len() as u64,
        qos: record.qos,
        retain: record.retain,
        age_ms: age(record.at_ms, now_ms),
        reason: None,
        payload: payload.then(|| STANDARD.encode(shown)),
    }
}

fn age(at_ms: i64, now_ms: i64) -> Option<u64> {
    (at_ms != UNKNOWN_AGE).then(|| u64::try_from(now_ms.saturating_sub(at_ms)).unwrap_or(0))
}

/// A page of what waits, or of what lies aside, from this offset on.
///
/// # Errors
/// [`ReadError`] when the disk does not let it read.
pub fn page(direction: Direction, view: &View, aside: bool, from: u64) -> Result<Page, ReadError> {
    let lines: Vec<Line> = if aside {
        let found = view.asides(from, PAGE_MESSAGES, PAGE_BYTES)?;
        found.into_iter().map(|a| line(direction, a.offset, a.record, Some(a.reason))).collect()
    } else {
        let found = view.read_from(from, PAGE_MESSAGES, PAGE_BYTES)?;
        found.into_iter().map(|s| line(direction, s.offset, s.record, None)).collect()
    };
    let next = lines.last().map(|last| last.offset + 1);
    Ok(Page { lines, next })
}

fn line(direction: Direction, offset: u64, record: Record, set_aside: Option<String>) -> Line {
    let at = (record.at_ms != UNKNOWN_AGE)
        .then(|| jiff::Timestamp::from_millisecond(record.at_ms).ok().map(|at| at.to_string()));
    Line {
        direction,
        offset,
        at: at.flatten(),
        topic: record.topic,
        qos: record.qos,
        retain: record.retain,
        payload: STANDARD.encode(&record.payload),
        set_aside,
    }
}

/// Drops what the selection means of one queue. Blocks, for the disk.
///
/// # Errors
/// [`DropError`]; some may be dropped.
pub fn drop_from(queue: &Queue, selection: &Selection) -> Result<Dropped, DropError> {
    if selection.aside {
        let selection = selection.clone();
        let dropped = queue.drop_asides(move |aside| selection.means(&aside.record))?;
        return Ok(Dropped { dropped, ..Dropped::default() });
    }
    let is_meant = |record: &Record| selection.means(record);
    let Removed { dropped, in_hand, has_more } =
        queue.drop_where((!selection.is_all()).then_some(&is_meant as &dyn Fn(&Record) -> bool))?;
    Ok(Dropped { dropped, on_their_way: in_hand, has_more })
}

impl std::ops::Add for Dropped {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            dropped: self.dropped + other.dropped,
            on_their_way: self.on_their_way + other.on_their_way,
            has_more: self.has_more || other.has_more,
        }
    }
}

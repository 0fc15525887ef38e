//! From the outgoing queue into the bytes for the remote broker, through the window. A message that the remote broker does
//! not take is set aside, once that is certain (docs/adr/0020).

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::AtomicU64},
    time::Instant,
};

use bytes::BytesMut;
use rumqttc::mqttbytes::{QoS, v4::Publish};
use tidegate_edge_core::{
    rate::Rate,
    suspicion::{Next, Suspicion},
    window::Window,
};
use tidegate_edge_queue::{AsideError, Queue, ReadError, Stored};
use tidegate_model::{ids::RuleId, rule::DrainSpec, time::Monotonic};
use tokio::{sync::Notify, task::JoinHandle};

use super::{counters::Tally, fault::LinkError, wall_ms};

/// Most messages without an acknowledgement. At a round trip of 100 ms it carries 10,000 messages per second; after a
/// broken connection at most so many are sent twice.
const WINDOW: u16 = 1_000;
/// Most bytes that wait for the socket; beyond it nothing is added.
pub(super) const MAX_OUT_BYTES: usize = 128 << 10;
/// Bounds of one look into the queue.
const FETCH_RECORDS: usize = 500;
const FETCH_BYTES: usize = 128 << 10;

/// Why a message is set aside, for people.
const REFUSED_ALONE: &str = "each time it was sent alone the broker ended the connection or did not acknowledge it, and it took the \
                             next one; it may be too large or not permitted there";

/// How setting messages aside ended: all of them, or why not, with their offsets.
type SetAside = Result<(), (Vec<u64>, AsideError)>;

/// Offsets of sent QoS 0 records by the end of their bytes, so that they are released once written.
type Unacknowledged = VecDeque<(u64, u64)>;

/// The outgoing half of a bridge; lives over many connections.
pub(super) struct Outgoing {
    queue: Queue,
    window: Window,
    /// Read and not sent yet.
    ready: VecDeque<Stored>,
    reading: Option<JoinHandle<Result<Vec<Stored>, ReadError>>>,
    /// There may be more in the queue than was seen.
    more: bool,
    unacknowledged: Unacknowledged,
    suspicion: Suspicion,
    /// Topic and payload bytes of the message that was sent alone.
    suspect: Option<(String, usize)>,
    /// Messages that are being set aside, by offset, and how that ended.
    aside: Option<JoinHandle<SetAside>>,
    /// How fast it may send, by which wish, and when it may go on.
    rate: Option<Rate>,
    limit: Option<DrainSpec>,
    free_at: Option<Monotonic>,
    /// The next connection is to be made at once.
    hurries: bool,
    rule: RuleId,
    durable: Arc<Notify>,
    tally: Arc<Tally>,
    epoch: Instant,
}

impl Outgoing {
    pub fn new(rule: RuleId, queue: Queue, tally: Arc<Tally>) -> Self {
        let durable = Arc::new(Notify::new());
        let wake = Arc::clone(&durable);
        queue.on_durable(move || wake.notify_one());
        Self {
            queue,
            window: Window::new(1, WINDOW),
            ready: VecDeque::new(),
            reading: None,
            more: true,
            unacknowledged: VecDeque::new(),
            suspicion: Suspicion::default(),
            suspect: None,
            aside: None,
            rate: None,
            limit: None,
            free_at: None,
            hurries: false,
            rule,
            durable,
            tally,
            epoch: Instant::now(),
        }
    }

    /// A new connection begins with the first record that was not acknowledged and is not left out.
    pub fn rewind(&mut self) {
        self.window.rewind();
        if let Some(begin) = self.suspicion.begin() {
            self.window.begin_at(begin);
        }
        self.read_anew();
        self.unacknowledged.clear();
        self.suspect = None;
    }

    /// From now on it is another broker, or another login.
    pub fn forget(&mut self) {
        if let Some(oldest) = self.suspicion.forget() {
            self.window.begin_at(oldest);
        }
    }

    /// From now on it sends no faster than this. The same again changes nothing: a new connection is no new second.
    pub fn limit(&mut self, limit: Option<DrainSpec>) {
        if self.limit == limit {
            return;
        }
        let now = self.monotonic(Instant::now());
        let bytes = |limit: DrainSpec| limit.bytes_per_s.map(|bytes| bytes.0);
        self.rate = limit.map(|limit| Rate::new(limit.messages_per_s.map(u64::from), bytes(limit), now));
        (self.limit, self.free_at) = (limit, None);
    }

    /// When it goes on, if the limit on its speed is what it waits for.
    pub fn free_at(&self) -> Option<Instant> {
        let ms = u64::try_from(self.free_at?.0).unwrap_or(0);
        Some(self.epoch + std::time::Duration::from_millis(ms))
    }

    /// The next connection is to be made without a pause. Says so once.
    pub fn hurries(&mut self) -> bool {
        std::mem::take(&mut self.hurries)
    }

    /// The remote broker ended the connection, or acknowledges nothing. `Some`: topic and payload bytes of the only message that
    /// was in flight, after several connections ended in the same way.
    pub fn lost(&mut self, now: Instant) -> Option<(String, usize)> {
        let suspect = self.suspect.take();
        let (first, last) = self.window.waiting()?;
        let what = suspect.as_ref().map(|(topic, bytes)| (topic.as_str(), *bytes));
        match self.suspicion.ended(first, last, what, self.monotonic(now)) {
            Next::Pause => {}
            Next::AtOnce => self.hurries = true,
            Next::Back(oldest) => self.window.begin_at(oldest),
        }
        suspect
    }

    /// Tells of new durable records.
    pub fn durable(&self) -> Arc<Notify> {
        Arc::clone(&self.durable)
    }

    /// New records are there.
    pub fn look_again(&mut self) {
        self.more = true;
    }

    /// Adds as many PUBLISH packets as window and buffer take. `written` bytes of this connection left the buffer before.
    pub fn fill(&mut self, out: &mut BytesMut, written: u64, now: Instant) -> Result<(), LinkError> {
        let now = self.monotonic(now);
        self.free_at = None;
        while out.len() < MAX_OUT_BYTES && self.has_room() {
            if self.suspicion.is_alone()
                && let Some(oldest) = self.suspicion.stale(self.at_end(), now)
            {
                self.window.begin_at(oldest);
                self.read_anew();
            }
            let Some(stored) = self.ready.pop_front() else {
                if !self.fetch() {
                    return Ok(());
                }
                continue;
            };
            let offset = stored.offset;
            if self.suspicion.skips(offset, &stored.record.topic, stored.record.payload.len()) {
                self.window.begin_at(offset + 1);
                continue;
            }
            if let Some(rate) = &mut self.rate {
                let free_at = rate.free_at(now);
                if free_at > now {
                    self.free_at = Some(free_at);
                    self.ready.push_front(stored);
                    return Ok(());
                }
                rate.sent(stored.record.topic.len() + stored.record.payload.len());
            }
            // In the place of others even QoS 0 waits for an acknowledgement: it is the proof.
            let sent = if stored.record.qos == 0 && self.suspicion.begin().is_none() {
                self.window.send_unacknowledged(offset, now).map(|()| 0)
            } else {
                self.window.send(offset, now)
            };
            let Ok(pkid) = sent else {
                continue; // below the window's start: it was sent already
            };
            let record = stored.record;
            if self.suspicion.is_alone() && pkid > 0 {
                self.suspect = Some((record.topic.clone(), record.payload.len()));
            }
            let packet = Publish {
                dup: false,
                qos: if pkid == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce },
                retain: record.retain,
                topic: record.topic,
                pkid,
                payload: record.payload,
            };
            packet.write(out).map_err(|error| LinkError::malformed(&error))?;
            if pkid == 0 {
                self.unacknowledged.push_back((written + out.len() as u64, offset));
            }
        }
        Ok(())
    }

    /// Waits for the disk: for records that are being read or set aside; for ever when none are. `true`: what held up the line
    /// does so no more.
    pub async fn disk(&mut self) -> Result<bool, LinkError> {
        if let Some(aside) = &mut self.aside {
            let ended = aside.await;
            self.aside = None;
            return match ended {
                Ok(Ok(())) => Ok(true),
                Ok(Err((left_out, error))) => {
                    self.suspicion.not_kept(left_out, self.monotonic(Instant::now()));
                    Err(LinkError::SetAside(error))
                }
                Err(error) => Err(LinkError::Broken(std::io::Error::other(error))),
            };
        }
        let Some(reading) = &mut self.reading else { return std::future::pending().await };
        let records = reading.await;
        self.reading = None;
        let records = records.map_err(|error| LinkError::Broken(std::io::Error::other(error)))??;
        self.more = !records.is_empty();
        self.ready = records.into();
        Ok(false)
    }

    /// PUBACK came.
    pub fn acknowledged(&mut self, pkid: u16, now: Instant) {
        let alone = self.suspicion.is_alone().then(|| self.window.waiting()).flatten();
        if !self.window.acknowledge(pkid, self.monotonic(now)) {
            return;
        }
        self.count(&self.tally.forwarded);
        if let Some((offset, _)) = alone {
            self.suspect = None;
            let refused = self.suspicion.passed(offset);
            if !refused.is_empty() {
                self.set_aside(refused);
            }
        }
    }

    /// So many bytes of this connection went to the socket.
    pub fn written(&mut self, written: u64) {
        while let Some((_, offset)) = self.unacknowledged.pop_front_if(|(end, _)| *end <= written) {
            self.window.written(offset);
            self.count(&self.tally.forwarded);
        }
    }

    /// Gives back to the queue what is done.
    pub fn release(&mut self) {
        // What is being set aside stands before what was acknowledged.
        if self.aside.is_none()
            && let Some(offset) = self.window.released()
        {
            self.queue.release(offset);
        }
    }

    /// When the oldest message has waited too long for its PUBACK.
    pub fn due(&self, limit: std::time::Duration) -> Option<Instant> {
        let limit_ms = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
        let due = self.window.acknowledgement_due(limit_ms)?;
        Some(self.epoch + std::time::Duration::from_millis(u64::try_from(due.0).unwrap_or(0)))
    }

    /// Gets records from memory, or begins to read them from disk. `false`: none are here now.
    fn fetch(&mut self) -> bool {
        if !self.more || self.reading.is_some() {
            return false;
        }
        let from = self.window.next();
        match self.queue.read_cached(from, FETCH_RECORDS, FETCH_BYTES) {
            Some(records) => {
                self.more = !records.is_empty();
                self.ready = records.into();
                self.more
            }
            None => {
                let queue = self.queue.clone();
                self.reading = Some(tokio::task::spawn_blocking(move || {
                    queue.read_from(from, FETCH_RECORDS, FETCH_BYTES)
                }));
                false
            }
        }
    }

    /// Nothing more is in the queue, as far as was seen.
    fn at_end(&self) -> bool {
        self.ready.is_empty() && self.reading.is_none() && !self.more
    }

    /// Nothing is in flight: reads on where the window stands.
    fn read_anew(&mut self) {
        let from = self.window.next();
        self.queue.rewind(self.suspicion.oldest().map_or(from, |oldest| oldest.min(from)));
        self.ready.clear();
        self.reading = None;
        self.more = true;
    }

    /// Has these records kept beside the line; until that is done nothing is sent or released.
    fn set_aside(&mut self, refused: Vec<u64>) {
        let (queue, tally, rule) = (self.queue.clone(), Arc::clone(&self.tally), self.rule);
        self.aside = Some(tokio::task::spawn_blocking(move || {
            for offset in &refused {
                match queue.set_aside(*offset, REFUSED_ALONE.to_owned(), wall_ms()) {
                    Ok(Some(record)) => {
                        let (topic, bytes) = (record.topic, record.payload.len());
                        tally.error(&format!("set aside: {bytes} bytes on '{topic}': {REFUSED_ALONE}"));
                        tracing::warn!(line.kind = "set-aside", rule.id = %rule, topic, bytes, "a message is set aside: {REFUSED_ALONE}");
                    }
                    // Too old, or dropped to make room.
                    Ok(None) => {}
                    Err(error) => return Err((refused, error)),
                }
            }
            Ok(())
        }));
    }

    fn has_room(&self) -> bool {
        let waits = self.suspicion.is_alone() && self.window.in_flight() > 0;
        self.window.has_room() && !waits && self.aside.is_none()
    }

    fn count(&self, counter: &AtomicU64) {
        Tally::add(counter, 1);
    }

    fn monotonic(&self, now: Instant) -> Monotonic {
        Monotonic(i64::try_from(now.saturating_duration_since(self.epoch).as_millis()).unwrap_or(i64::MAX))
    }
}

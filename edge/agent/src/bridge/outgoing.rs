//! From the outgoing queue into the bytes for the remote broker, through the window.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::AtomicU64},
    time::Instant,
};

use bytes::BytesMut;
use rumqttc::mqttbytes::{QoS, v4::Publish};
use tidegate_edge_core::window::Window;
use tidegate_edge_queue::{Queue, ReadError, Stored};
use tidegate_model::time::Monotonic;
use tokio::{sync::Notify, task::JoinHandle};

use super::{counters::Tally, fault::LinkError};

/// Most messages without an acknowledgement. At a round trip of 100 ms it carries 10,000 messages per second; after a
/// broken connection at most so many are sent twice.
const WINDOW: u16 = 1_000;
/// Most bytes that wait for the socket; beyond it nothing is added.
pub(super) const MAX_OUT_BYTES: usize = 128 << 10;
/// Bounds of one look into the queue.
const FETCH_RECORDS: usize = 500;
const FETCH_BYTES: usize = 128 << 10;

/// After so many connections in a row that ended without a single acknowledgement, messages are sent one by one, so that
/// the one the remote broker does not like is known.
const SUSPICIOUS_AFTER: u32 = 3;

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
    /// Connections in a row that ended with messages in flight, none of them acknowledged.
    fruitless: u32,
    /// Topic and payload bytes of the message that was sent alone.
    suspect: Option<(String, usize)>,
    durable: Arc<Notify>,
    tally: Arc<Tally>,
    epoch: Instant,
}

impl Outgoing {
    pub fn new(queue: Queue, tally: Arc<Tally>) -> Self {
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
            fruitless: 0,
            suspect: None,
            durable,
            tally,
            epoch: Instant::now(),
        }
    }

    /// A new connection begins with the first record that was not acknowledged.
    pub fn rewind(&mut self) {
        self.window.rewind();
        self.ready.clear();
        self.reading = None;
        self.unacknowledged.clear();
        self.more = true;
    }

    /// The remote broker ended the connection. `Some`: topic and payload bytes of the only message that was in flight, after
    /// several connections ended in the same way.
    pub fn lost(&mut self) -> Option<(String, usize)> {
        let waits = self.window.acknowledgement_due(0).is_some();
        if waits {
            self.fruitless = self.fruitless.saturating_add(1);
        }
        self.suspect.take()
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
        while out.len() < MAX_OUT_BYTES && self.has_room() {
            let Some(stored) = self.ready.pop_front() else {
                if !self.fetch() {
                    return Ok(());
                }
                continue;
            };
            let offset = stored.offset;
            let sent = if stored.record.qos == 0 {
                self.window.send_unacknowledged(offset, now).map(|()| 0)
            } else {
                self.window.send(offset, now)
            };
            let Ok(pkid) = sent else {
                continue; // below the window's start: it was sent already
            };
            let record = stored.record;
            if self.fruitless >= SUSPICIOUS_AFTER {
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

    /// Waits for the records that are being read from disk; for ever when none are.
    pub async fn read(&mut self) -> Result<(), LinkError> {
        let Some(reading) = &mut self.reading else { return std::future::pending().await };
        let records = reading.await;
        self.reading = None;
        let records = records.map_err(|error| LinkError::Broken(std::io::Error::other(error)))??;
        self.more = !records.is_empty();
        self.ready = records.into();
        Ok(())
    }

    /// PUBACK came.
    pub fn acknowledged(&mut self, pkid: u16, now: Instant) {
        if self.window.acknowledge(pkid, self.monotonic(now)) {
            self.fruitless = 0;
            self.suspect = None;
            self.count(&self.tally.forwarded);
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
        if let Some(offset) = self.window.released() {
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

    fn has_room(&self) -> bool {
        let alone = self.fruitless >= SUSPICIOUS_AFTER;
        self.window.has_room() && !(alone && self.window.in_flight() > 0)
    }

    fn count(&self, counter: &AtomicU64) {
        Tally::add(counter, 1);
    }

    fn monotonic(&self, now: Instant) -> Monotonic {
        Monotonic(i64::try_from(now.saturating_duration_since(self.epoch).as_millis()).unwrap_or(i64::MAX))
    }
}

//! From an external local broker's PUBLISH to the outgoing queue, and the PUBACK once the record is durable, in the order of
//! arrival. Lives over many connections, so that what the broker sends again is not stored twice.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::{
    QoS,
    v4::{PubAck, Publish},
};
use sha2::{Digest as _, Sha256};
use tidegate_edge_core::redelivery::{Redelivery, Verdict};
use tidegate_edge_queue::{AppendError, Queue, Record, Source as Sent};
use tidegate_model::{
    limits::MAX_ROUTES_PER_RULE,
    rule::{Delivery, EdgeRule},
    topic::TopicName,
};
use tokio::{
    sync::{Notify, mpsc},
    time::Duration,
};

use super::{counters::Tally, fault::LinkError};
use crate::clock;

/// Most records that were handed to the queue and are not durable. Beyond it nothing is taken.
const MAX_UNSETTLED: usize = 2_048;
/// Most bytes of messages that were read and have no room in the queue. Beyond it the connection is not read.
const MAX_WAITING_BYTES: usize = 256 << 10;
/// What a waiting message takes beside topic and payload, in bytes.
const WAITING_OVERHEAD: usize = 128;
/// What a record takes in the queue beside topic and payload, in bytes.
const RECORD_OVERHEAD: usize = 64;
/// Messages without acknowledgement that a broker can have: its packet ids.
const MAX_PENDING: usize = u16::MAX as usize;

/// Who takes what.
#[derive(Debug, Clone, Default)]
pub(super) struct Takers {
    /// Under its forwards messages are taken in.
    pub taking: Option<Arc<EdgeRule>>,
    /// It is being tried: what only it takes waits for what becomes of it.
    pub trying: Option<Arc<EdgeRule>>,
}

/// What becomes of a message.
enum Fate {
    Take(Vec<Delivery>),
    /// It is known only when somebody takes in, or the rule that is being tried is committed, or given up.
    Wait,
    /// Nobody takes it. `true`: somebody would, had it another topic.
    Drop(bool),
}

impl Takers {
    fn fate(&self, topic: &str) -> Fate {
        // Nobody said yet who takes: what a session brings at once must not be passed over.
        let Some(taking) = &self.taking else { return Fate::Wait };
        let name = TopicName::new(topic).ok();
        let takes = |rule: &EdgeRule| name.as_ref().map(|name| rule.forward(name)).unwrap_or_default();
        let deliveries = takes(taking);
        if !deliveries.is_empty() {
            Fate::Take(deliveries)
        } else if self.trying.as_deref().is_some_and(|rule| !takes(rule).is_empty()) {
            Fate::Wait
        } else {
            Fate::Drop(taking.wants_in_vain(topic))
        }
    }
}

/// What an external local broker sends for one rule.
pub(super) struct Source {
    queue: Queue,
    tally: Arc<Tally>,
    takers: Takers,
    held: Redelivery,
    /// Of this connection: read, and not handed to the queue.
    waiting: VecDeque<Publish>,
    waiting_bytes: usize,
    /// Of this connection: not acknowledged, in the order of arrival.
    pending: VecDeque<Pending>,
    /// Records of any connection that are not settled.
    unsettled: usize,
    /// Since when what is sent again is being compared with what is held.
    row_since: Option<Instant>,
    space: Arc<Notify>,
    tx: mpsc::Sender<Kept>,
    rx: mpsc::Receiver<Kept>,
}

struct Pending {
    ack: u16,
    /// What must be on disk first.
    number: Option<u64>,
}

/// How an append ended.
struct Kept {
    /// The message.
    number: u64,
    /// It was the last record of the message.
    whole: bool,
    result: Result<u64, AppendError>,
}

impl Source {
    /// `held` is what the queue holds of an earlier process.
    pub fn new(queue: Queue, tally: Arc<Tally>, held: impl IntoIterator<Item = Sent>) -> Self {
        let (tx, rx) = mpsc::channel(MAX_UNSETTLED + MAX_ROUTES_PER_RULE);
        let space = Arc::new(Notify::new());
        let wake = Arc::clone(&space);
        queue.on_space(move || wake.notify_one());
        Self {
            queue,
            tally,
            takers: Takers::default(),
            held: Redelivery::restore(held.into_iter().map(|sent| (sent.id, sent.print))),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            pending: VecDeque::new(),
            unsettled: 0,
            row_since: None,
            space,
            tx,
            rx,
        }
    }

    /// A new connection: what was not acknowledged on the one before is sent again, if the broker kept the session.
    pub fn connected(&mut self, session_present: bool) {
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.pending.clear();
        self.row_since = None;
        self.held.connected(session_present);
    }

    /// Others take from now on.
    pub fn serve(&mut self, takers: Takers) -> Result<(), LinkError> {
        self.takers = takers;
        self.advance()
    }

    /// Nothing more may be read from the connection now.
    pub fn blocked(&self) -> bool {
        self.waiting_bytes >= MAX_WAITING_BYTES
    }

    /// Takes a message. Call only while not blocked.
    pub fn take(&mut self, publish: Publish) -> Result<(), LinkError> {
        match publish.qos {
            QoS::ExactlyOnce => Err(LinkError::Malformed("a QoS 2 message; none was subscribed".to_owned())),
            QoS::AtMostOnce => {
                self.take_lossy(&publish);
                Ok(())
            }
            QoS::AtLeastOnce => {
                if self.pending.len() + self.waiting.len() >= MAX_PENDING {
                    return Err(LinkError::Malformed("more messages than packet ids".to_owned()));
                }
                self.waiting_bytes += waiting_bytes(&publish);
                self.waiting.push_back(publish);
                self.advance()
            }
        }
    }

    /// Passes over a message that is too large to take, in its turn.
    pub fn pass_over(&mut self, id: Option<u16>) {
        Tally::add(&self.tally.oversized, 1);
        self.pending.extend(id.map(|ack| Pending { ack, number: None }));
    }

    /// Hands to the queue what has room.
    fn advance(&mut self) -> Result<(), LinkError> {
        while let Some(publish) = self.waiting.front() {
            let deliveries = match self.takers.fate(&publish.topic) {
                Fate::Take(deliveries) => deliveries,
                Fate::Wait => return Ok(()),
                Fate::Drop(in_vain) => {
                    if in_vain {
                        Tally::add(&self.tally.unmapped, 1);
                    }
                    self.pending.push_back(Pending { ack: publish.pkid, number: None });
                    self.done_waiting();
                    continue;
                }
            };
            let needed: usize = deliveries
                .iter()
                .map(|delivery| delivery.topic.as_str().len() + publish.payload.len() + RECORD_OVERHEAD)
                .sum();
            let sent = Sent { id: publish.pkid, print: print(publish) };
            let is_new = self.held.is_new(sent.id, publish.dup, sent.print);
            if is_new && (self.unsettled >= MAX_UNSETTLED || !self.queue.has_room(needed)) {
                return Ok(());
            }
            let number = match self.held.offer(sent.id, publish.dup, sent.print) {
                Verdict::New(number) => {
                    self.append(number, sent, deliveries);
                    number
                }
                Verdict::Held(number) => number,
                Verdict::Doubt => return Err(LinkError::Doubt),
            };
            self.pending.push_back(Pending { ack: sent.id, number: Some(number) });
            self.done_waiting();
            self.row_since = match self.row_since {
                _ if !self.held.in_row() => None,
                None => Some(Instant::now()),
                since @ Some(_) => since,
            };
        }
        Ok(())
    }

    fn append(&mut self, number: u64, sent: Sent, deliveries: Vec<Delivery>) {
        let Some(publish) = self.waiting.front() else { return };
        let last = deliveries.len() - 1;
        for (at, delivery) in deliveries.into_iter().enumerate() {
            let whole = at == last;
            let record = record(publish, delivery, whole.then_some(sent));
            let tx = self.tx.clone();
            self.unsettled += 1;
            self.queue.append(record, move |result| {
                // Never full: there is room for every record that is not settled. Closed when the rule stopped.
                let _ = tx.try_send(Kept { number, whole, result });
            });
        }
    }

    /// A QoS 0 message does not wait: where the queue has no room it is dropped, and counted there.
    fn take_lossy(&mut self, publish: &Publish) {
        match self.takers.fate(&publish.topic) {
            Fate::Take(deliveries) => {
                for delivery in deliveries {
                    self.queue.append(record(publish, delivery, None), |_| {});
                }
            }
            Fate::Drop(true) => Tally::add(&self.tally.unmapped, 1),
            Fate::Drop(false) | Fate::Wait => {}
        }
    }

    fn done_waiting(&mut self) {
        if let Some(publish) = self.waiting.pop_front() {
            self.waiting_bytes -= waiting_bytes(&publish);
        }
    }

    /// Waits until an append ended, or there is room again, and goes on.
    pub async fn wait(&mut self) -> Result<(), LinkError> {
        let space = Arc::clone(&self.space);
        tokio::select! {
            // The sender of `self` keeps the channel open.
            Some(kept) = self.rx.recv() => self.settle(kept)?,
            () = space.notified() => {}
        }
        self.advance()
    }

    /// Notes how appends ended.
    fn settle(&mut self, kept: Kept) -> Result<(), LinkError> {
        let (mut next, mut failed) = (Some(kept), None);
        while let Some(Kept { number, whole, result }) = next {
            self.unsettled -= 1;
            match result {
                // What is too large can never be kept, and the queue has counted it.
                Ok(_) | Err(AppendError::TooLarge { .. }) => {
                    if whole {
                        self.held.durable(number);
                    }
                }
                Err(error @ (AppendError::Full | AppendError::Disk(_) | AppendError::Closed)) => {
                    self.held.failed(number);
                    failed = Some(error);
                }
            }
            next = self.rx.try_recv().ok();
        }
        failed.map_or(Ok(()), |error| Err(LinkError::Keep(error)))
    }

    /// Writes the acknowledgements that are due, in the order of arrival.
    pub fn acknowledge(&mut self, out: &mut BytesMut) -> Result<(), LinkError> {
        let held = &mut self.held;
        while let Some(pending) =
            self.pending.pop_front_if(|pending| pending.number.is_none_or(|number| held.may_answer(number)))
        {
            if let Some(number) = pending.number {
                held.answered(number);
            }
            PubAck::new(pending.ack).write(out).map_err(|error| LinkError::malformed(&error))?;
        }
        Ok(())
    }

    /// When the comparison of what is sent again must have come to its end; an error when it should have.
    pub fn due(&mut self, now: Instant, limit: Duration) -> Result<Option<Instant>, LinkError> {
        let due = self.row_since.map(|since| since + limit);
        if due.is_some_and(|due| now >= due) {
            self.held.doubt();
            return Err(LinkError::Doubt);
        }
        Ok(due)
    }
}

fn waiting_bytes(publish: &Publish) -> usize {
    publish.topic.len() + publish.payload.len() + WAITING_OVERHEAD
}

fn record(publish: &Publish, delivery: Delivery, source: Option<Sent>) -> Record {
    Record {
        topic: delivery.topic.into(),
        // A copy of its own: a slice would keep the whole read buffer alive in the queue's memory.
        payload: Bytes::copy_from_slice(&publish.payload),
        qos: u8::from(delivery.qos).min(publish.qos as u8),
        retain: delivery.pass_retain && publish.retain,
        at_ms: clock::stamp_ms(),
        source,
    }
}

/// The print of a message's bytes, the same in every process.
fn print(publish: &Publish) -> u64 {
    let mut hash = Sha256::new();
    hash.update((publish.topic.len() as u64).to_be_bytes());
    hash.update(&publish.topic);
    hash.update([u8::from(publish.retain)]);
    hash.update(&publish.payload);
    let digest = hash.finalize();
    digest.iter().take(8).fold(0, |print, byte| print << 8 | u64::from(*byte))
}

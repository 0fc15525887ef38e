//! From the remote broker's PUBLISH to the incoming queue, and the PUBACK once the record is durable, in the order of
//! arrival.

use std::{collections::VecDeque, sync::Arc};

use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::{
    QoS,
    v4::{PubAck, Publish},
};
use tidegate_edge_queue::{AppendError, Queue, Record};
use tidegate_model::{rule::EdgeRule, topic::TopicName};
use tokio::sync::{Notify, mpsc};

use super::{counters::Tally, fault::LinkError};
use crate::clock;

/// Most messages of one connection that are not durable yet. Beyond it the connection is not read.
const MAX_PENDING: usize = 2_048;

/// What came by one connection of the remote broker.
pub(super) struct Incoming {
    queue: Queue,
    tally: Arc<Tally>,
    /// In the order of arrival.
    pending: VecDeque<Pending>,
    /// Number of the first of them.
    first: u64,
    /// Has no room in the queue; nothing is read behind it.
    parked: Option<Publish>,
    space: Arc<Notify>,
    tx: mpsc::Sender<Kept>,
    rx: mpsc::Receiver<Kept>,
}

struct Pending {
    ack: Option<u16>,
    durable: bool,
}

/// How an append ended, with the number of the message.
type Kept = (u64, Result<u64, AppendError>);

impl Incoming {
    pub fn new(queue: Queue, tally: Arc<Tally>) -> Self {
        let (tx, rx) = mpsc::channel(MAX_PENDING);
        let space = Arc::new(Notify::new());
        let wake = Arc::clone(&space);
        queue.on_space(move || wake.notify_one());
        Self { queue, tally, pending: VecDeque::new(), first: 0, parked: None, space, tx, rx }
    }

    /// A new connection: what belongs to the one before is dropped with it.
    pub fn connected(&mut self) {
        *self = Self::new(self.queue.clone(), Arc::clone(&self.tally));
    }

    /// Nothing more may be read from the connection now.
    pub fn blocked(&self) -> bool {
        self.parked.is_some() || self.pending.len() >= MAX_PENDING
    }

    /// Tells when a message that had no room should be tried again.
    pub fn space(&self) -> Arc<Notify> {
        Arc::clone(&self.space)
    }

    /// Takes a message. Call only while not blocked.
    pub fn take(&mut self, publish: Publish, rule: &EdgeRule) -> Result<(), LinkError> {
        if publish.qos == QoS::ExactlyOnce {
            return Err(LinkError::Malformed("a QoS 2 message; none was subscribed".to_owned()));
        }
        let ack = (publish.qos == QoS::AtLeastOnce).then_some(publish.pkid);
        let delivery = TopicName::new(publish.topic.as_str()).ok().and_then(|topic| rule.receive(&topic));
        let Some(delivery) = delivery else {
            if !rule.leaves_out(&publish.topic) {
                Tally::add(&self.tally.unmapped, 1);
            }
            self.pending.push_back(Pending { ack, durable: true });
            return Ok(());
        };
        let topic: String = delivery.topic.into();
        if !self.queue.has_room(topic.len() + publish.payload.len()) {
            self.parked = Some(publish);
            return Ok(());
        }
        let record = Record {
            topic,
            // A copy of its own: a slice would keep the whole read buffer alive in the queue's memory.
            payload: Bytes::copy_from_slice(&publish.payload),
            qos: u8::from(delivery.qos).min(publish.qos as u8),
            retain: publish.retain && delivery.pass_retain,
            at_ms: clock::stamp_ms(),
            source: None,
        };
        let number = self.first + self.pending.len() as u64;
        self.pending.push_back(Pending { ack, durable: false });
        let tx = self.tx.clone();
        self.queue.append(record, move |result| {
            // Never full: there is one answer per pending message, and room for as many. Closed with the connection.
            let _ = tx.try_send((number, result));
        });
        Ok(())
    }

    /// Passes over a message that is too large to take, in its turn.
    pub fn pass_over(&mut self, ack: Option<u16>) {
        Tally::add(&self.tally.oversized, 1);
        self.pending.push_back(Pending { ack, durable: true });
    }

    /// Tries the message again that had no room.
    pub fn unpark(&mut self, rule: &EdgeRule) -> Result<(), LinkError> {
        match self.parked.take() {
            Some(publish) => self.take(publish, rule),
            None => Ok(()),
        }
    }

    /// Waits until an append ended.
    pub async fn kept(&mut self) -> Kept {
        // The sender of `self` keeps the channel open.
        match self.rx.recv().await {
            Some(kept) => kept,
            None => std::future::pending().await,
        }
    }

    /// Notes how an append ended, and of all others that ended meanwhile.
    pub fn settle(&mut self, kept: Kept) -> Result<(), LinkError> {
        let mut next = Some(kept);
        while let Some((number, result)) = next {
            match result {
                Ok(_) => Tally::add(&self.tally.received, 1),
                // It can never be kept, and the queue has counted it.
                Err(AppendError::TooLarge { .. }) => {}
                Err(error @ (AppendError::Full | AppendError::Disk(_) | AppendError::Closed)) => {
                    return Err(LinkError::Keep(error));
                }
            }
            let at = usize::try_from(number - self.first).unwrap_or(usize::MAX);
            if let Some(pending) = self.pending.get_mut(at) {
                pending.durable = true;
            }
            next = self.rx.try_recv().ok();
        }
        Ok(())
    }

    /// Writes the acknowledgements that are due, in the order of arrival.
    pub fn acknowledge(&mut self, out: &mut BytesMut) -> Result<(), LinkError> {
        while let Some(pending) = self.pending.pop_front_if(|pending| pending.durable) {
            self.first += 1;
            if let Some(pkid) = pending.ack {
                PubAck::new(pkid).write(out).map_err(|error| LinkError::malformed(&error))?;
            }
        }
        Ok(())
    }
}

//! The tap of the local broker: what devices publish goes into the queues of all rules that forward it, before it is
//! acknowledged.
//!
//! A message goes to all matching rules or to none: where one of the queues has no room, it is refused, the device's
//! connection is closed without PUBACK and the device sends it again. QoS 0 has no such word: it is taken where there is
//! room, and counted by the queue where there is not.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tidegate_broker::{Message, Offer, Qos, Source, Tap, TapResult};
use tidegate_edge_queue::{AppendError, Queue, Record};
use tidegate_model::ids::RuleId;
use tidegate_model::rule::EdgeRule;
use tidegate_model::topic::TopicName;
use tokio::sync::oneshot;

use crate::clock;

/// One rule that takes messages in.
struct Taker {
    origin: u64,
    config: Arc<EdgeRule>,
    queue: Queue,
}

/// The rules that take messages in now.
#[derive(Default)]
pub(crate) struct Intake {
    takers: RwLock<Arc<BTreeMap<RuleId, Arc<Taker>>>>,
}

impl Intake {
    /// The rule takes in from now on. What it republishes itself under `origin` is left out.
    pub fn set(&self, rule: RuleId, origin: u64, config: Arc<EdgeRule>, queue: Queue) {
        self.change(|takers| {
            takers.insert(rule, Arc::new(Taker { origin, config, queue }));
        });
    }

    /// The rule takes in nothing any more.
    pub fn remove(&self, rule: RuleId) {
        self.change(|takers| {
            takers.remove(&rule);
        });
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<RuleId, Arc<Taker>>)) {
        let mut takers = self.takers.write().unwrap_or_else(PoisonError::into_inner);
        let mut new = BTreeMap::clone(&takers);
        change(&mut new);
        *takers = Arc::new(new);
    }

    fn records(&self, message: &Message, source: &Source) -> Vec<(Queue, Record)> {
        let takers = Arc::clone(&self.takers.read().unwrap_or_else(PoisonError::into_inner));
        let Ok(topic) = TopicName::new(&*message.topic) else { return Vec::new() };
        let at_ms = clock::wall().0;
        let own = |taker: &Taker| match source {
            Source::Local { origin } => *origin == taker.origin,
            Source::Client { .. } | Source::Will { .. } => false,
        };
        let mut records = Vec::new();
        for taker in takers.values().filter(|taker| !own(taker)) {
            for delivery in taker.config.forward(&topic) {
                let record = Record {
                    topic: delivery.topic.into(),
                    payload: message.payload.clone(),
                    qos: u8::from(delivery.qos).min(message.qos as u8),
                    retain: delivery.pass_retain && message.retain,
                    at_ms,
                };
                records.push((taker.queue.clone(), record));
            }
        }
        records
    }
}

impl Tap for Intake {
    fn offer(&self, message: &Arc<Message>, source: &Source) -> Offer {
        let records = self.records(message, source);
        if records.is_empty() {
            return Offer::Pass;
        }
        if message.qos == Qos::AtMostOnce {
            for (queue, record) in records {
                // The queue counts what it cannot take.
                queue.append(record, |_| {});
            }
            return Offer::Pass;
        }
        let (sender, then) = oneshot::channel();
        let bytes = |record: &Record| record.topic.len() + record.payload.len();
        if !records.iter().all(|(queue, record)| queue.has_room(bytes(record))) {
            drop(sender);
            return Offer::Hold { then, fan_out: true };
        }
        let answer = Arc::new(Answer {
            missing: AtomicUsize::new(records.len()),
            refused: AtomicBool::new(false),
            sender: Mutex::new(Some(sender)),
        });
        for (queue, record) in records {
            let answer = Arc::clone(&answer);
            let is_lossy = record.qos == 0;
            queue.append(record, move |result| answer.settle(result.map(|_| ()), is_lossy));
        }
        Offer::Hold { then, fan_out: true }
    }
}

/// Waits for every queue that a message goes to.
struct Answer {
    missing: AtomicUsize,
    refused: AtomicBool,
    sender: Mutex<Option<oneshot::Sender<TapResult>>>,
}

impl Answer {
    fn settle(&self, result: Result<(), AppendError>, is_lossy: bool) {
        match result {
            Ok(()) => {}
            // It never fits, however often it comes: the queue has counted it.
            Err(AppendError::TooLarge { bytes, limit }) => {
                tracing::warn!(
                    bytes,
                    limit,
                    "a message is larger than the queue of its rule takes; it was dropped"
                );
            }
            Err(AppendError::Full | AppendError::Disk(_) | AppendError::Closed) if is_lossy => {}
            Err(AppendError::Full | AppendError::Disk(_) | AppendError::Closed) => {
                self.refused.store(true, Ordering::SeqCst);
            }
        }
        if self.missing.fetch_sub(1, Ordering::SeqCst) == 1 {
            let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
            let refused = self.refused.load(Ordering::SeqCst);
            // The broker has given the client up when nobody receives.
            let _ =
                sender.map(|sender| sender.send(if refused { TapResult::Refused } else { TapResult::Taken }));
        }
    }
}

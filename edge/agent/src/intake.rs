//! The tap of the local broker: what devices publish goes into the queues of all rules that forward it, before it is
//! acknowledged.
//!
//! A message goes to all matching rules or to none: where one of the queues has no room, the message waits here, and
//! whatever comes later for the same queue waits behind it. What waits is bounded; beyond that the broker is told to
//! refuse: it closes the device's connection without PUBACK, and the device sends the message again. QoS 0 has no such
//! word: it is taken where there is room, and counted by the queue where there is not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tidegate_broker::{Message, Offer, Qos, Source, Tap, TapResult};
use tidegate_edge_queue::{AppendError, Queue, Record};
use tidegate_model::ids::RuleId;
use tidegate_model::rule::EdgeRule;
use tidegate_model::topic::TopicName;
use tokio::sync::oneshot;

use crate::clock;

/// Messages that wait for room at the most.
const MAX_WAITING: usize = 4_096;
/// Bytes of topics and payloads that wait for room at the most; of a message for two rules the payload counts twice.
const MAX_WAITING_BYTES: usize = 16 << 20;

/// Connections that are remembered as refused at the most; the broker closes each of them at once.
const MAX_REFUSED: usize = 1_024;

/// No bridge publishes under this number.
const NO_ORIGIN: u64 = 0;

/// One rule that takes messages in.
struct Taker {
    origin: u64,
    config: Arc<EdgeRule>,
    /// `None`: it cannot be opened. What should go there is refused, so that no device is told that it is safe.
    queue: Option<Queue>,
}

/// The rules that take messages in now, and the messages that wait for room.
#[derive(Default)]
pub(crate) struct Intake {
    takers: RwLock<Arc<BTreeMap<RuleId, Arc<Taker>>>>,
    waiting: Mutex<Waiting>,
    refused: Arc<Refused>,
    /// Messages that a rule forwards and that cannot be named at its remote broker; one number per rule.
    unmapped: Mutex<BTreeMap<RuleId, u64>>,
}

/// Connections that had a message refused. Nothing that comes behind it on the same connection is taken: the device sends all
/// of it again, and what came behind would be there before what came first.
#[derive(Default)]
struct Refused(Mutex<BTreeSet<u64>>);

impl Refused {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, connection: u64) {
        let mut connections = self.lock();
        connections.insert(connection);
        if connections.len() > MAX_REFUSED {
            // Numbers ascend: the lowest is the one that was closed first.
            connections.pop_first();
        }
    }
}

/// Who waits for the answer about a message.
struct Asker {
    sender: oneshot::Sender<TapResult>,
    /// The device's connection; `None` for what does not come from one.
    connection: Option<u64>,
    refused: Arc<Refused>,
}

impl Asker {
    fn has_gone(&self) -> bool {
        // The broker has given the device up, or will: it sends the message again.
        self.sender.is_closed() || self.connection.is_some_and(|number| self.refused.lock().contains(&number))
    }

    fn taken(self) {
        // The broker has given the client up when nobody receives.
        let _ = self.sender.send(TapResult::Taken);
    }

    fn refuse(self) {
        self.mark();
        let _ = self.sender.send(TapResult::Refused);
    }

    /// From now on nothing of this connection is taken.
    fn mark(&self) {
        if let Some(connection) = self.connection {
            self.refused.add(connection);
        }
    }
}

/// A record and where it goes.
struct Entry {
    rule: RuleId,
    queue: Queue,
    record: Record,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.record.topic.len() + self.record.payload.len()
    }
}

/// Messages that wait for room, in the order in which they came.
#[derive(Default)]
struct Waiting {
    messages: VecDeque<(Vec<Entry>, Asker)>,
    bytes: usize,
}

impl Waiting {
    fn holds_any(&self, entries: &[Entry]) -> bool {
        let rules: BTreeSet<RuleId> = entries.iter().map(|entry| entry.rule).collect();
        self.messages.iter().flat_map(|(waiting, _)| waiting).any(|entry| rules.contains(&entry.rule))
    }

    /// Hands over what has room now, keeping the order of each queue.
    fn advance(&mut self) {
        let mut blocked = BTreeSet::new();
        for (entries, asker) in std::mem::take(&mut self.messages) {
            if asker.has_gone() {
                continue;
            }
            if entries.iter().any(|e| blocked.contains(&e.rule)) || !have_room(&entries) {
                blocked.extend(entries.iter().map(|e| e.rule));
                self.messages.push_back((entries, asker));
            } else {
                append(entries, asker);
            }
        }
        self.bytes = self.messages.iter().flat_map(|(entries, _)| entries).map(Entry::bytes).sum();
    }
}

fn have_room(entries: &[Entry]) -> bool {
    entries.iter().all(|entry| entry.queue.has_room(entry.bytes()))
}

/// Hands a message to its queues; the answer comes when the last one has it on disk.
fn append(entries: Vec<Entry>, asker: Asker) {
    let answer = Arc::new(Answer {
        missing: AtomicUsize::new(entries.len()),
        refused: AtomicBool::new(false),
        asker: Mutex::new(Some(asker)),
    });
    for Entry { queue, record, .. } in entries {
        let answer = Arc::clone(&answer);
        let is_lossy = record.qos == 0;
        queue.append(record, move |result| answer.settle(result.map(|_| ()), is_lossy));
    }
}

impl Intake {
    /// The rule takes in from now on. What it republishes itself under `origin` is left out.
    pub fn set(self: &Arc<Self>, rule: RuleId, origin: u64, config: Arc<EdgeRule>, queue: Queue) {
        let intake = Arc::downgrade(self);
        queue.on_space(move || {
            if let Some(intake) = intake.upgrade() {
                intake.waiting().advance();
            }
        });
        self.change(|takers| {
            takers.insert(rule, Arc::new(Taker { origin, config, queue: Some(queue) }));
        });
    }

    /// The rule should take in, and has no queue: what it forwards is refused.
    pub fn set_without_queue(&self, rule: RuleId, config: Arc<EdgeRule>) {
        self.change(|takers| {
            takers.insert(rule, Arc::new(Taker { origin: NO_ORIGIN, config, queue: None }));
        });
    }

    /// The rule takes in nothing any more, not even what waits for room in its queue.
    pub fn remove(&self, rule: RuleId) {
        self.change(|takers| {
            takers.remove(&rule);
        });
        let mut waiting = self.waiting();
        for (entries, asker) in std::mem::take(&mut waiting.messages) {
            let left: Vec<Entry> = entries.into_iter().filter(|entry| entry.rule != rule).collect();
            if left.is_empty() {
                // Nobody forwards it any more: the device's word is kept by delivering it locally.
                asker.taken();
            } else {
                waiting.messages.push_back((left, asker));
            }
        }
        waiting.advance();
    }

    /// Messages that the rule forwards and that were dropped since the agent began, because their topic, or its name at
    /// the remote broker, is none that a rule may use.
    pub fn unmapped(&self, rule: RuleId) -> u64 {
        self.unmapped_counts().get(&rule).copied().unwrap_or(0)
    }

    /// The rule does not exist any more: what was counted for it is of no use.
    pub fn forget(&self, rule: RuleId) {
        self.remove(rule);
        self.unmapped_counts().remove(&rule);
    }

    fn unmapped_counts(&self) -> MutexGuard<'_, BTreeMap<RuleId, u64>> {
        self.unmapped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_unmapped(&self, rule: RuleId, topic: &str) {
        let mut counts = self.unmapped_counts();
        let total = counts.entry(rule).or_insert(0);
        *total += 1;
        let (topic_bytes, total) = (topic.len(), *total);
        tracing::warn!(line.kind = "topic-too-long", rule.id = %rule, topic_bytes, total, "a topic is too long or too deep for its rule; the message was not forwarded");
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<RuleId, Arc<Taker>>)) {
        let mut takers = self.takers.write().unwrap_or_else(PoisonError::into_inner);
        let mut new = BTreeMap::clone(&takers);
        change(&mut new);
        *takers = Arc::new(new);
    }

    /// Where a message goes, and whether one of the queues is out of reach.
    fn entries(&self, message: &Message, source: &Source) -> (Vec<Entry>, bool) {
        let takers = Arc::clone(&self.takers.read().unwrap_or_else(PoisonError::into_inner));
        let topic = TopicName::new(&*message.topic).ok();
        let at_ms = clock::stamp_ms();
        let own = |taker: &Taker| match source {
            Source::Local { origin } => *origin == taker.origin,
            Source::Client { .. } | Source::Will { .. } => false,
        };
        let (mut entries, mut is_out_of_reach) = (Vec::new(), false);
        for (rule, taker) in takers.iter().filter(|(_, taker)| !own(taker)) {
            let deliveries = topic.as_ref().map(|topic| taker.config.forward(topic)).unwrap_or_default();
            if deliveries.is_empty() && taker.config.wants_in_vain(&message.topic) {
                self.count_unmapped(*rule, &message.topic);
            }
            for delivery in deliveries {
                let record = Record {
                    topic: delivery.topic.into(),
                    payload: message.payload.clone(),
                    qos: u8::from(delivery.qos).min(message.qos as u8),
                    retain: delivery.pass_retain && message.retain,
                    at_ms,
                    source: None,
                };
                match &taker.queue {
                    Some(queue) => entries.push(Entry { rule: *rule, queue: queue.clone(), record }),
                    None => is_out_of_reach = true,
                }
            }
        }
        (entries, is_out_of_reach)
    }
}

impl Tap for Intake {
    fn offer(&self, message: &Arc<Message>, source: &Source) -> Offer {
        let (entries, is_out_of_reach) = self.entries(message, source);
        if entries.is_empty() && !is_out_of_reach {
            return Offer::Pass;
        }
        if message.qos == Qos::AtMostOnce {
            for Entry { queue, record, .. } in entries {
                // The queue counts what it cannot take.
                queue.append(record, |_| {});
            }
            return Offer::Pass;
        }
        let (sender, then) = oneshot::channel();
        let connection = match source {
            Source::Client { connection, .. } => Some(*connection),
            Source::Will { .. } | Source::Local { .. } => None,
        };
        let asker = Asker { sender, connection, refused: Arc::clone(&self.refused) };
        if is_out_of_reach {
            asker.refuse();
            return Offer::Hold { then, fan_out: true };
        }
        // Held until the message is handed over, so that two devices' messages reach all queues in one order.
        let mut waiting = self.waiting();
        if asker.has_gone() {
            asker.refuse();
        } else if have_room(&entries) && !waiting.holds_any(&entries) {
            append(entries, asker);
        } else {
            let bytes: usize = entries.iter().map(Entry::bytes).sum();
            if waiting.messages.len() < MAX_WAITING
                && waiting.bytes.saturating_add(bytes) <= MAX_WAITING_BYTES
            {
                waiting.bytes += bytes;
                waiting.messages.push_back((entries, asker));
            } else {
                asker.refuse();
            }
        }
        Offer::Hold { then, fan_out: true }
    }
}

/// Waits for every queue that a message goes to.
struct Answer {
    missing: AtomicUsize,
    refused: AtomicBool,
    asker: Mutex<Option<Asker>>,
}

impl Answer {
    fn settle(&self, result: Result<(), AppendError>, is_lossy: bool) {
        match result {
            Ok(()) => {}
            // It never fits, however often it comes: the queue has counted it.
            Err(AppendError::TooLarge { bytes, limit }) => {
                tracing::warn!(
                    line.kind = "message-too-large",
                    bytes,
                    limit,
                    "a message is larger than the queue of its rule takes; it was dropped"
                );
            }
            Err(AppendError::Full | AppendError::Disk(_) | AppendError::Closed) if is_lossy => {}
            Err(AppendError::Full | AppendError::Disk(_) | AppendError::Closed) => {
                self.refused.store(true, Ordering::SeqCst);
                // At once: what comes behind it must find the mark.
                if let Some(asker) = &*self.asker() {
                    asker.mark();
                }
            }
        }
        if self.missing.fetch_sub(1, Ordering::SeqCst) == 1 {
            let asker = self.asker().take();
            if self.refused.load(Ordering::SeqCst) {
                asker.into_iter().for_each(Asker::refuse);
            } else {
                asker.into_iter().for_each(Asker::taken);
            }
        }
    }

    fn asker(&self) -> MutexGuard<'_, Option<Asker>> {
        self.asker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;

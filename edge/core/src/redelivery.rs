//! Which of the messages that a broker sends us are on the rule's queue already: what a broker with a session sends
//! again after a lost connection must not be stored twice, and a new message must never be taken for an old one.
//!
//! A message is known by its packet id and the print of its bytes. Ids are used again, so that is not enough:
//!
//! * **No PUBACK was sent for it**: its id is still taken, so DUP with this id and these bytes is that message, for sure.
//! * **A PUBACK may have been sent** (always so for what an earlier process stored): the broker may have seen it, and may have
//!   given the id to another message since. What it sends again comes in the order in which it was sent first, and what it saw
//!   acknowledged is the older part of what is held. So what comes again is exactly the newest part of it, and the
//!   broker has begun to give new ids behind it. This is demanded as a whole: at least two messages, ids and bytes in the
//!   held order, to the newest one; and from the message before them on, ids that go up (in the round of 1 to 65,535). A
//!   broker that gives free ids out again at once does not look like that, but for one that gives the last freed id, on its first
//!   round, under the very same bytes: no broker that we know does. Where the row breaks off, nothing of it counts: the caller
//!   begins a new connection, on which such messages are new.
//!
//! In doubt a message is new: a copy, never a loss. Knows nothing of sockets and queues.

use std::collections::{BTreeMap, VecDeque};

/// Most messages that are remembered although a PUBACK may have been sent for them.
pub const MAX_ANSWERED: usize = 16_384;
/// Packet ids go round in this many.
const ROUND: u16 = u16::MAX;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is new, and is held under this number from now on.
    New(u64),
    /// It is held under this number.
    Held(u64),
    /// What was sent again before it was not what is held, after all. Nothing of this connection may be acknowledged any
    /// more: begin a new one.
    Doubt,
}

/// The messages of one broker that are on the queue, or on their way there, in the order in which they came.
#[derive(Debug, Default)]
pub struct Redelivery {
    entries: VecDeque<Entry>,
    /// Number of the first of them.
    first: u64,
    /// The newest message with each id.
    newest: BTreeMap<u16, u64>,
    answered: usize,
    replay: Replay,
    /// The next connection begins without looking for a row.
    distrusts: bool,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    id: u16,
    print: u64,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Handed to the queue.
    OnTheWay,
    /// On disk.
    Durable,
    /// A PUBACK may have been sent.
    Answered,
}

/// A [`Verdict`] before a new message has its number.
enum Judgement {
    New,
    Held(u64),
    Doubt,
}

/// How far the row of what is sent again has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Replay {
    /// There is none (any more).
    #[default]
    Over,
    /// It may begin with the next message; what is held goes up to this number.
    Awaited { end: u64 },
    /// From `from` on all came again up to `next`; it must go on to `end`.
    Row { from: u64, next: u64, end: u64 },
}

impl Redelivery {
    /// What an earlier process stored, in order: ids and prints.
    pub fn restore(sources: impl IntoIterator<Item = (u16, u64)>) -> Self {
        let mut held = Self::default();
        for (id, print) in sources {
            let number = held.push(id, print);
            held.durable(number);
            held.answered(number);
        }
        held
    }

    /// A connection begins. Without a session the broker knows nothing of what it sent before.
    pub fn connected(&mut self, session_present: bool) {
        if !session_present {
            self.first += self.entries.len() as u64;
            self.entries.clear();
            self.newest.clear();
            self.answered = 0;
        }
        let distrusts = std::mem::take(&mut self.distrusts);
        self.replay = if distrusts { Replay::Over } else { Replay::Awaited { end: self.end() } };
    }

    /// A QoS 1 message came.
    pub fn offer(&mut self, id: u16, dup: bool, print: u64) -> Verdict {
        let (replay, judgement) = self.judge(id, dup, print);
        self.replay = replay;
        match judgement {
            Judgement::New => Verdict::New(self.push(id, print)),
            Judgement::Held(number) => Verdict::Held(number),
            Judgement::Doubt => self.doubt(),
        }
    }

    /// Whether [`Self::offer`] would say that this message is new.
    #[must_use]
    pub fn is_new(&self, id: u16, dup: bool, print: u64) -> bool {
        matches!(self.judge(id, dup, print).1, Judgement::New)
    }

    fn judge(&self, id: u16, dup: bool, print: u64) -> (Replay, Judgement) {
        let known = self.newest.get(&id).copied().filter(|_| dup);
        let known = known.and_then(|number| Some((number, self.entry(number)?)));
        let known = known.filter(|(_, entry)| entry.print == print);
        match (self.replay, known) {
            (Replay::Row { from, next, end }, Some((number, _))) if number == next => {
                let next = next + 1;
                let replay = if next == end { Replay::Over } else { Replay::Row { from, next, end } };
                (replay, Judgement::Held(number))
            }
            // The row is broken: something else is sent again.
            (row @ Replay::Row { .. }, Some(_) | None) if dup => (row, Judgement::Doubt),
            // What is new may come between.
            (row @ Replay::Row { .. }, Some(_) | None) => (row, Judgement::New),
            (Replay::Awaited { .. } | Replay::Over, Some((number, entry)))
                if entry.state != State::Answered =>
            {
                (Replay::Over, Judgement::Held(number))
            }
            (Replay::Awaited { end }, Some((number, _))) if self.may_begin_a_row(number, end) => {
                (Replay::Row { from: number, next: number + 1, end }, Judgement::Held(number))
            }
            (Replay::Awaited { .. } | Replay::Over, Some(_) | None) => (Replay::Over, Judgement::New),
        }
    }

    /// The message is on disk, with all that it became.
    pub fn durable(&mut self, number: u64) {
        if let Some(entry) = self.entry_mut(number)
            && entry.state == State::OnTheWay
        {
            entry.state = State::Durable;
        }
    }

    /// The message did not get to the disk: when it is sent again, it is new.
    pub fn failed(&mut self, number: u64) {
        if let Some(entry) = self.entry(number) {
            self.forget_id(entry.id, number);
            self.answered(number);
        }
    }

    /// Whether a PUBACK may be sent for the message: it is on disk, and it is no part of a row that may still break.
    pub fn may_answer(&self, number: u64) -> bool {
        let in_row = matches!(self.replay, Replay::Row { from, .. } if number >= from);
        !in_row && self.entry(number).is_none_or(|entry| entry.state != State::OnTheWay)
    }

    /// A PUBACK is about to be sent for the message.
    pub fn answered(&mut self, number: u64) {
        if let Some(entry) = self.entry_mut(number)
            && entry.state != State::Answered
        {
            entry.state = State::Answered;
            self.answered += 1;
        }
        while self.answered > MAX_ANSWERED && self.replay == Replay::Over {
            match self.entries.front() {
                Some(first) if first.state == State::Answered => self.forget_first(),
                Some(_) | None => break,
            }
        }
    }

    /// A row has begun and is not complete.
    pub fn in_row(&self) -> bool {
        matches!(self.replay, Replay::Row { .. })
    }

    /// The row does not go on, or breaks off: the next connection looks for none.
    pub fn doubt(&mut self) -> Verdict {
        self.distrusts = true;
        Verdict::Doubt
    }

    /// At least two messages to the end, and ids that go up from the one before them on.
    fn may_begin_a_row(&self, number: u64, end: u64) -> bool {
        if number <= self.first || end < number + 2 {
            return false;
        }
        let from = usize::try_from(number - 1 - self.first).unwrap_or(usize::MAX);
        let to = usize::try_from(end - self.first).unwrap_or(usize::MAX);
        let ids = || self.entries.range(from..to).map(|entry| entry.id);
        let mut span = 0_u32;
        ids().zip(ids().skip(1)).all(|(a, b)| {
            let step = (u32::from(b) + u32::from(ROUND) - u32::from(a)) % u32::from(ROUND);
            span += step;
            // Forward, and not once around: an id twice would make the row ambiguous.
            (1..u32::from(ROUND) / 2).contains(&step) && span < u32::from(ROUND)
        })
    }

    fn push(&mut self, id: u16, print: u64) -> u64 {
        let number = self.end();
        self.entries.push_back(Entry { id, print, state: State::OnTheWay });
        self.newest.insert(id, number);
        number
    }

    fn forget_first(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.forget_id(entry.id, self.first);
            self.answered -= 1;
            self.first += 1;
        }
    }

    fn forget_id(&mut self, id: u16, number: u64) {
        if self.newest.get(&id) == Some(&number) {
            self.newest.remove(&id);
        }
    }

    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn entry(&self, number: u64) -> Option<Entry> {
        self.entries.get(usize::try_from(number.checked_sub(self.first)?).ok()?).copied()
    }

    fn entry_mut(&mut self, number: u64) -> Option<&mut Entry> {
        self.entries.get_mut(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet, VecDeque};

    use proptest::prelude::*;

    use super::*;

    /// So many messages from 1 on, stored by an earlier process, with ids and prints of the same number.
    fn stored(count: u16) -> Redelivery {
        let mut held = Redelivery::restore((1..=count).map(|id| (id, id.into())));
        held.connected(true);
        held
    }

    #[test]
    fn what_an_earlier_process_stored_is_known_by_its_row() {
        let mut held = stored(100);
        for id in 96..=100_u16 {
            assert_eq!(held.offer(id, true, id.into()), Verdict::Held(u64::from(id) - 1));
            assert_eq!(held.may_answer(95), id == 100, "not before the row is complete");
        }
        assert!(held.may_answer(95) && !held.in_row());
        assert_eq!(held.offer(101, true, 101), Verdict::New(100));
        assert_eq!(held.offer(102, false, 102), Verdict::New(101));
    }

    #[test]
    fn other_bytes_or_an_id_that_was_given_anew_make_a_message_new() {
        assert_eq!(stored(100).offer(99, true, 7), Verdict::New(100), "other bytes");
        assert_eq!(stored(100).offer(99, false, 99), Verdict::New(100), "it was never sent before");
        assert_eq!(stored(100).offer(100, true, 100), Verdict::New(100), "one message is no row");
        assert_eq!(stored(100).offer(1, true, 1), Verdict::New(100), "nothing before it shows how ids go");
        let mut held = stored(100);
        held.connected(false);
        assert_eq!(held.offer(99, true, 99), Verdict::New(100), "the broker lost the session");
        // A broker that gives the lowest free id: it sends 1, 2, 1, 2 … with the same bytes for ever.
        let mut held = Redelivery::restore([(1, 7), (2, 7), (1, 7), (2, 7)]);
        held.connected(true);
        assert_eq!(held.offer(1, true, 7), Verdict::New(4));
    }

    #[test]
    fn a_row_that_breaks_off_is_no_row() {
        let mut held = stored(100);
        assert_eq!(held.offer(95, true, 95), Verdict::Held(94));
        assert_eq!(held.offer(101, false, 3), Verdict::New(100), "new messages may come between");
        assert_eq!(held.offer(96, true, 1), Verdict::Doubt);
        assert!(held.in_row() && !held.may_answer(94) && !held.may_answer(100));
        held.connected(true);
        assert_eq!(held.offer(95, true, 95), Verdict::New(101));
        assert_eq!(held.offer(96, true, 1), Verdict::New(102));
        held.connected(true);
        assert_eq!(held.offer(96, true, 1), Verdict::Held(102), "no PUBACK was sent for it");
    }

    #[test]
    fn without_a_puback_a_message_is_known_for_sure_and_waits_for_the_disk() {
        let mut held = Redelivery::default();
        held.connected(true);
        assert_eq!((held.offer(9, false, 1), held.offer(3, false, 1)), (Verdict::New(0), Verdict::New(1)));
        held.connected(true);
        assert_eq!(held.offer(9, true, 1), Verdict::Held(0));
        assert!(!held.may_answer(0));
        held.durable(0);
        assert!(held.may_answer(0));
        held.failed(1);
        assert_eq!(held.offer(3, true, 1), Verdict::New(2));
        held.answered(0);
        assert_eq!(held.offer(9, true, 1), Verdict::New(3), "the id may have been given anew");
    }

    #[test]
    fn ids_go_round() {
        let mut held = Redelivery::restore([(65_533, 1), (65_534, 2), (65_535, 3), (1, 4), (2, 5)]);
        held.connected(true);
        assert_eq!(held.offer(65_535, true, 3), Verdict::Held(2));
        assert_eq!(held.offer(1, true, 4), Verdict::Held(3));
        assert_eq!(held.offer(2, true, 5), Verdict::Held(4));
        assert!(!held.in_row());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut held = Redelivery::default();
        held.connected(true);
        for number in 0..3 * MAX_ANSWERED as u64 {
            let id = u16::try_from(number % 65_535).unwrap() + 1;
            assert_eq!(held.offer(id, false, 1), Verdict::New(number));
            held.durable(number);
            held.answered(number);
        }
        assert_eq!((held.entries.len(), held.newest.len()), (MAX_ANSWERED, MAX_ANSWERED));
    }

    /// How a broker chooses the id of the next message.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Ids {
        Round,
        Lowest,
        LastFreed,
    }

    /// A broker with a session for us, and the wire between.
    struct Broker {
        ids: Ids,
        last: u16,
        freed: Vec<u16>,
        /// Sent and not acknowledged: message, id.
        outstanding: VecDeque<(u64, u16)>,
        next: u64,
        /// On the wire to us: message, id, DUP.
        to_us: VecDeque<(u64, u16, bool)>,
        /// Acknowledgements on the wire to it.
        to_broker: VecDeque<u16>,
    }

    /// Ids that the brokers of the test have.
    const IDS: u16 = 40;

    impl Broker {
        fn publish(&mut self) {
            let is_free = |id: &u16| self.outstanding.iter().all(|(_, other)| other != id);
            let mut around = (1..=IDS).map(|step| (self.last + step - 1) % IDS + 1);
            let id = match self.ids {
                Ids::Round => around.find(is_free),
                Ids::Lowest => (1..=IDS).find(is_free),
                Ids::LastFreed => self.freed.pop().or_else(|| around.find(is_free)),
            };
            let Some(id) = id else { return };
            self.last = id;
            self.outstanding.push_back((self.next, id));
            self.to_us.push_back((self.next, id, false));
            self.next += 1;
        }

        /// An acknowledgement arrives; the message that it is for.
        fn hear(&mut self) -> Option<u64> {
            let id = self.to_broker.pop_front()?;
            let at = self.outstanding.iter().position(|(_, other)| *other == id)?;
            self.freed.push(id);
            self.outstanding.remove(at).map(|(message, _)| message)
        }

        fn reconnect(&mut self) {
            self.to_broker.clear();
            self.to_us = self.outstanding.iter().map(|(message, id)| (*message, *id, true)).collect();
        }
    }

    #[derive(Debug, Clone)]
    enum Act {
        Publish,
        Receive,
        Sync(usize),
        Answer,
        Hear,
        Reconnect,
        Crash,
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            8 => Just(Act::Publish),
            8 => Just(Act::Receive),
            6 => (1_usize..5).prop_map(Act::Sync),
            8 => Just(Act::Answer),
            8 => Just(Act::Hear),
            1 => Just(Act::Reconnect),
            1 => Just(Act::Crash),
        ];
        prop::collection::vec(act, 0..400)
    }

    proptest! {
        #[test]
        fn no_message_is_lost_whatever_ids_the_broker_gives(
            acts in acts(),
            ids in prop_oneof![Just(Ids::Round), Just(Ids::Lowest), Just(Ids::LastFreed)],
            texts in 1_u64..4,
        ) {
            // On its first round such a broker gives the ids of the newest messages out again in their order: only other bytes
            // tell those apart.
            let texts = if ids == Ids::LastFreed { u64::MAX } else { texts };
            let mut broker = Broker {
                ids, last: 0, freed: Vec::new(), outstanding: VecDeque::new(), next: 0, to_us: VecDeque::new(),
                to_broker: VecDeque::new(),
            };
            // The queue: message, source; so many of them are on disk. All messages say one of a few things.
            let mut queue: Vec<(u64, (u16, u64))> = Vec::new();
            let mut synced = 0;
            let mut held = Redelivery::default();
            held.connected(false);
            // Of this connection: number, id.
            let mut pending: VecDeque<(u64, u16)> = VecDeque::new();
            // Which record a number stands for.
            let mut records: BTreeMap<u64, usize> = BTreeMap::new();
            for act in acts {
                match act {
                    Act::Publish => broker.publish(),
                    Act::Receive => {
                        let Some((message, id, dup)) = broker.to_us.pop_front() else { continue };
                        match held.offer(id, dup, message % texts) {
                            Verdict::New(number) => {
                                records.insert(number, queue.len());
                                queue.push((message, (id, message % texts)));
                                pending.push_back((number, id));
                            }
                            Verdict::Held(number) => {
                                pending.push_back((number, id));
                            }
                            Verdict::Doubt => {
                                broker.reconnect();
                                pending.clear();
                                held.connected(true);
                            }
                        }
                    }
                    Act::Sync(count) => {
                        synced = (synced + count).min(queue.len());
                        for (number, _) in records.iter().filter(|(_, at)| **at < synced) {
                            held.durable(*number);
                        }
                    }
                    Act::Answer => {
                        while let Some((number, id)) = pending.front().copied() {
                            if !held.may_answer(number) {
                                break;
                            }
                            held.answered(number);
                            broker.to_broker.push_back(id);
                            pending.pop_front();
                        }
                    }
                    Act::Hear => {
                        if let Some(message) = broker.hear() {
                            let safe = queue.iter().take(synced).any(|(stored, _)| *stored == message);
                            prop_assert!(safe, "message {message} is acknowledged and lost");
                        }
                    }
                    Act::Reconnect => {
                        broker.reconnect();
                        pending.clear();
                        held.connected(true);
                    }
                    Act::Crash => {
                        // What was not synced is gone, or not: a killed process leaves what it wrote.
                        queue.truncate(synced);
                        held = Redelivery::restore(queue.iter().map(|(_, source)| *source));
                        records = (0..).zip(0..queue.len()).collect();
                        broker.reconnect();
                        pending.clear();
                        held.connected(true);
                    }
                }
            }
        }

        #[test]
        fn a_broker_with_a_round_of_ids_brings_no_copy_but_of_a_single_message(
            lost in 0_usize..30, more in 0_usize..30, crash in any::<bool>(), before in 1_u16..100,
        ) {
            let total = before + 30;
            let mut held = Redelivery::default();
            held.connected(false);
            for id in 1..=total {
                let Verdict::New(number) = held.offer(id, false, 7) else { panic!("a new message") };
                held.durable(number);
                held.answered(number);
            }
            if crash {
                held = Redelivery::restore((1..=total).map(|id| (id, 7)));
            }
            held.connected(true);
            let again = (1..=total).skip(usize::from(total) - lost);
            let new = (total + 1..).take(more);
            let mut copies = BTreeSet::new();
            for id in again {
                if let Verdict::New(_) = held.offer(id, true, 7) {
                    copies.insert(id);
                }
            }
            for id in new {
                prop_assert!(matches!(held.offer(id, true, 7), Verdict::New(_)), "a new message was taken for an old one");
            }
            prop_assert_eq!(copies.len(), usize::from(lost == 1));
            prop_assert!(!held.in_row());
        }
    }
}

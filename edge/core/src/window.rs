//! The send window of a bridge: which records of the queue are in flight, under which packet ids, and up to where
//! everything is acknowledged.
//!
//! The only owner of redelivery: after a lost connection [`Window::rewind`] begins again at the first record without
//! an acknowledgement, whatever the remote broker says about the session. Knows nothing of sockets, packets or the
//! queue's files; the moment comes with each call.
//!
//! ```text
//! queue:   … 41 | 42  43  44  45 | 46 …
//!     released  |  in flight     |  next to read
//!               '- oldest: its acknowledgement is timed
//! ```

use std::collections::{BTreeMap, VecDeque};

use tidegate_model::time::Monotonic;

/// The highest packet id of a record, and so the largest window. Higher ids are free for SUBSCRIBE and UNSUBSCRIBE.
pub const LAST_ID: u16 = 65_000;

/// Records in flight, in the order of their offsets.
#[derive(Debug)]
pub struct Window {
    /// Most records in flight.
    limit: u16,
    flights: VecDeque<Flight>,
    /// Packet ids in use, and the offset each stands for.
    ids: BTreeMap<u16, u64>,
    last_id: u16,
    next: u64,
    /// The last acknowledgement, or the first send into an empty window.
    progress: Monotonic,
}

#[derive(Debug)]
struct Flight {
    offset: u64,
    id: Option<u16>,
    done: bool,
}

/// A record was given to the window that may not be sent now: nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// As many records as allowed are in flight.
    #[error("the send window is full")]
    Full,
    /// The offset was sent before.
    #[error("offset {offset} is below {next}, the next to be sent")]
    Past {
        /// The offset given.
        offset: u64,
        /// The lowest that may be sent.
        next: u64,
    },
}

impl Window {
    /// An empty window over a queue whose first unreleased offset is `next`. At least 1 and at most [`LAST_ID`]
    /// records (`limit`) are in flight at a time.
    pub fn new(next: u64, limit: u16) -> Self {
        Self {
            limit: limit.clamp(1, LAST_ID),
            flights: VecDeque::new(),
            ids: BTreeMap::new(),
            last_id: 0,
            next,
            progress: Monotonic(0),
        }
    }

    /// The lowest offset that was not sent on this connection: where to read on.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Whether another record may be sent.
    pub fn has_room(&self) -> bool {
        self.flights.len() < usize::from(self.limit)
    }

    /// How many records are in flight.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Takes a record that is about to be sent and waits for an acknowledgement: gives its packet id, which no other
    /// record in flight has. Offsets grow; one may be left out if the queue no longer has it.
    ///
    /// # Errors
    ///
    /// [`SendError`]; nothing was changed.
    pub fn send(&mut self, offset: u64, now: Monotonic) -> Result<u16, SendError> {
        self.admit(offset, now)?;
        let id = self.free_id();
        self.ids.insert(id, offset);
        self.flights.push_back(Flight { offset, id: Some(id), done: false });
        Ok(id)
    }

    /// Takes a QoS 0 record that is about to be sent; [`Window::written`] is its acknowledgement.
    ///
    /// # Errors
    ///
    /// [`SendError`]; nothing was changed.
    pub fn send_unacknowledged(&mut self, offset: u64, now: Monotonic) -> Result<(), SendError> {
        self.admit(offset, now)?;
        self.flights.push_back(Flight { offset, id: None, done: false });
        Ok(())
    }

    /// The remote broker acknowledged a packet id. `false`: it is not in flight, perhaps an answer that came twice.
    pub fn acknowledge(&mut self, id: u16, now: Monotonic) -> bool {
        let Some(offset) = self.ids.remove(&id) else { return false };
        self.progress = now;
        self.finish(offset);
        true
    }

    /// The QoS 0 record `offset` went to the socket.
    pub fn written(&mut self, offset: u64) {
        self.finish(offset);
    }

    /// Takes the acknowledged records off the front; the highest of them may be released. `None` when the oldest still
    /// waits.
    pub fn released(&mut self) -> Option<u64> {
        let mut highest = None;
        while let Some(first) = self.flights.front().filter(|flight| flight.done) {
            highest = Some(first.offset);
            self.flights.pop_front();
        }
        highest
    }

    /// The connection is gone: everything from the first unacknowledged record on is sent again. What was acknowledged
    /// beyond it is sent twice; that costs a duplicate and keeps the order.
    pub fn rewind(&mut self) {
        if let Some(first) = self.flights.front() {
            self.next = first.offset;
        }
        self.flights.clear();
        self.ids.clear();
    }

    /// The first and the last record that wait for an acknowledgement.
    pub fn waiting(&self) -> Option<(u64, u64)> {
        let mut waiting = self.flights.iter().filter(|flight| flight.id.is_some() && !flight.done);
        let first = waiting.next()?.offset;
        Some((first, waiting.next_back().map_or(first, |last| last.offset)))
    }

    /// Nothing is in flight any more; this record is the next to be sent.
    pub fn begin_at(&mut self, offset: u64) {
        self.flights.clear();
        self.ids.clear();
        self.next = offset;
    }

    /// When the remote broker has been silent for too long about the oldest record: `timeout_ms` after it was sent or,
    /// on a slow but living link, after the last acknowledgement. `None` when nothing waits.
    pub fn acknowledgement_due(&self, timeout_ms: i64) -> Option<Monotonic> {
        (!self.ids.is_empty()).then(|| self.progress.plus_ms(timeout_ms))
    }

    fn admit(&mut self, offset: u64, now: Monotonic) -> Result<(), SendError> {
        if offset < self.next {
            return Err(SendError::Past { offset, next: self.next });
        }
        if !self.has_room() {
            return Err(SendError::Full);
        }
        if self.ids.is_empty() {
            self.progress = now;
        }
        self.next = offset + 1;
        Ok(())
    }

    /// Ids go round, so that one is used again as late as possible. There is a free one: at most [`LAST_ID`] are in
    /// flight, and this one is not among them yet.
    fn free_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id % LAST_ID + 1;
            if !self.ids.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }

    fn finish(&mut self, offset: u64) {
        if let Ok(at) = self.flights.binary_search_by_key(&offset, |flight| flight.offset) {
            self.flights[at].done = true;
            debug_assert!(self.flights[at].id.is_none_or(|id| !self.ids.contains_key(&id)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Monotonic = Monotonic(1_000);

    #[test]
    fn acknowledgements_out_of_order_release_a_prefix() {
        let mut window = Window::new(5, 10);
        let ids: Vec<u16> = (5..9).map(|offset| window.send(offset, NOW).unwrap()).collect();
        assert!(window.acknowledge(ids[1], NOW));
        assert!(window.acknowledge(ids[2], NOW));
        assert_eq!(window.released(), None);
        assert!(window.acknowledge(ids[0], NOW));
        assert_eq!(window.released(), Some(7));
        assert!(!window.acknowledge(ids[0], NOW), "an acknowledgement counts once");
        assert_eq!((window.in_flight(), window.next()), (1, 9));
        window.begin_at(6);
        assert_eq!((window.in_flight(), window.next(), window.waiting()), (0, 6, None));
    }

    #[test]
    fn a_full_window_of_every_id_has_no_collision() {
        let mut window = Window::new(1, u16::MAX);
        let mut ids: Vec<u16> =
            (1..=u64::from(LAST_ID)).map(|offset| window.send(offset, NOW).unwrap()).collect();
        assert_eq!(window.send(65_001, NOW), Err(SendError::Full));
        assert!(window.acknowledge(777, NOW));
        assert_eq!(window.send(65_001, NOW), Err(SendError::Full), "the place is free when the prefix is");
        assert!(window.acknowledge(1, NOW));
        assert_eq!(window.released(), Some(1));
        assert_eq!(window.send(65_001, NOW), Ok(1));
        ids.sort_unstable();
        ids.dedup();
        assert_eq!((ids.len(), ids[0]), (65_000, 1));
    }

    #[test]
    fn silence_is_measured_from_the_last_progress() {
        let mut window = Window::new(1, 10);
        assert_eq!(window.acknowledgement_due(30), None);
        let first = window.send(1, Monotonic(100)).unwrap();
        window.send(2, Monotonic(120)).unwrap();
        assert_eq!(window.acknowledgement_due(30), Some(Monotonic(130)));
        window.acknowledge(first, Monotonic(125));
        assert_eq!(window.acknowledgement_due(30), Some(Monotonic(155)));
        assert_eq!(window.waiting(), Some((2, 2)));
        window.rewind();
        assert_eq!((window.acknowledgement_due(30), window.waiting()), (None, None));
        window.send_unacknowledged(2, Monotonic(900)).unwrap();
        assert_eq!(window.acknowledgement_due(30), None, "nobody acknowledges QoS 0");
    }

    #[derive(Debug, Clone)]
    enum Act {
        Send,
        SendQos0,
        Acknowledge(usize),
        AcknowledgeAnything(u16),
        Release,
        Reconnect,
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            5 => Just(Act::Send),
            1 => Just(Act::SendQos0),
            4 => any::<usize>().prop_map(Act::Acknowledge),
            1 => any::<u16>().prop_map(Act::AcknowledgeAnything),
            3 => Just(Act::Release),
            1 => Just(Act::Reconnect),
        ];
        prop::collection::vec(act, 0..200)
    }

    proptest! {
        #[test]
        fn never_loses_skips_or_reorders(acts in acts(), limit in 1u16..6, gaps in prop::collection::vec(1u64..4, 200)) {
            // The queue's offsets, with holes where records were damaged.
            let queue: Vec<u64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let mut window = Window::new(queue[0], limit);
            let mut flying: Vec<(u64, Option<u16>)> = Vec::new(); // the model: sent and unacknowledged
            let mut acknowledged = std::collections::BTreeSet::new(); // ever
            let mut held = std::collections::BTreeSet::new(); // on this connection, not released yet
            let mut released = 0;
            for act in acts {
                match act {
                    Act::Send | Act::SendQos0 => {
                        let Some(&offset) = queue.iter().find(|offset| **offset >= window.next()) else { continue };
                        let room = window.has_room();
                        let sent = if matches!(act, Act::SendQos0) {
                            window.send_unacknowledged(offset, NOW).map(|()| None)
                        } else {
                            window.send(offset, NOW).map(Some)
                        };
                        prop_assert_eq!(sent.is_ok(), room);
                        if let Ok(id) = sent {
                            prop_assert!(id != Some(0));
                            prop_assert!(id.is_none() || flying.iter().all(|(_, other)| *other != id), "id twice");
                            prop_assert!(flying.iter().all(|(other, _)| *other < offset), "reordered");
                            flying.push((offset, id));
                        }
                    }
                    Act::Acknowledge(pick) if !flying.is_empty() => {
                        let (offset, id) = flying.remove(pick % flying.len());
                        match id {
                            Some(id) => prop_assert!(window.acknowledge(id, NOW)),
                            None => window.written(offset),
                        }
                        acknowledged.insert(offset);
                        held.insert(offset);
                    }
                    Act::Acknowledge(_) => {}
                    Act::AcknowledgeAnything(id) => {
                        let known = flying.iter().position(|(_, other)| *other == Some(id));
                        prop_assert_eq!(window.acknowledge(id, NOW), known.is_some());
                        if let Some(at) = known {
                            let (offset, _) = flying.remove(at);
                            acknowledged.insert(offset);
                            held.insert(offset);
                        }
                    }
                    Act::Release => {
                        if let Some(offset) = window.released() {
                            prop_assert!(offset > released);
                            released = offset;
                        }
                        // Exactly the acknowledged prefix: nothing lost, nothing held back.
                        for offset in queue.iter().filter(|offset| **offset <= released) {
                            prop_assert!(acknowledged.contains(offset), "released without acknowledgement");
                        }
                        held.retain(|offset| *offset > released);
                        let oldest = queue.iter().find(|offset| **offset > released);
                        prop_assert!(oldest.is_none_or(|offset| !held.contains(offset)), "held back");
                    }
                    Act::Reconnect => {
                        window.rewind();
                        flying.clear();
                        held.clear();
                        let first = queue.iter().find(|offset| **offset >= window.next());
                        let skipped = queue.iter().filter(|offset| **offset > released && Some(*offset) < first);
                        for offset in skipped {
                            prop_assert!(acknowledged.contains(offset), "skipped");
                        }
                    }
                }
            }
        }
    }
}

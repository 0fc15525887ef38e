//! Tells watchers that something changed, and lets one that was away for a moment catch up.
//!
//! An event's id is `{epoch}-{number}`: after a restart of the controller the epoch is another, so that an id of an
//! earlier run is never taken for one of this run.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tidegate_cloud_core::Event;
use tokio::sync::broadcast;

/// Events that are kept for watchers that come back, and that a slow watcher may lag behind.
pub(crate) const KEPT_EVENTS: usize = 1_024;

/// An event with its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Numbered {
    pub(crate) number: u64,
    pub(crate) event: Event,
}

/// Where events come in and watchers listen.
pub(crate) struct Events {
    epoch: u64,
    kept: Mutex<Kept>,
}

struct Kept {
    last: u64,
    ring: VecDeque<Arc<Numbered>>,
    live: broadcast::Sender<Arc<Numbered>>,
}

/// What a watcher starts with.
pub(crate) struct Watch {
    /// It missed more than is kept: it has to read everything anew.
    pub(crate) resync: bool,
    /// What it missed.
    pub(crate) missed: Vec<Arc<Numbered>>,
    /// What comes.
    pub(crate) live: broadcast::Receiver<Arc<Numbered>>,
    /// The number of the last event before `live`.
    pub(crate) last: u64,
}

impl Events {
    pub(crate) fn new(epoch: u64) -> Self {
        let (live, _) = broadcast::channel(KEPT_EVENTS);
        Self { epoch, kept: Mutex::new(Kept { last: 0, ring: VecDeque::new(), live }) }
    }

    /// Tells all watchers.
    pub(crate) fn publish(&self, event: Event) {
        let mut kept = self.lock();
        kept.last += 1;
        let numbered = Arc::new(Numbered { number: kept.last, event });
        if kept.ring.len() == KEPT_EVENTS {
            kept.ring.pop_front();
        }
        kept.ring.push_back(Arc::clone(&numbered));
        // Nobody may be listening.
        let _ = kept.live.send(numbered);
    }

    /// Begins to listen, after the event with this id if one is given.
    pub(crate) fn watch(&self, after: Option<&str>) -> Watch {
        let kept = self.lock();
        let (live, last) = (kept.live.subscribe(), kept.last);
        let resync = Watch { resync: true, missed: Vec::new(), live, last };
        let Some(after) = after else {
            return Watch { resync: false, ..resync };
        };
        let Some(seen) = self.number(after).filter(|seen| *seen <= kept.last) else {
            return resync;
        };
        let first_kept = kept.ring.front().map_or(kept.last + 1, |oldest| oldest.number);
        if seen + 1 < first_kept {
            return resync;
        }
        let missed = kept.ring.iter().filter(|event| event.number > seen).cloned().collect();
        Watch { resync: false, missed, ..resync }
    }

    /// The number of the newest event; 0: there was none.
    pub(crate) fn last(&self) -> u64 {
        self.lock().last
    }

    /// The id of an event.
    pub(crate) fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.epoch)
    }

    fn number(&self, id: &str) -> Option<u64> {
        let (epoch, number) = id.split_once('-')?;
        (epoch.parse() == Ok(self.epoch)).then(|| number.parse().ok())?
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        // Nothing that holds the lock can leave the ring half changed.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_cloud_core::EventKind;

    fn event(text: &str) -> Event {
        Event {
            kind: EventKind::Rule,
            at: tidegate_model::time::Wall(0),
            rule: None,
            edge: None,
            text: text.to_owned(),
            was_asked_for: false,
        }
    }

    fn texts(watch: &Watch) -> Vec<&str> {
        watch.missed.iter().map(|e| e.event.text.as_str()).collect()
    }

    #[test]
    fn a_watcher_that_was_away_gets_what_it_missed() {
        let events = Events::new(7);
        for text in ["a", "b", "c"] {
            events.publish(event(text));
        }
        assert!(texts(&events.watch(None)).is_empty());
        assert_eq!(texts(&events.watch(Some("7-1"))), ["b", "c"]);
        let mut watch = events.watch(Some("7-3"));
        assert!(!watch.resync && watch.missed.is_empty());
        events.publish(event("d"));
        assert_eq!(watch.live.try_recv().unwrap().event.text, "d");
        assert_eq!(events.id(4), "7-4");
    }

    #[test]
    fn a_gap_that_is_too_big_and_an_id_of_another_run_need_a_resync() {
        let events = Events::new(7);
        for _ in 0..KEPT_EVENTS + 2 {
            events.publish(event("x"));
        }
        assert!(events.watch(Some("7-1")).resync);
        assert!(!events.watch(Some("7-2")).resync);
        for id in ["6-3", "7-99999", "nonsense", "7-"] {
            assert!(events.watch(Some(id)).resync, "{id}");
        }
    }
}

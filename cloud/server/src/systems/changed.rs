//! Which placements changed since somebody last looked: between the loop, which only notes it, and who keeps states.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tidegate_model::ids::{EdgeId, RuleName};
use tokio::sync::Notify;

/// Placements that are noted by name at the most; beyond it everything counts as changed.
const MAX_NOTED: usize = 10_000;

/// What changed.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    noted: Mutex<Noted>,
    wake: Notify,
}

/// What was noted since it was last taken.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    pub(crate) placements: BTreeSet<(RuleName, EdgeId)>,
    /// More than can be named.
    pub(crate) all: bool,
}

impl Changed {
    /// Notes placements.
    pub(crate) fn note(&self, placements: BTreeSet<(RuleName, EdgeId)>) {
        if placements.is_empty() {
            return;
        }
        let mut noted = self.lock();
        if !noted.all {
            noted.placements.extend(placements);
        }
        if noted.placements.len() > MAX_NOTED {
            *noted = Noted { placements: BTreeSet::new(), all: true };
        }
        drop(noted);
        self.wake.notify_one();
    }

    /// Waits until something is noted.
    pub(crate) async fn something(&self) {
        self.wake.notified().await;
    }

    /// Takes what was noted.
    pub(crate) fn take(&self) -> Noted {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        // Nothing that holds the lock can leave it half changed.
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_for_one_placement_is_one_change_and_too_many_are_all() {
        let changed = Changed::default();
        let named = |n: usize| (RuleName::new(format!("r-{n}")).unwrap(), EdgeId::new("gw-1").unwrap());
        for _ in 0..1_000 {
            changed.note(BTreeSet::from([named(1)]));
        }
        let noted = changed.take();
        assert!(noted.placements.len() == 1 && !noted.all);
        changed.note((0..=MAX_NOTED).map(named).collect());
        changed.note(BTreeSet::from([named(1)]));
        let noted = changed.take();
        assert!(noted.placements.is_empty() && noted.all);
        assert!(!changed.take().all);
    }
}

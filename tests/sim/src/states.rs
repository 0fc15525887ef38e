//! The states that other systems read from retained topics (protocol.md section 10): kept as the controller's shell keeps
//! them, by what each step says to have changed, and compared with the truth. What the core forgets to name stays wrong.

use std::collections::BTreeMap;

use tidegate_model::ids::{EdgeId, RuleName};
use tidegate_model::wire::PlacementState;

use crate::world::World;

/// What is retained, by rule and edge.
pub(crate) type Retained = BTreeMap<(RuleName, EdgeId), PlacementState>;

impl World {
    /// Publishes the states of what changed, and clears those of what is gone.
    pub(crate) fn publish_states(&mut self, changed: impl IntoIterator<Item = (RuleName, EdgeId)>) {
        let Some(core) = &self.cloud.core else { return };
        for key in changed {
            match core.state(&key.0, &key.1) {
                Some(state) => self.retained.insert(key, state),
                None => self.retained.remove(&key),
            };
        }
    }

    /// Publishes every state anew, as at a start.
    pub(crate) fn publish_all_states(&mut self) {
        self.retained = self.true_states().unwrap_or_default();
    }

    /// What is retained is what the controller would say now.
    pub(crate) fn check_states(&mut self) {
        let Some(now) = self.true_states() else { return };
        if now != self.retained {
            self.fail(lie(&self.retained, &now));
        }
    }

    fn true_states(&self) -> Option<Retained> {
        let states = self.cloud.core.as_ref()?.states(None, usize::MAX).into_iter();
        Some(states.filter_map(|(_, state)| state).map(|s| ((s.rule.clone(), s.edge.clone()), s)).collect())
    }
}

fn lie(told: &Retained, now: &Retained) -> String {
    let wrong = now.iter().find(|(key, state)| told.get(*key) != Some(*state));
    if let Some((key, state)) = wrong {
        return format!(
            "the retained state of {} on {} is {:?}, it is {state:?}",
            key.0,
            key.1,
            told.get(key)
        );
    }
    let gone: Vec<_> = told.keys().filter(|key| !now.contains_key(*key)).collect();
    format!("these retained states were not cleared: {gone:?}")
}

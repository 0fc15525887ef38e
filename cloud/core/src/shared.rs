//! Records that a reader may hold on to while the controller goes on: who changes one that is held changes a copy.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::controller::Controller;
use crate::record::{EdgeRecord, Meta, PlacementRecord, RuleRecord};

/// A record of the controller's. Reading it costs nothing; the first change of one that a [`Frozen`], or a write that is
/// not durable yet, holds copies it.
#[derive(Debug)]
pub(crate) struct Shared<T>(Arc<T>);

impl<T> Shared<T> {
    pub(crate) fn new(record: T) -> Self {
        Self(Arc::new(record))
    }

    /// What it is now, for somebody who keeps it.
    pub(crate) fn hold(&self) -> Arc<T> {
        Arc::clone(&self.0)
    }
}

// Sharing needs no copy of the record itself.
impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.hold())
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

/// Everything that a controller remembers at one moment, versions of rules aside. It shares its records with the
/// controller, which goes on: it costs a few words per record, and the copies of those that change meanwhile.
#[derive(Debug, Clone, Default)]
pub struct Frozen {
    /// Facts about the controller itself.
    pub meta: Meta,
    /// All rules, by id.
    pub rules: Vec<Arc<RuleRecord>>,
    /// All edges, by name.
    pub edges: Vec<Arc<EdgeRecord>>,
    /// All placements, removed ones included, by rule and edge.
    pub placements: Vec<Arc<PlacementRecord>>,
}

impl Controller {
    /// What is remembered now.
    #[must_use]
    pub fn freeze(&self) -> Frozen {
        Frozen {
            meta: self.meta.clone(),
            rules: self.rules.values().map(Shared::hold).collect(),
            edges: self.edges.values().map(|edge| edge.record.hold()).collect(),
            placements: self.placements.values().map(|placement| placement.record.hold()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_stays_as_it_was() {
        let mut shared = Shared::new(vec![1]);
        let held = shared.hold();
        shared.push(2);
        assert_eq!((held.as_slice(), shared.as_slice()), (&[1][..], &[1, 2][..]));
        drop(held);
        let before = shared.as_ptr();
        shared[0] = 7;
        assert_eq!(shared.as_ptr(), before, "nobody holds it: no copy");
    }
}

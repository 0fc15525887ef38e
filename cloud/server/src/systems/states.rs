//! Keeps the retained states true: publishes what changed, clears what is gone, and says everything again when the broker
//! may have forgotten it.
//!
//! It remembers a digest per state, so that nothing is published twice, and looks at the controller in small pages, so
//! that the loop does not wait for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidegate_model::digest::Digest;
use tidegate_model::ids::{EdgeId, RuleName};
use tidegate_model::wire::{PlacementState, Topics};
use tokio::sync::mpsc;

use super::Changed;
use super::changed::Noted;
use crate::run::{CoreLink, Stopped};
use crate::transport::{BrokerWatch, Outlet, Publication};

/// Changes of one placement within this time are published as one.
const COALESCE: Duration = Duration::from_millis(100);
/// Placements that are looked at in one turn of the loop.
const PAGE: usize = 128;
/// Retained states that were found on the broker and wait to be looked at.
const MAX_STRAYS: usize = 1_024;

type Key = (RuleName, EdgeId);

/// A state that the broker retained from before, by its topic.
pub(crate) type Stray = String;

/// The way from a transport that finds states of before to who looks at them.
pub(crate) fn strays() -> (mpsc::Sender<Stray>, mpsc::Receiver<Stray>) {
    mpsc::channel(MAX_STRAYS)
}

/// Keeps the retained states.
pub(crate) struct StateKeeper {
    core: CoreLink,
    topics: Topics,
    outlet: Arc<dyn Outlet>,
    changed: Arc<Changed>,
    broker: BrokerWatch,
    /// Digest of what is retained for each placement; `None`: something may be, and nobody knows what.
    published: BTreeMap<Key, Option<Digest>>,
}

impl StateKeeper {
    pub(crate) fn new(
        core: CoreLink,
        topics: Topics,
        outlet: Arc<dyn Outlet>,
        changed: Arc<Changed>,
        broker: BrokerWatch,
    ) -> Self {
        Self { core, topics, outlet, changed, broker, published: BTreeMap::new() }
    }

    /// Until the controller stops.
    pub(crate) async fn run(mut self, mut strays: mpsc::Receiver<Stray>) {
        // It ends with the loop, which says why.
        let _ = self.keep(&mut strays).await;
    }

    async fn keep(&mut self, strays: &mut mpsc::Receiver<Stray>) -> Result<(), Stopped> {
        let (changed, mut broker, mut reached) = (Arc::clone(&self.changed), self.broker.clone(), 0);
        self.everything().await?;
        loop {
            tokio::select! {
                () = changed.something() => {
                    tokio::time::sleep(COALESCE).await;
                    let Noted { placements, all } = changed.take();
                    if all {
                        self.everything().await?;
                    } else {
                        self.some(placements).await?;
                    }
                }
                // It may have forgotten everything, and what was on its way is lost.
                () = broker.reached_again(&mut reached) => {
                    self.published.values_mut().for_each(|digest| *digest = None);
                    self.everything().await?;
                }
                Some(topic) = strays.recv() => {
                    if let Some(key) = self.topics.parse_state(&topic) {
                        self.some(BTreeSet::from([key])).await?;
                    }
                }
            }
        }
    }

    /// Brings these placements up to date.
    async fn some(&mut self, keys: BTreeSet<Key>) -> Result<(), Stopped> {
        let mut keys = keys.into_iter();
        loop {
            let page: Vec<Key> = keys.by_ref().take(PAGE).collect();
            if page.is_empty() {
                return Ok(());
            }
            let look = move |core: &tidegate_cloud_core::Controller, _| {
                let leads = core.superseded_by().is_none();
                leads.then(|| {
                    page.into_iter().map(|key| (core.state(&key.0, &key.1), key)).collect::<Vec<_>>()
                })
            };
            // Another controller leads: the states are its business.
            let Some(states) = self.core.read(look).await? else { return Ok(()) };
            for (state, key) in states {
                self.publish(key, state).await;
            }
        }
    }

    /// Brings all placements up to date, and clears what was published of others.
    async fn everything(&mut self) -> Result<(), Stopped> {
        let mut gone: BTreeSet<Key> = self.published.keys().cloned().collect();
        let mut after = None;
        loop {
            let look = move |core: &tidegate_cloud_core::Controller, _| {
                core.superseded_by().is_none().then(|| core.states(after.as_ref(), PAGE))
            };
            let Some(states) = self.core.read(look).await? else { return Ok(()) };
            after = states.last().map(|(key, _)| key.clone());
            for state in states.into_iter().filter_map(|(_, state)| state) {
                let key = (state.rule.clone(), state.edge.clone());
                gone.remove(&key);
                self.publish(key, Some(state)).await;
            }
            if after.is_none() {
                break;
            }
        }
        self.some(gone).await
    }

    async fn publish(&mut self, key: Key, state: Option<PlacementState>) {
        let topic = self.topics.state(&key.0, &key.1);
        let json = |state: &PlacementState| serde_json::to_vec(state).expect("a state has string keys");
        // Nothing clears what is retained, also where it was published in an earlier life.
        let payload = state.as_ref().map(json).unwrap_or_default();
        let digest = Digest::of(&payload);
        if state.is_some() && self.published.get(&key) == Some(&Some(digest)) {
            return;
        }
        let done = self.outlet.publish(Publication { topic, payload, retain: true }).await;
        match (done, state) {
            (true, Some(_)) => self.published.insert(key, Some(digest)),
            (true, None) => self.published.remove(&key),
            // It is done when the broker is reached again.
            (false, _) => self.published.insert(key, None),
        };
    }
}

//! After a hello: compares what the edge holds with what the cloud wants, and closes the gap.
//!
//! Protocol.md section 6. Equal roots mean that everything the records say of the edge is true still; else the edge
//! tells its inventory. A reconnect never restarts a running bridge: only what differs is sent.

use std::collections::BTreeMap;

use tidegate_model::code::Code;
use tidegate_model::digest::Digest;
use tidegate_model::ids::{EdgeId, RuleId, SessionId};
use tidegate_model::limits;
use tidegate_model::placement::{Action, RunState};
use tidegate_model::rule::{OnDrift, OnWipe};
use tidegate_model::version::Generation;
use tidegate_model::wire::{
    Attempt, DesiredRun, Down, Header, Hello, Inventory, InventoryItem, Want, Welcome, root,
};

use crate::controller::{Controller, Key, Turn};
use crate::link::Unmanaged;
use crate::record::{Actor, Operation, PlacementRecord};

/// Pages that an inventory can have at the most.
const MAX_PAGES: u32 =
    ((limits::MAX_RULES_PER_EDGE + limits::MAX_TOMBSTONES) / limits::INVENTORY_PAGE_RULES) as u32 + 1;

/// The pages of an inventory that came so far.
#[derive(Debug, Clone)]
pub(crate) struct Collected {
    root: Digest,
    pages: u32,
    items: BTreeMap<u32, Vec<InventoryItem>>,
}

impl Controller {
    /// The root over what the records say of an edge.
    pub(crate) fn root_of(&self, id: &EdgeId) -> Digest {
        let keys = self.keys_of_edge(id);
        let placed = keys.iter().filter_map(|key| {
            let reported = self.placements[key].record.reported.as_ref()?;
            Some((key.0, &reported.want, reported.running.as_ref(), reported.run.transition()))
        });
        let unmanaged = self.edges.get(id).into_iter().flat_map(|edge| edge.live.unmanaged.iter().flatten());
        let unmanaged =
            unmanaged.map(|(rule, told)| (*rule, &told.want, told.running.as_ref(), told.run.transition()));
        root(placed.chain(unmanaged))
    }

    /// Who the edge is and what it can; whether it holds what the records say.
    pub(crate) fn hello(&mut self, turn: &mut Turn, id: &EdgeId, header: &Header, hello: &Hello) {
        // Equal roots say what it holds, not how what was given up meanwhile ended there.
        let same = self.root_of(id) == hello.root && !self.has_unknown_end(id);
        let edge = self.edge_mut(id);
        let facts = &mut edge.record.facts;
        facts.agent = Some(hello.agent.clone());
        facts.protocols = hello.protocols.clone();
        facts.features.clone_from(&hello.features);
        facts.limits = Some(hello.limits.clone());
        let epoch = facts.epoch;
        edge.live.clock_skew_ms = Some(hello.clock.0.saturating_sub(turn.now.wall.0));
        turn.touch_edge(id);
        let want = if same { Want::None } else { Want::Inventory };
        edge.live.wants_inventory = !same;
        if !same {
            edge.live.asked_at = Some(turn.now.monotonic);
        }
        let welcome = Welcome { want, heartbeat_s: self.settings.heartbeat_s, time: turn.now.wall, epoch };
        self.send(turn, id, Some(header.id), &Down::Welcome(welcome));
        if same {
            for key in self.keys_of_edge(id) {
                if follow_stopped(&mut self.placement_mut(&key).record) {
                    turn.touch(&key);
                }
                self.reconcile(turn, &key, None);
            }
            self.confirmed(turn, id);
        }
    }

    /// Whether an action was given up although the edge had accepted it: how it ended is not known.
    fn has_unknown_end(&self, id: &EdgeId) -> bool {
        self.keys_of_edge(id).iter().map(|key| &self.placements[key].record).any(|record| {
            let accepted = record.reported.as_ref().is_some_and(|r| r.generation == record.generation);
            let given_up = [&record.last_issue, &record.last_run].into_iter().flatten().any(|last| {
                // Codes that this side gave, without a word of the edge.
                let ours = matches!(last.code, Code::EdgeOffline | Code::CloudBehind | Code::DuplicateEdge);
                let no_answer = last.code.is_transient() || ours;
                last.generation == record.generation && no_answer
            });
            accepted && given_up && record.operation.is_none()
        })
    }

    /// Every message, also one of a past session, names the highest epoch of a controller that its edge obeyed: above this
    /// one's, the edge takes nothing from this controller, whose store and clock are older.
    pub(crate) fn note_epoch(&mut self, turn: &mut Turn, id: &EdgeId, header: &Header) {
        let ours = self.meta.epoch;
        let edge = self.edge_mut(id);
        let facts = &edge.record.facts;
        // Of two databases that alternate, the one that was replaced may be the one that stays: it must hear us then.
        let is_its = [facts.store, facts.previous_store].contains(&Some(header.sid.store));
        if header.ce > ours && is_its {
            edge.live.highest_ce = edge.live.highest_ce.max(header.ce);
            self.hold_behind(turn, id);
        }
    }

    /// A hello of a session below the known epoch: a late copy, or an edge that was restored from a backup. It is
    /// told the known epoch, so that the second jumps above it.
    pub(crate) fn welcome_past(&mut self, turn: &mut Turn, id: &EdgeId, sid: SessionId) {
        if self.edge_mut(id).record.facts.store != Some(sid.store) {
            return;
        }
        let facts = &self.edge_mut(id).record.facts;
        let epoch = facts.epoch;
        let heartbeat_s = self.settings.heartbeat_s;
        let welcome = Welcome { want: Want::None, heartbeat_s, time: turn.now.wall, epoch };
        self.send_aside(turn, id, sid, &Down::Welcome(welcome));
    }

    /// Asks the edge to tell all that it holds, at most once in [`limits::HELLO_PAUSE_MS`]; with each heartbeat again, until
    /// it comes.
    pub(crate) fn ask_inventory(&mut self, turn: &mut Turn, id: &EdgeId) {
        let heartbeat_s = self.settings.heartbeat_s;
        let edge = self.edge_mut(id);
        edge.live.wants_inventory = true;
        let asked = edge.live.asked_at;
        if asked.is_some_and(|at| at.plus_ms(limits::HELLO_PAUSE_MS) > turn.now.monotonic) {
            return;
        }
        edge.live.asked_at = Some(turn.now.monotonic);
        let epoch = edge.record.facts.epoch;
        let welcome = Welcome { want: Want::Inventory, heartbeat_s, time: turn.now.wall, epoch };
        self.send(turn, id, None, &Down::Welcome(welcome));
    }

    /// A page of an inventory; with the last one everything is compared.
    pub(crate) fn inventory(&mut self, turn: &mut Turn, id: &EdgeId, header: &Header, page: Inventory) {
        if header.ce != self.meta.epoch {
            // Asked for before this controller started: newer messages may have overtaken it.
            self.edge_mut(id).live.dropped += 1;
            return;
        }
        let live = &mut self.edge_mut(id).live;
        if page.page == 0 || page.page > page.pages || page.pages > MAX_PAGES {
            live.dropped += 1;
            return;
        }
        let fits = live.collecting.as_ref().is_some_and(|c| c.root == page.root && c.pages == page.pages);
        if !fits {
            live.collecting = Some(Collected { root: page.root, pages: page.pages, items: BTreeMap::new() });
        }
        let collecting = live.collecting.as_mut().expect("it was made above");
        let mut items = page.rules;
        items.truncate(limits::INVENTORY_PAGE_RULES);
        collecting.items.insert(page.page, items);
        if collecting.items.len() < page.pages as usize {
            return;
        }
        let items = live.collecting.take().expect("it was completed above").items;
        let items: BTreeMap<RuleId, InventoryItem> =
            items.into_values().flatten().map(|item| (item.rule, item)).collect();
        self.compare(turn, id, items);
    }

    fn compare(&mut self, turn: &mut Turn, id: &EdgeId, mut items: BTreeMap<RuleId, InventoryItem>) {
        let live = &mut self.edge_mut(id).live;
        live.wants_inventory = false;
        live.highest = items.iter().map(|(rule, item)| (*rule, item.generation)).collect();
        // Before anything is sent: if the cloud is behind for one rule, actions on the whole edge are held.
        for key in self.keys_of_edge(id) {
            if let Some(item) = items.get(&key.0)
                && self.placement_mut(&key).record.is_behind(item)
            {
                self.cloud_behind(turn, id, key.0, item.generation);
            }
        }
        for key in self.keys_of_edge(id) {
            let item = items.remove(&key.0);
            match &item {
                Some(item) if item.present => {
                    let facts = (item.generation, item.want, item.running, item.run.clone());
                    // An inventory is the whole truth of now: what was said before does not matter.
                    if let Some(reported) = &mut self.placement_mut(&key).record.reported {
                        reported.generation = reported.generation.min(item.generation);
                        if reported.run.sequence >= item.run.sequence {
                            // Restored from a backup, it counts its transitions from an earlier number, and may have
                            // come to another state under the same one.
                            reported.run = item.run.clone();
                        }
                    }
                    self.take_reported(turn, &key, facts);
                    if item.attempted.as_ref().is_some_and(|a| a.code.is_success()) {
                        follow_stopped(&mut self.placement_mut(&key).record);
                    }
                }
                Some(_) | None => {
                    let record = &mut self.placement_mut(&key).record;
                    record.reported = None;
                    if record.target.is_none() {
                        // Nothing was to be there, so nothing is lost.
                        record.committed = None;
                    }
                    turn.touch(&key);
                }
            }
            self.reconcile(turn, &key, item.as_ref());
        }
        let unmanaged = items.into_values().filter(|item| item.present).map(|item| {
            let InventoryItem { rule, name, want, running, run, origin, .. } = item;
            (rule, Unmanaged { name, origin, want, running, run })
        });
        self.edge_mut(id).live.unmanaged = Some(unmanaged.take(limits::MAX_RULES_PER_EDGE).collect());
        self.confirmed(turn, id);
    }

    fn confirmed(&mut self, turn: &mut Turn, id: &EdgeId) {
        let live = &mut self.edge_mut(id).live;
        live.confirmed = true;
        // Equal roots without having heard of any: there are none.
        live.unmanaged.get_or_insert_default();
        turn.tell_edge(id, format!("edge {id} told what it holds"));
    }

    /// Closes the gap of one placement. `item` is what the inventory said of it; without one the records are true.
    fn reconcile(&mut self, turn: &mut Turn, key: &Key, item: Option<&InventoryItem>) {
        if self.superseded_by.is_some() {
            return;
        }
        // Nothing is sent for it, so that it is done for a held edge too: a hold ends with this process, without a word.
        let corrected = item.is_some_and(|item| self.correct_end(turn, key, item));
        let held = self.edges.get(&key.1).is_some_and(|edge| edge.held().is_some());
        if held || corrected {
            return;
        }
        let record = &self.placement_mut(key).record;
        let (ours, operation) = (record.generation, record.operation.is_some());
        let theirs = match item {
            Some(item) => item.generation,
            None => record.reported.as_ref().map_or(Generation::default(), |r| r.generation),
        };
        if !record.present {
            // Only its own word on this removal settles it: that it holds nothing may have been said before it got
            // the set that the removal is to undo.
            let buried = item.is_some_and(|item| !item.present && item.generation == ours);
            if operation && buried {
                self.removed(turn, key);
            } else if operation || record.reported.is_some() {
                self.send_set(turn, key);
            }
        } else if operation && theirs < ours {
            self.send_set(turn, key);
        } else if operation {
            match item.and_then(|item| item.attempted.as_ref()).filter(|a| a.generation == ours) {
                Some(attempt) => self.settle_from_inventory(turn, key, &attempt.clone()),
                // Its result was lost: the same set again is answered with it, nothing is applied twice.
                None => self.send_set(turn, key),
            }
        } else {
            self.heal(turn, key, theirs, item);
        }
    }

    /// Shows how the newest action ended as the edge says it did, where that is something else: it was given up without a
    /// word of the edge, or settled by the word of another database that stood here meanwhile. Whether it was.
    fn correct_end(&mut self, turn: &mut Turn, key: &Key, item: &InventoryItem) -> bool {
        let record = &self.placement_mut(key).record;
        let ours = record.generation;
        let Some(attempt) = item.attempted.as_ref().filter(|attempt| attempt.generation == ours) else {
            return false;
        };
        let otherwise = [&record.last_issue, &record.last_run].into_iter().flatten().any(|settled| {
            let failed = !settled.code.is_success() || !attempt.code.is_success();
            settled.generation == ours && failed && settled.code != attempt.code
        });
        let wrong = otherwise && record.present && record.operation.is_none();
        if wrong {
            self.late_result(turn, key, &attempt.clone());
        }
        wrong
    }

    fn settle_from_inventory(&mut self, turn: &mut Turn, key: &Key, attempt: &Attempt) {
        if attempt.code.is_transient() {
            self.pause_then_retry(turn, key);
        } else {
            self.settle(turn, key, attempt.code, attempt.detail.clone());
        }
    }

    /// Nothing is under way, and yet desired and reported may differ.
    fn heal(&mut self, turn: &mut Turn, key: &Key, theirs: Generation, item: Option<&InventoryItem>) {
        let policy = self.rules.get(&key.0).map(|rule| rule.content.spec().policy);
        let Some(policy) = policy else { return };
        let record = &mut self.placement_mut(key).record;
        let ours = record.generation;
        // Without one it was placed, perhaps again, and nothing was asked for since: what is there stays as it is.
        let Some(at) = record.target.as_ref().map(|t| t.at) else { return };
        let last =
            [&record.last_issue, &record.last_run].into_iter().flatten().find(|s| s.generation == ours);
        let last_failed = last.is_some_and(|s| !s.code.is_success());
        let last_action = last.and_then(|s| s.action);
        let lost = last.is_some_and(|s| s.code.is_transient() || s.code == Code::EdgeOffline);
        let gone = record.reported.is_none() && record.committed.is_some();
        // It remembers that a removal was its newest command: before the cloud was restored from a backup it was taken off.
        let taken_off = item.is_some_and(|item| !item.present && item.generation >= ours);
        // The edge said once that it had it, and now says that it holds nothing.
        if gone && (taken_off || policy.on_wipe == OnWipe::Keep) {
            record.target = None;
            record.committed = None;
            record.last_issue = None;
            turn.touch(key);
        } else if gone {
            self.begin_by_system(turn, key, Action::IssueAgain);
        } else if theirs < ours && (lost || !last_failed) {
            // A push was lost on the way: the edge gets the latest set, without an operator.
            self.begin_by_system(turn, key, last_action.unwrap_or(Action::Sync));
        } else if theirs == ours && !last_failed && record.running() == Some(record.desired.at) {
            // It runs what is desired: before the cloud was restored from a backup that was sent.
            if record.target.as_ref().map(|t| t.at) != Some(record.desired.at) {
                record.target = Some(record.desired.clone());
                turn.touch(key);
            }
        } else if theirs == ours && !last_failed && record.running() != Some(at) {
            match policy.on_drift {
                OnDrift::Heal => self.begin_by_system(turn, key, Action::Sync),
                OnDrift::Ask => {}
            }
        }
    }

    /// Sends the target again without an operator, always as a new generation: what is wanted may have changed on site
    /// since the last one.
    fn begin_by_system(&mut self, turn: &mut Turn, key: &Key, action: Action) {
        let id = self.next_message_id(turn.now.wall);
        let highest = self.highest_generation(key);
        let record = &mut self.placement_mut(key).record;
        record.generation = record.generation.max(highest).next();
        record.operation = Some(Operation {
            id,
            action: Some(action),
            since: turn.now.wall,
            by: Actor { name: "reconcile".to_owned(), via: "system".to_owned() },
            queued: false,
            expires: None,
            tries: 0,
        });
        turn.touch(key);
        self.send_set(turn, key);
    }

    /// The edge holds a newer generation than the cloud ever gave: the cloud was restored from a backup. Nothing is
    /// sent to this edge before an operator confirms.
    pub(crate) fn cloud_behind(&mut self, turn: &mut Turn, id: &EdgeId, rule: RuleId, theirs: Generation) {
        let highest = self.edge_mut(id).live.highest.entry(rule).or_default();
        *highest = theirs.max(*highest);
        let key = (rule, id.clone());
        let record = &mut self.placement_mut(&key).record;
        if record.generation == theirs {
            // The edge knows this number with another content: what we gave under it goes on under the next.
            record.generation = theirs.next();
            turn.touch(&key);
        }
        self.hold_behind(turn, id);
    }

    fn hold_behind(&mut self, turn: &mut Turn, id: &EdgeId) {
        let edge = self.edge_mut(id);
        if !edge.record.facts.cloud_behind {
            edge.record.facts.cloud_behind = true;
            turn.touch_edge(id);
            turn.tell_edge(
                id,
                format!("actions on edge {id} are held: {} (CLOUD_BEHIND)", Code::CloudBehind.meaning()),
            );
        }
    }
}

impl PlacementRecord {
    /// Whether the edge accepted something that these records never gave: a newer generation, or, as an operation in
    /// flight knows exactly what it sends, another content under its own. How that ended says nothing of ours.
    fn is_behind(&self, item: &InventoryItem) -> bool {
        let other = || self.operation.is_some() && self.set(true).is_some_and(|set| set.want != item.want);
        item.generation > self.generation || (item.generation == self.generation && other())
    }
}

/// The edge holds the newest set and does not run: that is what is wanted, whatever was followed before the disk of one
/// side was restored from a backup, or from a second gateway that is gone. Whether something else was wanted before.
pub(crate) fn follow_stopped(record: &mut PlacementRecord) -> bool {
    let Some(reported) = &record.reported else { return false };
    let stopped = matches!(reported.run.state, RunState::PausedManual | RunState::NotRunning)
        && reported.running.is_some()
        && record.operation.is_none()
        && reported.generation == record.generation
        && record.run != DesiredRun::Stopped;
    if stopped {
        record.run = DesiredRun::Stopped;
    }
    stopped
}

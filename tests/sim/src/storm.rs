//! What goes wrong by chance, and the next wish of the operator.

use tidegate_edge_core as edge;
use tidegate_edge_core::{LocalAction, ReplyId};
use tidegate_model::ids::StoreId;
use tidegate_model::wire::Counters;

use crate::EDGES;
use crate::operator;
use crate::world::{Event, World};

/// The longest jump of a wall clock, in ms: a day, so that nothing queued expires by it.
const LONGEST_JUMP_MS: i64 = 24 * 3_600 * 1_000;

impl World {
    pub(crate) fn wish(&mut self) {
        if !self.storm {
            return;
        }
        let id = u128::from(self.rng.number());
        let request = operator::wish(&mut self.rng, id, self.plan.busy);
        self.ask(request);
        let wait = self.rng.between(100, self.plan.wish_every_ms);
        self.after(wait, Event::Wish);
    }

    pub(crate) fn mishap(&mut self) {
        if !self.storm {
            return;
        }
        let (_, busy) = self.plan.busy;
        let index = self.rng.below(busy);
        match self.rng.below(100) {
            0..=14 => self.cut(index),
            15..=24 => self.broken_connection(index),
            25..=32 => {
                let wait = self.rng.between(10, 120_000);
                self.kill_edge(index, Some(wait));
            }
            33..=37 => self.planned_stop(index),
            38..=43 => self.kill_cloud(),
            44..=46 => self.broker_restarts(),
            47..=51 => {
                let jump = self.rng.between(-LONGEST_JUMP_MS, LONGEST_JUMP_MS);
                self.note(|_| format!("a wall clock jumps by {jump} ms"));
                match self.rng.chance(300) {
                    true => self.cloud.clock.wall_offset = jump,
                    false => self.edges[index].clock.wall_offset = jump,
                }
            }
            52..=54 if self.plan.wipes => {
                self.note(|_| format!("the disk of gw-{index} is wiped"));
                let wait = self.rng.between(10, 60_000);
                self.kill_edge(index, Some(wait));
                self.edges[index].disk = edge::Snapshot::fresh(StoreId(u128::from(self.rng.number())));
                self.edges[index].backup = None;
            }
            55..=56 if self.plan.wipes => {
                let edge = &mut self.edges[index];
                match edge.backup.take() {
                    None => edge.backup = Some(edge.disk.clone()),
                    Some(backup) => {
                        self.note(|_| format!("the disk of gw-{index} is restored from a backup"));
                        let wait = self.rng.between(10, 60_000);
                        self.kill_edge(index, Some(wait));
                        let edge = &mut self.edges[index];
                        self.ledger.edge_restored(&edge.id, &edge.disk, &backup);
                        edge.disk = backup;
                    }
                }
            }
            55..=74 => {
                self.remotes.change(&mut self.rng);
                self.probe_all();
            }
            75..=79 => self.bridge_ends(index),
            80..=84 => self.counters(index),
            _ => self.local(index),
        }
        let wait = self.rng.between(100, self.plan.mishap_every_ms);
        self.after(wait, Event::Mishap);
    }

    /// Nothing passes for a while; the connection survives it or not, and the two sides notice at different times.
    fn cut(&mut self, index: usize) {
        let ms = self.rng.between(100, 180_000);
        self.note(|_| format!("gw-{index} is cut off for {ms} ms"));
        self.seats[index].cut_until = self.time + ms;
        if self.rng.chance(600) {
            self.broken_connection(index);
        }
    }

    fn broken_connection(&mut self, index: usize) {
        let edge = &self.edges[index];
        let Some(sid) = edge.connected else { return };
        let life = edge.life;
        let wait = self.rng.between(0, 90_000);
        match self.rng.chance(500) {
            true => self.after(wait, Event::LinkLost { edge: index, life, sid }),
            false => self.after(wait, Event::WillDue { edge: index, sid }),
        }
    }

    fn planned_stop(&mut self, index: usize) {
        self.note(|_| format!("gw-{index} is stopped as planned"));
        let sid = self.edges[index].connected;
        self.edge_input(index, edge::Input::Shutdown { reason: "planned".to_owned() });
        if let Some(sid) = sid {
            self.seats[index].leave(sid);
        }
        let wait = self.rng.between(10, 60_000);
        self.kill_edge(index, Some(wait));
    }

    /// The controller's broker forgets every session, without wills, and perhaps what it retained.
    fn broker_restarts(&mut self) {
        self.note(|_| "the broker restarts".to_owned());
        let forgets = self.rng.chance(500);
        for index in 0..EDGES {
            let seat = &mut self.seats[index];
            let sid = seat.session.take().map(|(sid, _)| sid);
            if forgets {
                seat.retained = None;
            }
            if let Some(sid) = sid {
                let life = self.edges[index].life;
                let wait = self.rng.between(0, 30_000);
                self.after(wait, Event::LinkLost { edge: index, life, sid });
            }
        }
    }

    fn bridge_ends(&mut self, index: usize) {
        let bridges: Vec<_> = self.edges[index].bridges.iter().map(|(r, b)| (*r, b.order)).collect();
        if bridges.is_empty() {
            return;
        }
        let (rule, order) = bridges[self.rng.below(bridges.len())];
        self.edges[index].bridges.remove(&rule);
        self.note(|_| format!("a bridge of gw-{index} ends by itself"));
        let event = edge::BridgeEvent::Ended { detail: "it panicked".to_owned() };
        self.edge_input(index, edge::Input::Bridge { rule, order, event });
    }

    fn counters(&mut self, index: usize) {
        let rules: Vec<_> = self.edges[index].bridges.keys().copied().collect();
        for rule in rules {
            let counters = Counters { forwarded: self.rng.number() % 1_000, ..Counters::default() };
            self.edge_input(index, edge::Input::Counters { rule, counters });
        }
    }

    fn local(&mut self, index: usize) {
        let rules: Vec<_> = self.edges[index].disk.rules.keys().copied().collect();
        if rules.is_empty() {
            return;
        }
        let rule = rules[self.rng.below(rules.len())];
        let action = *self.rng.pick(&[LocalAction::Start, LocalAction::Stop]);
        self.note(|_| format!("somebody at gw-{index} wants {action:?}"));
        self.edge_input(index, edge::Input::Local { rule, action, reply: ReplyId(1) });
    }
}

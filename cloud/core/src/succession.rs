//! Another controller on the same broker: the higher epoch wins, and the lower one says so and only looks on.
//!
//! ```text
//!            presence with a higher epoch
//!  Leading ------------------------------> Superseded     only a restart, with a new epoch, leads out of it
//!     ^  |
//!     '--' the last word of one with a higher epoch: nobody leads there any more, so this one's epoch goes above
//! ```
//!
//! Edges obey the highest epoch that they heard of, so what a superseded controller sends would be refused; it sends
//! nothing, refuses every change, and still shows what edges say.

use tidegate_model::limits::EPOCH_SPREAD_MS;
use tidegate_model::time::Wall;
use tidegate_model::wire::ControllerPresence;

use crate::controller::{Controller, Turn};
use crate::io::{Effect, Event, EventKind, Write};

impl Controller {
    /// What this controller says of itself.
    #[must_use]
    pub fn presence(&self) -> ControllerPresence {
        ControllerPresence { epoch: self.epoch(), version: crate::software_version(), alive: true }
    }

    /// The epoch of the controller that took this one's place.
    #[must_use]
    pub fn superseded_by(&self) -> Option<u64> {
        self.superseded_by
    }

    /// Somebody else's presence stands where ours should.
    pub(crate) fn other_controller(&mut self, turn: &mut Turn, other: &ControllerPresence) {
        let highest = self.superseded_by.unwrap_or(self.meta.epoch);
        if other.epoch <= highest {
            if self.superseded_by.is_none() && *other != self.presence() {
                // A late Last Will, or a controller that is older: people would read a lie there.
                turn.effects.push(Effect::PublishPresence(self.presence()));
            }
        } else if other.alive {
            self.superseded_by = Some(other.epoch);
            let text = format!(
                "another controller (epoch {}) took over on this broker; this one (epoch {}) sends nothing and refuses \
                 changes until it is started again",
                other.epoch, self.meta.epoch
            );
            turn.tell(EventKind::Controller, text);
        } else if self.superseded_by.is_none() {
            self.rise_above(turn, other.epoch, "a controller with a higher epoch went away");
        }
    }

    /// Edges obey nothing below an epoch that they heard of, also when its controller is gone.
    pub(crate) fn rise_above(&mut self, turn: &mut Turn, epoch: u64, why: &str) {
        self.meta.epoch = epoch_above(epoch, self.chance, turn.now.wall);
        // Numbers count anew in each epoch.
        for edge in self.edges.values_mut() {
            edge.live.begin_epoch();
        }
        turn.writes.push(Write::PutMeta(self.meta.clone()));
        turn.effects.push(Effect::PublishPresence(self.presence()));
        let text = format!("{why}; this controller goes on with epoch {}", self.meta.epoch);
        turn.tell(EventKind::Controller, text);
    }
}

/// An epoch above another one: the wall clock in milliseconds. Where that is behind, two processes that were started from
/// copies of one store would both count to the next number, and edges would take what the second says for copies of what
/// the first said; so it is a number by chance.
pub(crate) fn epoch_above(epoch: u64, chance: u64, wall: Wall) -> u64 {
    match u64::try_from(wall.0) {
        Ok(wall) if wall > epoch => wall,
        Ok(_) | Err(_) => epoch.saturating_add(1 + chance % EPOCH_SPREAD_MS),
    }
}

impl Turn {
    fn tell(&mut self, kind: EventKind, text: String) {
        let event = Event { kind, at: self.now.wall, rule: None, edge: None, text, was_asked_for: false };
        self.effects.push(Effect::Notify(event));
    }
}

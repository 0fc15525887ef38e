//! Run states and how they are told: numbered, written first, never more often than somebody can read.

use tidegate_model::ids::RuleId;
use tidegate_model::placement::RunState;
use tidegate_model::time::{Monotonic, Now};
use tidegate_model::wire::{By, Counters, Fault, QueueFull, Report, RunReport, Up, one_line};

use crate::agent::{Agent, Turn};
use crate::io::QueuesFull;
use crate::rules::{Full, Rule};
use crate::timing::{COUNTERS_EVERY_MS, ROOM_AFTER_MS};

/// Transitions of one rule that one session cannot reach: after a jump of the epoch they go on above them.
const TRANSITIONS_PER_EPOCH: u64 = 1 << 20;

impl Agent {
    /// The rule is now in this state. The same state and fault code again is no transition, unless somebody on site is
    /// the first to want it so; another detail of the same fault is told, but not more often than every 10 s.
    pub(crate) fn transition(
        &mut self,
        id: RuleId,
        state: RunState,
        fault: Option<Fault>,
        by: By,
        turn: &mut Turn,
    ) {
        let Some(rule) = self.rules.get_mut(&id) else { return };
        let run = &mut rule.record.run;
        let fault = fault.map(|f| Fault { detail: one_line(&f.detail), ..f });
        let is_told = by != By::Local || run.by == By::Local;
        if is_told
            && run.state == state
            && run.fault.as_ref().map(|f| f.code) == fault.as_ref().map(|f| f.code)
        {
            if run.fault != fault {
                run.fault = fault;
                rule.voice.tell_at(rule.voice.not_before(turn.now.monotonic));
                turn.touch(id);
            }
            return;
        }
        let sequence = run.sequence.saturating_add(1);
        *run =
            RunReport { sequence, state, fault, by, since: turn.now.wall, flapping: None, queue_full: None };
        rule.voice.changed(turn.now.monotonic);
        turn.touch(id);
        turn.changed.insert(id);
    }

    /// Tells the transitions of this turn that no result has told already.
    pub(crate) fn tell_changes(&mut self, turn: &mut Turn) {
        let now = turn.now.monotonic;
        for id in std::mem::take(&mut turn.changed) {
            let Some(rule) = self.rules.get_mut(&id) else { continue };
            if rule.record.told == rule.record.run.sequence {
                continue;
            }
            let next = rule.voice.not_before(now);
            match rule.voice.flapping(now) {
                Some(_) if next > now => rule.voice.tell_at(next),
                Some(_) | None => self.tell(id, turn),
            }
        }
    }

    /// Tells the newest state of a rule, if somebody listens.
    pub(crate) fn tell(&mut self, id: RuleId, turn: &mut Turn) {
        if !self.is_welcomed() {
            return;
        }
        let Some(rule) = self.rules.get_mut(&id) else { return };
        let sequence = rule.record.run.sequence;
        let skipped = sequence.saturating_sub(rule.record.told).saturating_sub(1);
        let counters = rule.voice.counters.clone();
        rule.voice.counters_told = counters.clone();
        let run = self.run_report(id, turn);
        self.say(Up::Report(Report { rule: id, run, counters, skipped }), None, turn);
        self.mark_told(id, turn);
    }

    /// A message with the newest state of the rule was said.
    pub(crate) fn mark_told(&mut self, id: RuleId, turn: &mut Turn) {
        let Some(rule) = self.rules.get_mut(&id) else { return };
        let now = turn.now.monotonic;
        rule.voice.told_at = Some(now);
        rule.voice.due = rule.voice.calm_at(now);
        if rule.record.told != rule.record.run.sequence {
            rule.record.told = rule.record.run.sequence;
            turn.touch(id);
        }
    }

    /// The run state as it is told: what is on disk, and whether it flaps.
    pub(crate) fn run_report(&self, id: RuleId, turn: &Turn) -> RunReport {
        match self.rules.get(&id) {
            Some(rule) => {
                let flapping = rule.voice.flapping(turn.now.monotonic);
                let queue_full = rule.voice.full.map(|full| full.told);
                RunReport { flapping, queue_full, ..rule.record.run.clone() }
            }
            None => self.tombstones.get(&id).map_or_else(RunReport::never_ran, |stone| stone.run.clone()),
        }
    }

    /// Tells every rule whose newest transition the controller may not have, and those that flap or whose queue is full: a
    /// new session begins without it.
    pub(crate) fn tell_unknown(&mut self, turn: &mut Turn) {
        let now = turn.now.monotonic;
        let unknown: Vec<RuleId> = self
            .rules
            .iter()
            .filter(|(_, Rule { record, voice, .. })| {
                voice.known < record.run.sequence || voice.full.is_some() || voice.flapping(now).is_some()
            })
            .map(|(id, _)| *id)
            .collect();
        for id in unknown {
            self.tell(id, turn);
        }
    }

    /// The store was restored from a backup: its transitions are numbered above all that it told before, so that none
    /// has a number that the controller knows for another.
    pub(crate) fn number_above(&mut self, epoch: u64, turn: &mut Turn) {
        let least = epoch.saturating_mul(TRANSITIONS_PER_EPOCH);
        for (id, rule) in &mut self.rules {
            let run = &mut rule.record.run;
            run.sequence = run.sequence.saturating_add(1).max(least);
            // The jump left nothing untold.
            rule.record.told = run.sequence.saturating_sub(1);
            turn.touch(*id);
        }
    }

    /// The controller holds the same as this edge.
    pub(crate) fn all_known(&mut self) {
        for rule in self.rules.values_mut() {
            rule.voice.known = rule.record.run.sequence;
        }
    }

    /// A rule's counters and whether its queues are full, sampled by the shell.
    pub(crate) fn on_counters(&mut self, id: RuleId, counters: Counters, full: QueuesFull, turn: &Turn) {
        let Some(rule) = self.rules.get_mut(&id) else { return };
        let voice = &mut rule.voice;
        let last_error = counters.last_error.map(|text| one_line(&text));
        voice.counters = Counters { last_error, ..counters };
        let before = voice.full;
        voice.full = full_now(before, full, turn.now);
        if voice.full.map(|full| full.told) != before.map(|full| full.told) {
            voice.tell_at(turn.now.monotonic);
        }
    }

    /// Reports that are due.
    pub(crate) fn due_reports(&mut self, turn: &mut Turn) {
        let now = turn.now.monotonic;
        let due: Vec<RuleId> = self
            .rules
            .keys()
            .copied()
            .filter(|id| self.report_deadline(*id).is_some_and(|at| at <= now))
            .collect();
        for id in due {
            self.tell(id, turn);
        }
    }

    /// When this rule is told next without a transition.
    pub(crate) fn report_deadline(&self, id: RuleId) -> Option<Monotonic> {
        let rule = self.rules.get(&id).filter(|_| self.is_welcomed())?;
        let voice = &rule.voice;
        let moved = rule.record.run.state == RunState::Running && voice.counters != voice.counters_told;
        let counters = moved.then(|| voice.told_at.unwrap_or_default().plus_ms(COUNTERS_EVERY_MS));
        [voice.due, counters].into_iter().flatten().min()
    }
}

/// What is to be told of full queues after one more look at them.
fn full_now(
    before: Option<Full>,
    QueuesFull { forwards, subscriptions }: QueuesFull,
    now: Now,
) -> Option<Full> {
    let is_full = forwards || subscriptions;
    match before {
        None if !is_full => None,
        None => {
            let told = QueueFull { since: now.wall, forwards, subscriptions };
            Some(Full { told, seen: now.monotonic })
        }
        Some(Full { told, .. }) if is_full => {
            let forwards = told.forwards || forwards;
            let subscriptions = told.subscriptions || subscriptions;
            Some(Full { told: QueueFull { forwards, subscriptions, ..told }, seen: now.monotonic })
        }
        Some(full) => Some(full).filter(|full| full.seen.plus_ms(ROOM_AFTER_MS) > now.monotonic),
    }
}

#[cfg(test)]
mod tests {
    use tidegate_model::time::Wall;

    use super::*;

    #[test]
    fn a_queue_that_is_full_on_and_off_is_told_once_and_has_room_after_a_while() {
        let now = |ms| Now { monotonic: Monotonic(ms), wall: Wall(1_000_000 + ms) };
        let (none, out) = (QueuesFull::default(), QueuesFull { forwards: true, ..QueuesFull::default() });
        let both = QueuesFull { forwards: true, subscriptions: true };
        let told = |since: i64, forwards, subscriptions| {
            Some(QueueFull { since: Wall(1_000_000 + since), forwards, subscriptions })
        };
        let mut full = None;
        for (at, seen, expected) in [
            (0, none, None),
            (5_000, out, told(5_000, true, false)),
            (10_000, none, told(5_000, true, false)),
            (15_000, out, told(5_000, true, false)),
            (20_000, both, told(5_000, true, true)),
            (20_000 + ROOM_AFTER_MS - 1, none, told(5_000, true, true)),
            (20_000 + ROOM_AFTER_MS, none, None),
            (90_000, out, told(90_000, true, false)),
        ] {
            full = full_now(full, seen, now(at));
            assert_eq!(full.map(|full| full.told), expected, "at {at}");
        }
    }
}

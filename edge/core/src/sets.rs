//! Sets, from reception to the record: what is accepted, what is refused, what a removal leaves.
//!
//! Everything is decided on the record; it is written once per input, together with what the input brought about.

use tidegate_model::code::Code;
use tidegate_model::ids::{MessageId, RuleId};
use tidegate_model::limits::{MAX_RULES_PER_EDGE, MAX_TOMBSTONES};
use tidegate_model::placement::RunState;
use tidegate_model::wire::{By, DesiredRun, Header, Received, RunReport, Set, Up};

use crate::accept::{Known, Reception, check_target, receive};
use crate::agent::{Agent, Turn};
use crate::io::{Effect, Write};
use crate::record::{Candidate, Held, RuleRecord, Tombstone};
use crate::rules::{Attempt, Rule};

impl Agent {
    pub(crate) fn on_set(&mut self, header: &Header, set: Set, turn: &mut Turn) {
        let (id, re) = (set.rule, Some(header.id));
        match receive(self.known(id), &set) {
            Reception::Stale => {
                let highest = self.known(id).map(|k| k.generation).unwrap_or_default();
                let detail = format!("generation {highest} was accepted already");
                self.say_refused(&set, re, Code::Stale, detail, turn);
            }
            Reception::Conflict => {
                let detail = "another content was accepted under this generation".to_owned();
                self.say_refused(&set, re, Code::Conflict, detail, turn);
            }
            Reception::AnswerAgain => self.say_result(id, re, turn),
            Reception::UnderWay => {
                if let Some(rule) = self.rules.get_mut(&id) {
                    rule.attempt.re = re;
                }
                self.say(Up::Received(Received { rule: id, generation: set.generation }), re, turn);
            }
            Reception::Attempt if set.want != set.compute_want() => {
                let detail = "the set's want does not fit its content".to_owned();
                self.say_refused(&set, re, Code::BadMessage, detail, turn);
            }
            Reception::Attempt if !set.present => self.remove(&set, re, turn),
            Reception::Attempt => self.accept(set, re, turn),
        }
    }

    pub(crate) fn known(&self, id: RuleId) -> Option<Known> {
        if let Some(Rule { record, .. }) = self.rules.get(&id) {
            let ended = record.outcome.as_ref().map(|o| o.code);
            return Some(Known { generation: record.generation, want: record.want, ended });
        }
        let stone = self.tombstones.get(&id)?;
        Some(Known { generation: stone.generation, want: stone.want, ended: Some(Code::Ok) })
    }

    fn accept(&mut self, set: Set, re: Option<MessageId>, turn: &mut Turn) {
        let id = set.rule;
        if !self.rules.contains_key(&id) && self.rules.len() >= MAX_RULES_PER_EDGE {
            let detail = format!("this edge holds {MAX_RULES_PER_EDGE} rules, the most that it keeps");
            return self.say_refused(&set, re, Code::PolicyDenied, detail, turn);
        }
        let checked = check_target(&set, self.rules.get(&id).map(|r| &r.record), &self.setup.policy);
        let run = match self.tombstones.remove(&id) {
            Some(stone) => {
                turn.stone(Write::ForgetTombstone(id));
                stone.run
            }
            None => RunReport::never_ran(),
        };
        let rule = self.rules.entry(id).or_insert_with(|| {
            let told = run.sequence;
            Rule::new(new_record(&set, run, told), turn.now.monotonic)
        });
        rule.attempt = Attempt { since: turn.now.monotonic, re };
        let record = &mut rule.record;
        record.name = set.name;
        record.generation = set.generation;
        record.want = set.want;
        record.outcome = None;
        turn.touch(id);
        match checked {
            Err(refusal) => {
                // A candidate of an earlier set is superseded: back to the last known good.
                self.drop_candidate(id, turn);
                self.finish(id, refusal.code, Some(set.target), refusal.detail, turn);
            }
            Ok(held) => {
                let restarts = record.restart != set.restart;
                record.restart = set.restart;
                store(record, held, set.run);
                self.say(Up::Received(Received { rule: id, generation: set.generation }), re, turn);
                self.carry_out(id, restarts, By::Cloud, turn);
            }
        }
    }

    fn remove(&mut self, set: &Set, re: Option<MessageId>, turn: &mut Turn) {
        let id = set.rule;
        let run = if self.rules.contains_key(&id) {
            self.stop_bridge(id, turn);
            self.transition(id, RunState::NotRunning, None, By::Cloud, turn);
            turn.effect(Effect::DestroyQueue { rule: id });
            self.rules.remove(&id).map(|rule| rule.record.run)
        } else {
            self.tombstones.get(&id).map(|stone| stone.run.clone())
        };
        turn.touch(id);
        let order = self.tombstones.values().map(|stone| stone.order).max().unwrap_or(0) + 1;
        let stone = Tombstone {
            rule: id,
            name: set.name.clone(),
            generation: set.generation,
            want: set.want,
            target: set.target,
            run: run.unwrap_or_else(RunReport::never_ran),
            order,
        };
        turn.stone(Write::Tombstone(stone.clone()));
        self.tombstones.insert(id, stone);
        if self.tombstones.len() > MAX_TOMBSTONES
            && let Some(oldest) =
                self.tombstones.values().min_by_key(|stone| stone.order).map(|stone| stone.rule)
        {
            self.tombstones.remove(&oldest);
            turn.stone(Write::ForgetTombstone(oldest));
        }
        self.say_result(id, re, turn);
    }
}

fn new_record(set: &Set, run: RunReport, told: u64) -> RuleRecord {
    RuleRecord {
        rule: set.rule,
        name: set.name.clone(),
        generation: set.generation,
        want: set.want,
        run_desired: DesiredRun::Stopped,
        desired_by: By::Cloud,
        restart: set.restart,
        committed: None,
        candidate: None,
        outcome: None,
        run,
        told,
    }
}

/// Puts what was accepted into the record: as the candidate where it differs from what is committed.
fn store(record: &mut RuleRecord, held: Held, run: DesiredRun) {
    let (fallback_run, fallback_by) = match record.candidate.take() {
        Some(earlier) => (earlier.fallback_run, earlier.fallback_by),
        None => (record.run_desired, record.desired_by),
    };
    record.run_desired = run;
    record.desired_by = By::Cloud;
    if record.running().is_some_and(|running| running.digest == held.target.digest) {
        record.committed = Some(held);
    } else {
        record.candidate = Some(Candidate { held, fallback_run, fallback_by });
    }
}

//! Sets, from reception to the record: what is accepted, what is refused, what a removal leaves.
//!
//! Everything is decided on the record; it is written once per input, together with what the input brought about.

use tidegate_model::code::Code;
use tidegate_model::digest::Digest;
use tidegate_model::ids::{MessageId, RuleId, RuleName};
use tidegate_model::limits::{MAX_RULES_PER_EDGE, MAX_TOMBSTONES};
use tidegate_model::placement::{RunState, VersionDigest};
use tidegate_model::version::Generation;
use tidegate_model::wire::{By, DesiredRun, Header, Origin, Received, RunReport, Set, Up};

use crate::accept::{Known, Reception, check_target, receive};
use crate::agent::{Agent, Turn};
use crate::io::{Effect, Write};
use crate::record::{Candidate, Held, OnSite, RuleRecord, Tombstone};
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
            Reception::Attempt if !set.present => {
                let removal = Removal {
                    name: set.name.clone(),
                    generation: set.generation,
                    want: set.want,
                    target: set.target,
                    origin: Origin::Cloud,
                };
                self.remove(id, removal, turn);
                self.say_result(id, re, turn);
                // A file on site may have waited for this name.
                self.sort_out_files(false, turn);
            }
            Reception::Attempt => match self.no_room_for(&set) {
                Some(detail) => self.say_refused(&set, re, Code::PolicyDenied, detail, turn),
                None => match self.clash_with_site(&set) {
                    Some(detail) => self.say_refused(&set, re, Code::InvalidConfig, detail, turn),
                    None => {
                        self.accept(set, re, None, turn);
                        if !self.files.troubles.is_empty() {
                            // A file on site may have waited for the client id that the rule had.
                            self.sort_out_files(false, turn);
                        }
                    }
                },
            },
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

    /// Why the cloud's rule cannot be kept beside those that are here, if so.
    fn no_room_for(&self, set: &Set) -> Option<String> {
        if self.rules.contains_key(&set.rule) {
            return None;
        }
        if self.rules.len() >= MAX_RULES_PER_EDGE {
            return Some(format!("this edge holds {MAX_RULES_PER_EDGE} rules, the most that it keeps"));
        }
        let namesake = self.rules.values().find(|rule| rule.record.name == set.name)?;
        let site = namesake.record.site.as_ref()?;
        let name = &set.name;
        Some(match &site.file {
            Some(file) => format!(
                "a rule '{name}' runs here that the site keeps in the file {file}; remove the file first"
            ),
            None => format!(
                "a rule '{name}' was applied on site; 'tidegate-edge rule remove {name}' there makes room"
            ),
        })
    }

    /// Takes up a set of the cloud, or (with `site`) one that the core made of a rule of the site.
    pub(crate) fn accept(&mut self, set: Set, re: Option<MessageId>, site: Option<OnSite>, turn: &mut Turn) {
        let id = set.rule;
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
        record.site = site;
        let by = record.author();
        turn.touch(id);
        match checked {
            Err(refusal) => {
                // A candidate of an earlier set is superseded: back to the last known good.
                self.drop_candidate(id, turn);
                self.finish(id, refusal.code, Some(set.target), refusal.detail, turn);
            }
            Ok((held, config)) => {
                rule.has_read(held.target.digest, config);
                let record = &mut rule.record;
                let restarts = record.restart != set.restart;
                record.restart = set.restart;
                store(record, held, set.run, by);
                if by == By::Cloud {
                    self.say(Up::Received(Received { rule: id, generation: set.generation }), re, turn);
                }
                self.carry_out(id, restarts, by, turn);
            }
        }
    }

    /// Removes a rule with its queue; its numbers stay as a tombstone, also where nothing of it was here.
    pub(crate) fn remove(&mut self, id: RuleId, removal: Removal, turn: &mut Turn) {
        let run = if let Some(rule) = self.rules.get(&id) {
            let by = rule.record.author();
            self.stop_bridge(id, turn);
            self.transition(id, RunState::NotRunning, None, by, turn);
            turn.effect(Effect::DestroyQueue { rule: id });
            self.rules.remove(&id).map(|rule| rule.record.run)
        } else {
            self.tombstones.get(&id).map(|stone| stone.run.clone())
        };
        turn.touch(id);
        let order = self.tombstones.values().map(|stone| stone.order).max().unwrap_or(0) + 1;
        let Removal { name, generation, want, target, origin } = removal;
        let run = run.unwrap_or_else(RunReport::never_ran);
        let stone = Tombstone { rule: id, name, generation, want, target, run, order, origin };
        turn.stone(Write::Tombstone(stone.clone()));
        self.tombstones.insert(id, stone);
        if self.tombstones.len() > MAX_TOMBSTONES
            && let Some(oldest) =
                self.tombstones.values().min_by_key(|stone| stone.order).map(|stone| stone.rule)
        {
            self.tombstones.remove(&oldest);
            turn.stone(Write::ForgetTombstone(oldest));
        }
    }
}

/// What a removal leaves of a rule.
pub(crate) struct Removal {
    pub name: RuleName,
    pub generation: Generation,
    pub want: Digest,
    pub target: VersionDigest,
    pub origin: Origin,
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
        site: None,
    }
}

/// Puts what was accepted into the record: as the candidate where it differs from what is committed.
fn store(record: &mut RuleRecord, held: Held, run: DesiredRun, by: By) {
    let (fallback_run, fallback_by) = match record.candidate.take() {
        Some(earlier) => (earlier.fallback_run, earlier.fallback_by),
        None => (record.run_desired, record.desired_by),
    };
    record.run_desired = run;
    record.desired_by = by;
    if record.running().is_some_and(|running| running.digest == held.target.digest) {
        record.committed = Some(held);
    } else {
        record.candidate = Some(Candidate { held, fallback_run, fallback_by });
    }
}

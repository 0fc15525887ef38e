//! Sets, from reception to result, and what the bridge's signs mean for them.
//!
//! Everything is decided on the record; it is written once per input, together with what the input brought about.

use tidegate_model::code::{Code, FaultCode};
use tidegate_model::digest::Digest;
use tidegate_model::ids::{MessageId, RuleId};
use tidegate_model::limits::{MAX_RULES_PER_EDGE, MAX_TOMBSTONES};
use tidegate_model::placement::RunState;
use tidegate_model::rule::EdgeRule;
use tidegate_model::version::Generation;
use tidegate_model::wire::{By, DesiredRun, Fault, Header, Received, RunReport, Set, SetResult, Up};

use crate::accept::{Known, Reception, check_target, receive};
use crate::agent::{Agent, Turn};
use crate::io::{BridgeEvent, Effect, LocalAction, LocalAnswer, LocalRefusal, Order, ReplyId, Write};
use crate::record::{Candidate, Held, Outcome, RuleRecord, Tombstone};
use crate::report::bounded;
use crate::rules::{Attempt, Bridge, Rule, Up as UpBridge, config_of};
use crate::timing::{RESTART_FIRST_MS, RESTART_MAX_MS, VERIFY_DEFAULT_S};
use crate::trial::{Sign, Trial, Verdict};

/// What an order to a bridge came to.
enum Ordered {
    /// Its first sign is awaited.
    Awaiting,
    /// Nothing had to be done: it runs this already.
    AsItIs,
    /// This software cannot run what is held.
    Unreadable,
}

impl Agent {
    /// Starts from disk everything that should run, and arms the session.
    pub(crate) fn on_boot(&mut self, turn: &mut Turn) {
        for stone in self.tombstones.keys() {
            turn.effects.push(Effect::DestroyQueue { rule: *stone });
        }
        let ids: Vec<RuleId> = self.rules.keys().copied().collect();
        for id in ids {
            let Some(rule) = self.rules.get_mut(&id) else { continue };
            rule.attempt.since = turn.now.monotonic;
            if rule.record.run_desired == DesiredRun::Running && rule.record.current().is_some() {
                // A start whose first sign nobody saw is still the start of whoever wanted it.
                let by = match rule.record.run.state {
                    RunState::NotRunning | RunState::PausedManual => rule.record.desired_by,
                    RunState::Running | RunState::PausedFault => By::Agent,
                };
                self.take_in(id, turn);
                self.carry_on(id, true, by, turn);
            }
        }
        self.open_session(turn);
    }

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

    fn known(&self, id: RuleId) -> Option<Known> {
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

    /// Brings the bridge to what the record says, and answers a set for which nothing has to be awaited.
    fn carry_out(&mut self, id: RuleId, restarts: bool, by: By, turn: &mut Turn) {
        let Some(rule) = self.rules.get(&id) else { return };
        match rule.record.run_desired {
            DesiredRun::Stopped => {
                self.commit(id, turn);
                self.stop_bridge(id, turn);
                self.transition_to_stopped(id, by, turn);
                self.finish_if_under_way(id, turn);
            }
            DesiredRun::Running => {
                // Under the last known good mapping until the candidate is committed; a start has nothing to wait for.
                if rule.record.candidate.is_none() {
                    self.take_in(id, turn);
                }
                self.carry_on(id, restarts, by, turn);
            }
        }
    }

    /// Orders the bridge for a rule that should run.
    fn carry_on(&mut self, id: RuleId, restarts: bool, by: By, turn: &mut Turn) {
        match self.order(id, restarts, by, turn) {
            Ordered::Awaiting => {}
            Ordered::AsItIs => self.on_sign(id, Sign::Running, None, By::Cloud, turn),
            Ordered::Unreadable => {
                let detail = "this agent cannot read the rule; it may be older than the one that accepted it";
                let fault = Fault { code: FaultCode::Config, detail: detail.to_owned() };
                self.on_sign(id, Sign::Fault(FaultCode::Config), Some(fault), by, turn);
            }
        }
    }

    fn order(&mut self, id: RuleId, restarts: bool, cause: By, turn: &mut Turn) -> Ordered {
        let order = self.next_order();
        let Some(rule) = self.rules.get_mut(&id) else { return Ordered::AsItIs };
        let Some(held) = rule.record.current() else { return Ordered::AsItIs };
        let Some(config) = config_of(held) else { return Ordered::Unreadable };
        let secrets = held.secrets.clone();
        let is_running = rule.record.run.state == RunState::Running;
        let verify_s = match config.policy.verify_s {
            0 => VERIFY_DEFAULT_S,
            seconds => u64::from(seconds),
        };
        let verify_ms = i64::try_from(verify_s.saturating_mul(1_000)).unwrap_or(i64::MAX);
        let settle_by = Some(turn.now.monotonic.plus_ms(verify_ms));
        let tries = match &rule.bridge {
            Bridge::Down => 0,
            Bridge::Up(up) => up.tries,
            Bridge::Resting { tries, .. } => *tries,
        };
        if let Bridge::Up(up) = &mut rule.bridge
            && !restarts
            && (is_running || up.settle_by.is_some())
        {
            let change = EdgeRule::difference(&up.config, &config);
            up.config = config.clone();
            if !change.connection && !change.subscriptions {
                // Forwards, queue and settings take effect when they are committed; the bridge is not concerned.
                return if up.settle_by.is_some() { Ordered::Awaiting } else { Ordered::AsItIs };
            }
            (up.order, up.settle_by, up.cause) = (order, settle_by, cause);
            turn.effect(Effect::ReconfigureBridge { rule: id, order, config, secrets, change });
            return Ordered::Awaiting;
        }
        rule.bridge = Bridge::Up(UpBridge { order, config: config.clone(), settle_by, cause, tries });
        turn.effect(Effect::StartBridge { rule: id, order, config, secrets });
        Ordered::Awaiting
    }

    pub(crate) fn on_bridge(&mut self, id: RuleId, order: Order, event: BridgeEvent, turn: &mut Turn) {
        let Some(rule) = self.rules.get_mut(&id) else { return };
        let Bridge::Up(up) = &mut rule.bridge else { return };
        if up.order != order {
            return;
        }
        let cause = std::mem::replace(&mut up.cause, By::Agent);
        up.settle_by = None;
        match event {
            BridgeEvent::Running => {
                up.tries = 0;
                self.on_sign(id, Sign::Running, None, cause, turn);
            }
            BridgeEvent::Faulted(fault) => {
                self.on_sign(id, Sign::Fault(fault.code), Some(fault), cause, turn)
            }
            BridgeEvent::Ended { detail } => {
                let tries = up.tries;
                let pause = RESTART_FIRST_MS.saturating_mul(1 << tries.min(16)).min(RESTART_MAX_MS);
                let again_at = turn.now.monotonic.plus_ms(pause);
                rule.bridge = Bridge::Resting { again_at, tries: tries.saturating_add(1) };
                // What it said before it ended is the better reason.
                if rule.record.run.state == RunState::PausedFault && rule.trial() == Trial::Nobody {
                    return;
                }
                let fault = Fault { code: FaultCode::Unknown, detail: format!("the bridge ended: {detail}") };
                self.on_sign(id, Sign::Fault(fault.code), Some(fault), cause, turn);
            }
        }
    }

    fn on_sign(&mut self, id: RuleId, sign: Sign, fault: Option<Fault>, by: By, turn: &mut Turn) {
        let Some(rule) = self.rules.get(&id) else { return };
        let target = rule.record.current().map(|held| held.target);
        let verdict = rule.trial().judge(sign);
        let (state, fault) = match sign {
            Sign::Running => (RunState::Running, None),
            Sign::Fault(code) => {
                let unsaid = || Fault { code, detail: String::new() };
                (RunState::PausedFault, Some(fault.unwrap_or_else(unsaid)))
            }
            Sign::Silence => {
                let detail = "no answer from the remote broker in time".to_owned();
                (RunState::PausedFault, Some(Fault { code: FaultCode::KeepAlive, detail }))
            }
        };
        match verdict {
            Verdict::Note => self.transition(id, state, fault, by, turn),
            Verdict::Answer => {
                self.transition(id, state, fault, By::Cloud, turn);
                self.finish(id, Code::Ok, target, String::new(), turn);
            }
            Verdict::Commit => {
                self.commit(id, turn);
                self.take_in(id, turn);
                self.transition(id, state, fault, By::Cloud, turn);
                self.finish(id, Code::Ok, target, String::new(), turn);
            }
            Verdict::Revert(code) => {
                self.drop_candidate(id, turn);
                let detail = fault.map(|f| f.detail).unwrap_or_default();
                self.finish(id, code, target, detail, turn);
            }
        }
    }

    /// Bridges whose first sign is overdue, and bridges that rested long enough.
    pub(crate) fn due_bridges(&mut self, turn: &mut Turn) {
        let now = turn.now.monotonic;
        let due: Vec<RuleId> = self
            .rules
            .iter()
            .filter(|(_, r)| r.deadline().is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            match self.rules.get_mut(&id).map(|rule| &mut rule.bridge) {
                Some(Bridge::Up(up)) => {
                    let cause = std::mem::replace(&mut up.cause, By::Agent);
                    up.settle_by = None;
                    self.on_sign(id, Sign::Silence, None, cause, turn);
                }
                Some(Bridge::Resting { .. }) => {
                    // Its queue may have been out of reach before.
                    self.take_in(id, turn);
                    self.carry_on(id, true, By::Agent, turn);
                }
                Some(Bridge::Down) | None => {}
            }
        }
    }

    /// The candidate becomes the last known good.
    fn commit(&mut self, id: RuleId, turn: &mut Turn) {
        if let Some(rule) = self.rules.get_mut(&id)
            && let Some(candidate) = rule.record.candidate.take()
        {
            rule.record.committed = Some(candidate.held);
            turn.touch(id);
        }
    }

    /// The candidate is given up: the last known good runs again, if it should.
    fn drop_candidate(&mut self, id: RuleId, turn: &mut Turn) {
        let Some(rule) = self.rules.get_mut(&id) else { return };
        let Some(candidate) = rule.record.candidate.take() else { return };
        rule.record.run_desired = candidate.fallback_run;
        rule.record.desired_by = candidate.fallback_by;
        turn.touch(id);
        if rule.record.run_desired == DesiredRun::Running && rule.record.committed.is_some() {
            if let Ordered::Unreadable = self.order(id, true, By::Agent, turn) {
                self.stop_bridge(id, turn);
            }
        } else {
            self.stop_bridge(id, turn);
        }
    }

    fn stop_bridge(&mut self, id: RuleId, turn: &mut Turn) {
        let Some(rule) = self.rules.get_mut(&id) else { return };
        rule.bridge = Bridge::Down;
        turn.effect(Effect::TakeInNothing { rule: id });
        turn.effect(Effect::StopBridge { rule: id });
    }

    fn take_in(&mut self, id: RuleId, turn: &mut Turn) {
        let committed = self.rules.get(&id).and_then(|rule| rule.record.committed.as_ref());
        if let Some(config) = committed.and_then(config_of) {
            turn.effect(Effect::TakeIn { rule: id, config });
        }
    }

    fn transition_to_stopped(&mut self, id: RuleId, by: By, turn: &mut Turn) {
        match self.rules.get(&id).map(|rule| rule.record.run.state) {
            Some(RunState::Running | RunState::PausedFault) => {
                self.transition(id, RunState::PausedManual, None, by, turn);
            }
            // Nothing stops that had begun, but somebody on site does not want it: the cloud has to hear of that.
            Some(state @ (RunState::NotRunning | RunState::PausedManual)) if by == By::Local => {
                self.transition(id, state, None, by, turn);
            }
            Some(RunState::NotRunning | RunState::PausedManual) | None => {}
        }
    }

    fn finish_if_under_way(&mut self, id: RuleId, turn: &mut Turn) {
        let Some(rule) = self.rules.get(&id) else { return };
        if rule.record.outcome.is_none() {
            let target = rule.record.running();
            self.finish(id, Code::Ok, target, String::new(), turn);
        }
    }

    /// The set is settled: its outcome is written, and told.
    fn finish(
        &mut self,
        id: RuleId,
        code: Code,
        attempted: Option<tidegate_model::placement::VersionDigest>,
        detail: String,
        turn: &mut Turn,
    ) {
        let Some(rule) = self.rules.get_mut(&id) else { return };
        let Some(attempted) = attempted else { return };
        let took = turn.now.monotonic.0.saturating_sub(rule.attempt.since.0);
        let duration_ms = u64::try_from(took).unwrap_or(0);
        rule.record.outcome = Some(Outcome { code, attempted, duration_ms, detail: bounded(detail) });
        let re = rule.attempt.re.take();
        turn.touch(id);
        self.say_result(id, re, turn);
    }

    /// Tells the outcome that is on disk.
    fn say_result(&mut self, id: RuleId, re: Option<MessageId>, turn: &mut Turn) {
        let run = self.run_report(id, turn);
        let result = if let Some(Rule { record, .. }) = self.rules.get(&id) {
            let Some(outcome) = &record.outcome else { return };
            SetResult {
                rule: id,
                generation: record.generation,
                answers: record.generation,
                code: outcome.code,
                attempted: Some(outcome.attempted),
                running: record.running(),
                want: record.want,
                run,
                duration_ms: outcome.duration_ms,
                detail: outcome.detail.clone(),
            }
        } else if let Some(stone) = self.tombstones.get(&id) {
            SetResult {
                rule: id,
                generation: stone.generation,
                answers: stone.generation,
                code: Code::Ok,
                attempted: Some(stone.target),
                running: None,
                want: stone.want,
                run,
                duration_ms: 0,
                detail: String::new(),
            }
        } else {
            return;
        };
        if self.say(Up::Result(result), re, turn).is_some() {
            self.mark_told(id, turn);
        }
    }

    /// Answers a set that leaves nothing behind.
    fn say_refused(&mut self, set: &Set, re: Option<MessageId>, code: Code, detail: String, turn: &mut Turn) {
        let known = self.known(set.rule);
        let run = self.run_report(set.rule, turn);
        let result = SetResult {
            rule: set.rule,
            generation: known.map_or(Generation(0), |k| k.generation),
            answers: set.generation,
            code,
            attempted: Some(set.target),
            running: self.rules.get(&set.rule).and_then(|rule| rule.record.running()),
            want: known.map_or_else(|| Digest::of(b""), |k| k.want),
            run,
            duration_ms: 0,
            detail: bounded(detail),
        };
        self.say(Up::Result(result), re, turn);
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

    pub(crate) fn on_local(&mut self, id: RuleId, action: LocalAction, reply: ReplyId, turn: &mut Turn) {
        let answer = self.local(id, action, turn);
        turn.effect(Effect::Reply { reply, answer });
    }

    fn local(&mut self, id: RuleId, action: LocalAction, turn: &mut Turn) -> LocalAnswer {
        let Some(rule) = self.rules.get_mut(&id) else {
            return LocalAnswer::Refused(LocalRefusal::UnknownRule);
        };
        let record = &mut rule.record;
        if record.current().is_none() {
            return LocalAnswer::Refused(LocalRefusal::NothingHere);
        }
        let desired = match action {
            LocalAction::Start => DesiredRun::Running,
            LocalAction::Stop => DesiredRun::Stopped,
        };
        if record.run_desired == desired {
            return LocalAnswer::Already;
        }
        record.run_desired = desired;
        record.desired_by = By::Local;
        turn.touch(id);
        self.carry_out(id, false, By::Local, turn);
        LocalAnswer::Done
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

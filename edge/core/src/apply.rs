//! From the record to the bridge and back: what a set, a start or stop on site, a boot or a sign of the bridge brings about.

use tidegate_model::code::{Code, FaultCode};
use tidegate_model::ids::RuleId;
use tidegate_model::placement::RunState;
use tidegate_model::wire::{By, DesiredRun, Fault};

use crate::agent::{Agent, Turn};
use crate::io::{Effect, LocalAction, LocalAnswer, LocalRefusal, ReplyId};
use crate::orders::Ordered;
use crate::record::OnSite;
use crate::trial::{Sign, Verdict};

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

    /// Brings the bridge to what the record says, and answers a set for which nothing has to be awaited.
    pub(crate) fn carry_out(&mut self, id: RuleId, restarts: bool, by: By, turn: &mut Turn) {
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

    pub(crate) fn on_sign(&mut self, id: RuleId, sign: Sign, fault: Option<Fault>, by: By, turn: &mut Turn) {
        let Some(rule) = self.rules.get(&id) else { return };
        let target = rule.record.current().map(|held| held.target);
        let author = rule.record.author();
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
                self.transition(id, state, fault, author, turn);
                self.finish(id, Code::Ok, target, String::new(), turn);
            }
            Verdict::Commit => {
                self.commit(id, turn);
                self.take_in(id, turn);
                self.transition(id, state, fault, author, turn);
                self.finish(id, Code::Ok, target, String::new(), turn);
            }
            Verdict::Revert(code) => {
                self.drop_candidate(id, turn);
                let detail = fault.map(|f| f.detail).unwrap_or_default();
                self.finish(id, code, target, detail, turn);
            }
        }
    }

    /// The candidate becomes the last known good.
    pub(crate) fn commit(&mut self, id: RuleId, turn: &mut Turn) {
        if let Some(rule) = self.rules.get_mut(&id)
            && let Some(candidate) = rule.record.candidate.take()
        {
            rule.record.committed = Some(candidate.held);
            turn.touch(id);
        }
    }

    /// The candidate is given up: the last known good runs again, if it should.
    pub(crate) fn drop_candidate(&mut self, id: RuleId, turn: &mut Turn) {
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

    pub(crate) fn finish_if_under_way(&mut self, id: RuleId, turn: &mut Turn) {
        let Some(rule) = self.rules.get(&id) else { return };
        if rule.record.outcome.is_none() {
            let target = rule.record.running();
            self.finish(id, Code::Ok, target, String::new(), turn);
        }
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
        if let Some(OnSite { file: Some(file), withdrawn: Some(_), .. }) = &record.site {
            let (name, file) = (record.name.clone(), file.clone());
            return LocalAnswer::Refused(LocalRefusal::Withdrawn { name, file });
        }
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

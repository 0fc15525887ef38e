//! How a set ended: written, told, told again.

use tidegate_model::code::Code;
use tidegate_model::digest::Digest;
use tidegate_model::ids::{MessageId, RuleId};
use tidegate_model::placement::VersionDigest;
use tidegate_model::version::Generation;
use tidegate_model::wire::{Origin, Set, SetResult, Up, one_line};

use crate::agent::{Agent, Turn};
use crate::record::Outcome;
use crate::rules::Rule;

impl Agent {
    /// The set is settled: its outcome is written, and told.
    pub(crate) fn finish(
        &mut self,
        id: RuleId,
        code: Code,
        attempted: Option<VersionDigest>,
        detail: String,
        turn: &mut Turn,
    ) {
        let Some(rule) = self.rules.get_mut(&id) else { return };
        let Some(attempted) = attempted else { return };
        let took = turn.now.monotonic.0.saturating_sub(rule.attempt.since.0);
        let duration_ms = u64::try_from(took).unwrap_or(0);
        rule.record.outcome = Some(Outcome { code, attempted, duration_ms, detail: one_line(&detail) });
        let re = rule.attempt.re.take();
        let origin = rule.record.origin();
        turn.touch(id);
        match origin {
            Origin::Cloud => self.say_result(id, re, turn),
            // Nobody waits for an answer; what is here now is told by the next hello.
            Origin::Local => self.hello_soon(turn),
        }
    }

    /// Tells the outcome that is on disk.
    pub(crate) fn say_result(&mut self, id: RuleId, re: Option<MessageId>, turn: &mut Turn) {
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
    pub(crate) fn say_refused(
        &mut self,
        set: &Set,
        re: Option<MessageId>,
        code: Code,
        detail: String,
        turn: &mut Turn,
    ) {
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
            detail: one_line(&detail),
        };
        self.say(Up::Result(result), re, turn);
    }
}

//! What edges say: sorted by session and number, then taken as facts.

use tidegate_model::code::Code;
use tidegate_model::ids::{EdgeId, RuleId};
use tidegate_model::placement::{RunState, VersionDigest};
use tidegate_model::version::Generation;
use tidegate_model::wire::{
    Attempt, By, Counters, DesiredRun, Envelope, Header, Report, RunReport, SetResult, Up, WireError,
};

use crate::controller::{Controller, Key, Turn};
use crate::full;
use crate::io::Effect;
use crate::link::{Heard, Order};
use crate::record::{PlacementRecord, Reported, Target};

impl Controller {
    /// Takes a payload that came from an edge. Whatever it is, it changes no other edge.
    pub(crate) fn take_message(&mut self, turn: &mut Turn, id: &EdgeId, presence: bool, payload: &[u8]) {
        if !self.edges.contains_key(id) {
            self.strangers += 1;
            // On a broker of somebody else anybody may say such things; they must not be able to fill the log.
            if self.strangers.is_power_of_two() {
                let what = format!(
                    "a message of an edge that is not known here was dropped ({} so far)",
                    self.strangers
                );
                turn.effects.push(Effect::Warn { edge: id.clone(), what });
            }
            return;
        }
        let (header, message) = match Envelope::read_up(payload) {
            Ok(read) => read,
            Err(error) => return self.unreadable(turn, id, &error),
        };
        match (presence, message) {
            (true, Up::Birth(birth)) => self.birth(turn, id, header.sid, birth.boot),
            (true, Up::Will(_)) => self.death(turn, id, header.sid, false),
            (true, Up::Bye(_)) => self.death(turn, id, header.sid, true),
            (false, message @ (Up::Birth(_) | Up::Will(_) | Up::Bye(_))) | (true, message) => {
                self.edge_mut(id).live.dropped += 1;
                let what = format!("a '{}' message came on the wrong topic; it was dropped", message.kind());
                turn.effects.push(Effect::Warn { edge: id.clone(), what });
            }
            (false, message) => self.up(turn, id, &header, message),
        }
    }

    fn unreadable(&mut self, turn: &mut Turn, id: &EdgeId, error: &WireError) {
        self.edge_mut(id).live.dropped += 1;
        match error {
            // Its number counts, so that what follows is no gap.
            WireError::UnknownKind { header, .. } | WireError::BadBody { header, .. } => {
                if self.edge_mut(id).live.session.as_ref().is_some_and(|s| s.sid == header.sid)
                    && self.order(id, header) == Order::Gap
                {
                    self.ask_inventory(turn, id);
                }
            }
            WireError::TooLarge { .. }
            | WireError::NotAnEnvelope { .. }
            | WireError::UnknownFormat { .. } => {}
        }
        turn.effects.push(Effect::Warn { edge: id.clone(), what: format!("{error}; it was dropped") });
    }

    fn up(&mut self, turn: &mut Turn, id: &EdgeId, header: &Header, message: Up) {
        let is_hello = matches!(message, Up::Hello(_));
        let heard = self.heard(turn, id, header.sid, is_hello);
        self.note_epoch(turn, id, header);
        if let Up::Hello(hello) = &message
            && heard != Heard::Past
        {
            // Before its number: the second of two gateways counts for itself, and would be taken for an echo.
            self.check_boot(turn, id, header.sid, hello.boot);
        }
        match heard {
            Heard::Current => {}
            Heard::Revenant => {
                if matches!(message, Up::Pong(_)) {
                    self.revive(turn, id, header.sid);
                } else {
                    self.ping_revenant(turn, id, header.sid);
                }
                return;
            }
            Heard::Past => {
                self.edge_mut(id).live.dropped += 1;
                if is_hello {
                    self.welcome_past(turn, id, header.sid);
                }
                return;
            }
        }
        let order = self.order(id, header);
        if order == Order::Copy {
            self.edge_mut(id).live.dropped += 1;
            return;
        }
        self.mark_online(turn, id);
        match message {
            Up::Hello(hello) => self.hello(turn, id, header, &hello),
            Up::Inventory(page) => self.inventory(turn, id, header, page),
            Up::Received(received) => self.with_placement(received.rule, id, |controller, key| {
                controller.received(turn, key, received.generation);
            }),
            Up::Result(result) => self.with_placement(result.rule, id, |controller, key| {
                controller.result(turn, key, &result);
            }),
            Up::Report(report) => {
                if !self.report_unmanaged(turn, id, &report) {
                    self.with_placement(report.rule, id, |controller, key| {
                        controller.report(turn, key, report.clone());
                    });
                }
            }
            Up::Heartbeat(heartbeat) => {
                // Without an inventory since its session began, or since a hold ended, nothing that waits for it goes on.
                let wanted = self.edge_mut(id).live.wants_inventory;
                if wanted || (self.settled(id) && self.root_of(id) != heartbeat.root) {
                    self.ask_inventory(turn, id);
                }
            }
            Up::Pong(_) => {}
            Up::Birth(_) | Up::Will(_) | Up::Bye(_) => unreachable!("sorted out by the caller"),
        }
        if order == Order::Gap {
            self.ask_inventory(turn, id);
        }
    }

    /// Whether nothing is under way on this edge, so that both sides should agree.
    fn settled(&self, id: &EdgeId) -> bool {
        self.keys_of_edge(id).iter().all(|key| self.placements[key].record.operation.is_none())
    }

    fn with_placement(&mut self, rule: RuleId, edge: &EdgeId, act: impl FnOnce(&mut Self, &Key)) {
        let key = (rule, edge.clone());
        // About a rule that the cloud does not know there is nothing to say: an inventory lists it as unmanaged.
        if self.placements.contains_key(&key) {
            act(self, &key);
        }
    }

    /// How a set ended.
    fn result(&mut self, turn: &mut Turn, key: &Key, result: &SetResult) {
        let ours = self.placement_mut(key).record.generation;
        if result.generation > ours || result.code == Code::Conflict {
            return self.cloud_behind(turn, &key.1, key.0, result.generation);
        }
        let facts = (result.generation, result.want, result.running, result.run.clone());
        self.take_reported(turn, key, facts);
        if result.answers != ours || result.code == Code::Stale {
            return;
        }
        let record = &self.placement_mut(key).record;
        if !record.present {
            match result.code.is_success() {
                true => self.removed(turn, key),
                false => self.pause_then_retry(turn, key),
            }
        } else if record.operation.is_none() {
            let attempt = Attempt {
                generation: ours,
                target: result.attempted,
                code: result.code,
                detail: result.detail.clone(),
            };
            self.late_result(turn, key, &attempt);
        } else if result.code == Code::MissingDependency && self.tries(key) == 0 {
            // The edge does not hold what we believed it holds: the same set, with the bytes. What it told since does not show
            // whether the first try was without.
            if let Some(operation) = &mut self.placement_mut(key).record.operation {
                operation.tries += 1;
            }
            self.send_set(turn, key);
        } else if result.code.is_transient()
            && self.tries(key) + 1 < tidegate_model::limits::MAX_TRANSIENT_TRIES
        {
            self.pause_then_retry(turn, key);
        } else {
            self.settle(turn, key, result.code, result.detail.clone());
        }
    }

    fn tries(&self, key: &Key) -> u32 {
        self.placements.get(key).and_then(|p| p.record.operation.as_ref()).map_or(0, |o| o.tries)
    }

    /// A result for an operation that was given up, or that ended otherwise than is shown: the edge's word wins.
    pub(crate) fn late_result(&mut self, turn: &mut Turn, key: &Key, attempt: &Attempt) {
        let record = &mut *self.placement_mut(key).record;
        let settled = [&mut record.last_issue, &mut record.last_run];
        for settled in settled.into_iter().flatten().filter(|s| s.generation == attempt.generation) {
            settled.code = attempt.code;
            settled.detail.clone_from(&attempt.detail);
        }
        if attempt.code.class().is_some() && !attempt.code.is_transient() {
            record.target = record.committed.clone();
        }
        let (name, edge) = (record.name.clone(), record.edge.clone());
        turn.touch(key);
        turn.tell_placement(&name, &edge, format!("late result for {name} on {edge}: {}", attempt.code));
    }

    /// A run state changed by itself, or counters are told.
    fn report(&mut self, turn: &mut Turn, key: &Key, report: Report) {
        let record = &mut self.placement_mut(key).record;
        let Some(reported) = &mut record.reported else {
            // Never heard of what it holds: an inventory will tell all of it.
            return self.ask_inventory(turn, &key.1);
        };
        reported.counters = report.counters;
        // What is said later in a session is newer; under the same number it is another only where the disk was restored.
        if report.run.sequence < reported.run.sequence || report.run == reported.run {
            return;
        }
        reported.as_of = turn.now.wall;
        let known = std::mem::replace(&mut reported.run, report.run.clone());
        let (name, edge) = (record.name.clone(), record.edge.clone());
        follow_local(record);
        turn.touch(key);
        turn.tell_placement(&name, &edge, change_text(name.as_str(), &edge, &known, &report.run));
    }

    /// The same of a rule that the cloud does not manage; whether it is one.
    fn report_unmanaged(&mut self, turn: &mut Turn, id: &EdgeId, report: &Report) -> bool {
        let told = self.edge_mut(id).live.unmanaged.as_mut().and_then(|told| told.get_mut(&report.rule));
        let Some(told) = told else { return false };
        let known = std::mem::replace(&mut told.run, report.run.clone());
        if known != report.run {
            let name = told.name.as_ref().map_or_else(|| report.rule.to_string(), ToString::to_string);
            let text = change_text(&name, id, &known, &report.run);
            turn.tell_edge(id, format!("{text} (not managed here)"));
        }
        true
    }

    /// Takes what an edge says it holds of a placement, unless something newer was said already.
    pub(crate) fn take_reported(
        &mut self,
        turn: &mut Turn,
        key: &Key,
        (generation, want, running, run): (
            Generation,
            tidegate_model::digest::Digest,
            Option<VersionDigest>,
            RunReport,
        ),
    ) {
        let wall = turn.now.wall;
        let record = &mut self.placement_mut(key).record;
        if record.reported.as_ref().is_some_and(|r| r.generation > generation) {
            return;
        }
        let known = record.reported.take();
        let counters = known.as_ref().map_or_else(Counters::default, |r| r.counters.clone());
        let newer = known.as_ref().is_none_or(|known| {
            known.run.sequence <= run.sequence && known.run.transition() != run.transition()
        });
        let text = newer.then(|| run_text(record.name.as_str(), &record.edge, &run));
        let run = match known {
            Some(known) if known.run.sequence > run.sequence => known.run,
            Some(_) | None => run,
        };
        record.committed = match running {
            None => None,
            Some(at) => [&record.target, &record.committed, &Some(record.desired.clone())]
                .into_iter()
                .flatten()
                .find(|t| t.at == at)
                .cloned(),
        };
        if let Some(last) = &mut record.last_issue
            && !last.code.is_success()
            && running == Some(last.attempted)
            && generation >= last.generation
        {
            // The edge has what it was said to have failed on: the time-out was wrong.
            last.code = Code::Ok;
            last.detail = "confirmed by a later report of the edge".to_owned();
            // When it was given up, what had been there before became the target again.
            if record.operation.is_none() && record.target.as_ref().map(|target| target.at) != running {
                record.target = record.committed.clone().or(running.map(Target::unknown));
            }
        }
        record.reported = Some(Reported { generation, want, running, run, counters, as_of: wall });
        follow_local(record);
        let (name, edge) = (record.name.clone(), record.edge.clone());
        turn.touch(key);
        if let Some(text) = text {
            turn.tell_placement(&name, &edge, text);
        }
    }
}

/// Somebody on site stopped or started the rule: that is what is wanted now, so that the next sync does not undo it.
/// While the edge has not heard the cloud's newest word, that word stands.
pub(crate) fn follow_local(record: &mut PlacementRecord) {
    let Some(reported) = &record.reported else { return };
    if record.operation.is_some() || reported.generation != record.generation {
        return;
    }
    record.run = match (reported.run.state, reported.run.by) {
        // It may have paused and recovered since somebody started it: what wants to run was started.
        (RunState::Running | RunState::PausedFault, _) => DesiredRun::Running,
        (RunState::PausedManual | RunState::NotRunning, By::Local) => DesiredRun::Stopped,
        (RunState::PausedManual | RunState::NotRunning, By::Cloud | By::Agent) => record.run,
    };
}

/// What a report changed, in words.
fn change_text(name: &str, edge: &EdgeId, known: &RunReport, run: &RunReport) -> String {
    if known.transition() == run.transition() && known.queue_full != run.queue_full {
        format!("{name} on {edge}: {}", full::words(run))
    } else {
        run_text(name, edge, run)
    }
}

fn run_text(name: &str, edge: &EdgeId, run: &RunReport) -> String {
    match &run.fault {
        Some(fault) => format!("{name} on {edge}: {}: {}: {}", run.state, fault.code, fault.detail),
        None => format!("{name} on {edge}: {}", run.state),
    }
}

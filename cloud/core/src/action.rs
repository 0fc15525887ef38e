//! The five actions: what they change, how they are sent, and how they end.
//!
//! Each action raises the placement's generation and is sent as one `set`, the complete desired state. It ends with
//! the edge's result, with a time-out, or superseded by a newer one.
//!
//! ```text
//!         act                received                 result
//!  Idle -------> AwaitReceived -------> AwaitResult ---------> Idle (settled)
//!   ^                | 10 s: again, at most 5 times | 60 s: TIMED_OUT
//!   |                v                              v
//!   +---- Offline (60 s, or queued) <---- the edge goes offline        transient result -> AwaitRetry -> again
//! ```

use tidegate_model::code::Code;
use tidegate_model::ids::{EdgeId, RuleName};
use tidegate_model::limits;
use tidegate_model::placement::{
    Action, ActionFacts, IssueFacts, IssueState, Role, RunState, VersionDigest, actions, refusal,
};
use tidegate_model::rule::{SecretRef, Start, missing_features};
use tidegate_model::time::Now;
use tidegate_model::version::Generation;
use tidegate_model::wire::{Config, DesiredRun, Down, Origin, PROTOCOL, SecretValue, Set};

use crate::controller::{Controller, Key, Turn};
use crate::edge_message::follow_local;
use crate::io::Effect;
use crate::read::in_flight;
use crate::record::{Actor, Operation, PlacementRecord, Settled, Target};
use crate::rejection::Rejection;
use crate::request::{ActedOn, MAX_TARGETS, Reply, WhenOffline};
use crate::timers::TimerKey;
use crate::view::InFlightView;

/// What the operation of a placement waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// There is none.
    Idle,
    /// The edge to say `received`.
    AwaitReceived,
    /// The edge to say `result`.
    AwaitResult,
    /// The pause after a transient failure.
    AwaitRetry,
    /// The edge to return.
    Offline,
}

impl PlacementRecord {
    /// What the issue state follows from.
    pub(crate) fn issue_facts(&self) -> IssueFacts {
        IssueFacts {
            desired: self.desired.at,
            running: self.running(),
            failed: self.last_issue.as_ref().filter(|s| !s.code.is_success()).map(|s| s.attempted),
        }
    }

    /// What the edge last said to have committed.
    pub(crate) fn running(&self) -> Option<VersionDigest> {
        self.reported.as_ref().and_then(|r| r.running)
    }

    fn secrets_of(&self, target: &Target) -> Vec<SecretValue> {
        let Some(stored) = &target.secret else { return Vec::new() };
        let rule = self.rule.to_string();
        let named = stored.secrets.named(&rule, stored.version);
        let told = named.map(|(SecretRef { id, version }, secret)| SecretValue {
            id,
            version,
            value: secret.reveal().to_owned(),
        });
        told.collect()
    }

    /// The complete desired state, as it is sent. `None`: nothing was ever to be sent.
    pub(crate) fn set(&self, keep: bool) -> Option<Set> {
        let (at, config, secrets) = if self.present {
            let target = self.target.as_ref()?;
            if keep || target.bytes.is_empty() {
                (target.at, Config::Keep, Vec::new())
            } else {
                (target.at, Config::Bytes(target.bytes.clone()), self.secrets_of(target))
            }
        } else {
            (VersionDigest::removal(self.desired.at.version), Config::Keep, Vec::new())
        };
        let mut set = Set {
            rule: self.rule,
            name: self.name.clone(),
            generation: self.generation,
            want: at.digest,
            target: at,
            present: self.present,
            run: if self.present { self.run } else { DesiredRun::Stopped },
            restart: self.restart,
            config,
            secrets,
        };
        set.want = set.compute_want();
        Some(set)
    }
}

impl Controller {
    pub(crate) fn action_facts(&self, key: &Key, queue_offline: bool, role: Role) -> ActionFacts {
        let record =
            &self.placements.get(key).expect("the caller holds a key of an existing placement").record;
        let edge = self.edges.get(&key.1).expect("an edge with placements is known");
        let issue = record.issue_facts();
        ActionFacts {
            issue: issue.state(),
            desired: issue.desired,
            running: issue.running,
            run: record.reported.as_ref().map(|r| r.run.state),
            link: edge.live.link,
            in_flight: record.operation.as_ref().and_then(|o| o.action),
            in_flight_queued: record.operation.as_ref().is_some_and(|o| o.queued),
            held: edge.held(),
            queue_offline,
            role,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "an action is who, what, where and under which conditions")]
    pub(crate) fn act(
        &mut self,
        turn: &mut Turn,
        by: &Actor,
        role: Role,
        rule: &RuleName,
        edge: &EdgeId,
        action: Action,
        when_offline: WhenOffline,
    ) -> Result<Reply, Rejection> {
        let key = self.key_of(rule, edge)?;
        let begun = self.begin(turn, (by, role), (rule, &key), action, when_offline)?;
        let placement = self.placement_view(&key, role).expect("the key was looked up above");
        Ok(match begun {
            Some(operation) => Reply::Acted { operation, placement },
            None => Reply::Already { placement },
        })
    }

    /// Begins the operation of a placement; `None`: what is asked for is so already.
    fn begin(
        &mut self,
        turn: &mut Turn,
        (by, role): (&Actor, Role),
        (rule, key): (&RuleName, &Key),
        action: Action,
        when_offline: WhenOffline,
    ) -> Result<Option<InFlightView>, Rejection> {
        let edge = &key.1;
        let queue = when_offline == WhenOffline::Queue;
        let facts = self.action_facts(key, queue, role);
        if let Some(refused) = refusal(&facts, action) {
            if facts.link.reachable() && is_so_already(&facts, action) {
                return Ok(None);
            }
            let actions = actions(&facts);
            return Err(Rejection::NotAllowed { action: action.to_string(), refused, actions });
        }
        if action.is_issue_kind() {
            self.check_twin(rule, key)?;
        }
        let record = &self.placement_mut(key).record;
        // A start or stop of what is there needs nothing more of the agent; one that carries an unfinished issue does.
        let unfinished = record.target.as_ref().is_some_and(|target| Some(target.at) != record.running());
        if action.is_issue_kind() || unfinished {
            self.check_features(rule, edge)?;
        }
        let reachable = facts.link.reachable();
        let id = self.next_message_id(turn.now.wall);
        let generation = self.highest_generation(key);
        let start = self.rule_named(rule)?.content.spec().start;
        let record = &mut self.placement_mut(key).record;
        record.generation = record.generation.max(generation).next();
        if !action.is_issue_kind() && record.target.is_none() {
            // What the edge holds is to be started or stopped; for that it needs no bytes.
            record.target = record.committed.clone().or(record.running().map(Target::unknown));
        }
        match action {
            Action::Issue | Action::IssueAgain => {
                record.target = Some(record.desired.clone());
                record.restart = record.generation.0;
                let stopped = action == Action::Issue && start == Start::Manual;
                record.run = if stopped { DesiredRun::Stopped } else { DesiredRun::Running };
            }
            Action::Sync => record.target = Some(record.desired.clone()),
            Action::Start => {
                record.run = DesiredRun::Running;
                // It wants to run already and cannot: a start asks to try again now.
                if facts.run == Some(RunState::PausedFault) {
                    record.restart = record.generation.0;
                }
            }
            Action::Stop => record.run = DesiredRun::Stopped,
        }
        record.operation = Some(Operation {
            id,
            action: Some(action),
            since: turn.now.wall,
            by: by.clone(),
            queued: !reachable,
            expires: (!reachable).then(|| turn.now.wall.plus_ms(limits::QUEUE_TTL_MS)),
            tries: 0,
        });
        turn.touch(key);
        turn.tell_placement(rule, edge, format!("{action} of {rule} on {edge} by {by}"));
        let begun = in_flight(self.placement_mut(key));
        if reachable {
            self.send_set(turn, key);
        } else {
            self.wait_offline(turn.now, key);
        }
        Ok(begun)
    }

    pub(crate) fn act_on_many(
        &mut self,
        turn: &mut Turn,
        by: &Actor,
        role: Role,
        targets: Vec<(RuleName, EdgeId)>,
        action: Action,
        when_offline: WhenOffline,
    ) -> Result<Reply, Rejection> {
        if targets.len() > MAX_TARGETS {
            return Err(Rejection::Limit {
                what: "placements of one request".to_owned(),
                limit: MAX_TARGETS,
            });
        }
        let act = |(rule, edge): (RuleName, EdgeId)| {
            let key = self.key_of(&rule, &edge);
            let result =
                key.and_then(|key| self.begin(turn, (by, role), (&rule, &key), action, when_offline));
            ActedOn { rule, edge, result }
        };
        Ok(Reply::ActedOnMany(targets.into_iter().map(act).collect()))
    }

    /// Refuses a rule whose name another one has on the edge that no record here stands for: it most likely logs in at the
    /// remote broker under the same client id.
    fn check_twin(&self, rule: &RuleName, key: &Key) -> Result<(), Rejection> {
        let unmanaged = self.edges.get(&key.1).and_then(|edge| edge.live.unmanaged.as_ref());
        let twin = unmanaged.into_iter().flatten().find(|(id, told)| {
            **id != key.0 && told.origin == Origin::Cloud && told.name.as_ref() == Some(rule)
        });
        match twin {
            Some((id, _)) => {
                Err(Rejection::ForgottenTwin { edge: key.1.clone(), rule: rule.clone(), id: *id })
            }
            None => Ok(()),
        }
    }

    /// Refuses a rule that needs more than the agent on the edge can run, or an agent that speaks another protocol. An
    /// agent that was never heard of is not judged: it is when the set is about to be sent.
    fn check_features(&self, rule: &RuleName, edge: &EdgeId) -> Result<(), Rejection> {
        let content = &self.rule_named(rule)?.content;
        let facts = &self.edges.get(edge).expect("the caller looked the edge up").record.facts;
        let Some(agent) = &facts.agent else { return Ok(()) };
        if !facts.protocols.contains(&PROTOCOL) {
            return Err(Rejection::Unsupported {
                detail: format!(
                    "rule '{rule}' cannot be sent to edge '{edge}': its agent {agent} does not speak version {PROTOCOL} of the protocol; install an agent that does"
                ),
            });
        }
        missing_features(content, facts.features.iter().map(String::as_str)).map_err(|problems| {
            Rejection::Unsupported {
                detail: format!(
                    "rule '{rule}' cannot run on edge '{edge}', whose agent is {agent}: {problems}"
                ),
            }
        })
    }

    /// Sends the desired state of a placement to the session that stands.
    pub(crate) fn send_set(&mut self, turn: &mut Turn, key: &Key) {
        if let Some(held) = self.edges.get(&key.1).and_then(|edge| edge.held()) {
            // A removal waits like one for an edge that is offline; what was to be sent again is not.
            return if self.placement_mut(key).record.present {
                self.settle(turn, key, held, held.meaning().to_owned());
            } else {
                self.wait_offline(turn.now, key);
            };
        }
        let placement = self.placement_mut(key);
        let record = &mut placement.record;
        let first = record.operation.as_ref().is_none_or(|o| o.tries == 0);
        let held = record.target.is_some() && record.running() == record.target.as_ref().map(|t| t.at);
        let Some(set) = record.set(first && held) else {
            // Queued while the edge held something, which is gone by now.
            let detail = "nothing of the rule is on the edge any more; issue it".to_owned();
            return self.settle(turn, key, Code::MissingDependency, detail);
        };
        let name = record.name.clone();
        if matches!(set.config, Config::Bytes(_))
            && self.names.get(&name) == Some(&key.0)
            && let Err(rejection) = self.check_features(&name, &key.1)
        {
            // What it accepted while it was able, it carried out: how that ended is not known yet, and it is asked for that.
            let record = &self.placement_mut(key).record;
            let accepted = record.reported.as_ref().is_some_and(|r| r.generation == record.generation);
            let code = if accepted { Code::TimedOut } else { rejection.code() };
            return self.settle(turn, key, code, rejection.to_string());
        }
        let placement = self.placement_mut(key);
        if let Some(operation) = &mut placement.record.operation {
            operation.queued = false;
            turn.touch(key);
        }
        placement.phase = Phase::AwaitReceived;
        let due = turn.now.monotonic.plus_ms(limits::RECEIVED_TIMEOUT_MS);
        self.timers.set(TimerKey::Operation(key.0, key.1.clone()), due);
        self.send(turn, &key.1, None, &Down::Set(Box::new(set)));
    }

    /// The edge is not there: an operation waits, for a while or, if it was queued, until it expires.
    pub(crate) fn wait_offline(&mut self, now: Now, key: &Key) {
        let placement = self.placement_mut(key);
        let Some(operation) = &placement.record.operation else { return };
        placement.phase = Phase::Offline;
        let timer = TimerKey::Operation(key.0, key.1.clone());
        let wait = match (operation.queued, operation.expires) {
            (true, Some(expires)) => expires.0.saturating_sub(now.wall.0).max(0),
            (true, None) => return self.timers.clear(&timer),
            (false, _) => limits::OFFLINE_GRACE_MS,
        };
        self.timers.set(timer, now.monotonic.plus_ms(wait));
    }

    /// The edge has the set on its disk: now it has time to apply it.
    pub(crate) fn received(&mut self, turn: &mut Turn, key: &Key, generation: Generation) {
        let placement = self.placement_mut(key);
        if placement.record.generation != generation {
            return;
        }
        if placement.record.operation.is_none() {
            return;
        }
        // Nothing of it is written: after a restart the edge says anew what it has.
        placement.phase = Phase::AwaitResult;
        turn.shows_anew(&placement.record);
        let due = turn.now.monotonic.plus_ms(limits::RESULT_TIMEOUT_MS);
        self.timers.set(TimerKey::Operation(key.0, key.1.clone()), due);
    }

    /// The moment of an operation has come.
    pub(crate) fn operation_due(&mut self, turn: &mut Turn, key: &Key) {
        let Some(placement) = self.placements.get_mut(key) else { return };
        let Some(operation) = &mut placement.record.operation else { return };
        let removal = operation.action.is_none();
        match placement.phase {
            Phase::Idle => {}
            Phase::Offline if operation.queued => {
                // Expired by the wall clock, which may have jumped: it is looked at again.
                if operation.expires.is_some_and(|at| at > turn.now.wall) {
                    self.wait_offline(turn.now, key);
                } else if !removal {
                    self.settle(turn, key, Code::Expired, Code::Expired.meaning().to_owned());
                }
            }
            Phase::Offline if removal => {
                operation.queued = true;
                turn.touch(key);
            }
            Phase::Offline => {
                let detail = "the edge went offline before it answered".to_owned();
                self.settle(turn, key, Code::EdgeOffline, detail);
            }
            Phase::AwaitRetry => self.send_set(turn, key),
            Phase::AwaitReceived | Phase::AwaitResult if removal => self.pause_then_retry(turn, key),
            Phase::AwaitReceived => {
                operation.tries += 1;
                if operation.tries >= limits::MAX_TRANSIENT_TRIES {
                    let detail = format!("no answer to {} messages", limits::MAX_TRANSIENT_TRIES);
                    self.settle(turn, key, Code::TimedOut, detail);
                } else {
                    self.send_set(turn, key);
                }
            }
            Phase::AwaitResult => {
                let seconds = limits::RESULT_TIMEOUT_MS / 1_000;
                let detail = format!("the edge received it and gave no result within {seconds} s");
                self.settle(turn, key, Code::TimedOut, detail);
            }
        }
    }

    /// Waits before the same set is sent again: 10 s, doubling to 5 min.
    pub(crate) fn pause_then_retry(&mut self, turn: &mut Turn, key: &Key) {
        let placement = self.placement_mut(key);
        let Some(operation) = &mut placement.record.operation else { return };
        let doublings = operation.tries.min(16);
        operation.tries = operation.tries.saturating_add(1);
        placement.phase = Phase::AwaitRetry;
        let pause = (limits::TRANSIENT_PAUSE_MS << doublings).min(limits::TRANSIENT_PAUSE_MAX_MS);
        self.timers.set(TimerKey::Operation(key.0, key.1.clone()), turn.now.monotonic.plus_ms(pause));
        turn.touch(key);
    }

    /// Ends the operation of a placement.
    pub(crate) fn settle(&mut self, turn: &mut Turn, key: &Key, code: Code, detail: String) {
        let now = turn.now.wall;
        let placement = self.placement_mut(key);
        placement.phase = Phase::Idle;
        let record = &mut placement.record;
        let Some(operation) = record.operation.take() else { return };
        let attempted = record.target.as_ref().map_or(record.desired.at, |t| t.at);
        let settled = Settled {
            id: operation.id,
            action: operation.action,
            generation: record.generation,
            code,
            detail: detail.clone(),
            attempted,
            at: now,
        };
        let took_ms = now.0.saturating_sub(operation.since.0).max(0);
        turn.effects.push(Effect::Settled { action: operation.action, code, took_ms });
        let failed = !code.is_success();
        let issue_kind = operation.action.is_some_and(Action::is_issue_kind);
        // A start or stop that took the place of an unfinished issue carries that issue's fate.
        let carries_issue = record.target.is_some() && Some(attempted) != record.running();
        if issue_kind || (failed && carries_issue) {
            record.last_issue = Some(settled.clone());
        }
        if !issue_kind {
            record.last_run = Some(settled);
        }
        if failed && (!code.is_transient() && code != Code::EdgeOffline) {
            // It will never be sent again by itself: what is wanted is what is there.
            record.target = record.committed.clone();
        }
        follow_local(record);
        let (name, edge) = (record.name.clone(), record.edge.clone());
        let what = operation.action.map_or_else(|| "removal".to_owned(), |a| a.to_string());
        let text = if failed {
            format!("{what} of {name} on {edge} failed: {code}: {detail}")
        } else {
            format!("{what} of {name} on {edge} done")
        };
        self.timers.clear(&TimerKey::Operation(key.0, key.1.clone()));
        turn.touch(key);
        turn.tell_placement(&name, &edge, text);
    }
}

/// Whether an action asks for what is so already.
fn is_so_already(facts: &ActionFacts, action: Action) -> bool {
    if facts.held.is_some() || facts.running.is_none() || facts.in_flight.is_some() {
        return false;
    }
    match action {
        Action::Start => facts.run == Some(RunState::Running),
        Action::Stop => matches!(facts.run, Some(RunState::PausedManual | RunState::NotRunning)),
        Action::Sync => facts.issue == IssueState::Issued,
        Action::Issue | Action::IssueAgain => false,
    }
}

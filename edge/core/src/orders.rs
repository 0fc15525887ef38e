//! Orders to bridges, with the least disturbance, and what bridges say of them.

use tidegate_model::code::FaultCode;
use tidegate_model::ids::RuleId;
use tidegate_model::placement::RunState;
use tidegate_model::rule::EdgeRule;
use tidegate_model::wire::{By, Fault};

use crate::agent::{Agent, Turn};
use crate::io::{BridgeEvent, Effect, Order};
use crate::rules::{Bridge, Rule, Up as UpBridge};
use crate::timing::{RESTART_FIRST_MS, RESTART_MAX_MS, VERIFY_DEFAULT_S};
use crate::trial::{Sign, Trial};

/// What an order to a bridge came to.
pub(crate) enum Ordered {
    /// Its first sign is awaited.
    Awaiting,
    /// Nothing had to be done: it runs this already.
    AsItIs,
    /// This software cannot run what is held.
    Unreadable,
}

impl Agent {
    /// Orders the bridge for a rule that should run.
    pub(crate) fn carry_on(&mut self, id: RuleId, restarts: bool, by: By, turn: &mut Turn) {
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

    pub(crate) fn order(&mut self, id: RuleId, restarts: bool, cause: By, turn: &mut Turn) -> Ordered {
        let order = self.next_order();
        let Some(rule) = self.rules.get_mut(&id) else { return Ordered::AsItIs };
        let Some(held) = rule.record.current() else { return Ordered::AsItIs };
        let secrets = held.secrets.clone();
        let Some(config) = rule.config() else { return Ordered::Unreadable };
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
            let asks = change.subscriptions || (change.forwards && self.setup.subscribes_locally);
            if !change.connection && !asks {
                // What is left takes effect when it is committed; the bridge is not concerned.
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

    pub(crate) fn stop_bridge(&mut self, id: RuleId, turn: &mut Turn) {
        let Some(rule) = self.rules.get_mut(&id) else { return };
        rule.bridge = Bridge::Down;
        turn.effect(Effect::TakeInNothing { rule: id });
        turn.effect(Effect::StopBridge { rule: id });
    }

    pub(crate) fn take_in(&mut self, id: RuleId, turn: &mut Turn) {
        if let Some(config) = self.rules.get_mut(&id).and_then(Rule::committed_config) {
            turn.effect(Effect::TakeIn { rule: id, config });
        }
    }
}

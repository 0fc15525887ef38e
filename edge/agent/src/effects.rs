//! Effects on bridges and queues, which are performed before the rest of the gateway stands, too.

use tidegate_edge_core::{BridgeEvent, Effect, Input};

use crate::bridges::Bridges;

/// What became of an effect.
pub(crate) enum Performed {
    /// Done, with what follows from it.
    Done(Vec<Input>),
    /// It is none of bridges and queues.
    NotMine(Effect),
}

/// Effects on bridges and queues; the others come back.
pub(crate) async fn perform_on_bridges(bridges: &mut Bridges, effect: Effect) -> Performed {
    let (rule, order, event) = match effect {
        Effect::TakeIn { rule, config } => {
            bridges.take_in(rule, config).await;
            return Performed::Done(Vec::new());
        }
        Effect::TakeInNothing { rule } => {
            bridges.take_in_nothing(rule);
            return Performed::Done(Vec::new());
        }
        Effect::StartBridge { rule, order, config, secrets } => {
            tracing::info!(line.kind = "rule-order", rule.id = %rule, rule.name = %config.name, "the rule is started");
            (rule, order, bridges.start(rule, order, config, &secrets).await)
        }
        Effect::ReconfigureBridge { rule, order, config, secrets, change: _ } => {
            tracing::info!(line.kind = "rule-order", rule.id = %rule, rule.name = %config.name, "the rule is changed while it runs");
            (rule, order, bridges.reconfigure(rule, order, config, &secrets).await)
        }
        Effect::StopBridge { rule } => {
            bridges.stop(rule);
            return Performed::Done(Vec::new());
        }
        Effect::DestroyQueue { rule } => {
            bridges.destroy(rule).await;
            return Performed::Done(Vec::new());
        }
        effect @ (Effect::Dial { .. }
        | Effect::HangUp { .. }
        | Effect::PublishUp(_)
        | Effect::PublishPresence(_)
        | Effect::Reply { .. }) => return Performed::NotMine(effect),
    };
    // No bridge is there that could try again by itself: the core orders another one later.
    let ended = |detail: &str| BridgeEvent::Ended { detail: detail.to_owned() };
    let events = event.map_or_else(Vec::new, |event| vec![event, ended("its queue cannot be used")]);
    Performed::Done(events.into_iter().map(|event| Input::Bridge { rule, order, event }).collect())
}

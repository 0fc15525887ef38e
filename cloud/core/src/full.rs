//! Full queues of rules that block: what is shown of them. Beside the run state, never in place of it: such a rule may run and
//! send, only whoever sends to it waits (docs/adr/0017).

use serde::Serialize;
use utoipa::ToSchema;

use tidegate_model::code::FaultCode;
use tidegate_model::placement::RunState;
use tidegate_model::time::Wall;
use tidegate_model::wire::{QueueFull, RunReport};

use crate::view::{Reason, rfc3339};

/// A queue of a rule is full and blocks: whoever sends gets no acknowledgement until there is room. Nothing is lost by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct QueueFullView {
    /// Since when, by the edge's clock.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub since: Wall,
    /// What devices publish waits.
    pub forwards: bool,
    /// What the remote broker sends waits.
    pub subscriptions: bool,
    /// What that means and what to do; `QUEUE_FULL`.
    pub reason: Reason,
}

/// What is shown of it, if a queue is full.
pub(crate) fn queue_full(run: &RunReport) -> Option<QueueFullView> {
    let QueueFull { since, forwards, subscriptions } = run.queue_full?;
    let who = match (forwards, subscriptions) {
        (false, false) => return None,
        (true, false) => "devices get no acknowledgement for what they publish",
        (false, true) => "the remote broker gets no acknowledgement for what it sends",
        (true, true) => "neither devices nor the remote broker get an acknowledgement",
    };
    let next = match run.state {
        RunState::PausedFault => {
            "mend the fault, and the queue empties; or give the rule a larger queue.max_bytes"
        }
        RunState::PausedManual | RunState::NotRunning => {
            "start the rule, and the queue empties; or give it a larger queue.max_bytes"
        }
        RunState::Running => {
            "look at the broker that takes the messages and at the link: more comes than goes; or give the rule a larger \
             queue.max_bytes, or let it drop (when_full = \"drop_oldest\")"
        }
    };
    let reason = Reason {
        code: FaultCode::QueueFull.to_string(),
        detail: format!("the queue is full, or was within the last half minute: {who} until there is room"),
        class: None,
        next: next.to_owned(),
    };
    Some(QueueFullView { since, forwards, subscriptions, reason })
}

/// The same in a few words, for the log and the watchers.
pub(crate) fn words(run: &RunReport) -> &'static str {
    match run.queue_full {
        Some(_) => "its queue is full, whoever sends waits",
        None => "its queue has room again",
    }
}

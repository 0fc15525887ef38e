//! What becomes of a will when its connection has ended.

use crate::broker::Context;
use crate::message::Message;
use crate::stats::count;
use crate::tap::{Offer, Source, TapResult};
use crate::watcher::DisconnectReason;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Discards the will after a DISCONNECT and when the broker stops; publishes it otherwise, through the tap. Returns when
/// it is published, or after the grace time of taps, with the wait going on in the background under the connection's
/// `permit`, so that their number stays bounded.
pub(crate) async fn settle(
    will: Arc<Message>,
    source: Source,
    reason: &DisconnectReason,
    context: &Arc<Context>,
    permit: OwnedSemaphorePermit,
) {
    match reason {
        DisconnectReason::Client => return,
        DisconnectReason::Stopped => return count(&context.hub.counters.wills_discarded, 1),
        DisconnectReason::Lost(_)
        | DisconnectReason::KeepAlive
        | DisconnectReason::WriteTimeout
        | DisconnectReason::TakenOver
        | DisconnectReason::Protocol(_)
        | DisconnectReason::NotPermitted { .. }
        | DisconnectReason::TapRefused
        | DisconnectReason::ByOwner => {}
    }
    let (mut then, fan_out) = match context.tap.offer(&will, &source) {
        Offer::Pass => return publish(&will, context, Ok(TapResult::Taken), true),
        Offer::Hold { then, fan_out } => (then, fan_out),
    };
    match tokio::time::timeout(context.limits.tap_grace, &mut then).await {
        Ok(result) => publish(&will, context, result, fan_out),
        Err(_) => {
            let context = Arc::clone(context);
            tokio::spawn(async move {
                let _permit = permit;
                tokio::select! {
                    result = then => publish(&will, &context, result, fan_out),
                    () = context.stopping.cancelled() => count(&context.hub.counters.wills_discarded, 1),
                }
            });
        }
    }
}

fn publish(
    will: &Arc<Message>,
    context: &Context,
    result: Result<TapResult, oneshot::error::RecvError>,
    fan_out: bool,
) {
    if let Ok(TapResult::Taken) = result {
        count(&context.hub.counters.wills, 1);
        if fan_out {
            context.hub.commit(will);
        }
    } else {
        count(&context.hub.counters.dropped_by_tap, 1);
        tracing::warn!(line.kind = "will-refused", topic = ?will.topic, "a will was refused by its tap and is dropped");
    }
}

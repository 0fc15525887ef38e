//! One client's connection from its socket to its end. It leaves in order: publishes that still wait for
//! a tap, then the will, then the session. One task; reading and writing do not wait for each other.

use crate::broker::Context;
use crate::codec::Reply;
use crate::connect::{self, Admitted, NotAdmitted};
use crate::lobby::Pass;
use crate::reader::Reader;
use crate::slot::Slot;
use crate::tap::Source;
use crate::watcher::DisconnectReason;
use crate::will;
use crate::writer::{self, Outbox};
use rumqttd::protocol::ConnectReturnCode;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// Time for publishes to settle when the whole broker stops.
const STOP_GRACE: Duration = Duration::from_millis(200);

/// Serves one accepted socket until its end. `pass` is its place among those that are not let in yet.
pub(crate) async fn serve<S>(mut stream: S, peer: SocketAddr, context: Arc<Context>, pass: Pass)
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    // Its own allocation: a connection lasts for days, its handshake for a moment.
    let handshake = Box::pin(connect::handshake(&mut stream, peer, &context, pass));
    let outcome = tokio::select! {
        outcome = handshake => outcome,
        () = context.stopping.cancelled() => return,
    };
    match outcome {
        Ok(admitted) => run(stream, peer, context, admitted).await,
        Err(reason) => {
            context.hub.counters.refuse(&reason);
            match reason {
                // A port scan or a probe of the port: nobody needs to know.
                NotAdmitted::Ended => tracing::debug!(%peer, %reason, "a client was not let in"),
                NotAdmitted::NotConnect
                | NotAdmitted::Late
                | NotAdmitted::Crowded
                | NotAdmitted::Malformed(_)
                | NotAdmitted::Will(_)
                | NotAdmitted::Refused(_) => {
                    tracing::info!(line.kind = "connection-refused", %peer, %reason, "a client was not let in");
                }
            }
        }
    }
}

async fn run<S>(stream: S, peer: SocketAddr, context: Arc<Context>, admitted: Admitted)
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let Admitted { mut attachment, rights, will, silence, buffer, resumed, seat } = admitted;
    attachment.announce(peer, resumed);
    if context.stopping.is_cancelled() {
        attachment.kill.because(DisconnectReason::Stopped);
    }
    let outbox = Outbox::default();
    let slot = Arc::clone(&attachment.slot);
    outbox.reply(&slot, Reply::ConnAck { code: ConnectReturnCode::Success, session_present: resumed });
    let (read, write) = tokio::io::split(stream);
    let mut reader = Reader::new(&context, &attachment, &outbox, rights);
    let reason = tokio::select! {
        reason = reader.run(read, buffer, silence) => reason,
        reason = writer::run(write, &context, &slot, &outbox) => reason,
    };
    // Both halves of the socket are gone here: the client sees the end before its will is published.
    let grace = if reason == DisconnectReason::Stopped { STOP_GRACE } else { context.limits.tap_grace };
    reader.settle_all(grace, reason == DisconnectReason::TapRefused).await;
    context.hub.counters.end(&reason);
    log_end(&slot, &reason);
    attachment.reason = Some(reason.clone());
    if let Some(will) = will {
        let source =
            Source::Will { client_id: Arc::clone(&slot.client_id), connection: attachment.connection };
        // Its own allocation, as the handshake's: it is for the end only.
        Box::pin(will::settle(will, source, &reason, &context, seat)).await;
    }
    drop(attachment);
}

fn log_end(slot: &Slot, reason: &DisconnectReason) {
    let client_id = &slot.client_id;
    match reason {
        DisconnectReason::Protocol(_) | DisconnectReason::NotPermitted { .. } => {
            tracing::warn!(line.kind = "protocol-violation", client.id = ?client_id, %reason, "closed a client's connection");
        }
        DisconnectReason::TakenOver => {
            tracing::info!(line.kind = "connection-taken-over", client.id = ?client_id, %reason, "closed a client's connection");
        }
        DisconnectReason::KeepAlive
        | DisconnectReason::WriteTimeout
        | DisconnectReason::TapRefused
        | DisconnectReason::ByOwner => {
            tracing::info!(line.kind = "connection-closed", client.id = ?client_id, %reason, "closed a client's connection");
        }
        DisconnectReason::Client | DisconnectReason::Lost(_) | DisconnectReason::Stopped => {}
    }
}

//! From an accepted socket to a connection that owns its session: reads CONNECT, asks the gate, checks the will, takes
//! over, and says no with the right CONNACK code.

use crate::broker::Context;
use crate::codec::{self, CONNACK_V5_UNSUPPORTED, Inbound, Malformed, Reply};
use crate::connect_packet::{Connect, WillPacket};
use crate::filter;
use crate::gate::{ConnectRequest, Refusal, Rights};
use crate::hub::{Attach, Newcomer};
use crate::lobby::Pass;
use crate::message::Message;
use crate::reader;
use crate::slot::{Kill, Slot};
use crate::watcher::{DisconnectReason, Event};
use bytes::BytesMut;
use rumqttd::protocol::ConnectReturnCode;
use std::hash::{BuildHasher, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Time for a CONNACK that says no to leave.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// A client that was let in.
pub(crate) struct Admitted {
    pub attachment: Attachment,
    pub rights: Rights,
    pub will: Option<Arc<Message>>,
    /// One and a half keep-alive times; `None` when the client wants none.
    pub silence: Option<Duration>,
    /// What was read behind the CONNECT.
    pub buffer: BytesMut,
    /// State from before was found.
    pub resumed: bool,
    /// Its share of the bound on connections.
    pub seat: OwnedSemaphorePermit,
}

/// Why a client was not let in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotAdmitted {
    #[error("the connection ended before a complete CONNECT")]
    Ended,
    #[error("it took too long to connect")]
    Late,
    #[error("too many connections wait for their CONNECT, and this one had its time")]
    Crowded,
    #[error("the first packet is not CONNECT")]
    NotConnect,
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the will's topic is not valid: {0}")]
    Will(filter::TopicError),
    #[error("{0}")]
    Refused(Refusal),
}

/// Reads CONNECT and lets the client in, or answers it and says why not. Bounds its own time.
pub(crate) async fn handshake<S>(
    stream: &mut S,
    peer: SocketAddr,
    context: &Arc<Context>,
    pass: Pass,
) -> Result<Admitted, NotAdmitted>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let end = Instant::now() + context.limits.connect_timeout;
    let mut buffer = BytesMut::new();
    let outcome = tokio::time::timeout_at(end, wait_for_connect(stream, &mut buffer, context, &pass)).await;
    let outcome = match outcome.unwrap_or(Err(NotAdmitted::Late)) {
        Ok(connect) => admit(connect, buffer, peer, context, end).await,
        Err(error) => Err(error),
    };
    match outcome {
        Err(NotAdmitted::Refused(refusal)) => refuse(stream, refusal).await,
        Err(NotAdmitted::Malformed(Malformed::Version(level))) => refuse_version(stream, level).await,
        Ok(_) | Err(_) => {}
    }
    outcome
}

/// Reads CONNECT, unless the connection is given up for a newer one before.
async fn wait_for_connect<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
    context: &Context,
    pass: &Pass,
) -> Result<Connect, NotAdmitted> {
    let max_bytes = context.limits.max_connect_bytes.min(context.limits.max_packet_bytes);
    tokio::select! {
        biased;
        connect = read_connect(stream, buffer, max_bytes) => {
            // A complete CONNECT counts, even if the connection was given up in this moment.
            pass.spoke();
            connect
        }
        () = pass.given_up() => Err(NotAdmitted::Crowded),
    }
}

async fn read_connect<S>(
    stream: &mut S,
    buffer: &mut BytesMut,
    max_bytes: usize,
) -> Result<Connect, NotAdmitted>
where
    S: AsyncRead + Unpin,
{
    loop {
        match codec::decode(buffer, max_bytes)? {
            Some(Inbound::Connect(connect)) => return Ok(*connect),
            Some(_) => return Err(NotAdmitted::NotConnect),
            None => {}
        }
        // Whatever it turns out to be, nothing but a CONNECT is worth waiting for.
        if buffer.first().is_some_and(|byte| *byte != 0x10) {
            return Err(NotAdmitted::NotConnect);
        }
        if !matches!(reader::read_some(stream, buffer).await, Ok(1..)) {
            return Err(NotAdmitted::Ended);
        }
    }
}

async fn admit(
    connect: Connect,
    buffer: BytesMut,
    peer: SocketAddr,
    context: &Arc<Context>,
    end: Instant,
) -> Result<Admitted, NotAdmitted> {
    let refused = NotAdmitted::Refused;
    let seat = context.seat().ok_or(refused(Refusal::ServerUnavailable))?;
    let Connect { client_id, clean_session, keep_alive, username, password, will } = connect;
    let client_id = match client_id {
        id if id.len() > context.limits.max_client_id_bytes => {
            return Err(refused(Refusal::IdentifierRejected));
        }
        id if !id.is_empty() => id,
        _ if clean_session => generated_id(),
        _ => return Err(refused(Refusal::IdentifierRejected)),
    };
    let will = will.map(|will| will_message(will, context)).transpose()?;
    let request = ConnectRequest { client_id, username, password, peer, clean_session };
    let decision = tokio::time::timeout_at(end, context.gate.authenticate(&request));
    let rights = decision.await.map_err(|_| NotAdmitted::Late)?.map_err(refused)?;
    if will.as_ref().is_some_and(|will| !rights.publish.allows_topic(&will.topic)) {
        return Err(refused(Refusal::NotAuthorized));
    }
    let attaching = tokio::time::timeout_at(end, attach(&request, &rights, context));
    let (attachment, resumed) = attaching.await.map_err(|_| NotAdmitted::Late)??;
    let silence = (keep_alive > 0).then(|| Duration::from_secs(u64::from(keep_alive)) * 3 / 2);
    Ok(Admitted { attachment, rights, will, silence, buffer, resumed, seat })
}

fn will_message(will: WillPacket, context: &Context) -> Result<Arc<Message>, NotAdmitted> {
    let limits = &context.limits;
    filter::check_name(&will.topic, limits.max_topic_bytes, limits.max_topic_levels)
        .map_err(NotAdmitted::Will)?;
    let WillPacket { topic, payload, qos, retain } = will;
    Ok(Arc::new(Message { topic: topic.into(), payload, qos, retain, dup: false }))
}

/// Takes the session, ending the connection that has it. The caller bounds the time.
async fn attach(
    request: &ConnectRequest,
    rights: &Rights,
    context: &Arc<Context>,
) -> Result<(Attachment, bool), NotAdmitted> {
    let connection = context.next_connection();
    let kill = Kill::default();
    let newcomer = || Newcomer {
        client_id: &request.client_id,
        clean_session: request.clean_session,
        connection,
        peer: request.peer,
        kill: kill.clone(),
        subscribe: &rights.subscribe,
    };
    loop {
        match context.hub.attach(newcomer()) {
            Attach::Busy { kill, ended } => {
                kill.because(DisconnectReason::TakenOver);
                ended.cancelled().await;
            }
            Attach::Full => return Err(NotAdmitted::Refused(Refusal::ServerUnavailable)),
            Attach::Done { slot, ended, resumed, saved_sessions_changed } => {
                let context = Arc::clone(context);
                let attachment =
                    Attachment { context, slot, connection, kill, ended, announced: false, reason: None };
                if saved_sessions_changed {
                    attachment.context.save_sessions().await;
                }
                return Ok((attachment, resumed));
            }
        }
    }
}

/// A connection's ownership of its session. Dropping it, on whatever way, tells the watcher, lets the session go, and lets
/// the next connection of the same client in.
pub(crate) struct Attachment {
    pub context: Arc<Context>,
    pub slot: Arc<Slot>,
    pub connection: u64,
    pub kill: Kill,
    ended: CancellationToken,
    announced: bool,
    pub reason: Option<DisconnectReason>,
}

impl Attachment {
    /// Tells the watcher that the client is in.
    pub fn announce(&mut self, peer: SocketAddr, resumed: bool) {
        self.announced = true;
        let client_id = Arc::clone(&self.slot.client_id);
        let connection = self.connection;
        self.context.watcher.event(&Event::Connected { client_id, connection, peer, resumed });
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let client_id = &self.slot.client_id;
        // The watcher first: as soon as the session is let go the next connection of the same client may be announced.
        if self.announced && !std::thread::panicking() {
            let reason = self.reason.take().unwrap_or(DisconnectReason::Stopped);
            tracing::debug!(client.id = ?client_id, connection = self.connection, %reason, "client disconnected");
            let (client_id, connection) = (Arc::clone(client_id), self.connection);
            self.context.watcher.event(&Event::Disconnected { client_id, connection, reason });
        }
        self.context.hub.detach(&self.slot.client_id, self.connection);
        self.ended.cancel();
    }
}

/// An id that nobody else has and nobody can guess: two hashes with the process's random keys.
fn generated_id() -> String {
    let random = || std::collections::hash_map::RandomState::new().build_hasher().finish();
    format!("auto-{:016x}{:016x}", random(), random())
}

async fn refuse<S: AsyncWrite + Unpin>(stream: &mut S, refusal: Refusal) {
    let code = match refusal {
        Refusal::IdentifierRejected => ConnectReturnCode::ClientIdentifierNotValid,
        Refusal::ServerUnavailable => ConnectReturnCode::ServiceUnavailable,
        Refusal::BadCredentials => ConnectReturnCode::BadUserNamePassword,
        Refusal::NotAuthorized => ConnectReturnCode::NotAuthorized,
    };
    let mut out = BytesMut::new();
    codec::encode_reply(Reply::ConnAck { code, session_present: false }, &mut out);
    last_words(stream, &out).await;
}

async fn refuse_version<S: AsyncWrite + Unpin>(stream: &mut S, level: u8) {
    if level == 5 {
        return last_words(stream, &CONNACK_V5_UNSUPPORTED).await;
    }
    let mut out = BytesMut::new();
    let code = ConnectReturnCode::RefusedProtocolVersion;
    codec::encode_reply(Reply::ConnAck { code, session_present: false }, &mut out);
    last_words(stream, &out).await;
}

/// Sends `bytes` and closes; a client that does not take them loses them.
async fn last_words<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) {
    let sending = async {
        stream.write_all(bytes).await?;
        stream.shutdown().await
    };
    if let Ok(Err(error)) = tokio::time::timeout(REFUSAL_TIMEOUT, sending).await {
        tracing::debug!(%error, "a refusal could not be sent");
    }
}

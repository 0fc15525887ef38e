//! Connects to a broker and logs in.

use std::time::Duration;

use bytes::BytesMut;
use rumqttc::mqttbytes::{
    Protocol,
    v4::{ConnAck, Connect, ConnectReturnCode, Disconnect, Login, Packet},
};
use tidegate_model::rule::Secret;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{
    fault::LinkError,
    frame::{Frame, Frames},
    route::{Stream, Way},
};

/// Set in the protocol level of CONNECT by a bridge: the broker then does not send it its own messages, and leaves the retain
/// flag as it was published. Not part of MQTT 3.1.1; mosquitto and EMQX know it, others refuse the CONNECT.
const BRIDGE_BIT: u8 = 0x80;
/// Bytes of CONNECT between the fixed header and the protocol level: the name `MQTT` with its length.
const PROTOCOL_NAME_BYTES: usize = 6;

/// A broker, and how to log in there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub way: Way,
    pub client_id: String,
    pub username: Option<String>,
    pub password: Option<Secret>,
    pub keep_alive: Duration,
    pub clean_session: bool,
    /// Ask to be treated as a bridge; as a plain client where the broker does not know that.
    pub as_bridge: bool,
}

/// A connection with a login.
pub(super) struct Dialled {
    pub stream: Stream,
    /// What came behind CONNACK.
    pub buf: BytesMut,
    pub session_present: bool,
    /// The broker treats it as a bridge.
    pub as_bridge: bool,
}

/// Goes the way, sends CONNECT and waits for CONNACK: all of it within `limit`; twice, where a broker does not know
/// bridges.
pub(super) async fn dial(endpoint: &Endpoint, limit: Duration) -> Result<Dialled, LinkError> {
    match dial_as(endpoint, endpoint.as_bridge, limit).await {
        Err(
            LinkError::ClosedBeforeConnack { .. }
            | LinkError::Refused { code: ConnectReturnCode::RefusedProtocolVersion, .. },
        ) if endpoint.as_bridge => dial_as(endpoint, false, limit).await,
        other => other,
    }
}

/// Ends the session of a client id: connects with a clean session, and leaves.
pub(super) async fn end_session(endpoint: &Endpoint, limit: Duration) -> Result<(), LinkError> {
    let clean = Endpoint { clean_session: true, as_bridge: false, ..endpoint.clone() };
    let mut stream = dial(&clean, limit).await?.stream;
    let mut buf = BytesMut::new();
    Disconnect.write(&mut buf).map_err(|error| LinkError::malformed(&error))?;
    stream.write_all(&buf).await?;
    stream.flush().await?;
    Ok(())
}

async fn dial_as(endpoint: &Endpoint, as_bridge: bool, limit: Duration) -> Result<Dialled, LinkError> {
    let way = &endpoint.way;
    let name = way.address.to_string();
    let started = tokio::time::Instant::now();
    let mut stream = way.go(limit).await?;
    let left = limit.saturating_sub(started.elapsed());
    let packet = login(endpoint, as_bridge)?;
    let answer = timeout(left, log_in(&mut stream, &packet, way)).await;
    let silent = |_| LinkError::NoConnack { address: name.clone(), after: limit };
    let (connack, buf) = answer.map_err(silent)??;
    if connack.code != ConnectReturnCode::Success {
        return Err(LinkError::refused(connack.code));
    }
    Ok(Dialled { stream, buf, session_present: connack.session_present, as_bridge })
}

async fn log_in(stream: &mut Stream, connect: &[u8], way: &Way) -> Result<(ConnAck, BytesMut), LinkError> {
    let closed = || LinkError::ClosedBeforeConnack { address: way.address.to_string() };
    let failed = |error: std::io::Error| way.explained(error);
    stream.write_all(connect).await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;
    let mut buf = BytesMut::new();
    let mut frames = Frames::default();
    loop {
        match frames.next(&mut buf)? {
            Some(Frame::Packet(Packet::ConnAck(connack))) => return Ok((connack, buf)),
            Some(_) => return Err(LinkError::Malformed("another packet before CONNACK".to_owned())),
            None => {}
        }
        match stream.read_buf(&mut buf).await {
            Ok(0) => return Err(closed()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Err(closed()),
            Err(error) => return Err(failed(error)),
        }
    }
}

/// The bytes of CONNECT.
fn login(endpoint: &Endpoint, as_bridge: bool) -> Result<BytesMut, LinkError> {
    let password = endpoint.password.as_ref().map_or("", |password| password.reveal());
    let connect = Connect {
        protocol: Protocol::V4,
        keep_alive: u16::try_from(endpoint.keep_alive.as_secs()).unwrap_or(u16::MAX),
        client_id: endpoint.client_id.clone(),
        clean_session: endpoint.clean_session,
        last_will: None,
        login: endpoint.username.as_deref().map(|username| Login::new(username, password)),
    };
    let mut buf = BytesMut::new();
    connect.write(&mut buf).map_err(|error| LinkError::malformed(&error))?;
    let length_bytes = 1 + buf.iter().skip(1).take_while(|byte| **byte & 0x80 != 0).count();
    if as_bridge && let Some(level) = buf.get_mut(1 + length_bytes + PROTOCOL_NAME_BYTES) {
        *level |= BRIDGE_BIT;
    }
    Ok(buf)
}

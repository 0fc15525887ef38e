//! Connects to the remote broker and logs in.

use std::time::Duration;

use bytes::BytesMut;
use rumqttc::mqttbytes::{
    Protocol,
    v4::{ConnAck, Connect, ConnectReturnCode, Login, Packet},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, lookup_host},
    time::timeout,
};

use super::{
    Task,
    fault::LinkError,
    frame::{Frame, Frames},
};

/// A connection with a login.
pub(super) struct Dialled {
    pub stream: TcpStream,
    /// What came behind CONNACK.
    pub buf: BytesMut,
    pub session_present: bool,
}

/// Resolves, connects, sends CONNECT and waits for CONNACK: all of it within `limit`.
pub(super) async fn dial(task: &Task, limit: Duration) -> Result<Dialled, LinkError> {
    let address = &task.rule.remote.address;
    let name = format!("{}:{}", address.host, address.port);
    let slow = || LinkError::ConnectTimeout { address: name.clone(), after: limit };
    let started = tokio::time::Instant::now();
    let mut stream =
        timeout(limit, connect(&address.host, address.port, limit)).await.map_err(|_| slow())??;
    let left = limit.saturating_sub(started.elapsed());
    let answer = timeout(left, log_in(&mut stream, &login(task), &name)).await;
    let silent = |_| LinkError::NoConnack { address: name.clone(), after: limit };
    let (connack, buf) = answer.map_err(silent)??;
    if connack.code != ConnectReturnCode::Success {
        return Err(LinkError::refused(connack.code));
    }
    Ok(Dialled { stream, buf, session_present: connack.session_present })
}

/// Tries each address of the host for its share of the time: one that swallows packets must not hide the next.
async fn connect(host: &str, port: u16, limit: Duration) -> Result<TcpStream, LinkError> {
    let found = lookup_host((host, port)).await;
    let addresses: Vec<_> =
        found.map_err(|source| LinkError::Resolve { host: host.to_owned(), source })?.collect();
    let share = limit / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut last = LinkError::NoAddress { host: host.to_owned() };
    for address in addresses {
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(source)) => last = LinkError::Connect { address: address.to_string(), source },
            Err(_) => last = LinkError::ConnectTimeout { address: address.to_string(), after: share },
        }
    }
    Err(last)
}

async fn log_in(
    stream: &mut TcpStream,
    connect: &Connect,
    name: &str,
) -> Result<(ConnAck, BytesMut), LinkError> {
    let mut buf = BytesMut::new();
    connect.write(&mut buf).map_err(|error| LinkError::malformed(&error))?;
    stream.write_all(&buf).await?;
    buf.clear();
    let mut frames = Frames::default();
    loop {
        match frames.next(&mut buf)? {
            Some(Frame::Packet(Packet::ConnAck(connack))) => return Ok((connack, buf)),
            Some(_) => return Err(LinkError::Malformed("another packet before CONNACK".to_owned())),
            None => {}
        }
        if stream.read_buf(&mut buf).await? == 0 {
            return Err(LinkError::ClosedBeforeConnack { address: name.to_owned() });
        }
    }
}

fn login(task: &Task) -> Connect {
    let remote = &task.rule.remote;
    let password = task.password.as_ref().map_or("", |password| password.reveal());
    Connect {
        protocol: Protocol::V4,
        keep_alive: u16::try_from(remote.keep_alive.0).unwrap_or(u16::MAX),
        client_id: remote.client_id.clone(),
        clean_session: remote.clean_session,
        last_will: None,
        login: remote.username.as_deref().map(|username| Login::new(username, password)),
    }
}

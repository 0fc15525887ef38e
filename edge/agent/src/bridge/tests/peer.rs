//! The broker of a test: reads and writes single packets.

use std::net::SocketAddr;

use bytes::BytesMut;
use rumqttc::mqttbytes::{
    Error, QoS,
    v4::{
        ConnAck, Connect, ConnectReturnCode, Packet, PingResp, PubAck, Publish, SubAck, Subscribe,
        SubscribeReasonCode,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use super::DEADLINE;

pub(super) struct Peer(TcpListener);

impl Peer {
    pub async fn new() -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    pub async fn at(address: SocketAddr) -> Self {
        Self(TcpListener::bind(address).await.unwrap())
    }

    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    pub fn port(&self) -> u16 {
        self.address().port()
    }

    /// The next connection, nothing said on it.
    pub async fn accept(&self) -> Conn {
        let (stream, _) = timeout(DEADLINE, self.0.accept()).await.expect("nobody connects").unwrap();
        let (reader, writer) = stream.into_split();
        Conn { reader, giver: Some(Giver(writer)), buf: BytesMut::new(), as_bridge: false }
    }

    /// The next connection, logged in without a session.
    pub async fn log_in(&self) -> Conn {
        let mut conn = self.accept().await;
        conn.connect().await;
        conn.connack(ConnectReturnCode::Success).await;
        conn
    }

    /// The next connection, logged in, its subscriptions granted.
    pub async fn serve(&self) -> Conn {
        let mut conn = self.log_in().await;
        conn.grant().await;
        conn
    }
}

pub(super) struct Conn {
    reader: OwnedReadHalf,
    giver: Option<Giver>,
    buf: BytesMut,
    /// CONNECT had the bit by which bridges are known.
    pub as_bridge: bool,
}

impl Conn {
    /// The next packet; `None` when the other side closed.
    pub async fn next(&mut self) -> Option<Packet> {
        loop {
            // The protocol level of a CONNECT, which the codec does not take with this bit.
            if let [0x10, _, 0, 4, b'M', b'Q', b'T', b'T', level, ..] = &mut self.buf[..]
                && *level & 0x80 != 0
            {
                *level &= 0x7f;
                self.as_bridge = true;
            }
            match Packet::read(&mut self.buf, 1 << 22) {
                Ok(packet) => return Some(packet),
                Err(Error::InsufficientBytes(_)) => {}
                Err(error) => panic!("the bridge sent garbage: {error}"),
            }
            let read = timeout(DEADLINE, self.reader.read_buf(&mut self.buf));
            if read.await.expect("the bridge says nothing").unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    pub async fn connect(&mut self) -> Connect {
        match self.next().await {
            Some(Packet::Connect(connect)) => connect,
            other => panic!("no CONNECT but {other:?}"),
        }
    }

    pub async fn connack(&mut self, code: ConnectReturnCode) {
        self.send(|buf| ConnAck::new(code, false).write(buf)).await;
    }

    /// CONNACK with the session of an earlier connection.
    pub async fn resume(&mut self) {
        self.send(|buf| ConnAck::new(ConnectReturnCode::Success, true).write(buf)).await;
    }

    pub async fn subscribe(&mut self) -> Subscribe {
        match self.next().await {
            Some(Packet::Subscribe(subscribe)) => subscribe,
            other => panic!("no SUBSCRIBE but {other:?}"),
        }
    }

    pub async fn suback(&mut self, to: &Subscribe, codes: Vec<SubscribeReasonCode>) {
        self.send(|buf| SubAck::new(to.pkid, codes).write(buf)).await;
    }

    /// Grants the SUBSCRIBE that comes next; returns its filters.
    pub async fn grant(&mut self) -> Vec<String> {
        let subscribe = self.subscribe().await;
        let codes = subscribe.filters.iter().map(|filter| SubscribeReasonCode::Success(filter.qos)).collect();
        self.suback(&subscribe, codes).await;
        subscribe.filters.into_iter().map(|filter| filter.path).collect()
    }

    pub async fn publish(&mut self) -> Publish {
        match self.next().await {
            Some(Packet::Publish(publish)) => publish,
            other => panic!("no PUBLISH but {other:?}"),
        }
    }

    /// So many publishes: number in the payload, and packet id.
    pub async fn publishes(&mut self, count: usize) -> Vec<(u32, u16)> {
        let mut seen = Vec::new();
        for _ in 0..count {
            let publish = self.publish().await;
            seen.push((std::str::from_utf8(&publish.payload).unwrap().parse().unwrap(), publish.pkid));
        }
        seen
    }

    pub async fn puback(&mut self, pkid: u16) {
        self.send(|buf| PubAck::new(pkid).write(buf)).await;
    }

    pub async fn pingresp(&mut self) {
        self.send(|buf| PingResp.write(buf)).await;
    }

    /// Publishes to the bridge.
    pub async fn give(&mut self, topic: &str, payload: &[u8], pkid: u16, retain: bool) {
        let qos = if pkid == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        let mut publish = Publish::new(topic, qos, payload);
        publish.pkid = pkid;
        publish.retain = retain;
        self.send(|buf| publish.write(buf)).await;
    }

    /// Publishes once more what was published before.
    pub async fn give_again(&mut self, topic: &str, payload: &[u8], pkid: u16) {
        let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload);
        (publish.pkid, publish.dup) = (pkid, true);
        self.send(|buf| publish.write(buf)).await;
    }

    /// The packet id of the next PUBACK.
    pub async fn acknowledged(&mut self) -> u16 {
        match self.next().await {
            Some(Packet::PubAck(ack)) => ack.pkid,
            other => panic!("no PUBACK but {other:?}"),
        }
    }

    /// Takes away what publishes; from now on this only reads.
    pub fn take_giver(&mut self) -> Giver {
        self.giver.take().unwrap()
    }

    async fn send(&mut self, write: impl FnOnce(&mut BytesMut) -> Result<usize, Error>) {
        self.giver.as_mut().unwrap().send(write).await;
    }
}

/// The side of a connection that writes.
pub(super) struct Giver(OwnedWriteHalf);

impl Giver {
    /// Publishes with QoS 1.
    pub async fn give(&mut self, topic: &str, payload: &[u8], pkid: u16) {
        let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload);
        publish.pkid = pkid;
        self.send(|buf| publish.write(buf)).await;
    }

    pub async fn pingresp(&mut self) {
        self.send(|buf| PingResp.write(buf)).await;
    }

    async fn send(&mut self, write: impl FnOnce(&mut BytesMut) -> Result<usize, Error>) {
        let mut buf = BytesMut::new();
        write(&mut buf).unwrap();
        self.0.write_all(&buf).await.unwrap();
    }
}

//! A client that speaks raw bytes, and brokers to point it at. Every wait has a deadline.
#![allow(dead_code)] // each test file uses a part of it
#![allow(clippy::unwrap_used)] // test helpers outside #[test] functions

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate_broker::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long anything may take before a test fails.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// How long nothing must happen for a test to believe that it will not.
pub const QUIET: Duration = Duration::from_millis(150);

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_| panic!("{what} took more than {DEADLINE:?}"))
}

/// Waits until `check` gives something.
pub async fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            match check() {
                Some(value) => return value,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    })
    .await
}

/// A watcher that remembers.
#[derive(Default)]
pub struct Journal(pub Mutex<Vec<Event>>);

impl Watcher for Journal {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

impl Journal {
    pub async fn reason(&self, client: &str) -> DisconnectReason {
        until("the end of a connection", || {
            self.0.lock().unwrap().iter().rev().find_map(|event| {
                let Event::Disconnected { client_id, reason, .. } = event else { return None };
                (&**client_id == client).then(|| reason.clone())
            })
        })
        .await
    }
}

pub fn config() -> BrokerConfig {
    BrokerConfig::new("127.0.0.1:0".parse().unwrap())
}

pub async fn start() -> Broker {
    start_with(config()).await
}

pub async fn start_with(config: BrokerConfig) -> Broker {
    Broker::start(config, Arc::new(AllowAll), Arc::new(PassAll), Arc::new(Quiet)).await.unwrap()
}

/// The bytes of a packet with this first byte and body.
pub fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut rest = body.len();
    loop {
        let more = rest > 127;
        out.push((rest % 128) as u8 | if more { 0x80 } else { 0 });
        rest /= 128;
        if !more {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

pub fn text(s: &str) -> Vec<u8> {
    field(s.as_bytes())
}

pub fn field(bytes: &[u8]) -> Vec<u8> {
    let mut out = (bytes.len() as u16).to_be_bytes().to_vec();
    out.extend_from_slice(bytes);
    out
}

/// A CONNECT, piece by piece.
#[derive(Clone)]
pub struct Connect {
    pub id: String,
    pub clean: bool,
    pub keep_alive: u16,
    pub will: Option<(String, Vec<u8>, u8, bool)>,
    pub user: Option<(String, String)>,
    pub level: u8,
}

pub fn connect(id: &str) -> Connect {
    Connect { id: id.into(), clean: true, keep_alive: 60, will: None, user: None, level: 4 }
}

impl Connect {
    pub fn persistent(mut self) -> Self {
        self.clean = false;
        self
    }
    pub fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }
    pub fn will(mut self, topic: &str, payload: &str, qos: u8, retain: bool) -> Self {
        self.will = Some((topic.into(), payload.into(), qos, retain));
        self
    }
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.user = Some((name.into(), password.into()));
        self
    }
    pub fn level(mut self, level: u8) -> Self {
        self.level = level;
        self
    }
    pub fn bytes(&self) -> Vec<u8> {
        let mut flags = if self.clean { 2 } else { 0 };
        let mut rest = text(&self.id);
        if let Some((topic, payload, qos, retain)) = &self.will {
            flags |= 4 | (qos << 3) | if *retain { 0x20 } else { 0 };
            rest.extend(text(topic));
            rest.extend(field(payload));
        }
        if let Some((name, password)) = &self.user {
            flags |= 0xc0;
            rest.extend(text(name));
            rest.extend(text(password));
        }
        let mut body = text("MQTT");
        body.extend([self.level, flags]);
        body.extend(self.keep_alive.to_be_bytes());
        if self.level == 5 {
            body.push(0);
        }
        body.extend(rest);
        frame(0x10, &body)
    }
}

/// A packet from the broker: first byte and body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet(pub u8, pub Vec<u8>);

/// A PUBLISH from the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    pub id: u16,
}

impl Packet {
    pub fn publish(&self) -> Got {
        assert_eq!(self.0 >> 4, 3, "not a PUBLISH: {self:?}");
        let (qos, body) = ((self.0 >> 1) & 3, &self.1);
        let end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
        let topic = String::from_utf8(body[2..end].to_vec()).unwrap();
        let (id, rest) =
            if qos > 0 { (u16::from_be_bytes([body[end], body[end + 1]]), end + 2) } else { (0, end) };
        Got { topic, payload: body[rest..].to_vec(), qos, retain: self.0 & 1 != 0, dup: self.0 & 8 != 0, id }
    }
}

/// A connection of raw bytes.
pub struct Raw(pub TcpStream);

impl Raw {
    pub async fn open(addr: SocketAddr) -> Self {
        Self(within("a TCP connect", TcpStream::connect(addr)).await.unwrap())
    }

    /// Connects and insists on being let in; also tells "session present".
    pub async fn join(addr: SocketAddr, connect: Connect) -> (Self, bool) {
        let mut raw = Self::open(addr).await;
        raw.send(&connect.bytes()).await;
        let answer = raw.packet().await;
        assert_eq!((answer.0, answer.1[1]), (0x20, 0), "not let in: {answer:?}");
        (raw, answer.1[0] == 1)
    }

    pub async fn client(addr: SocketAddr, id: &str) -> Self {
        Self::join(addr, connect(id)).await.0
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        // A broker that has closed may make this fail: the test sees it when it reads.
        let _ = within("a write", self.0.write_all(bytes)).await;
    }

    /// The next packet, `None` at the end of the connection.
    pub async fn try_packet(&mut self) -> Option<Packet> {
        within("a packet", async {
            let first = self.0.read_u8().await.ok()?;
            let (mut length, mut shift) = (0, 0);
            loop {
                let byte = self.0.read_u8().await.ok()?;
                length |= usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).await.ok()?;
            Some(Packet(first, body))
        })
        .await
    }

    pub async fn packet(&mut self) -> Packet {
        self.try_packet().await.expect("the broker closed the connection")
    }

    pub async fn got(&mut self) -> Got {
        self.packet().await.publish()
    }

    pub async fn closed(&mut self) {
        while self.try_packet().await.is_some() {}
    }

    /// Nothing comes.
    pub async fn quiet(&mut self) {
        let mut byte = [0];
        let read = tokio::time::timeout(QUIET, self.0.peek(&mut byte)).await;
        assert!(read.is_err(), "something came: {read:?} {byte:?}");
    }

    pub async fn publish(&mut self, topic: &str, payload: impl AsRef<[u8]>, qos: u8, id: u16, retain: bool) {
        self.send(&publish_bytes(topic, payload.as_ref(), qos, id, retain, false)).await;
    }

    /// Publishes at QoS 1 and waits for the PUBACK.
    pub async fn put(&mut self, topic: &str, payload: impl AsRef<[u8]>, retain: bool) {
        self.publish(topic, payload, 1, 77, retain).await;
        assert_eq!(self.packet().await, ack(0x40, 77));
    }

    /// Subscribes and returns the codes of the SUBACK.
    pub async fn subscribe(&mut self, filters: &[(&str, u8)]) -> Vec<u8> {
        let mut body = vec![0, 9];
        for (filter, qos) in filters {
            body.extend(text(filter));
            body.push(*qos);
        }
        self.send(&frame(0x82, &body)).await;
        let answer = self.packet().await;
        assert_eq!((answer.0, &answer.1[..2]), (0x90, &[0, 9][..]));
        answer.1[2..].to_vec()
    }

    pub async fn ping(&mut self) {
        self.send(&[0xc0, 0]).await;
        assert_eq!(self.packet().await, Packet(0xd0, vec![]));
    }

    pub async fn ack(&mut self, first: u8, id: u16) {
        self.send(&frame(first, &id.to_be_bytes())).await;
    }

    pub async fn bye(mut self) {
        self.send(&[0xe0, 0]).await;
        self.closed().await;
    }
}

pub fn publish_bytes(topic: &str, payload: &[u8], qos: u8, id: u16, retain: bool, dup: bool) -> Vec<u8> {
    let mut body = text(topic);
    if qos > 0 {
        body.extend(id.to_be_bytes());
    }
    body.extend(payload);
    frame(0x30 | (u8::from(dup) << 3) | (qos << 1) | u8::from(retain), &body)
}

pub fn ack(first: u8, id: u16) -> Packet {
    Packet(first, id.to_be_bytes().to_vec())
}

/// The broker still serves: two new clients talk to each other.
pub async fn serves(addr: SocketAddr) {
    let mut listener = Raw::client(addr, "serves-listener").await;
    assert_eq!(listener.subscribe(&[("serves/+", 1)]).await, [1]);
    let mut speaker = Raw::client(addr, "serves-speaker").await;
    speaker.put("serves/x", "still here", false).await;
    let got = listener.got().await;
    assert_eq!((got.topic.as_str(), &got.payload[..]), ("serves/x", &b"still here"[..]));
    listener.bye().await;
    speaker.bye().await;
}

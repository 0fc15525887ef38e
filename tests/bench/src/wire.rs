//! An MQTT 3.1.1 connection on tokio: thousands of them in one process, so that a fleet fits on one machine.

use std::io;
use std::net::SocketAddr;

use tidegate_e2e::mqtt::{self, Packet};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A connection whose login was taken.
pub struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
    out: Vec<u8>,
    last_pkid: u16,
}

impl Wire {
    /// Sends the CONNECT and waits for its answer.
    ///
    /// # Errors
    /// No connection, or the login was refused.
    pub async fn connect(address: SocketAddr, connect: &[u8]) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut wire = Self { stream, read: Vec::new(), out: connect.to_vec(), last_pkid: 0 };
        wire.flush().await?;
        match wire.next().await? {
            Packet::ConnAck(0) => Ok(wire),
            other @ (Packet::Publish { .. }
            | Packet::ConnAck(_)
            | Packet::PubAck(_)
            | Packet::SubAck(_)
            | Packet::Other(_)) => Err(io::Error::other(format!("the login was not taken: {other:?}"))),
        }
    }

    /// Subscribes with QoS 1; gives the messages that came before the answer.
    ///
    /// # Errors
    /// The connection is gone, or a filter was refused.
    pub async fn subscribe(&mut self, filters: &[&str]) -> io::Result<Vec<Packet>> {
        let filters: Vec<_> = filters.iter().map(|filter| (*filter, 1)).collect();
        self.out.extend(mqtt::subscribe(1, &filters));
        self.flush().await?;
        let mut early = Vec::new();
        loop {
            match self.next().await? {
                Packet::SubAck(codes) if codes.iter().all(|code| *code < 0x80) => return Ok(early),
                Packet::SubAck(_) => return Err(io::Error::other("a subscription was refused")),
                early_one @ Packet::Publish { .. } => early.push(early_one),
                Packet::ConnAck(_) | Packet::PubAck(_) | Packet::Other(_) => {}
            }
        }
    }

    /// Queues a PUBLISH, QoS 1; gives its packet id.
    pub fn publish(&mut self, topic: &str, payload: &[u8], retain: bool) -> u16 {
        self.last_pkid = self.last_pkid.checked_add(1).unwrap_or(1);
        let mut bytes = mqtt::publish(topic, payload, Some(self.last_pkid), false);
        bytes[0] |= u8::from(retain);
        self.out.extend(bytes);
        self.last_pkid
    }

    /// Queues a PUBACK.
    pub fn ack(&mut self, pkid: u16) {
        self.out.extend(mqtt::puback(pkid));
    }

    /// Queues a PINGREQ.
    pub fn ping(&mut self) {
        self.out.extend([0xc0, 0]);
    }

    /// Writes what is queued.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn flush(&mut self) -> io::Result<()> {
        let out = std::mem::take(&mut self.out);
        self.stream.write_all(&out).await
    }

    /// The next packet. May be dropped before it is ready: nothing is lost.
    ///
    /// # Errors
    /// The connection is gone, or what came is not MQTT.
    pub async fn next(&mut self) -> io::Result<Packet> {
        loop {
            if let Some(packet) = mqtt::take(&mut self.read)? {
                return Ok(packet);
            }
            self.read.reserve(1_024);
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

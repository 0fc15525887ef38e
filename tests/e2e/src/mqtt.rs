//! As much of an MQTT 3.1.1 client as devices and sinks need, on a blocking socket, so that a test knows each packet.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Longest wait for a connection or a CONNACK.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Keep-alive in seconds; users of a connection send something more often.
const KEEP_ALIVE_S: u16 = 120;

/// Who connects.
#[derive(Debug, Clone)]
pub struct Login {
    /// Client id.
    pub client_id: String,
    /// User name and password.
    pub credentials: Option<(String, String)>,
    /// Clean session.
    pub clean: bool,
}

impl Login {
    /// An anonymous client with a clean session.
    #[must_use]
    pub fn anonymous(client_id: &str) -> Self {
        Self { client_id: client_id.to_owned(), credentials: None, clean: true }
    }

    /// The same client with a session that the broker keeps.
    #[must_use]
    pub fn keeping_session(mut self) -> Self {
        self.clean = false;
        self
    }

    /// The same client with a password.
    #[must_use]
    pub fn with_password(mut self, username: &str, password: &str) -> Self {
        self.credentials = Some((username.to_owned(), password.to_owned()));
        self
    }
}

/// What a broker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// A message.
    Publish {
        /// Its topic.
        topic: String,
        /// Its payload.
        payload: Vec<u8>,
        /// Its packet id; 0 with QoS 0.
        pkid: u16,
        /// The retain flag.
        retain: bool,
        /// The duplicate flag.
        dup: bool,
    },
    /// A login was answered, with this code.
    ConnAck(u8),
    /// A message of ours was taken.
    PubAck(u16),
    /// A subscription was answered.
    SubAck(Vec<u8>),
    /// Anything else, by its type.
    Other(u8),
}

/// A connection with a login.
pub struct Conn {
    stream: TcpStream,
    buf: Vec<u8>,
}

fn text(out: &mut Vec<u8>, text: &[u8]) {
    let length = u16::try_from(text.len()).expect("tests use short texts");
    out.extend(length.to_be_bytes());
    out.extend(text);
}

fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut rest = body.len();
    loop {
        let low = u8::try_from(rest % 128).expect("it is below 128");
        rest /= 128;
        out.push(if rest > 0 { low | 0x80 } else { low });
        if rest == 0 {
            break;
        }
    }
    out.extend(body);
    out
}

/// The bytes of a CONNECT; a last will is retained, QoS 1.
#[must_use]
pub fn connect(login: &Login, keep_alive_s: u16, will: Option<(&str, &[u8])>) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, b"MQTT");
    let with_login = if login.credentials.is_some() { 0xc0 } else { 0 };
    let with_will = if will.is_some() { 0x2c } else { 0 };
    body.extend([4, with_login | with_will | if login.clean { 0x02 } else { 0 }]);
    body.extend(keep_alive_s.to_be_bytes());
    text(&mut body, login.client_id.as_bytes());
    if let Some((topic, payload)) = will {
        text(&mut body, topic.as_bytes());
        text(&mut body, payload);
    }
    if let Some((username, password)) = &login.credentials {
        text(&mut body, username.as_bytes());
        text(&mut body, password.as_bytes());
    }
    frame(0x10, &body)
}

/// The bytes of a SUBSCRIBE, QoS as given for each filter.
#[must_use]
pub fn subscribe(pkid: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = pkid.to_be_bytes().to_vec();
    for (filter, qos) in filters {
        text(&mut body, filter.as_bytes());
        body.push(*qos);
    }
    frame(0x82, &body)
}

/// The bytes of a PUBACK.
#[must_use]
pub fn puback(pkid: u16) -> Vec<u8> {
    frame(0x40, &pkid.to_be_bytes())
}

/// Takes the first whole packet off what was read; `None`: it is not there yet.
///
/// # Errors
/// It is not MQTT.
pub fn take(buf: &mut Vec<u8>) -> io::Result<Option<Packet>> {
    let Some((start, length)) = header(buf)? else { return Ok(None) };
    if buf.len() < start + length {
        return Ok(None);
    }
    let packet = packet(buf[0], &buf[start..start + length])?;
    buf.drain(..start + length);
    Ok(Some(packet))
}

fn packet(kind: u8, body: &[u8]) -> io::Result<Packet> {
    let number = |at: usize| -> io::Result<u16> {
        let bytes: [u8; 2] =
            body.get(at..at + 2).and_then(|b| b.try_into().ok()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(u16::from_be_bytes(bytes))
    };
    Ok(match kind >> 4 {
        2 => Packet::ConnAck(*body.get(1).ok_or(io::ErrorKind::InvalidData)?),
        3 => {
            let topic_end = 2 + usize::from(number(0)?);
            let topic = body.get(2..topic_end).ok_or(io::ErrorKind::InvalidData)?;
            let topic = String::from_utf8_lossy(topic).into_owned();
            let (pkid, start) =
                if kind & 0x06 == 0 { (0, topic_end) } else { (number(topic_end)?, topic_end + 2) };
            let payload = body.get(start..).unwrap_or_default().to_vec();
            Packet::Publish { topic, payload, pkid, retain: kind & 1 != 0, dup: kind & 8 != 0 }
        }
        4 => Packet::PubAck(number(0)?),
        9 => Packet::SubAck(body.get(2..).unwrap_or_default().to_vec()),
        other => Packet::Other(other),
    })
}

/// The bytes of a PUBLISH; QoS 1 with a packet id, QoS 0 without.
#[must_use]
pub fn publish(topic: &str, payload: &[u8], pkid: Option<u16>, dup: bool) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic.as_bytes());
    body.extend(pkid.into_iter().flat_map(u16::to_be_bytes));
    body.extend(payload);
    let first = 0x30 | if pkid.is_some() { 0x02 } else { 0 } | if dup { 0x08 } else { 0 };
    frame(first, &body)
}

impl Conn {
    /// Connects; `Err` inside is the CONNACK code of a refusal.
    ///
    /// # Errors
    /// No connection, or it ended without a CONNACK.
    pub fn open(address: SocketAddr, login: &Login) -> io::Result<Result<Self, u8>> {
        let mut stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT)?;
        stream.set_nodelay(true)?;
        stream.write_all(&connect(login, KEEP_ALIVE_S, None))?;
        let mut conn = Self { stream, buf: Vec::new() };
        match conn.next(CONNECT_LIMIT)?.ok_or(io::ErrorKind::TimedOut)? {
            Packet::ConnAck(0) => Ok(Ok(conn)),
            Packet::ConnAck(code) => Ok(Err(code)),
            Packet::Publish { .. } | Packet::PubAck(_) | Packet::SubAck(_) | Packet::Other(_) => {
                Err(io::Error::other("another packet than CONNACK"))
            }
        }
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Asks for a filter; the answer is among the packets that come.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn ask(&mut self, filter: &str, qos: u8) -> io::Result<()> {
        self.send(&subscribe(1, &[(filter, qos)]))
    }

    /// Asks for a filter and waits for the answer; messages that come before it are lost.
    ///
    /// # Errors
    /// The connection is gone, or no answer came.
    pub fn subscribe(&mut self, filter: &str, qos: u8) -> io::Result<u8> {
        self.ask(filter, qos)?;
        let end = Instant::now() + CONNECT_LIMIT;
        while Instant::now() < end {
            if let Some(Packet::SubAck(codes)) = self.next(CONNECT_LIMIT)? {
                return codes.first().copied().ok_or_else(|| io::Error::other("an empty SUBACK"));
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Acknowledges a message.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn ack(&mut self, pkid: u16) -> io::Result<()> {
        self.send(&puback(pkid))
    }

    /// Asks whether the broker is there; keeps the connection alive.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn ping(&mut self) -> io::Result<()> {
        self.send(&[0xc0, 0])
    }

    /// Says goodbye.
    pub fn bye(mut self) {
        // It ends either way.
        let _ = self.send(&[0xe0, 0]);
    }

    /// The next packet; `None`: nothing came within `wait`.
    ///
    /// # Errors
    /// The connection is gone, or what came is not MQTT.
    pub fn next(&mut self, wait: Duration) -> io::Result<Option<Packet>> {
        let end = Instant::now() + wait;
        loop {
            if let Some(packet) = take(&mut self.buf)? {
                return Ok(Some(packet));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.buf.extend(&chunk[..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock || e.kind() == io::ErrorKind::TimedOut => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// Where the body begins and how long it is; `None`: not there yet.
fn header(buf: &[u8]) -> io::Result<Option<(usize, usize)>> {
    let mut length = 0;
    for (i, byte) in buf.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(Some((i + 2, length)));
        }
    }
    if buf.len() >= 5 { Err(io::ErrorKind::InvalidData.into()) } else { Ok(None) }
}

/// Connects for a moment: `Ok` when the login is taken, else the CONNACK code.
///
/// # Panics
/// When the broker gives no CONNACK at all.
pub fn try_login(address: SocketAddr, login: &Login) -> Result<(), u8> {
    match Conn::open(address, login) {
        Ok(Ok(conn)) => {
            conn.bye();
            Ok(())
        }
        Ok(Err(code)) => Err(code),
        Err(error) => panic!("{address} gave no CONNACK to {}: {error}", login.client_id),
    }
}

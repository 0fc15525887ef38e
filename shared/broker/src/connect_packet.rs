//! Reads CONNECT. Ours, not rumqttd's: that one drops the difference between an absent and an empty user name, wants
//! passwords to be UTF-8, ignores the reserved flag and trailing bytes, and does not check the will's topic.

use crate::codec::{Malformed, read_field, read_text, read_u8, read_u16};
use crate::gate::Password;
use crate::message::Qos;
use bytes::Bytes;

/// A CONNECT packet of protocol level 4.
#[derive(Debug)]
pub(crate) struct Connect {
    pub client_id: String,
    pub clean_session: bool,
    /// Seconds; 0 means none.
    pub keep_alive: u16,
    pub username: Option<String>,
    pub password: Option<Password>,
    pub will: Option<WillPacket>,
}

/// The will of a CONNECT; the topic is UTF-8 without U+0000, not yet checked as a topic name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WillPacket {
    pub topic: String,
    pub payload: Bytes,
    pub qos: Qos,
    pub retain: bool,
}

impl PartialEq for Connect {
    fn eq(&self, other: &Self) -> bool {
        let secret = |c: &Self| c.password.as_ref().map(|p| p.expose().to_vec());
        self.client_id == other.client_id
            && self.clean_session == other.clean_session
            && self.keep_alive == other.keep_alive
            && self.username == other.username
            && self.will == other.will
            && secret(self) == secret(other)
    }
}

impl Eq for Connect {}

const CLEAN_SESSION: u8 = 0b0000_0010;
const WILL: u8 = 0b0000_0100;
const WILL_LEVEL_AND_RETAIN: u8 = 0b0011_1000;
const WILL_RETAIN: u8 = 0b0010_0000;
const PASSWORD: u8 = 0b0100_0000;
const USERNAME: u8 = 0b1000_0000;

/// Reads the variable header and payload of a CONNECT.
pub(crate) fn read(mut body: Bytes) -> Result<Connect, Malformed> {
    let name = read_field(&mut body)?;
    let level = read_u8(&mut body)?;
    match (&name[..], level) {
        (b"MQTT", 4) => {}
        (b"MQTT" | b"MQIsdp", level) => return Err(Malformed::Version(level)),
        _ => return Err(Malformed::Body("the protocol is not MQTT")),
    }
    let flags = read_u8(&mut body)?;
    if flags & 1 != 0 {
        return Err(Malformed::Body("the reserved connect flag is set"));
    }
    let keep_alive = read_u16(&mut body)?;
    let client_id = read_text(&mut body)?;
    let will = read_will(flags, &mut body)?;
    if flags & (USERNAME | PASSWORD) == PASSWORD {
        return Err(Malformed::Body("a password without a user name"));
    }
    let username = if flags & USERNAME != 0 { Some(read_text(&mut body)?) } else { None };
    let password = if flags & PASSWORD != 0 { Some(Password::new(read_field(&mut body)?)) } else { None };
    if !body.is_empty() {
        return Err(Malformed::Body("bytes behind the last field"));
    }
    Ok(Connect { client_id, clean_session: flags & CLEAN_SESSION != 0, keep_alive, username, password, will })
}

fn read_will(flags: u8, body: &mut Bytes) -> Result<Option<WillPacket>, Malformed> {
    if flags & WILL == 0 {
        return if flags & WILL_LEVEL_AND_RETAIN == 0 {
            Ok(None)
        } else {
            Err(Malformed::Body("will flags without a will"))
        };
    }
    let qos = Qos::from_number((flags >> 3) & 0b11).ok_or(Malformed::Body("a will of level 3"))?;
    let topic = read_text(body)?;
    let payload = Bytes::copy_from_slice(&read_field(body)?);
    Ok(Some(WillPacket { topic, payload, qos, retain: flags & WILL_RETAIN != 0 }))
}

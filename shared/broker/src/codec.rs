//! Bytes to packets and back. Uses rumqttd's 3.1.1 codec for what it is right about and checks around it what it
//! lets through; CONNECT is read in `connect_packet`, PUBLISH here, because rumqttd keeps the quality of service and the
//! packet id of a PUBLISH to itself. No input panics: a property test holds that.

use crate::connect_packet::{self, Connect};
use crate::message::Qos;
use crate::session::{Outgoing, Send};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use rumqttd::protocol::v4::{self, FixedHeader, PacketType, V4};
use rumqttd::protocol::{
    self as wire, ConnAck, ConnectReturnCode, Protocol, PubAck, PubAckReason, PubComp, PubCompReason, PubRec,
    PubRecReason, PubRel, PubRelReason, SubAck, SubscribeReasonCode, UnsubAck,
};

/// A packet that a client may send.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Inbound {
    Connect(Box<Connect>),
    Publish(Publish),
    PubAck(u16),
    PubRec(u16),
    PubRel(u16),
    PubComp(u16),
    Subscribe { packet_id: u16, filters: Vec<(String, Qos)> },
    Unsubscribe { packet_id: u16, filters: Vec<String> },
    PingReq,
    Disconnect,
}

/// PUBLISH as it came; the topic is UTF-8 without U+0000, not yet checked as a topic name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Publish {
    pub topic: String,
    /// Its own allocation, so that keeping it does not keep the connection's read buffer.
    pub payload: Bytes,
    pub qos: Qos,
    pub retain: bool,
    pub dup: bool,
    /// 0 for QoS 0.
    pub packet_id: u16,
}

/// Why a connection's bytes are not MQTT 3.1.1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("a packet of {0} bytes is longer than allowed")]
    TooLong(usize),
    #[error("a packet's length is malformed")]
    Length,
    #[error("packet type {0} does not exist")]
    Type(u8),
    #[error("a client may not send {0:?}")]
    Direction(PacketKind),
    #[error("the flags of a packet's first byte are wrong")]
    Flags,
    #[error("a packet's contents are malformed: {0}")]
    Body(&'static str),
    #[error("protocol version {0} is not supported")]
    Version(u8),
}

/// Packet types that only a server sends, for the message of [`Malformed::Direction`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PacketKind {
    ConnAck,
    SubAck,
    UnsubAck,
    PingResp,
}

/// Takes the next packet off `buffer`; `None` when it is not complete yet. `max_bytes` bounds the remaining length.
pub(crate) fn decode(buffer: &mut BytesMut, max_bytes: usize) -> Result<Option<Inbound>, Malformed> {
    let header = match v4::check(buffer.iter(), max_bytes) {
        Ok(header) => header,
        Err(error) => return incomplete(error),
    };
    let kind = header.packet_type().map_err(|_| Malformed::Type(header.byte1 >> 4))?;
    check_flags(&header, kind)?;
    let packet = match kind {
        PacketType::Connect => Inbound::Connect(Box::new(connect_packet::read(body(buffer, &header))?)),
        PacketType::Publish => Inbound::Publish(read_publish(header.byte1, body(buffer, &header))?),
        PacketType::PubAck
        | PacketType::PubRec
        | PacketType::PubRel
        | PacketType::PubComp
        | PacketType::Subscribe
        | PacketType::Unsubscribe
        | PacketType::PingReq
        | PacketType::Disconnect => from_rumqttd(buffer, &header, kind)?,
        PacketType::ConnAck => return Err(Malformed::Direction(PacketKind::ConnAck)),
        PacketType::SubAck => return Err(Malformed::Direction(PacketKind::SubAck)),
        PacketType::UnsubAck => return Err(Malformed::Direction(PacketKind::UnsubAck)),
        PacketType::PingResp => return Err(Malformed::Direction(PacketKind::PingResp)),
    };
    Ok(Some(packet))
}

fn incomplete(error: wire::Error) -> Result<Option<Inbound>, Malformed> {
    if let wire::Error::InsufficientBytes(_) = error {
        return Ok(None);
    }
    if let wire::Error::PayloadSizeLimitExceeded(bytes) = error {
        return Err(Malformed::TooLong(bytes));
    }
    Err(Malformed::Length)
}

/// MQTT-2.2.2-2: reserved flags are as the standard sets them. rumqttd does not look.
fn check_flags(header: &FixedHeader, kind: PacketType) -> Result<(), Malformed> {
    let flags = header.byte1 & 0x0f;
    let expected = match kind {
        PacketType::Publish => return Ok(()),
        PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe => 0b0010,
        PacketType::Connect
        | PacketType::ConnAck
        | PacketType::PubAck
        | PacketType::PubRec
        | PacketType::PubComp
        | PacketType::SubAck
        | PacketType::UnsubAck
        | PacketType::PingReq
        | PacketType::PingResp
        | PacketType::Disconnect => 0,
    };
    if flags == expected { Ok(()) } else { Err(Malformed::Flags) }
}

fn body(buffer: &mut BytesMut, header: &FixedHeader) -> Bytes {
    buffer.advance(header.fixed_header_len);
    buffer.split_to(header.remaining_len).freeze()
}

/// Reads a packet with rumqttd's codec, after checking the sizes that it does not check.
fn from_rumqttd(buffer: &mut BytesMut, header: &FixedHeader, kind: PacketType) -> Result<Inbound, Malformed> {
    let length_fits = match kind {
        PacketType::PingReq | PacketType::Disconnect => header.remaining_len == 0,
        // A packet id and at least one filter of at least one byte.
        PacketType::Subscribe | PacketType::Unsubscribe => header.remaining_len >= 5,
        PacketType::PubAck | PacketType::PubRec | PacketType::PubRel | PacketType::PubComp => {
            header.remaining_len == 2
        }
        PacketType::Connect
        | PacketType::ConnAck
        | PacketType::Publish
        | PacketType::SubAck
        | PacketType::UnsubAck
        | PacketType::PingResp => false,
    };
    if !length_fits {
        return Err(Malformed::Body("wrong length for its type"));
    }
    let frame = &buffer[header.fixed_header_len..header.frame_length()];
    if kind == PacketType::Subscribe && !subscribe_options_are_clear(frame) {
        return Err(Malformed::Body("reserved bits of a requested level are set"));
    }
    let packet =
        V4.read_mut(buffer, usize::MAX).map_err(|_| Malformed::Body("a field is missing or not valid"))?;
    let inbound = match packet {
        wire::Packet::PingReq(_) => Inbound::PingReq,
        wire::Packet::Disconnect(..) => Inbound::Disconnect,
        wire::Packet::PubAck(ack, _) => Inbound::PubAck(ack.pkid),
        wire::Packet::PubRec(ack, _) => Inbound::PubRec(ack.pkid),
        wire::Packet::PubRel(ack, _) => Inbound::PubRel(ack.pkid),
        wire::Packet::PubComp(ack, _) => Inbound::PubComp(ack.pkid),
        wire::Packet::Subscribe(subscribe, _) => {
            let filters = subscribe.filters.into_iter().map(|f| (f.path, Qos::from(f.qos))).collect();
            Inbound::Subscribe { packet_id: subscribe.pkid, filters }
        }
        wire::Packet::Unsubscribe(unsubscribe, _) => {
            Inbound::Unsubscribe { packet_id: unsubscribe.pkid, filters: unsubscribe.filters }
        }
        wire::Packet::Connect(..)
        | wire::Packet::ConnAck(..)
        | wire::Packet::Publish(..)
        | wire::Packet::PingResp(_)
        | wire::Packet::SubAck(..)
        | wire::Packet::UnsubAck(..) => return Err(Malformed::Body("a packet of another type")),
    };
    check_ids_and_text(inbound)
}

/// The packet id is not 0 and no filter holds U+0000; rumqttd lets both through.
fn check_ids_and_text(inbound: Inbound) -> Result<Inbound, Malformed> {
    let (packet_id, clean) = match &inbound {
        Inbound::PubAck(id) | Inbound::PubRec(id) | Inbound::PubRel(id) | Inbound::PubComp(id) => (*id, true),
        Inbound::Subscribe { packet_id, filters } => {
            (*packet_id, filters.iter().all(|(f, _)| !f.contains('\0')))
        }
        Inbound::Unsubscribe { packet_id, filters } => {
            (*packet_id, filters.iter().all(|f| !f.contains('\0')))
        }
        Inbound::PingReq | Inbound::Disconnect | Inbound::Connect(_) | Inbound::Publish(_) => {
            return Ok(inbound);
        }
    };
    match (packet_id, clean) {
        (0, _) => Err(Malformed::Body("packet id 0")),
        (_, false) => Err(Malformed::Body("U+0000 in a filter")),
        (_, true) => Ok(inbound),
    }
}

/// Walks the filters of a SUBSCRIBE body; truncated ones are left for rumqttd to refuse.
fn subscribe_options_are_clear(mut body: &[u8]) -> bool {
    body = body.get(2..).unwrap_or_default();
    while let [high, low, rest @ ..] = body {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        match rest.get(length..) {
            Some([options, next @ ..]) if options & !0b11 == 0 => body = next,
            Some([_, ..]) => return false,
            Some([]) | None => return true,
        }
    }
    true
}

fn read_publish(first_byte: u8, mut body: Bytes) -> Result<Publish, Malformed> {
    let qos = Qos::from_number((first_byte >> 1) & 0b11).ok_or(Malformed::Body("level 3"))?;
    let dup = first_byte & 0b1000 != 0;
    if dup && qos == Qos::AtMostOnce {
        return Err(Malformed::Body("DUP at level 0"));
    }
    let topic = read_text(&mut body)?;
    let packet_id = match qos {
        Qos::AtMostOnce => 0,
        Qos::AtLeastOnce | Qos::ExactlyOnce => read_u16(&mut body)?,
    };
    if packet_id == 0 && qos != Qos::AtMostOnce {
        return Err(Malformed::Body("packet id 0"));
    }
    let payload = Bytes::copy_from_slice(&body);
    Ok(Publish { topic, payload, qos, retain: first_byte & 1 != 0, dup, packet_id })
}

pub(crate) fn read_u8(body: &mut Bytes) -> Result<u8, Malformed> {
    body.try_get_u8().map_err(|_| Malformed::Body("it ends too early"))
}

pub(crate) fn read_u16(body: &mut Bytes) -> Result<u16, Malformed> {
    body.try_get_u16().map_err(|_| Malformed::Body("it ends too early"))
}

/// A field of bytes behind its two-byte length.
pub(crate) fn read_field(body: &mut Bytes) -> Result<Bytes, Malformed> {
    let length = usize::from(read_u16(body)?);
    if length > body.len() { Err(Malformed::Body("it ends too early")) } else { Ok(body.split_to(length)) }
}

/// A field of UTF-8 without U+0000 (MQTT-1.5.3-1, -2).
pub(crate) fn read_text(body: &mut Bytes) -> Result<String, Malformed> {
    let field = read_field(body)?;
    let text = std::str::from_utf8(&field).map_err(|_| Malformed::Body("text is not UTF-8"))?;
    if text.contains('\0') { Err(Malformed::Body("U+0000 in text")) } else { Ok(text.to_owned()) }
}

impl From<wire::QoS> for Qos {
    fn from(qos: wire::QoS) -> Self {
        match qos {
            wire::QoS::AtMostOnce => Qos::AtMostOnce,
            wire::QoS::AtLeastOnce => Qos::AtLeastOnce,
            wire::QoS::ExactlyOnce => Qos::ExactlyOnce,
        }
    }
}

impl From<Qos> for wire::QoS {
    fn from(qos: Qos) -> Self {
        match qos {
            Qos::AtMostOnce => wire::QoS::AtMostOnce,
            Qos::AtLeastOnce => wire::QoS::AtLeastOnce,
            Qos::ExactlyOnce => wire::QoS::ExactlyOnce,
        }
    }
}

/// A packet that answers a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    ConnAck { code: ConnectReturnCode, session_present: bool },
    PubAck(u16),
    PubRec(u16),
    PubRel(u16),
    PubComp(u16),
    SubAck { packet_id: u16, granted: Vec<Option<Qos>> },
    UnsubAck(u16),
    PingResp,
}

/// Appends `reply` to `out`.
pub(crate) fn encode_reply(reply: Reply, out: &mut BytesMut) {
    let packet = match reply {
        Reply::ConnAck { code, session_present } => {
            wire::Packet::ConnAck(ConnAck { session_present, code }, None)
        }
        Reply::PubAck(pkid) => wire::Packet::PubAck(PubAck { pkid, reason: PubAckReason::Success }, None),
        Reply::PubRec(pkid) => wire::Packet::PubRec(PubRec { pkid, reason: PubRecReason::Success }, None),
        Reply::PubRel(pkid) => wire::Packet::PubRel(PubRel { pkid, reason: PubRelReason::Success }, None),
        Reply::PubComp(pkid) => wire::Packet::PubComp(PubComp { pkid, reason: PubCompReason::Success }, None),
        Reply::SubAck { packet_id, granted } => {
            let code = |level: Option<Qos>| match level {
                Some(qos) => SubscribeReasonCode::Success(qos.into()),
                None => SubscribeReasonCode::Failure,
            };
            let return_codes = granted.into_iter().map(code).collect();
            wire::Packet::SubAck(SubAck { pkid: packet_id, return_codes }, None)
        }
        Reply::UnsubAck(pkid) => wire::Packet::UnsubAck(UnsubAck { pkid, reasons: Vec::new() }, None),
        Reply::PingResp => wire::Packet::PingResp(wire::PingResp),
    };
    V4.write(packet, out)
        .expect("a reply is far below the greatest packet length, the only thing that can fail");
}

/// CONNACK of MQTT 5 with "unsupported protocol version" and no properties, for clients that speak only that.
pub(crate) const CONNACK_V5_UNSUPPORTED: [u8; 5] = [0x20, 3, 0, 0x84, 0];

/// Appends what a session sends to `out`.
pub(crate) fn encode(send: &Send, out: &mut BytesMut) {
    match send {
        Send::Publish(publish) => encode_publish(publish, out),
        Send::Release(packet_id) => encode_reply(Reply::PubRel(*packet_id), out),
    }
}

fn encode_publish(publish: &Outgoing, out: &mut BytesMut) {
    let message = &publish.message;
    let with_id = publish.qos != Qos::AtMostOnce;
    let remaining = 2 + message.topic.len() + 2 * usize::from(with_id) + message.payload.len();
    out.reserve(5 + remaining);
    let dup = u8::from(publish.dup) << 3;
    out.put_u8(0x30 | dup | ((publish.qos as u8) << 1) | u8::from(publish.retain));
    v4::write_remaining_length(out, remaining).expect("a stored message is within the packet limit");
    let topic_length = u16::try_from(message.topic.len()).expect("a topic is checked against 65,535 bytes");
    out.put_u16(topic_length);
    out.put_slice(message.topic.as_bytes());
    if with_id {
        out.put_u16(publish.packet_id);
    }
    out.put_slice(&message.payload);
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;

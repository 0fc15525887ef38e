//! What must hold for any input of the codec and of a session, as functions of bytes: fuzz targets and property tests call
//! the same ones (`tests/fuzz`). Not part of the broker; only there with the feature `fuzzing`.
//!
//! Each panics when something does not hold.

use crate::codec::{self, Inbound, Malformed, Publish};
use crate::connect_packet::{self, Connect};
use crate::message::{Message, Qos};
use crate::pool::{Parcel, Pool, Weight};
use crate::session::{Bounds, Received, Send, Session};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Bound on one packet here, in bytes.
const MAX_PACKET_BYTES: usize = 4 * 1024;

/// The bytes of a connection, behind one that says how they are cut: reading never panics, gives the same packets however they are
/// cut, and a packet that was read, written again, is read as the same.
pub fn codec(input: &[u8]) {
    let Some((cut, bytes)) = input.split_first() else { return };
    let whole = read_all(std::iter::once(bytes));
    let pieces = 1 + usize::from(*cut);
    assert_eq!(whole, read_all(bytes.chunks(pieces)), "cut into pieces of {pieces}");
    for packet in whole.0 {
        let mut again = write(&packet);
        assert_eq!(codec::decode(&mut again, usize::MAX), Ok(Some(packet)));
        assert!(again.is_empty());
    }
}

/// The packets in these pieces, and what is wrong behind them.
fn read_all<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Inbound>, Option<Malformed>) {
    let (mut buffer, mut packets) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match codec::decode(&mut buffer, MAX_PACKET_BYTES) {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => break,
                Err(error) => return (packets, Some(error)),
            }
        }
        assert!(buffer.len() <= MAX_PACKET_BYTES + 5, "an incomplete packet is within its bound");
    }
    (packets, None)
}

/// The body of a CONNECT: reading never panics, and what was read, written again, is the same bytes.
pub fn connect(input: &[u8]) {
    if let Ok(connect) = connect_packet::read(Bytes::copy_from_slice(input)) {
        assert_eq!(&connect_body(&connect)[..], input);
    }
}

fn write(packet: &Inbound) -> BytesMut {
    let with_id = |id: &u16| {
        let mut body = BytesMut::new();
        body.put_u16(*id);
        body
    };
    let (first, body) = match packet {
        Inbound::Connect(connect) => (0x10, connect_body(connect)),
        Inbound::Publish(publish) => publish_packet(publish),
        Inbound::PubAck(id) => (0x40, with_id(id)),
        Inbound::PubRec(id) => (0x50, with_id(id)),
        Inbound::PubRel(id) => (0x62, with_id(id)),
        Inbound::PubComp(id) => (0x70, with_id(id)),
        Inbound::Subscribe { packet_id, filters } => {
            let mut body = with_id(packet_id);
            for (filter, qos) in filters {
                put_field(&mut body, filter.as_bytes());
                body.put_u8(*qos as u8);
            }
            (0x82, body)
        }
        Inbound::Unsubscribe { packet_id, filters } => {
            let mut body = with_id(packet_id);
            for filter in filters {
                put_field(&mut body, filter.as_bytes());
            }
            (0xa2, body)
        }
        Inbound::PingReq => (0xc0, BytesMut::new()),
        Inbound::Disconnect => (0xe0, BytesMut::new()),
    };
    let mut out = BytesMut::new();
    out.put_u8(first);
    let mut rest = body.len();
    loop {
        let low = u8::try_from(rest % 128).expect("a remainder of 128 fits a byte");
        rest /= 128;
        out.put_u8(if rest > 0 { low | 0x80 } else { low });
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&body);
    out
}

fn put_field(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u16(u16::try_from(bytes.len()).expect("a field that was read has at most 65,535 bytes"));
    out.put_slice(bytes);
}

fn publish_packet(publish: &Publish) -> (u8, BytesMut) {
    let Publish { topic, payload, qos, retain, dup, packet_id } = publish;
    let mut body = BytesMut::new();
    put_field(&mut body, topic.as_bytes());
    if *qos != Qos::AtMostOnce {
        body.put_u16(*packet_id);
    }
    body.put_slice(payload);
    (0x30 | (u8::from(*dup) << 3) | ((*qos as u8) << 1) | u8::from(*retain), body)
}

fn connect_body(connect: &Connect) -> BytesMut {
    let Connect { client_id, clean_session, keep_alive, username, password, will } = connect;
    let mut flags = u8::from(*clean_session) << 1;
    let mut rest = BytesMut::new();
    put_field(&mut rest, client_id.as_bytes());
    if let Some(will) = will {
        flags |= 0b100 | ((will.qos as u8) << 3) | (u8::from(will.retain) << 5);
        put_field(&mut rest, will.topic.as_bytes());
        put_field(&mut rest, &will.payload);
    }
    if let Some(username) = username {
        flags |= 0x80;
        put_field(&mut rest, username.as_bytes());
    }
    if let Some(password) = password {
        flags |= 0x40;
        put_field(&mut rest, password.expose());
    }
    let mut body = BytesMut::new();
    put_field(&mut body, b"MQTT");
    body.put_u8(4);
    body.put_u8(flags);
    body.put_u16(*keep_alive);
    body.unsplit(rest);
    body
}

/// A session driven by operations, one per byte, against what its client and its publishers know: its bounds hold; each message is sent
/// first once and in order; nothing acknowledged comes again; and of QoS 1 and 2 each is with the session,
/// acknowledged, or counted as dropped.
pub fn session(operations: &[u8]) {
    let bounds = Bounds { queued_messages: 8, queued_bytes: 1_000, inflight: 3, unreleased: 2 };
    let pool = Arc::new(Pool::new(usize::MAX));
    let mut rig = Rig::new(bounds, Arc::clone(&pool));
    rig.session.connect();
    for operation in operations {
        rig.step(*operation);
        rig.check();
    }
    drop(rig);
    assert_eq!(pool.bytes(), 0, "what a session held is given back");
}

/// What the client of a session has not acknowledged: packet id, number of the message, level, and whether it is released.
type Open = VecDeque<(u16, u32, Qos, bool)>;

struct Rig {
    session: Session,
    bounds: Bounds,
    pool: Arc<Pool>,
    weight: Weight,
    published: u32,
    last_sent: Option<u32>,
    open: Open,
    /// QoS 1 and 2 messages: taken in, acknowledged to the end, dropped.
    taken: u64,
    done: u64,
    dropped: u64,
    /// QoS 2 publishes of the client itself; true when processed.
    incoming: BTreeMap<u16, bool>,
}

impl Rig {
    fn new(bounds: Bounds, pool: Arc<Pool>) -> Self {
        Self {
            session: Session::new(bounds),
            bounds,
            pool,
            weight: Weight::default(),
            published: 0,
            last_sent: None,
            open: Open::new(),
            taken: 0,
            done: 0,
            dropped: 0,
            incoming: BTreeMap::new(),
        }
    }

    /// The high half of a byte says what to do, the low half with what.
    fn step(&mut self, operation: u8) {
        let with = operation & 0x0f;
        match operation >> 4 {
            0..=3 => self.publish(with),
            4..=6 => self.send(),
            7 | 8 => self.acknowledge(usize::from(with) % 4),
            9 => self.acknowledge_wrongly(with),
            10 => {
                self.session.disconnect();
                self.session.connect();
                self.incoming.retain(|_, processed| *processed);
            }
            11 => {
                let outcome = self.session.shrink(usize::from(with) * 70);
                self.dropped += outcome.dropped;
                assert!(self.session.queued_bytes() <= usize::from(with) * 70);
            }
            12 => self.session.set_narrow(with.is_multiple_of(2)),
            13 | 14 => self.receive(u16::from(with % 4) + 1),
            _ => {
                let id = u16::from(with % 4) + 1;
                self.session.release(id);
                if self.incoming.get(&id) == Some(&true) {
                    self.incoming.remove(&id);
                }
            }
        }
        let weight = self.session.weight();
        self.pool.reweigh(self.weight, weight);
        self.weight = weight;
    }

    fn publish(&mut self, with: u8) {
        let qos = Qos::from_number(with % 3).expect("0 to 2");
        let mut payload = self.published.to_be_bytes().to_vec();
        payload.resize(4 + usize::from(with / 3) * 60, 0);
        self.published += 1;
        let parcel = Parcel::new(Arc::new(Message::new("t", payload, qos)), &self.pool);
        let outcome = self.session.enqueue(parcel, qos);
        self.dropped += outcome.dropped;
        self.taken += u64::from(qos != Qos::AtMostOnce);
        assert!(outcome.queued || outcome.dropped + outcome.dropped_qos0 > 0, "a loss is counted");
    }

    fn send(&mut self) {
        match self.session.next() {
            None => {}
            Some(Send::Release(id)) => {
                assert!(self.open.iter().any(|(open, _, _, released)| *open == id && *released));
            }
            Some(Send::Publish(publish)) => {
                let head = publish.message.payload[..4].try_into().expect("a payload here has its number");
                let number = u32::from_be_bytes(head);
                let known = self.open.iter().find(|(id, ..)| *id == publish.packet_id);
                if publish.dup {
                    assert_eq!(known, Some(&(publish.packet_id, number, publish.qos, false)));
                    return;
                }
                assert!(known.is_none() && self.last_sent < Some(number), "once, in order, with a free id");
                self.last_sent = Some(number);
                if publish.qos == Qos::AtMostOnce {
                    assert_eq!(publish.packet_id, 0);
                } else {
                    assert_ne!(publish.packet_id, 0);
                    self.open.push_back((publish.packet_id, number, publish.qos, false));
                }
            }
        }
    }

    fn acknowledge(&mut self, at: usize) {
        let Some((id, _, qos, released)) = self.open.get_mut(at) else { return };
        let id = *id;
        if *qos == Qos::ExactlyOnce && !*released {
            *released = true;
            return self.session.pubrec(id);
        }
        if *qos == Qos::ExactlyOnce {
            self.session.pubcomp(id)
        } else {
            self.session.puback(id)
        }
        self.open.remove(at);
        self.done += 1;
    }

    /// An acknowledgement that nobody waits for.
    fn acknowledge_wrongly(&mut self, with: u8) {
        let before = self.session.waiting();
        match self.open.front() {
            None => self.session.puback(u16::from(with)),
            Some((id, _, Qos::ExactlyOnce, false)) if with.is_multiple_of(2) => self.session.puback(*id),
            Some((id, _, Qos::ExactlyOnce, false)) => self.session.pubcomp(*id),
            Some((id, _, Qos::ExactlyOnce, true)) if with.is_multiple_of(2) => self.session.puback(*id),
            Some((id, _, Qos::ExactlyOnce, true)) => self.session.pubrec(*id),
            Some((id, _, Qos::AtLeastOnce, _)) if with.is_multiple_of(2) => self.session.pubrec(*id),
            Some((id, ..)) => self.session.pubcomp(*id),
        }
        assert_eq!(self.session.waiting(), before);
    }

    /// A QoS 2 publish of the client arrives; of those that are new, ids 1 and 2 are processed, the others not.
    fn receive(&mut self, id: u16) {
        let expected = match self.incoming.get(&id) {
            Some(true) => Received::Done,
            Some(false) => Received::Pending,
            None if self.incoming.len() >= self.bounds.unreleased => Received::TooMany,
            None => Received::New,
        };
        assert_eq!(self.session.receive(id), expected);
        match expected {
            Received::New => drop(self.incoming.insert(id, false)),
            Received::Pending if id <= 2 => {
                self.session.processed(id);
                self.incoming.insert(id, true);
            }
            Received::Pending => {
                self.session.not_processed(id);
                self.incoming.remove(&id);
            }
            Received::Done | Received::TooMany => {}
        }
    }

    fn check(&self) {
        assert!(self.open.len() <= self.bounds.inflight);
        assert!(self.session.queued_bytes() <= self.bounds.queued_bytes);
        assert!(self.session.waiting() <= self.bounds.queued_messages + self.bounds.inflight);
        let (waiting, waiting_qos0) = self.session.waiting_by_level();
        assert_eq!(waiting + waiting_qos0, self.session.waiting());
        assert_eq!(self.taken, self.done + self.dropped + waiting as u64, "none is lost without a count");
        let released = self.open.iter().all(|(.., released)| *released);
        assert_eq!(self.session.weight().inflight_bytes == 0, released);
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // As a slot does: the places go with the session.
        self.pool.reweigh(self.weight, Weight::default());
    }
}

//! Tests of the codec: frames that rumqttd alone would let through, and no panic for any bytes.

use super::*;
use crate::message::Message;
use crate::pool::Parcel;
use proptest::prelude::*;
use std::sync::Arc;

fn one(bytes: &[u8]) -> Result<Option<Inbound>, Malformed> {
    decode(&mut BytesMut::from(bytes), 1024)
}

#[test]
fn reserved_flags_are_refused() {
    for frame in
        [&[0x80u8, 6, 0, 1, 0, 1, b'a', 0][..], &[0xc1, 0], &[0x60, 2, 0, 1], &[0xe2, 0], &[0x42, 2, 0, 1]]
    {
        assert_eq!(one(frame), Err(Malformed::Flags), "{frame:?}");
    }
}

#[test]
fn server_packets_and_unknown_types_are_refused() {
    assert_eq!(one(&[0x20, 2, 0, 0]), Err(Malformed::Direction(PacketKind::ConnAck)));
    assert_eq!(one(&[0xb0, 2, 0, 1]), Err(Malformed::Direction(PacketKind::UnsubAck)));
    assert_eq!(one(&[0xd0, 0]), Err(Malformed::Direction(PacketKind::PingResp)));
    assert_eq!(one(&[0x00, 0]), Err(Malformed::Type(0)));
    assert_eq!(one(&[0xf0, 0]), Err(Malformed::Type(15)));
}

#[test]
fn lengths_ids_levels_and_text_are_checked() {
    for frame in [
        &[0xc0u8, 1, 0][..],                // PINGREQ with a body
        &[0x40, 3, 0, 1, 0],                // PUBACK too long
        &[0x40, 2, 0, 0],                   // packet id 0
        &[0x82, 2, 0, 1],                   // SUBSCRIBE without filters
        &[0xa2, 2, 0, 1],                   // UNSUBSCRIBE without filters
        &[0xa2, 1, 0],                      // UNSUBSCRIBE that underflows
        &[0x82, 6, 0, 1, 0, 1, b'a', 3],    // level 3
        &[0x82, 6, 0, 1, 0, 1, b'a', 4],    // reserved bit
        &[0x82, 6, 0, 1, 0, 1, 0, 0],       // U+0000
        &[0x82, 6, 0, 0, 0, 1, b'a', 0],    // packet id 0
        &[0x36, 5, 0, 1, b'a', 0, 1],       // PUBLISH level 3
        &[0x32, 5, 0, 1, b'a', 0, 0],       // PUBLISH packet id 0
        &[0x38, 3, 0, 1, b'a'],             // DUP at level 0
        &[0x30, 3, 0, 1, 0xff],             // not UTF-8
        &[0x30, 5, 0, 3, 0xed, 0xa0, 0x80], // a surrogate
        &[0x30, 3, 0, 9, b'a'],             // topic longer than the packet
    ] {
        assert!(matches!(one(frame), Err(Malformed::Body(_))), "{frame:?}");
    }
    assert_eq!(one(&[0x30, 0xff, 0xff, 0xff, 0xff, 0x01]), Err(Malformed::Length));
    assert_eq!(one(&[0x30, 0x81, 0x08]), Err(Malformed::TooLong(1025)));
    assert_eq!(one(&[0x30, 5, 0, 1, b'a']), Ok(None));
}

#[test]
fn connect_keeps_absent_and_empty_apart() {
    let mut frame =
        vec![0x10, 0, 0, 4, b'M', b'Q', b'T', b'T', 4, 0b1100_0010, 0, 9, 0, 1, b'c', 0, 0, 0, 1, 0xff];
    frame[1] = u8::try_from(frame.len() - 2).unwrap();
    let Ok(Some(Inbound::Connect(connect))) = one(&frame) else { panic!("a valid CONNECT is refused") };
    assert_eq!(connect.username.as_deref(), Some(""));
    assert_eq!(connect.password.unwrap().expose(), &[0xff]);
    assert_eq!((connect.keep_alive, connect.clean_session), (9, true));
    assert_eq!(one(&[0x10, 7, 0, 4, b'M', b'Q', b'T', b'T', 5]), Err(Malformed::Version(5)));
    assert_eq!(one(&[0x10, 9, 0, 6, b'M', b'Q', b'I', b's', b'd', b'p', 3]), Err(Malformed::Version(3)));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut buffer = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = decode(&mut buffer, 1024) {}
    }

    #[test]
    fn no_body_panics_whatever_its_type(first in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..100)) {
        let mut buffer = BytesMut::from(&[first, u8::try_from(body.len()).unwrap()][..]);
        buffer.extend_from_slice(&body);
        let _ = decode(&mut buffer, 1024);
    }

    #[test]
    fn a_publish_reads_back_as_written(
        topic in "[^\0]{1,20}", payload in prop::collection::vec(any::<u8>(), 0..300),
        qos in 0u8..3, retain: bool, dup: bool, packet_id in 1u16..,
    ) {
        let qos = Qos::from_number(qos).unwrap();
        let timed = qos != Qos::AtMostOnce;
        let message = Parcel::of_retained(Arc::new(Message::new(topic.as_str(), payload.clone(), qos)));
        let mut buffer = BytesMut::new();
        let packet_id = if timed { packet_id } else { 0 };
        encode(&Send::Publish(Outgoing { packet_id, qos, retain, dup: dup && timed, message }), &mut buffer);
        let expected = Publish { topic, payload: payload.into(), qos, retain, dup: dup && timed, packet_id };
        prop_assert_eq!(decode(&mut buffer, 4096), Ok(Some(Inbound::Publish(expected))));
        prop_assert!(buffer.is_empty());
    }
}

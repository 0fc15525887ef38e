//! Cuts the remote broker's bytes into packets. A PUBLISH that is larger than we take is passed over without ever being
//! in memory: refusing it would make a persistent session send it for ever.

use bytes::{Buf, BytesMut};
use rumqttc::mqttbytes::{Error, v4::Packet};

use super::fault::LinkError;

/// Largest packet taken from a remote broker, in bytes.
pub(super) const MAX_PACKET_BYTES: usize = 1 << 20;
/// Longest header of a PUBLISH: the fixed header, the longest topic of MQTT, the packet id.
const MAX_PUBLISH_HEADER: usize = 5 + 2 + 65_535 + 2;

/// What the remote broker sent.
#[derive(Debug)]
pub(super) enum Frame {
    /// A packet.
    Packet(Packet),
    /// A PUBLISH that is larger than [`MAX_PACKET_BYTES`]; acknowledge it if it has an id.
    Oversized(Option<u16>),
}

/// Cuts one connection.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Bytes of an oversized packet that are still to come.
    skip: usize,
}

impl Frames {
    /// The next frame in `buf`; `None` when more bytes are needed.
    pub fn next(&mut self, buf: &mut BytesMut) -> Result<Option<Frame>, LinkError> {
        let skipped = self.skip.min(buf.len());
        buf.advance(skipped);
        self.skip -= skipped;
        if self.skip > 0 {
            return Ok(None);
        }
        match Packet::read(buf, MAX_PACKET_BYTES) {
            Ok(packet) => Ok(Some(Frame::Packet(packet))),
            Err(Error::InsufficientBytes(_)) => Ok(None),
            Err(Error::PayloadSizeLimitExceeded(_)) => self.oversized(buf),
            Err(error) => Err(LinkError::malformed(&error)),
        }
    }

    fn oversized(&mut self, buf: &mut BytesMut) -> Result<Option<Frame>, LinkError> {
        let first = buf.first().copied().unwrap_or(0);
        if first >> 4 != 3 {
            return Err(LinkError::Malformed(format!("a packet of more than {MAX_PACKET_BYTES} bytes")));
        }
        let Some((header, remaining)) = lengths(buf) else { return Ok(None) };
        let Some(topic) = buf.get(header..header + 2).map(|len| u16::from_be_bytes([len[0], len[1]])) else {
            return Ok(None);
        };
        let id_at = header + 2 + usize::from(topic);
        debug_assert!(id_at + 2 <= MAX_PUBLISH_HEADER);
        let id = if first & 0b110 == 0 {
            None
        } else {
            match buf.get(id_at..id_at + 2) {
                Some(id) => Some(u16::from_be_bytes([id[0], id[1]])),
                None => return Ok(None),
            }
        };
        let total = header + remaining;
        let here = total.min(buf.len());
        buf.advance(here);
        self.skip = total - here;
        Ok(Some(Frame::Oversized(id)))
    }
}

/// Length of the fixed header and of what follows it, once the header is there.
fn lengths(buf: &BytesMut) -> Option<(usize, usize)> {
    let mut remaining = 0;
    for (at, byte) in buf.iter().skip(1).take(4).enumerate() {
        remaining |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((at + 2, remaining));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rumqttc::mqttbytes::{QoS, v4::Publish};

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_stand_still(kind in 0u8..=255, body in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut buf = BytesMut::from(&[kind, u8::try_from(body.len()).unwrap()][..]);
            buf.extend_from_slice(&body);
            let mut frames = Frames::default();
            loop {
                let before = buf.len();
                match frames.next(&mut buf) {
                    Ok(Some(_)) => prop_assert!(buf.len() < before),
                    Ok(None) | Err(_) => break,
                }
            }
        }
    }

    #[test]
    fn an_oversized_publish_is_passed_over_in_pieces() {
        let mut large = Publish::new("a/b", QoS::AtLeastOnce, vec![7; MAX_PACKET_BYTES + 1]);
        large.pkid = 42;
        let mut small = Publish::new("c", QoS::AtLeastOnce, "x");
        small.pkid = 43;
        let mut bytes = BytesMut::new();
        large.write(&mut bytes).unwrap();
        small.write(&mut bytes).unwrap();
        for piece in [1, 3, 1000, usize::MAX] {
            let (mut frames, mut buf, mut seen) = (Frames::default(), BytesMut::new(), Vec::new());
            for chunk in bytes.chunks(piece.min(bytes.len())) {
                buf.extend_from_slice(chunk);
                while let Some(frame) = frames.next(&mut buf).unwrap() {
                    seen.push(match frame {
                        Frame::Oversized(id) => id,
                        Frame::Packet(packet) => {
                            assert_eq!(packet, Packet::Publish(small.clone()));
                            None
                        }
                    });
                }
                assert!(buf.len() < 2000 || piece > 2000, "the large packet piles up");
            }
            assert_eq!(seen, [Some(42), None]);
        }
    }

    #[test]
    fn garbage_is_an_error() {
        let mut buf = BytesMut::from(&[0xf0, 0x00, 1, 2][..]);
        assert!(Frames::default().next(&mut buf).is_err());
        let mut buf = BytesMut::from(&[0x90, 0xff, 0xff, 0xff, 0x7f][..]);
        assert!(Frames::default().next(&mut buf).is_err());
    }
}

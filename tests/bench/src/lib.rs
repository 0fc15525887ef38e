//! What benchmarks share: a generator and a counter that are the same in every line of a table, so that only what is
//! between them differs. Figures are ratios to a baseline of the same run: absolute rates of a shared machine mean little.

pub mod api;
pub mod echo;
pub mod fleet;
pub mod usage;
pub mod wire;

use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use tidegate_e2e::mqtt::{Conn, Login, Packet, publish};

/// Bytes of a payload.
pub const PAYLOAD_BYTES: usize = 256;
/// Messages without PUBACK that the generator has at the most.
pub const IN_FLIGHT: u16 = 200;
/// Longest silence before a measurement is given up.
const SILENCE: Duration = Duration::from_secs(30);

/// One line of a table.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Messages per second from the generator's first PUBLISH to the counter's last message.
    pub through: f64,
    /// Messages per second that the generator got acknowledged.
    pub accepted: f64,
}

/// Sends `count` QoS 1 messages to `source` on `topic`, and counts them at `target` below `filter`.
///
/// # Panics
/// When a broker cannot be reached, or messages stop coming.
#[must_use]
pub fn measure(source: SocketAddr, topic: &str, target: SocketAddr, filter: &str, count: u64) -> Measured {
    let (ready, is_ready) = channel();
    let filter = filter.to_owned();
    let counting = std::thread::spawn(move || {
        let mut conn = connect(target, "bench-counter");
        assert_eq!(conn.subscribe(&filter, 1).expect("the target subscribes"), 1);
        ready.send(()).expect("the generator waits");
        let mut seen = 0;
        while seen < count {
            match conn.next(SILENCE).expect("the target stays connected").expect("messages keep coming") {
                Packet::Publish { pkid, .. } => {
                    seen += 1;
                    if pkid != 0 {
                        conn.ack(pkid).expect("the target stays connected");
                    }
                }
                Packet::ConnAck(_) | Packet::PubAck(_) | Packet::SubAck(_) | Packet::Other(_) => {}
            }
        }
        Instant::now()
    });
    is_ready.recv().expect("the counter subscribes");
    let started = Instant::now();
    generate(source, topic, count);
    let accepted = rate(count, started.elapsed());
    let last = counting.join().expect("the counter does not panic");
    Measured { through: rate(count, last - started), accepted }
}

fn connect(address: SocketAddr, client_id: &str) -> Conn {
    let conn = Conn::open(address, &Login::anonymous(client_id)).expect("the broker is there");
    conn.expect("the broker lets everybody in")
}

fn generate(source: SocketAddr, topic: &str, count: u64) {
    let mut conn = connect(source, "bench-generator");
    let payload = [b'x'; PAYLOAD_BYTES];
    let (mut sent, mut acked) = (0_u64, 0_u64);
    while acked < count {
        let mut batch = Vec::new();
        while sent < count && sent - acked < u64::from(IN_FLIGHT) {
            let pkid = u16::try_from(sent % 60_000).expect("it is below 60,000") + 1;
            batch.extend(publish(topic, &payload, Some(pkid), false));
            sent += 1;
        }
        conn.send(&batch).expect("the source stays connected");
        if let Packet::PubAck(_) =
            conn.next(SILENCE).expect("the source stays connected").expect("PUBACKs keep coming")
        {
            acked += 1;
        }
    }
    conn.bye();
}

fn rate(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

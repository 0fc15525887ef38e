//! What the owner sets: where to listen, where to keep state, and every bound that a client could otherwise
//! make grow. Decides nothing.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How one broker is set up.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// Address to listen on; port 0 lets the system choose one, [`crate::Broker::local_addr`] tells which.
    pub listen: SocketAddr,
    /// Every bound, each with its unit.
    pub limits: Limits,
    /// Directory for retained messages and for the subscriptions of persistent sessions. `None` keeps
    /// them in memory only. Created when missing. One broker per directory.
    pub state_dir: Option<PathBuf>,
}

impl BrokerConfig {
    /// A broker on `listen` with default limits that keeps nothing over a restart.
    pub fn new(listen: SocketAddr) -> Self {
        Self { listen, limits: Limits::default(), state_dir: None }
    }
}

/// Bounds on everything that clients can make grow. A client that passes one is refused, closed or has its
/// oldest messages dropped, as each field says; nobody else notices.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections whose CONNECT was read. One more gets CONNACK 3. [`crate::Broker::start`] takes less when the process may
    /// not open as many files.
    pub max_connections: usize,
    /// Connections whose CONNECT is not complete. When there is one more, the oldest is closed if it had its second;
    /// otherwise the new one is.
    pub max_connecting: usize,
    /// Connections of one address (IPv6: of one /64) that are not let in yet: CONNECT not complete, or the gate not
    /// done. As above when there is one more. Loopback is exempt: behind a proxy or a tunnel everybody has that address.
    pub max_connecting_per_address: usize,
    /// Whether the bound per address leaves loopback out.
    pub exempt_loopback: bool,
    /// Bytes of a CONNECT's remaining length, the will's payload included. A longer one closes its connection before it is
    /// read.
    pub max_connect_bytes: usize,
    /// Bytes of one packet's remaining length. A longer packet closes its connection before it is read.
    pub max_packet_bytes: usize,
    /// Retained messages. When full, a message is delivered but not retained, and counted; what its topic retained
    /// before is gone then, since it is not true any more.
    pub max_retained_messages: usize,
    /// Bytes of topics and payloads of all retained messages together; as above when full.
    pub max_retained_bytes: usize,
    /// Persistent sessions (clean session = 0), online and offline. One more gets CONNACK 3.
    pub max_sessions: usize,
    /// How long a persistent session lives without a connection. Time offline before a restart of the
    /// broker is not counted.
    pub session_expiry: Duration,
    /// Subscriptions of one client. One more gets SUBACK 0x80.
    pub max_subscriptions_per_client: usize,
    /// Messages waiting for one session, besides those in flight. When full, QoS 0 messages go first, then
    /// the oldest of the others; every one is counted.
    pub max_queued_messages: usize,
    /// Bytes of messages waiting for one session, as above when full, and again of those in flight, which then wait.
    pub max_queued_bytes: usize,
    /// Bytes of messages that wait for all sessions together, those in flight included. A message that waits for several counts
    /// once, and 64 bytes more for each. When it is passed, the sessions that hold the most lose an eighth of what
    /// waits for them, QoS 0 first, then the oldest, until it holds again; each is counted. Beyond half of it, a session
    /// has one message in flight at a time: what is in flight is never dropped, and may pass the bound by one
    /// message and one write per session.
    pub max_all_queued_bytes: usize,
    /// QoS 1 and 2 messages sent to one client and not yet acknowledged.
    pub max_inflight: usize,
    /// QoS 2 packet ids of one client between PUBREC and PUBREL. One more closes the connection.
    pub max_unreleased: usize,
    /// Levels of a topic or filter. A deeper topic closes the connection, a deeper filter gets SUBACK 0x80.
    pub max_topic_levels: usize,
    /// Bytes of a topic or filter; as above when longer.
    pub max_topic_bytes: usize,
    /// Bytes of a client id. A longer one gets CONNACK 2.
    pub max_client_id_bytes: usize,
    /// Time from accepting a connection until its CONNECT is read and the gate has decided. Also the longest wait for the
    /// previous connection of the same client id to end.
    pub connect_timeout: Duration,
    /// Time without a single byte going out on a connection that has something to send.
    pub write_timeout: Duration,
    /// Publishes of one client whose tap has not answered. When reached, the client is not read, and its
    /// keep-alive does not run, until one is answered.
    pub max_unacked_taps_per_client: usize,
    /// Payload and topic bytes of those publishes; as above when reached.
    pub max_unacked_tap_bytes_per_client: usize,
    /// How long the publishes of a closed connection may still wait for their taps before they count as
    /// refused. QoS 2 is exactly-once over a reconnect only within this time.
    pub tap_grace: Duration,
    /// How often the watchdog sends its canary, and how long the canary may take.
    pub watchdog_interval: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 8_192,
            max_connecting: 1_024,
            max_connecting_per_address: 256,
            exempt_loopback: true,
            max_connect_bytes: 32 * 1024,
            max_packet_bytes: 256 * 1024,
            max_retained_messages: 10_000,
            max_retained_bytes: 64 * 1024 * 1024,
            max_sessions: 8_192,
            session_expiry: Duration::from_secs(7 * 24 * 3_600),
            max_subscriptions_per_client: 256,
            max_queued_messages: 50_000,
            max_queued_bytes: 16 * 1024 * 1024,
            max_all_queued_bytes: 128 * 1024 * 1024,
            max_inflight: 100,
            max_unreleased: 1_024,
            max_topic_levels: 64,
            max_topic_bytes: 4_096,
            max_client_id_bytes: 256,
            connect_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            max_unacked_taps_per_client: 256,
            max_unacked_tap_bytes_per_client: 4 * 1024 * 1024,
            tap_grace: Duration::from_secs(1),
            watchdog_interval: Duration::from_secs(5),
        }
    }
}

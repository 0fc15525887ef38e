//! One connection to the broker, made again whenever it breaks: a fresh client each time, nothing kept in it.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, EventLoop, LastWill, MqttOptions, NetworkOptions,
    StateError,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Lines;
use super::backoff::{Backoff, random};
use crate::os;
use crate::settings::ExternalBroker;

/// A silent broker is noticed within twice this time.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Seconds from the first SYN to CONNACK, and for a write to be taken by the network.
const CONNECT_TIMEOUT_S: u64 = 10;
/// Publishes without PUBACK at the most. Brokers acknowledge in order, so that an id is free again long before its turn.
const MAX_INFLIGHT: u16 = 1_000;
/// Requests between our futures and the client.
const REQUESTS: usize = 64;
/// Largest packet that MQTT knows, in bytes. What is larger than a message may be is read and dropped: a smaller bound
/// here would break the connection, and a retained one would break it for ever. Bound it at the broker.
const MAX_PACKET_BYTES: usize = 268_435_455 + 5;

/// What a line is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Reads what edges say.
    Edges,
    /// Reads commands of other systems, and finds states that are retained from before.
    Commands,
    /// Publishes.
    Writer,
}

impl Part {
    pub(super) const ALL: [Self; 3] = [Self::Edges, Self::Commands, Self::Writer];

    /// Its name in client ids and logs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Edges => "edges",
            Self::Commands => "commands",
            Self::Writer => "writer",
        }
    }
}

/// Where a line leads, and whom it tells how it is.
pub(super) struct Line {
    pub(super) part: Part,
    pub(super) broker: ExternalBroker,
    pub(super) client_id: String,
    pub(super) told: Arc<watch::Sender<Lines>>,
    pub(super) stopping: CancellationToken,
}

impl Line {
    /// A fresh client; its first `poll` connects.
    pub(super) fn client(&self, will: Option<LastWill>) -> (AsyncClient, EventLoop) {
        let address = &self.broker.address;
        let mut options = MqttOptions::new(self.client_id.as_str(), address.host.as_str(), address.port);
        options
            .set_clean_session(true)
            .set_keep_alive(KEEP_ALIVE)
            .set_max_packet_size(MAX_PACKET_BYTES, MAX_PACKET_BYTES)
            .set_inflight(MAX_INFLIGHT)
            .set_request_channel_capacity(REQUESTS)
            .set_pending_throttle(Duration::ZERO)
            .set_manual_acks(true);
        if let Some(will) = will {
            options.set_last_will(will);
        }
        if let Some(username) = &self.broker.username {
            let password = self.broker.password.as_ref().map_or("", |password| password.reveal());
            options.set_credentials(username, password);
        }
        let (client, mut eventloop) = AsyncClient::new(options, REQUESTS);
        let mut network = NetworkOptions::new();
        network.set_connection_timeout(CONNECT_TIMEOUT_S);
        network.set_tcp_nodelay(true);
        eventloop.set_network_options(network);
        (client, eventloop)
    }

    /// Says that messages pass from now on.
    pub(super) fn is_up(&self) {
        tracing::info!(line.kind = "broker-line", broker = %self.broker, line = self.part.name(), "connected to the broker");
        self.tell(None);
    }

    /// Says that they do not, and why.
    pub(super) fn is_down(&self, why: &str) {
        tracing::warn!(line.kind = "broker-line", broker = %self.broker, line = self.part.name(), why, "the broker is not connected");
        self.tell(Some(why.to_owned()));
    }

    fn tell(&self, down: Option<String>) {
        self.told.send_modify(|lines| {
            lines.reached += u64::from(down.is_none() && self.part == Part::Writer);
            lines.down[self.part as usize] = down;
        });
    }

    /// Makes connection after connection until the controller stops. `connect` returns why one ended; a panic of the
    /// client library ends that connection alone.
    pub(super) async fn keep<F>(&self, mut connect: impl FnMut() -> F)
    where
        F: Future<Output = String> + Send + 'static,
    {
        let mut backoff = Backoff::default();
        while !self.stopping.is_cancelled() {
            let began = Instant::now();
            let ended = tokio::spawn(connect()).await;
            let why = ended.unwrap_or_else(|error| {
                tracing::error!(line.kind = "broker-line", %error, "the MQTT client failed; this is a defect, please report it");
                "the MQTT client failed".to_owned()
            });
            if self.stopping.is_cancelled() {
                return;
            }
            self.is_down(&why);
            let pause = backoff.pause(began.elapsed(), random());
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// Says it so that an operator knows what to do. Shows no login.
pub(super) fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionRefused(
            code @ (ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized),
        ) => {
            format!(
                "the broker refused the controller's login ({}); check its user name and password there (broker, broker_password_file)",
                refused(*code)
            )
        }
        ConnectionError::ConnectionRefused(code) => {
            format!("the broker refused the connection: {}", refused(*code))
        }
        ConnectionError::NetworkTimeout => format!("the broker did not answer within {CONNECT_TIMEOUT_S} s"),
        ConnectionError::MqttState(StateError::AwaitPingResp) => "the broker went silent".to_owned(),
        ConnectionError::MqttState(StateError::ConnectionAborted) => {
            "the broker closed the connection".to_owned()
        }
        ConnectionError::Io(error) | ConnectionError::MqttState(StateError::Io(error)) => {
            format!(
                "no connection to the broker: {}; check that it runs, its address and firewalls",
                os::plain(error)
            )
        }
        ConnectionError::FlushTimeout => "the broker takes nothing more".to_owned(),
        ConnectionError::NotConnAck(_)
        | ConnectionError::MqttState(
            StateError::Unsolicited(_) | StateError::WrongPacket | StateError::Deserialization(_),
        ) => "what answers at its address does not speak MQTT 3.1.1 as it should; check the address (broker)"
            .to_owned(),
        ConnectionError::RequestsDone
        | ConnectionError::MqttState(
            StateError::InvalidState | StateError::CollisionTimeout | StateError::EmptySubscription,
        ) => "the session with the broker ended by itself".to_owned(),
    }
}

/// What the answer to CONNECT means.
fn refused(code: ConnectReturnCode) -> &'static str {
    match code {
        ConnectReturnCode::BadUserNamePassword => "user name or password is wrong",
        ConnectReturnCode::NotAuthorized => "this user may not connect",
        ConnectReturnCode::RefusedProtocolVersion => "it does not speak MQTT 3.1.1",
        ConnectReturnCode::BadClientId => "it does not take this client id; check its access rules",
        ConnectReturnCode::ServiceUnavailable | ConnectReturnCode::Success => "it takes no connections now",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_connection_ended_is_told_in_plain_words() {
        let io = std::io::Error::from_raw_os_error(104);
        let table = [
            (ConnectionError::MqttState(StateError::Io(io)), "connection reset by peer; check that it runs"),
            (ConnectionError::MqttState(StateError::ConnectionAborted), "closed the connection"),
            (
                ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized),
                "this user may not connect",
            ),
            (ConnectionError::RequestsDone, "ended by itself"),
        ];
        for (error, words) in table {
            let told = explain(&error);
            assert!(told.contains(words) && !told.contains("Mqtt") && !told.contains("os error"), "{told}");
        }
    }
}

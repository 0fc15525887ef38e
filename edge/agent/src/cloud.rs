//! One connection to the controller's broker, from CONNECT to its end. A fresh client each time, nothing kept in it: what
//! has to be said again is on disk, and the core says it again.

use std::time::Duration;

use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, LastWill, MqttOptions, NetworkOptions,
    Outgoing, Packet, QoS, StateError, SubscribeFilter, SubscribeReasonCode,
};
use tidegate_model::ids::SessionId;
use tidegate_model::limits::MAX_ENVELOPE_BYTES;
use tidegate_model::plain;
use tidegate_model::wire::{EdgeTopic, Topics};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::settings::{AgentConfig, Controller};

const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Seconds from the first SYN to CONNACK.
const CONNECT_TIMEOUT_S: u64 = 10;
/// Time from CONNACK to SUBACK.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Publishes without PUBACK at the most.
const MAX_INFLIGHT: u16 = 100;
/// Messages that wait to be published; more end the session, since what they say is on disk.
const MAX_WAITING: usize = 1_024;
/// Requests between our tasks and the client.
const REQUESTS: usize = 64;
/// Bytes of topic and headers around an envelope.
const PACKET_OVERHEAD: usize = 4 * 1024;

/// Which of the three subscribed topics a message came on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inbox {
    Down,
    OwnPresence,
    Controller,
}

/// What a connection says.
#[derive(Debug)]
pub(crate) enum CloudEvent {
    /// CONNACK and every SUBACK.
    Connected,
    /// A message.
    Message(Inbox, Vec<u8>),
    /// It ended; the last thing that it says.
    Ended(String),
}

/// A message to publish.
enum Say {
    Up(Vec<u8>),
    Presence(Vec<u8>),
    Goodbye,
}

/// A connection that is being made or stands. Dropping it ends it at once.
#[derive(Debug)]
pub(crate) struct CloudSession {
    pub sid: SessionId,
    says: mpsc::Sender<Say>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Drop for CloudSession {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl CloudSession {
    /// Begins to connect. Each event comes with the session's id.
    pub fn dial(
        config: &AgentConfig,
        controller: &Controller,
        sid: SessionId,
        will: Vec<u8>,
        events: mpsc::Sender<(SessionId, CloudEvent)>,
    ) -> Self {
        let topics = Topics::new(config.account.clone());
        let names = Names {
            up: topics.edge(&config.name, EdgeTopic::Up),
            down: topics.edge(&config.name, EdgeTopic::Down),
            presence: topics.edge(&config.name, EdgeTopic::Presence),
            controller: topics.controller(),
        };
        let mut options = MqttOptions::new(
            topics.client_id(&config.name),
            controller.address.host.clone(),
            controller.address.port,
        );
        let packet = MAX_ENVELOPE_BYTES + PACKET_OVERHEAD;
        options
            .set_clean_session(true)
            .set_keep_alive(KEEP_ALIVE)
            .set_max_packet_size(packet, packet)
            .set_inflight(MAX_INFLIGHT)
            .set_request_channel_capacity(REQUESTS)
            .set_manual_acks(false)
            .set_last_will(LastWill::new(names.presence.clone(), will, QoS::AtLeastOnce, true));
        if let Some(password) = &controller.password {
            options.set_credentials(controller.username.clone(), password.reveal());
        }
        let (client, mut eventloop) = AsyncClient::new(options, REQUESTS);
        let mut network = NetworkOptions::new();
        network.set_connection_timeout(CONNECT_TIMEOUT_S);
        network.set_tcp_nodelay(true);
        eventloop.set_network_options(network);
        let (says, waiting) = mpsc::channel(MAX_WAITING);
        let cancel = CancellationToken::new();
        let stop = cancel.clone();
        let task = tokio::spawn(async move {
            let reason = tokio::select! {
                () = stop.cancelled() => return,
                reason = Box::pin(drive(eventloop, client.clone(), &names, sid, &events)) => reason,
                () = publish(client, &names, waiting) => "the session was given up".to_owned(),
            };
            // Nobody listens any more: the agent is going down.
            let _ = events.send((sid, CloudEvent::Ended(reason))).await;
        });
        Self { sid, says, cancel, task }
    }

    /// Publishes on `up`.
    pub fn up(&self, payload: Vec<u8>) {
        self.say(Say::Up(payload));
    }

    /// Publishes on `presence`, retained.
    pub fn presence(&self, payload: Vec<u8>) {
        self.say(Say::Presence(payload));
    }

    fn say(&self, say: Say) {
        match self.says.try_send(say) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                tracing::warn!(line.kind = "controller-session", session = %self.sid, "too many messages wait for the controller; the session is given up");
                self.cancel.cancel();
            }
            Err(TrySendError::Closed(_)) => {
                tracing::warn!(line.kind = "controller-session", session = %self.sid, "the connection to the controller's broker ended");
                self.cancel.cancel();
            }
        }
    }

    /// Whether it was given up from this side: no event says so.
    pub fn is_given_up(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Publishes what waits, disconnects without the will, and returns within `limit`.
    pub async fn close(mut self, limit: Duration) {
        self.say(Say::Goodbye);
        if tokio::time::timeout(limit, &mut self.task).await.is_err() {
            tracing::debug!(session = %self.sid, "the controller's broker did not take the goodbye in time");
        }
    }
}

/// The topics of this edge.
struct Names {
    up: String,
    down: String,
    presence: String,
    controller: String,
}

/// Hands messages to the client, which may make it wait; ends with the client.
async fn publish(client: AsyncClient, names: &Names, mut waiting: mpsc::Receiver<Say>) {
    while let Some(say) = waiting.recv().await {
        let sent = match say {
            Say::Up(payload) => client.publish(names.up.as_str(), QoS::AtLeastOnce, false, payload).await,
            Say::Presence(payload) => {
                client.publish(names.presence.as_str(), QoS::AtLeastOnce, true, payload).await
            }
            Say::Goodbye => client.disconnect().await,
        };
        if sent.is_err() {
            return;
        }
    }
    // The session object is gone; its cancellation ends this task.
    std::future::pending::<()>().await;
}

/// Polls the client until the connection ends, and says why it did.
async fn drive(
    mut eventloop: EventLoop,
    client: AsyncClient,
    names: &Names,
    sid: SessionId,
    events: &mpsc::Sender<(SessionId, CloudEvent)>,
) -> String {
    let subscribed = tokio::time::sleep(Duration::from_secs(CONNECT_TIMEOUT_S) + SUBSCRIBE_TIMEOUT);
    tokio::pin!(subscribed);
    let mut is_subscribed = false;
    loop {
        let event = tokio::select! {
            event = eventloop.poll() => event,
            () = &mut subscribed, if !is_subscribed => {
                return "the controller's broker did not confirm the subscriptions in time".to_owned();
            }
        };
        let message = match event {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                let filters = [&names.down, &names.presence, &names.controller];
                let filters = filters.map(|f| SubscribeFilter::new(f.clone(), QoS::AtLeastOnce));
                // Never waits: the first request of a fresh client.
                if client.try_subscribe_many(filters).is_err() {
                    return "the client took no subscription".to_owned();
                }
                continue;
            }
            Ok(Event::Incoming(Packet::SubAck(ack))) => {
                if ack.return_codes.contains(&SubscribeReasonCode::Failure) {
                    return "the controller's broker refused a subscription; is the edge registered under this name?"
                        .to_owned();
                }
                is_subscribed = true;
                CloudEvent::Connected
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                let inbox = match publish.topic.as_str() {
                    topic if topic == names.down => Inbox::Down,
                    topic if topic == names.presence => Inbox::OwnPresence,
                    topic if topic == names.controller => Inbox::Controller,
                    _ => continue,
                };
                CloudEvent::Message(inbox, publish.payload.to_vec())
            }
            Ok(Event::Outgoing(Outgoing::Disconnect)) => return "disconnected as planned".to_owned(),
            Ok(Event::Incoming(_) | Event::Outgoing(_)) => continue,
            Err(error) => return explain(&error),
        };
        if events.send((sid, message)).await.is_err() {
            return "the agent is going down".to_owned();
        }
    }
}

/// Says it so that somebody on site knows what to do.
fn explain(error: &ConnectionError) -> String {
    const STRANGE: &str =
        "what answers at the controller's address does not speak MQTT 3.1.1 as it should; check the address";
    let broke = |error: &std::io::Error| {
        let why = plain::system(&error.to_string());
        format!(
            "no connection to the controller's broker: {why}; check that it runs, its address and firewalls"
        )
    };
    match error {
        ConnectionError::ConnectionRefused(code) => refused(*code).to_owned(),
        ConnectionError::NetworkTimeout | ConnectionError::FlushTimeout => {
            format!("the controller's broker did not answer within {CONNECT_TIMEOUT_S} s; check address and firewalls")
        }
        ConnectionError::Io(error) | ConnectionError::MqttState(StateError::Io(error)) => broke(error),
        ConnectionError::MqttState(StateError::AwaitPingResp) => {
            "the controller's broker went silent; check the link to it".to_owned()
        }
        ConnectionError::MqttState(StateError::ConnectionAborted) => {
            "the controller's broker closed the connection; the controller's log says why (a second gateway of this name?)"
                .to_owned()
        }
        ConnectionError::NotConnAck(_)
        | ConnectionError::MqttState(
            StateError::Unsolicited(_) | StateError::WrongPacket | StateError::Deserialization(_),
        ) => STRANGE.to_owned(),
        ConnectionError::RequestsDone
        | ConnectionError::MqttState(
            StateError::InvalidState | StateError::CollisionTimeout | StateError::EmptySubscription,
        ) => "the session with the controller's broker ended by itself".to_owned(),
    }
}

/// What the answer to CONNECT means.
fn refused(code: ConnectReturnCode) -> &'static str {
    match code {
        ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
            "the controller's broker refused the login; check the name and the password of this edge (tidegate edge create)"
        }
        ConnectReturnCode::RefusedProtocolVersion => {
            "the controller's broker does not speak MQTT 3.1.1; check the address"
        }
        ConnectReturnCode::BadClientId => {
            "the controller's broker does not take this client id; check its access rules, and the account in the settings"
        }
        ConnectReturnCode::ServiceUnavailable | ConnectReturnCode::Success => {
            "the controller's broker takes no connections now; it is tried again"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_session_ended_is_told_in_plain_words() {
        let io = || std::io::Error::from_raw_os_error(111);
        let table = [
            (ConnectionError::MqttState(StateError::ConnectionAborted), "closed the connection"),
            (ConnectionError::MqttState(StateError::AwaitPingResp), "went silent"),
            (ConnectionError::MqttState(StateError::WrongPacket), "does not speak MQTT 3.1.1 as it should"),
            (
                ConnectionError::MqttState(StateError::Io(io())),
                "broker: connection refused; check that it runs",
            ),
            (ConnectionError::Io(io()), "broker: connection refused; check that it runs"),
            (ConnectionError::NetworkTimeout, "did not answer within 10 s"),
            (ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized), "refused the login"),
            (
                ConnectionError::ConnectionRefused(ConnectReturnCode::BadClientId),
                "does not take this client id",
            ),
        ];
        for (error, words) in table {
            let told = explain(&error);
            assert!(told.contains(words), "{told}");
            for theirs in ["Mqtt", "abruptly", "os error", "I/O", "isn't"] {
                assert!(!told.contains(theirs), "{told}");
            }
        }
    }
}

//! An agent that does what a test tells it: the protocol by hand, over a real MQTT client.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use rumqttc::{
    AsyncClient, ConnectReturnCode, Event, EventLoop, LastWill, MqttOptions, Packet, Publish, QoS,
    SubscribeReasonCode,
};
use tidegate_model::code::Code;
use tidegate_model::digest::Digest;
use tidegate_model::ids::{AccountId, EdgeId, MessageId, SessionId, StoreId};
use tidegate_model::limits::MAX_ENVELOPE_BYTES;
use tidegate_model::placement::RunState;
use tidegate_model::time::Wall;
use tidegate_model::wire::{
    Birth, By, Down, EdgeTopic, Envelope, Header, Hello, HelloLimits, Received, RunReport, Set, SetResult,
    Topics, Up, Will, root,
};

use super::world::PATIENCE;

pub(super) fn topics() -> Topics {
    Topics::new(AccountId::default_account())
}

/// An MQTT connection to the controller.
pub(super) struct Client {
    pub(super) mqtt: AsyncClient,
    events: EventLoop,
    /// Messages that came while something else was waited for.
    came: VecDeque<Publish>,
}

impl Client {
    /// Connects; the error is the broker's answer.
    pub(super) async fn connect(
        at: SocketAddr,
        id: &str,
        login: Option<(&str, &str)>,
        will: Option<LastWill>,
    ) -> Result<Self, ConnectReturnCode> {
        let mut options = MqttOptions::new(id, at.ip().to_string(), at.port());
        options.set_max_packet_size(2 * MAX_ENVELOPE_BYTES, 2 * MAX_ENVELOPE_BYTES);
        if let Some((user, password)) = login {
            options.set_credentials(user, password);
        }
        if let Some(will) = will {
            options.set_last_will(will);
        }
        let (mqtt, events) = AsyncClient::new(options, 64);
        let mut client = Self { mqtt, events, came: VecDeque::new() };
        loop {
            match tokio::time::timeout(PATIENCE, client.events.poll()).await.unwrap() {
                Ok(Event::Incoming(Packet::ConnAck(_))) => return Ok(client),
                Ok(_) => {}
                Err(rumqttc::ConnectionError::ConnectionRefused(code)) => return Err(code),
                Err(other) => panic!("{other}"),
            }
        }
    }

    /// The next packet that `take` wants.
    pub(super) async fn wait<T>(&mut self, what: &str, mut take: impl FnMut(Packet) -> Option<T>) -> T {
        for publish in std::mem::take(&mut self.came) {
            if let Some(taken) = take(Packet::Publish(publish.clone())) {
                return taken;
            }
            self.came.push_back(publish);
        }
        let waiting = async {
            loop {
                match self.events.poll().await {
                    Ok(Event::Incoming(packet)) => {
                        let publish = match &packet {
                            Packet::Publish(publish) => Some(publish.clone()),
                            _ => None,
                        };
                        if let Some(taken) = take(packet) {
                            return taken;
                        }
                        self.came.extend(publish);
                    }
                    Ok(Event::Outgoing(_)) => {}
                    Err(error) => panic!("waiting for {what}: {error}"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what} does not come"))
    }

    /// Waits until the broker ends the connection.
    pub(super) async fn ended(&mut self) {
        let waiting = async { while self.events.poll().await.is_ok() {} };
        tokio::time::timeout(PATIENCE, waiting).await.expect("the connection ends");
    }

    /// Whether a subscription is granted.
    pub(super) async fn subscribe(&mut self, filter: &str) -> bool {
        self.mqtt.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
        self.wait("SUBACK", |packet| match packet {
            Packet::SubAck(ack) => Some(ack.return_codes != [SubscribeReasonCode::Failure]),
            _ => None,
        })
        .await
    }
}

/// A scripted agent.
pub(super) struct Edge {
    pub(super) client: Client,
    id: EdgeId,
    session: SessionId,
    sequence: u64,
    /// The controller's epoch, as its messages told it.
    ce: u64,
}

impl Edge {
    fn will(id: &EdgeId, session: SessionId) -> LastWill {
        let payload = Envelope::up(header(session, 0, 0), &Up::Will(Will {})).to_bytes();
        LastWill::new(topics().edge(id, EdgeTopic::Presence), payload, QoS::AtLeastOnce, true)
    }

    /// Connects, is born, says hello and gets its welcome.
    pub(super) async fn online(at: SocketAddr, name: &str, credential: &str, epoch: u64) -> Self {
        let id = EdgeId::new(name).unwrap();
        let session = SessionId { store: StoreId(7), epoch };
        let client_id = topics().client_id(&id);
        let will = Self::will(&id, session);
        let client = Client::connect(at, &client_id, Some((name, credential)), Some(will)).await.unwrap();
        let mut edge = Self { client, id: id.clone(), session, sequence: 0, ce: 0 };
        assert!(edge.client.subscribe(&topics().edge(&id, EdgeTopic::Down)).await);
        edge.say(EdgeTopic::Presence, &Up::Birth(Birth { boot: 1 })).await;
        let hello = Hello {
            agent: semver::Version::new(0, 1, 0),
            protocols: [1].into(),
            features: tidegate_model::rule::Feature::ALL.iter().map(|f| f.as_str().to_owned()).collect(),
            limits: HelloLimits { max_envelope_bytes: MAX_ENVELOPE_BYTES as u64, max_rules: 200 },
            boot: 1,
            root: root(BTreeMap::<(), ()>::new().into_iter().map(|_| unreachable!("the edge holds nothing"))),
            rules: 0,
            highest_ce: 0,
            clock: Wall(0),
        };
        edge.say(EdgeTopic::Up, &Up::Hello(hello)).await;
        match edge.hear().await {
            Down::Welcome(_) => edge,
            other => panic!("no welcome but {other:?}"),
        }
    }

    /// Says something and waits for the PUBACK, which comes when it is durable.
    pub(super) async fn say(&mut self, topic: EdgeTopic, message: &Up) {
        let retain = topic == EdgeTopic::Presence;
        // Presence is not counted: it has a topic, and an order, of its own.
        self.sequence += u64::from(!retain);
        let payload = Envelope::up(header(self.session, self.sequence, self.ce), message).to_bytes();
        self.client
            .mqtt
            .publish(topics().edge(&self.id, topic), QoS::AtLeastOnce, retain, payload)
            .await
            .unwrap();
        self.client.wait("PUBACK", |packet| matches!(packet, Packet::PubAck(_)).then_some(())).await;
    }

    /// The controller's next message.
    pub(super) async fn hear(&mut self) -> Down {
        let down = topics().edge(&self.id, EdgeTopic::Down);
        let (header, message) = self
            .client
            .wait("a message of the controller", |packet| match packet {
                Packet::Publish(publish) if publish.topic == down => {
                    Some(Envelope::read_down(&publish.payload).unwrap())
                }
                _ => None,
            })
            .await;
        assert_eq!(header.sid, self.session);
        if header.ce > self.ce {
            // Numbers count anew for each controller.
            (self.ce, self.sequence) = (header.ce, 0);
        }
        message
    }

    pub(super) async fn hear_set(&mut self) -> Box<Set> {
        match self.hear().await {
            Down::Set(set) => set,
            other => panic!("no set but {other:?}"),
        }
    }

    /// Says that a set is applied and its rule runs.
    pub(super) async fn applied(&mut self, set: &Set) {
        self.say(EdgeTopic::Up, &Up::Received(Received { rule: set.rule, generation: set.generation })).await;
        let state = RunState::Running;
        let run = RunReport {
            sequence: 1,
            state,
            fault: None,
            by: By::Cloud,
            since: Wall(1),
            flapping: None,
            queue_full: None,
        };
        let result = SetResult {
            rule: set.rule,
            generation: set.generation,
            answers: set.generation,
            code: Code::Ok,
            attempted: Some(set.target),
            running: Some(set.target),
            want: set.want,
            run,
            duration_ms: 5,
            detail: String::new(),
        };
        self.say(EdgeTopic::Up, &Up::Result(result)).await;
    }
}

fn header(sid: SessionId, sq: u64, ce: u64) -> Header {
    Header { id: MessageId(uuid::Uuid::now_v7()), re: None, sid, sq, ce, ts: 0 }
}

/// Whether the bytes of a set are those of its digest.
pub(super) fn intact(set: &Set) -> bool {
    match &set.config {
        tidegate_model::wire::Config::Bytes(bytes) => Digest::of(bytes.as_bytes()) == set.target.digest,
        tidegate_model::wire::Config::Keep => false,
    }
}

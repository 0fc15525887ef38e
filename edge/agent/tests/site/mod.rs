//! A gateway in this process, a broker that plays the controller's, and one that plays the remote side.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use tidegate_broker::{AllowAll, Broker, BrokerConfig, Message, Offer, Qos, Quiet, SendError, Source, Tap};
use tidegate_edge::control::{self, Answer, Request, Rules};
use tidegate_edge::settings::{
    self, AgentConfig, ControllerAddress, LocalAccess, LocalBroker, LocalSide, LogFormat,
};
use tidegate_edge::{Gateway, RunError};
use tidegate_edge_core::{Policy, RuleView};
use tidegate_model::digest::Digest;
use tidegate_model::ids::{AccountId, EdgeId, MessageId, RuleId, RuleName, SessionId};
use tidegate_model::placement::VersionDigest;
use tidegate_model::rule::{Format, Limits, RenderContext, parse, render};
use tidegate_model::time::Wall;
use tidegate_model::version::{Generation, RuleVersion};
use tidegate_model::wire::{
    Config, DesiredRun, Down, EdgeTopic, Envelope, Header, Set, Topics, Up, Want, Welcome,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub const RULE: RuleId = RuleId(Uuid::from_u128(7));
/// No step of these tests takes longer on a slow machine.
const DEADLINE: Duration = Duration::from_secs(60);

pub fn edge() -> EdgeId {
    EdgeId::new("gw-7").expect("a valid name")
}

/// Topic and payload.
type Published = (String, Vec<u8>);

/// What was published at a broker, in order.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<VecDeque<Published>>>);

impl Tap for Log {
    fn offer(&self, message: &Arc<Message>, _source: &Source) -> Offer {
        let entry = (message.topic.to_string(), message.payload.to_vec());
        self.0.lock().expect("no test panics while it holds this").push_back(entry);
        Offer::Pass
    }
}

impl Log {
    /// The first message that `choose` takes; those before it are gone.
    pub async fn next<T>(&self, what: &str, choose: impl Fn(&str, &[u8]) -> Option<T>) -> T {
        let search = async {
            loop {
                while let Some((topic, payload)) = self.pop() {
                    if let Some(found) = choose(&topic, &payload) {
                        return found;
                    }
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, search).await.unwrap_or_else(|_| panic!("{what} did not come in time"))
    }

    fn pop(&self) -> Option<(String, Vec<u8>)> {
        self.0.lock().expect("no test panics while it holds this").pop_front()
    }
}

/// A broker that lets everybody in, and what was published there.
pub struct Side {
    pub broker: Broker,
    pub log: Log,
}

impl Side {
    pub async fn start() -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    pub async fn at(address: SocketAddr) -> Self {
        let log = Log::default();
        let config = BrokerConfig::new(address);
        let broker = Broker::start(config, Arc::new(AllowAll), Arc::new(log.clone()), Arc::new(Quiet))
            .await
            .expect("a free port on loopback");
        Self { broker, log }
    }

    pub fn addr(&self) -> SocketAddr {
        self.broker.local_addr()
    }
}

/// Plays the controller: reads `up`, writes `down`.
pub struct Controller {
    pub side: Side,
    pub session: Option<SessionId>,
    sq: u64,
}

impl Controller {
    pub async fn start() -> Self {
        Self { side: Side::start().await, session: None, sq: 0 }
    }

    /// The next message on `up` that `choose` takes.
    pub async fn next<T>(&self, what: &str, choose: impl Fn(&Header, &Up) -> Option<T>) -> T {
        let topics = Topics::new(AccountId::default_account());
        let up = topics.edge(&edge(), EdgeTopic::Up);
        self.side
            .log
            .next(what, |topic, payload| {
                let (header, message) = Envelope::read_up(payload).ok().filter(|_| topic == up)?;
                choose(&header, &message)
            })
            .await
    }

    /// Waits for a hello and answers it.
    pub async fn welcome(&mut self) {
        let header = self.next("a hello", |header, up| matches!(up, Up::Hello(_)).then_some(*header)).await;
        self.session = Some(header.sid);
        self.sq = 0;
        let welcome = Welcome { want: Want::Inventory, heartbeat_s: 60, time: Wall(0), epoch: 0 };
        self.send(&Down::Welcome(welcome), Some(header.id)).await;
    }

    pub async fn send(&mut self, message: &Down, re: Option<MessageId>) {
        self.sq += 1;
        let header = Header {
            id: MessageId(Uuid::from_u128(self.sq.into())),
            re,
            sid: self.session.expect("the edge said hello"),
            sq: self.sq,
            ce: 1,
            ts: 0,
        };
        let topics = Topics::new(AccountId::default_account());
        let payload = Envelope::down(header, message).to_bytes();
        let down = topics.edge(&edge(), EdgeTopic::Down);
        let message = Message::new(down, payload, Qos::AtLeastOnce);
        let sent: Result<(), SendError> = self.side.broker.send_to(&topics.client_id(&edge()), message);
        sent.expect("the edge is subscribed");
    }
}

/// The gateway, running.
pub struct Site {
    pub local: SocketAddr,
    metrics: Option<SocketAddr>,
    data_dir: std::path::PathBuf,
    stop: CancellationToken,
    running: JoinHandle<Result<(), RunError>>,
}

/// A gateway with a broker of its own.
pub fn embedded(listen: SocketAddr) -> LocalSide {
    LocalSide::Embedded { listen, access: LocalAccess::Anonymous }
}

/// A gateway beside this broker.
pub fn beside(broker: SocketAddr) -> LocalSide {
    let (host, port) = (broker.ip().to_string(), broker.port());
    LocalSide::External(LocalBroker { host, port, username: None, password: None })
}

pub fn config(data_dir: &Path, controller: SocketAddr) -> AgentConfig {
    AgentConfig {
        name: edge(),
        account: AccountId::default_account(),
        controller: Some(settings::Controller {
            address: ControllerAddress { host: controller.ip().to_string(), port: controller.port() },
            username: "gw-7".to_owned(),
            password: None,
        }),
        rules_dir: None,
        data_dir: data_dir.to_owned(),
        local: embedded(SocketAddr::from(([127, 0, 0, 1], 0))),
        policy: Policy::default(),
        metrics: None,
        log: "info".to_owned(),
        log_format: LogFormat::Text,
    }
}

impl Site {
    pub async fn start(data_dir: &Path, controller: SocketAddr) -> Self {
        Self::with(config(data_dir, controller)).await
    }

    pub async fn with(config: AgentConfig) -> Self {
        let data_dir = config.data_dir.clone();
        let beside = match &config.local {
            LocalSide::Embedded { .. } => None,
            LocalSide::External(broker) => Some(SocketAddr::new(
                broker.host.parse().expect("the broker of a test has an address"),
                broker.port,
            )),
        };
        let gateway = Box::pin(Gateway::open(config)).await.expect("the gateway opens");
        let local = gateway.local_addr().or(beside).expect("devices can connect somewhere");
        let metrics = gateway.metrics_addr();
        let stop = CancellationToken::new();
        let running = tokio::spawn(Box::pin(gateway.run(stop.clone())));
        Self { local, metrics, data_dir, stop, running }
    }

    /// Stops it, which takes two seconds at the most.
    pub async fn stop(self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(4), self.running).await;
        ended.expect("it stops in time").expect("it does not panic").expect("it stops well");
    }

    pub async fn ask(&self, request: Request) -> Answer {
        let dir = self.data_dir.clone();
        let call = tokio::task::spawn_blocking(move || control::call(&dir, &request));
        call.await.expect("the call does not panic").expect("the agent answers")
    }

    /// Waits until the rule is as `is` says.
    pub async fn until(&self, what: &str, is: impl Fn(&RuleView) -> bool) -> RuleView {
        let rules = self.until_rules(what, |rules| rules.items.iter().any(&is)).await;
        rules.items.into_iter().find(|rule| is(rule)).expect("there was one just now")
    }

    /// Waits until all that it holds is as `are` says.
    pub async fn until_rules(&self, what: &str, are: impl Fn(&Rules) -> bool) -> Rules {
        let search = async {
            loop {
                if let Answer::Rules(rules) = self.ask(Request::Rules).await
                    && are(&rules)
                {
                    return rules;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, search).await.unwrap_or_else(|_| panic!("{what} did not come in time"))
    }

    /// What a monitor reads.
    pub async fn metrics(&self) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let address = self.metrics.expect("the settings of this site serve metrics");
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
        let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers in UTF-8");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer
    }
}

/// A device on the local broker: what it publishes, and what arrives under `commands/#`.
pub struct Device {
    client: AsyncClient,
    events: mpsc::Receiver<Packet>,
}

impl Device {
    pub async fn connect(at: std::net::SocketAddr) -> Self {
        let mut options = MqttOptions::new("device", at.ip().to_string(), at.port());
        options.set_keep_alive(Duration::from_secs(20));
        let (client, mut eventloop) = AsyncClient::new(options, 64);
        let (sender, events) = mpsc::channel(256);
        tokio::spawn(async move {
            while let Ok(event) = eventloop.poll().await {
                if let Event::Incoming(packet) = event
                    && sender.send(packet).await.is_err()
                {
                    return;
                }
            }
        });
        let mut device = Self { client, events };
        device.client.subscribe("commands/#", QoS::AtLeastOnce).await.expect("the client is there");
        device.until("SUBACK", |packet| matches!(packet, Packet::SubAck(_))).await;
        device
    }

    pub async fn until(&mut self, what: &str, is: impl Fn(&Packet) -> bool) -> Packet {
        let search = async {
            loop {
                let packet = self.events.recv().await.expect("the device stays connected");
                if is(&packet) {
                    return packet;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), search)
            .await
            .unwrap_or_else(|_| panic!("no {what} in time"))
    }

    pub async fn publish(&mut self, topic: &str, payload: &str) {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload).await.expect("the client is there");
        self.until("PUBACK", |packet| matches!(packet, Packet::PubAck(_))).await;
    }
}

/// A rule towards this remote broker, as a file.
pub fn rule_text(remote: SocketAddr) -> String {
    format!(
        "name = \"camera-up\"\nmountpoint = \"plant/{{edge}}/\"\n[remote]\nurl = \"mqtt://{remote}\"\n[[forwards]]\ntopic = \"sensors/#\"\n[[subscriptions]]\ntopic = \"commands/{{edge}}/#\"\n"
    )
}

/// A set of a rule towards this remote broker.
pub fn set(generation: u64, remote: SocketAddr, run: DesiredRun) -> Set {
    let text = rule_text(remote);
    let (rule, _) = parse(&text, Format::Toml)
        .and_then(|draft| draft.validate(&Limits::default()))
        .unwrap_or_else(|problems| panic!("{problems}"));
    let context = RenderContext {
        account: AccountId::default_account(),
        edge: edge(),
        vars: std::collections::BTreeMap::new(),
        secrets: tidegate_model::rule::SecretRefs::default(),
    };
    let rendered = render(&rule, &context).unwrap_or_else(|problems| panic!("{problems}"));
    let mut set = Set {
        rule: RULE,
        name: RuleName::new("camera-up").expect("a valid name"),
        generation: Generation(generation),
        want: Digest::of(b""),
        target: VersionDigest { version: RuleVersion(generation), digest: rendered.digest },
        present: true,
        run,
        restart: 0,
        config: Config::Bytes(rendered.bytes),
        secrets: Vec::new(),
    };
    set.want = set.compute_want();
    set
}

//! A fleet of gateways in one process: each with the real core of the agent, a store in memory, bridges that run at once,
//! and a real MQTT connection of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidegate_e2e::mqtt::{Login, Packet, connect};
use tidegate_edge_core::{Agent, BridgeEvent, Effect, Input, Policy, Setup, Snapshot};
use tidegate_model::ids::{AccountId, EdgeId, SessionId, StoreId};
use tidegate_model::rule::Feature;
use tidegate_model::time::{Monotonic, Now, Wall};
use tidegate_model::wire::{EdgeTopic, Topics};
use tokio::sync::mpsc;

use crate::wire::Wire;

/// Keep-alive in seconds, as the real agent has it.
const KEEP_ALIVE_S: u16 = 20;
/// Events that wait to be counted at the most.
const MAX_EVENTS: usize = 100_000;

/// What a gateway tells the measurement.
#[derive(Debug, Clone, Copy)]
pub enum Told {
    /// The controller welcomed it.
    Welcome,
    /// The controller has its result of a command on disk.
    Settled,
}

/// Bytes of the last message of a kind, for a baseline with the same payloads.
#[derive(Debug, Default)]
pub struct Sizes {
    /// `set`, controller to edge.
    pub set: AtomicUsize,
    /// `received`, edge to controller.
    pub received: AtomicUsize,
    /// `result`, edge to controller.
    pub result: AtomicUsize,
}

/// A running fleet; dropping it ends all connections.
pub struct Fleet {
    /// What gateways tell: which one, what, when.
    pub told: mpsc::Receiver<(usize, Told, Instant)>,
    /// Payload sizes seen.
    pub sizes: Arc<Sizes>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Fleet {
    /// Starts a gateway for each name and credential, on a thread apart from the measurement's own.
    ///
    /// # Panics
    /// When no thread can be started.
    #[must_use]
    pub fn start(controller: SocketAddr, edges: &[(String, String)]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime starts");
        let (events, told) = mpsc::channel(MAX_EVENTS);
        let sizes = Arc::new(Sizes::default());
        for (index, (name, credential)) in edges.iter().enumerate() {
            let gateway = Gateway {
                index,
                edge: EdgeId::new(name.as_str()).expect("the benchmark uses good names"),
                credential: credential.clone(),
                controller,
                topics: Topics::new(AccountId::default_account()),
                began: Instant::now(),
                events: events.clone(),
                sizes: Arc::clone(&sizes),
                results: BTreeSet::new(),
            };
            runtime.spawn(gateway.live());
        }
        Self { told, sizes, runtime: Some(runtime) }
    }
}

struct Gateway {
    index: usize,
    edge: EdgeId,
    credential: String,
    controller: SocketAddr,
    topics: Topics,
    began: Instant,
    events: mpsc::Sender<(usize, Told, Instant)>,
    sizes: Arc<Sizes>,
    /// Packet ids of results without PUBACK.
    results: BTreeSet<u16>,
}

impl Gateway {
    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Now { monotonic: Monotonic(ms(self.began.elapsed())), wall: Wall(ms(wall)) }
    }

    async fn live(mut self) {
        let number = u64::try_from(self.index).unwrap_or(0) + 1;
        let setup = Setup {
            edge: self.edge.clone(),
            account: AccountId::default_account(),
            has_controller: true,
            subscribes_locally: false,
            agent: semver_of_this_workspace(),
            features: BTreeSet::from([Feature::BridgeV1.as_str().to_owned()]),
            policy: Policy::default(),
            boot: number,
            seed: number,
        };
        let store = StoreId(u128::from(number));
        let mut core = Agent::restore(setup, Snapshot::fresh(store));
        let mut inputs = VecDeque::from([Input::Boot]);
        let mut wire: Option<(SessionId, Wire)> = None;
        let mut ping = tokio::time::interval(Duration::from_secs(u64::from(KEEP_ALIVE_S)));
        loop {
            while let Some(input) = inputs.pop_front() {
                let output = core.handle(self.now(), input);
                for effect in output.effects {
                    self.perform(effect, &mut wire, &mut inputs).await;
                }
            }
            if let Some((sid, open)) = &mut wire
                && open.flush().await.is_err()
            {
                inputs.push_back(Input::Disconnected { sid: *sid });
                wire = None;
                continue;
            }
            let now = self.now().monotonic;
            let wait = core.next_deadline().map_or(60_000, |at| u64::try_from(at.0 - now.0).unwrap_or(0));
            tokio::select! {
                packet = next(&mut wire) => match packet {
                    Ok(packet) => self.packet(packet, &mut wire, &mut inputs),
                    Err(_) => {
                        if let Some((sid, _)) = wire.take() {
                            inputs.push_back(Input::Disconnected { sid });
                        }
                    }
                },
                () = tokio::time::sleep(Duration::from_millis(wait)) => inputs.push_back(Input::Tick),
                _ = ping.tick() => if let Some((_, open)) = &mut wire { open.ping() },
            }
        }
    }

    async fn perform(
        &mut self,
        effect: Effect,
        wire: &mut Option<(SessionId, Wire)>,
        inputs: &mut VecDeque<Input>,
    ) {
        match effect {
            Effect::Dial { sid, will } => match self.dial(&will).await {
                Ok((open, early)) => {
                    self.results.clear();
                    *wire = Some((sid, open));
                    inputs.push_back(Input::Connected { sid });
                    for packet in early {
                        self.packet(packet, wire, inputs);
                    }
                }
                Err(_) => inputs.push_back(Input::Disconnected { sid }),
            },
            Effect::HangUp { .. } => *wire = None,
            Effect::PublishUp(payload) => {
                let Some((_, open)) = wire else { return };
                let pkid = open.publish(&self.topics.edge(&self.edge, EdgeTopic::Up), &payload, false);
                if is(&payload, "result") {
                    self.sizes.result.store(payload.len(), Ordering::Relaxed);
                    self.results.insert(pkid);
                } else if is(&payload, "received") {
                    self.sizes.received.store(payload.len(), Ordering::Relaxed);
                }
            }
            Effect::PublishPresence(payload) => {
                if let Some((_, open)) = wire {
                    open.publish(&self.topics.edge(&self.edge, EdgeTopic::Presence), &payload, true);
                }
            }
            Effect::StartBridge { rule, order, .. } | Effect::ReconfigureBridge { rule, order, .. } => {
                inputs.push_back(Input::Bridge { rule, order, event: BridgeEvent::Running });
            }
            Effect::TakeIn { .. }
            | Effect::TakeInNothing { .. }
            | Effect::StopBridge { .. }
            | Effect::DestroyQueue { .. }
            | Effect::Reply { .. } => {}
        }
    }

    async fn dial(&self, will: &[u8]) -> io::Result<(Wire, Vec<Packet>)> {
        let login = Login::anonymous(&self.topics.client_id(&self.edge))
            .with_password(self.edge.as_str(), &self.credential);
        let presence = self.topics.edge(&self.edge, EdgeTopic::Presence);
        let mut wire =
            Wire::connect(self.controller, &connect(&login, KEEP_ALIVE_S, Some((&presence, will)))).await?;
        let (down, controller) = (self.topics.edge(&self.edge, EdgeTopic::Down), self.topics.controller());
        let early = wire.subscribe(&[&down, &presence, &controller]).await?;
        Ok((wire, early))
    }

    fn packet(&mut self, packet: Packet, wire: &mut Option<(SessionId, Wire)>, inputs: &mut VecDeque<Input>) {
        match packet {
            Packet::Publish { topic, payload, pkid, .. } => {
                if let Some((_, open)) = wire
                    && pkid != 0
                {
                    open.ack(pkid);
                }
                if topic == self.topics.controller() {
                    return inputs.push_back(Input::ControllerPresence(payload));
                }
                match self.topics.parse(&topic) {
                    Some((_, EdgeTopic::Down)) => {
                        if is(&payload, "welcome") {
                            self.tell(Told::Welcome);
                        } else if is(&payload, "set") {
                            self.sizes.set.store(payload.len(), Ordering::Relaxed);
                        }
                        inputs.push_back(Input::Down(payload));
                    }
                    Some((_, EdgeTopic::Presence)) => inputs.push_back(Input::OwnPresence(payload)),
                    Some((_, EdgeTopic::Up)) | None => {}
                }
            }
            Packet::PubAck(pkid) => {
                if self.results.remove(&pkid) {
                    self.tell(Told::Settled);
                }
            }
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::Other(_) => {}
        }
    }

    fn tell(&self, what: Told) {
        self.events.try_send((self.index, what, Instant::now())).expect("the measurement counts in time");
    }
}

async fn next(wire: &mut Option<(SessionId, Wire)>) -> io::Result<Packet> {
    match wire {
        Some((_, open)) => open.next().await,
        None => std::future::pending().await,
    }
}

/// Whether an envelope is of this kind; the kind comes before the body, in the first bytes.
fn is(payload: &[u8], kind: &str) -> bool {
    const BEFORE: &[u8] = b"\"t\":\"";
    let at = payload.windows(BEFORE.len()).take(64).position(|part| part == BEFORE);
    let rest = at.and_then(|at| payload.get(at + BEFORE.len()..)).unwrap_or_default();
    rest.strip_prefix(kind.as_bytes()).is_some_and(|rest| rest.starts_with(b"\""))
}

fn semver_of_this_workspace() -> semver::Version {
    env!("CARGO_PKG_VERSION").parse().expect("cargo's versions are semver")
}

/// When each gateway of these told something for the first time since it was asked.
///
/// # Panics
/// When not all do within `limit`.
pub async fn all(
    fleet: &mut Fleet,
    which: Range<usize>,
    is_it: fn(Told) -> bool,
    limit: Duration,
) -> BTreeMap<usize, Instant> {
    let mut seen = BTreeMap::new();
    let end = tokio::time::Instant::now() + limit;
    while seen.len() < which.len() {
        let told = tokio::time::timeout_at(end, fleet.told.recv()).await;
        let (index, told, at) = told
            .unwrap_or_else(|_| {
                panic!("only {} of {} gateways told it in {limit:?}", seen.len(), which.len())
            })
            .expect("the fleet lives");
        if which.contains(&index) && is_it(told) {
            seen.entry(index).or_insert(at);
        }
    }
    seen
}

//! The loop with other systems beside it: an outlet that keeps what is published, and no broker.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate_broker::Health;
use tidegate_cloud_core::{Actor, Controller, Expect, How, Request, Snapshot};
use tidegate_model::ids::{AccountId, EdgeId, RuleId, RuleName};
use tidegate_model::placement::Role;
use tidegate_model::rule::{Format, Limits, SecretInputs, parse};
use tidegate_model::wire::Topics;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{Changed, Commander, FromSystem, Intake, StateKeeper, intake, strays};
use crate::auth::Credentials;
use crate::events::Events;
use crate::run::{Clock, CoreLink, CoreLoop, core_channel};
use crate::store::{Memory, Store};
use crate::transport::{BrokerWatch, Nowhere, Outlet, Publication};

const PATIENCE: Duration = Duration::from_secs(60);

/// Keeps everything that is published.
#[derive(Default)]
struct Published(Mutex<Vec<Publication>>);

impl Outlet for Published {
    fn publish(&self, publication: Publication) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        self.0.lock().unwrap().push(publication);
        Box::pin(std::future::ready(true))
    }
}

impl Published {
    fn all(&self) -> Vec<Publication> {
        self.0.lock().unwrap().clone()
    }

    /// The last word on each topic, as JSON; cleared ones are `null`.
    fn last(&self) -> BTreeMap<String, Value> {
        let all = self.all().into_iter();
        all.map(|p| (p.topic, serde_json::from_slice(&p.payload).unwrap_or(Value::Null))).collect()
    }

    fn acks(&self) -> Vec<Value> {
        let acks = self.all().into_iter().filter(|p| p.topic.ends_with("/controller/ack"));
        acks.map(|p| serde_json::from_slice(&p.payload).unwrap()).collect()
    }
}

struct World {
    core: CoreLink,
    published: Arc<Published>,
    commands: Intake,
    stop: CancellationToken,
}

impl World {
    /// `keeps`: whether states are kept beside the loop.
    fn start(keeps: bool) -> Self {
        let clock = Clock::start();
        let (controller, first) = Controller::restore(
            tidegate_cloud_core::Settings::default(),
            Snapshot::default(),
            0,
            clock.now(),
        );
        let (core, inbox) = core_channel();
        let (stop, changed) = (CancellationToken::new(), Arc::new(Changed::default()));
        let core_loop = CoreLoop {
            controller,
            inbox,
            store: Arc::new(Memory::default()) as Arc<dyn Store>,
            transport: Box::new(Nowhere::default()),
            credentials: Arc::new(Credentials::default()),
            events: Arc::new(Events::new(1)),
            changed: Arc::clone(&changed),
            clock,
            metrics: crate::metrics::Metrics::default(),
        };
        tokio::spawn(core_loop.run(first.effects, stop.clone()));
        let topics = Topics::new(AccountId::default_account());
        let published = Arc::new(Published::default());
        let outlet = Arc::clone(&published) as Arc<dyn Outlet>;
        let (commands, commands_in) = intake();
        tokio::spawn(Commander::new(core.clone(), topics.clone(), Arc::clone(&outlet)).run(commands_in));
        if keeps {
            let (_, health) = watch::channel(Health::Healthy);
            let broker = BrokerWatch::Embedded { at: "127.0.0.1:1".parse().unwrap(), health };
            let keeper = StateKeeper::new(core.clone(), topics, outlet, changed, broker);
            tokio::spawn(keeper.run(strays().1));
        }
        Self { core, published, commands, stop }
    }

    async fn ask(&self, request: Request) {
        let by = Actor { name: "ada".to_owned(), via: "api".to_owned() };
        let answer = self.core.request(by, Role::Administrator, request, How::default()).await.unwrap();
        assert!(answer.is_ok(), "{answer:?}");
    }

    async fn save(&self, rule: usize, topic: &str) {
        let text = format!(
            "name = \"r-{rule}\"\n[remote]\nurl = \"mqtt://broker.example\"\nclient_id = \"{{edge}}-{rule}\"\n\
             password = \"\"\n[[forwards]]\ntopic = \"{topic}\"\n"
        );
        let content = parse(&text, Format::Toml).and_then(|d| d.validate(&Limits::default())).unwrap().0;
        let id = RuleId(uuid::Uuid::now_v7());
        let (content, secrets, note) = (Box::new(content), SecretInputs::default(), String::new());
        self.ask(Request::SaveRule { id, content, secrets, expect: Expect::Any, note }).await;
    }

    async fn place(&self, rule: usize, edge: usize) {
        let (rule, edge) = (name(rule), edge_id(edge));
        self.ask(Request::Place { rule, edge, vars: BTreeMap::new() }).await;
    }

    async fn fleet(&self, rules: usize, edges: usize) {
        for edge in 0..edges {
            self.ask(Request::CreateEdge { edge: edge_id(edge), credential: "x".to_owned() }).await;
        }
        for rule in 0..rules {
            self.save(rule, "a/#").await;
            for edge in 0..edges {
                self.place(rule, edge).await;
            }
        }
    }

    /// Gives a command; returns when it is acknowledged to its sender's client.
    async fn command(&self, payload: &Value, retained: bool) {
        let (taken, then) = oneshot::channel();
        let payload = payload.to_string();
        self.commands.send(FromSystem::new(payload.as_bytes(), retained, taken)).await.unwrap();
        tokio::time::timeout(PATIENCE, then).await.unwrap().unwrap();
    }

    async fn until(&self, what: &str, wanted: impl Fn(&Published) -> bool) {
        let waiting = async {
            while !wanted(&self.published) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let done = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(done.is_ok(), "{what}: {:?}", self.published.last());
    }
}

fn name(rule: usize) -> RuleName {
    RuleName::new(format!("r-{rule}")).unwrap()
}

fn edge_id(edge: usize) -> EdgeId {
    EdgeId::new(format!("gw-{edge}")).unwrap()
}

fn act(tid: &str, action: &str, rule: usize, queue: bool) -> Value {
    let when = if queue { "queue" } else { "refuse" };
    let payload = json!({ "id": name(rule), "edge": "gw-0", "when_offline": when });
    json!({ "tid": tid, "type": "datasync", "action": action, "payload": payload })
}

#[tokio::test]
async fn a_command_is_a_request_like_the_apis_and_a_copy_of_it_is_none() {
    let world = World::start(true);
    world.fleet(1, 1).await;
    world.command(&act("1", "issue", 0, false), false).await;
    let refused = &world.published.acks()[0];
    assert_eq!(
        (&refused["code"], &refused["payload"]["status"]),
        (&409.into(), &"EDGE_OFFLINE".into()),
        "{refused}"
    );

    // A refusal is not remembered: the same command may succeed later.
    let issue = act("1", "issue", 0, true);
    world.command(&issue, false).await;
    world.command(&issue, false).await;
    let acks = world.published.acks();
    assert_eq!((&acks[1]["code"], &acks[1]["payload"]["generation"]), (&202.into(), &1.into()), "{acks:?}");
    assert_eq!(acks[1], acks[2], "a copy is answered again");
    let placement =
        world.core.read(|core, _| core.placement(&name(0), &edge_id(0), Role::Viewer)).await.unwrap();
    let placement = placement.unwrap();
    assert_eq!(placement.generation.0, 1, "and not carried out again");
    assert_eq!(placement.in_flight.unwrap().by, "api via MQTT");
    world
        .until("the state tells it", |p| {
            let last = p.last();
            let state = last.get("tidegate/1/default/state/gw-0/r-0");
            state.is_some_and(|s| s["in_flight"] == "issue" && s["queued"] == true)
        })
        .await;
    world.stop.cancel();
}

#[tokio::test]
async fn what_cannot_be_carried_out_is_told_where_a_tid_can_be_read_and_retained_commands_are_taken_off() {
    let world = World::start(false);
    world.fleet(1, 1).await;
    let odd = [json!([]), json!({ "tid": 7 }), json!("x".repeat(100_000)), json!({ "tid": "x".repeat(65) })];
    for odd in odd {
        world.command(&odd, false).await;
    }
    assert!(world.published.all().is_empty(), "nobody can be told");
    world.command(&json!({ "tid": "1", "action": "explode" }), false).await;
    world.command(&act("2", "start", 7, false), false).await;
    let unknown =
        json!({ "tid": "3", "type": "datasync", "action": "lookup", "payload": { "id": "nothing" } });
    world.command(&unknown, false).await;
    let acks = world.published.acks();
    let told: Vec<_> =
        acks.iter().map(|a| (a["tid"].as_str().unwrap(), a["code"].as_u64().unwrap())).collect();
    assert_eq!(told, [("1", 400), ("2", 404), ("3", 404)]);

    world.command(&act("4", "issue", 0, true), true).await;
    let all = world.published.all();
    let (cleared, ack) = (&all[all.len() - 2], &all[all.len() - 1]);
    assert!(
        cleared.topic.ends_with("/command") && cleared.retain && cleared.payload.is_empty(),
        "{cleared:?}"
    );
    assert!(String::from_utf8_lossy(&ack.payload).contains("BAD_MESSAGE") && !ack.retain, "{ack:?}");
    world.stop.cancel();
}

#[tokio::test]
async fn a_list_comes_in_pages_and_a_lookup_shows_no_password() {
    let world = World::start(false);
    world.fleet(60, 1).await;
    let mut after = Value::Null;
    let mut seen = Vec::new();
    for tid in ["1", "2", "3"] {
        let payload = json!({ "limit": 25, "after": after });
        world
            .command(&json!({ "tid": tid, "type": "datasync", "action": "list", "payload": payload }), false)
            .await;
        let ack = world.published.acks().pop().unwrap();
        let items = ack["payload"]["items"].as_array().unwrap();
        seen.extend(items.iter().map(|item| item["rule"].as_str().unwrap().to_owned()));
        after = ack["payload"]["next"].clone();
    }
    assert_eq!(after, Value::Null, "the third page is the last");
    assert_eq!(seen.len(), 60);
    assert!(seen.is_sorted() && seen.windows(2).all(|pair| pair[0] != pair[1]), "{seen:?}");
    let lookup = json!({ "tid": "4", "type": "datasync", "action": "lookup", "payload": { "id": "r-7" } });
    world.command(&lookup, false).await;
    let rule = world.published.acks().pop().unwrap()["payload"]["rule"].clone();
    assert_eq!((&rule["name"], &rule["version"]), (&"r-7".into(), &1.into()), "{rule}");
    world.stop.cancel();
}

#[tokio::test]
async fn a_state_is_published_when_it_changed_and_cleared_when_its_placement_goes() {
    let world = World::start(true);
    world.fleet(2, 1).await;
    let topic = |rule: usize| format!("tidegate/1/default/state/gw-0/r-{rule}");
    world.until("both are told", |p| p.last().len() == 2).await;
    // Nothing that is shown changes.
    world.save(0, "a/#").await;
    // Many changes in a row.
    for n in 0..50 {
        world.save(1, &format!("b-{n}/#")).await;
    }
    world.until("the last one is told", |p| p.last()[&topic(1)]["version"] == 51).await;
    let all = world.published.all();
    assert!(all.iter().all(|p| p.retain));
    assert_eq!(
        all.iter().filter(|p| p.topic == topic(0)).count(),
        1,
        "what did not change is not told again"
    );
    let mut told: Vec<&[u8]> =
        all.iter().filter(|p| p.topic == topic(1)).map(|p| p.payload.as_slice()).collect();
    let count = told.len();
    told.dedup();
    assert_eq!(told.len(), count, "no state is told twice");

    world.ask(Request::Unplace { rule: name(0), edge: edge_id(0) }).await;
    world.ask(Request::DeleteRule { rule: name(1), expect: Expect::Any }).await;
    world.until("both are cleared", |p| p.last().values().all(Value::is_null)).await;
    world.stop.cancel();
}

/// 200 saves, each of which changes 5 placements; how long they took, and how long others waited for the loop.
async fn storm(keeps: bool) -> (Duration, Vec<Duration>, usize) {
    let world = World::start(keeps);
    world.fleet(200, 5).await;
    if keeps {
        world.until("all are told", |p| p.last().len() == 1_000).await;
    }
    let before = world.published.all().len();
    let (core, done) = (world.core.clone(), CancellationToken::new());
    let ended = done.clone();
    let probe = tokio::spawn(async move {
        let mut waits = Vec::new();
        while !ended.is_cancelled() {
            let asked = Instant::now();
            core.read(|_, _| ()).await.unwrap();
            waits.push(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        waits
    });
    let began = Instant::now();
    for rule in 0..200 {
        world.save(rule, "c/#").await;
    }
    let took = began.elapsed();
    if keeps {
        let all = |p: &Published| p.last().values().all(|state| state["version"] == 2);
        world.until("all are told again", all).await;
    }
    done.cancel();
    let mut waits = probe.await.unwrap();
    waits.sort_unstable();
    let published = world.published.all().len() - before;
    world.stop.cancel();
    (took, waits, published)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_placements_that_change_are_each_told_once_and_the_loop_goes_on_meanwhile() {
    for keeps in [false, true] {
        let (took, waits, published) = storm(keeps).await;
        let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize];
        println!(
            "states kept: {keeps}; 200 saves of 5 placements each took {took:?}; a read of the loop waited {:?} (p50), \
             {:?} (p99), {:?} (most); {published} states published",
            at(0.5),
            at(0.99),
            at(1.0)
        );
        assert_eq!(published, if keeps { 1_000 } else { 0 });
        assert!(at(1.0) < Duration::from_secs(5), "the loop stood still");
    }
}

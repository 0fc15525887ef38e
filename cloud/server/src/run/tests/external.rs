//! The controller over a broker of somebody else: here one of our own that is told nothing of edges and controllers.

use std::sync::Arc;
use std::time::Duration;

use rumqttc::{Packet, QoS};
use serde_json::Value;
use tidegate_broker::{AllowAll, Broker, BrokerConfig, Decision, Gate, PassAll, Permit, Quiet, Rights};
use tidegate_model::ids::EdgeId;
use tidegate_model::limits::MAX_ENVELOPE_BYTES;
use tidegate_model::wire::{ControllerPresence, EdgeTopic};

use super::edge::{Client, Edge, topics};
use super::world::{PATIENCE, World, settings};
use crate::settings::ExternalBroker;
use crate::{Settings, StoreKind};

async fn broker(gate: Arc<dyn Gate>) -> Broker {
    let mut config = BrokerConfig::new("127.0.0.1:0".parse().unwrap());
    config.limits.max_packet_bytes = 4 * MAX_ENVELOPE_BYTES;
    Broker::start(config, gate, Arc::new(PassAll), Arc::new(Quiet)).await.unwrap()
}

fn over(broker: &Broker, dir: &std::path::Path) -> Settings {
    let url = format!("mqtt://tidegate:s3cret@{}", broker.local_addr());
    Settings { broker: Some(ExternalBroker::parse(&url).unwrap()), ..settings(dir, StoreKind::Memory) }
}

/// Waits until the summary is as wanted.
async fn summary(world: &World, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut seen = Value::Null;
    let waiting = async {
        loop {
            seen = world.call("GET", "/summary", None).await.1;
            if wanted(&seen) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let done = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(done.is_ok(), "{what}: {seen}");
    seen
}

async fn up(world: &World) {
    summary(world, "the broker is connected", |s| s["broker"]["up"] == true).await;
}

async fn publish(client: &mut Client, topic: String, payload: Vec<u8>, retain: bool) {
    client.mqtt.publish(topic, QoS::AtLeastOnce, retain, payload).await.unwrap();
    client.wait("PUBACK", |packet| matches!(packet, Packet::PubAck(_)).then_some(())).await;
}

/// The next presence of the controller that is as wanted.
async fn presence(client: &mut Client, wanted: impl Fn(&ControllerPresence) -> bool) -> ControllerPresence {
    let topic = topics().controller();
    client
        .wait("a presence of the controller", |packet| match packet {
            Packet::Publish(publish) if publish.topic == topic => {
                serde_json::from_slice(&publish.payload).ok().filter(|p| wanted(p))
            }
            _ => None,
        })
        .await
}

#[tokio::test]
async fn a_rule_is_issued_over_a_broker_of_somebody_else() {
    let tmp = tempfile::tempdir().unwrap();
    let broker = broker(Arc::new(AllowAll)).await;
    let world = World::start(over(&broker, tmp.path())).await;
    assert_eq!(world.ready.mqtt, None);
    up(&world).await;
    let credential = world.edge("gw-1").await;
    world.placed("camera-up", "gw-1").await;
    let mut edge = Edge::online(broker.local_addr(), "gw-1", &credential, 1).await;
    world.ok(world.call("POST", "/placements/camera-up/gw-1/issue", None).await);
    let set = edge.hear_set().await;
    edge.applied(&set).await;
    world.until("camera-up", "gw-1", |p| p["issue_state"] == "issued" && p["run_state"] == "running").await;
    let shown = summary(&world, "it is shown", |_| true).await;
    assert_eq!(shown["broker"]["address"], format!("mqtt://{}", broker.local_addr()));
    assert!(!shown.to_string().contains("s3cret"), "{shown}");
    world.stop().await;
}

#[tokio::test]
async fn what_is_foreign_malformed_or_too_large_is_counted_and_stops_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    let broker = broker(Arc::new(AllowAll)).await;
    let mut stranger = Client::connect(broker.local_addr(), "stranger", None, None).await.unwrap();
    // Retained, and larger than a message may be: it comes again with each subscription.
    let huge = vec![b'x'; MAX_ENVELOPE_BYTES + 100_000];
    let gw = EdgeId::new("gw-1").unwrap();
    publish(&mut stranger, topics().edge(&gw, EdgeTopic::Presence), huge.clone(), true).await;
    let world = World::start(over(&broker, tmp.path())).await;
    up(&world).await;
    let credential = world.edge("gw-1").await;
    let odd = [
        ("tidegate/1/default/UPPER/up".to_owned(), b"{}".to_vec()),
        ("tidegate/1/default/controller/up".to_owned(), b"{}".to_vec()),
        (topics().edge(&gw, EdgeTopic::Up), huge),
    ];
    for (topic, payload) in odd {
        publish(&mut stranger, topic, payload, false).await;
    }
    // These reach the core, which knows neither the edge nor what is meant.
    let unknown = topics().edge(&EdgeId::new("gw-9").unwrap(), EdgeTopic::Up);
    publish(&mut stranger, unknown, b"{\"v\":1}".to_vec(), false).await;
    publish(&mut stranger, topics().edge(&gw, EdgeTopic::Up), b"no JSON".to_vec(), false).await;
    summary(&world, "four messages are counted", |s| s["broker"]["dropped_messages"] == 4).await;
    let edge = Edge::online(broker.local_addr(), "gw-1", &credential, 1).await;
    let (_, shown) = world.call("GET", "/edges/gw-1", None).await;
    assert_eq!((&shown["link"], &shown["dropped_messages"]), (&"online".into(), &1.into()), "{shown}");
    up(&world).await;
    drop(edge);
    world.stop().await;
}

#[tokio::test]
async fn the_controllers_presence_is_the_truth_again_whatever_is_written_there_and_its_last_word_is_that_it_went()
 {
    let tmp = tempfile::tempdir().unwrap();
    let broker = broker(Arc::new(AllowAll)).await;
    let world = World::start(over(&broker, tmp.path())).await;
    let mut looker = Client::connect(broker.local_addr(), "looker", None, None).await.unwrap();
    assert!(looker.subscribe(&topics().controller()).await);
    let first = presence(&mut looker, |p| p.alive).await;
    up(&world).await;
    let stale = ControllerPresence { epoch: first.epoch - 1, alive: false, ..first.clone() };
    for lie in [serde_json::to_vec(&stale).unwrap(), b"no JSON".to_vec(), Vec::new()] {
        publish(&mut looker, topics().controller(), lie, true).await;
        assert_eq!(presence(&mut looker, |p| p.epoch == first.epoch).await, first);
    }
    world.stop().await;
    let last = presence(&mut looker, |p| !p.alive && p.epoch == first.epoch).await;
    assert_eq!(last.version, first.version);
}

/// Lets everybody in and grants nobody a subscription.
struct NoSubscriptions;

impl Gate for NoSubscriptions {
    fn authenticate<'a>(&'a self, _connect: &'a tidegate_broker::ConnectRequest) -> Decision<'a> {
        let rights = Rights { publish: Permit::All, subscribe: Permit::Filters(Vec::new()) };
        Box::pin(std::future::ready(Ok(rights)))
    }
}

#[tokio::test]
async fn a_refused_subscription_and_a_broker_that_is_not_there_are_told_and_stop_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    let broker = broker(Arc::new(NoSubscriptions)).await;
    let wanted = over(&broker, tmp.path());
    let world = World::start(wanted.clone()).await;
    let told = |s: &Value, part: &str| s["broker"]["detail"].as_str().is_some_and(|why| why.contains(part));
    summary(&world, "the refusal is told", |s| told(s, "refused a subscription")).await;
    world.stop().await;

    broker.stop().await;
    let world = World::start(wanted).await;
    summary(&world, "that nobody is there is told", |s| told(s, "refused")).await;
    world.edge("gw-1").await;
    world.stop().await;
}

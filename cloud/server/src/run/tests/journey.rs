use rumqttc::{ConnectReturnCode, Packet, QoS};
use serde_json::json;
use tidegate_model::ids::EdgeId;
use tidegate_model::wire::EdgeTopic;

use super::edge::{Client, Edge, intact, topics};
use super::world::{World, settings};
use crate::StoreKind;

#[tokio::test]
async fn a_rule_is_issued_to_an_edge_and_stays_issued_after_a_restart() {
    let tmp = tempfile::tempdir().unwrap();
    let world = World::start(settings(tmp.path(), StoreKind::Sled)).await;
    let credential = world.edge("gw-1").await;
    world.placed("camera-up", "gw-1").await;
    let mut edge = Edge::online(world.mqtt(), "gw-1", &credential, 1).await;

    let issued = world.call("POST", "/placements/camera-up/gw-1/issue", None).await;
    assert_eq!(issued.0, 202, "{issued:?}");
    let set = edge.hear_set().await;
    assert!(intact(&set) && set.present);
    assert_eq!(set.secrets[0].value, "pw");
    let pending = world.call("GET", "/placements/camera-up/gw-1", None).await.1;
    assert_eq!(
        (&pending["issue_state"], &pending["in_flight"]["action"]),
        (&json!("not_issued"), &json!("issue"))
    );
    edge.applied(&set).await;
    // The PUBACK said that it is durable, so it can be seen at once.
    let placement = world.call("GET", "/placements/camera-up/gw-1", None).await.1;
    assert_eq!(
        (&placement["issue_state"], &placement["run_state"]),
        (&json!("issued"), &json!("running")),
        "{placement}"
    );
    assert_eq!((&placement["link"], &placement["last_known"]), (&json!("online"), &json!(false)));
    let metrics = world.open_root("/metrics").await;
    for told in [
        "tidegate_issue_total{action=\"issue\",result=\"ok\",reason=\"OK\"} 1",
        "tidegate_issue_duration_seconds_count 1",
        "tidegate_edges{link=\"online\"} 1",
        "tidegate_broker_connections 1",
    ] {
        assert!(metrics.contains(told), "{told} in\n{metrics}");
    }

    world.stop().await;
    edge.client.ended().await;
    let world = World::start(settings(tmp.path(), StoreKind::Sled)).await;
    let placement = world.call("GET", "/placements/camera-up/gw-1", None).await.1;
    assert_eq!((&placement["issue_state"], &placement["link"]), (&json!("issued"), &json!("unknown")));
    assert_eq!(placement["last_known"], true);
    // The credential is still good, and the first login of this process.
    let edge = Edge::online(world.mqtt(), "gw-1", &credential, 2).await;
    world.until("camera-up", "gw-1", |p| p["link"] == "online").await;

    // A connection that breaks leaves its will.
    drop(edge);
    world.until("camera-up", "gw-1", |p| p["link"] == "offline").await;

    // Removing the edge revokes its credential and ends its connection.
    let mut edge = Edge::online(world.mqtt(), "gw-1", &credential, 3).await;
    world.ok(world.call("DELETE", "/edges/gw-1?leave_running=true", None).await);
    edge.client.ended().await;
    let id = topics().client_id(&EdgeId::new("gw-1").unwrap());
    let refused = Client::connect(world.mqtt(), &id, Some(("gw-1", &credential)), None).await;
    assert_eq!(refused.err(), Some(ConnectReturnCode::BadUserNamePassword));
    world.stop().await;
}

#[tokio::test]
async fn an_edge_reaches_its_own_topics_only() {
    let tmp = tempfile::tempdir().unwrap();
    let world = World::start(settings(tmp.path(), StoreKind::Memory)).await;
    let (one, two) = (world.edge("gw-1").await, world.edge("gw-2").await);
    let mqtt = world.mqtt();
    let (gw1, gw2) = (EdgeId::new("gw-1").unwrap(), EdgeId::new("gw-2").unwrap());
    let id = topics().client_id(&gw1);

    for (client_id, login, code) in [
        (id.as_str(), Some(("gw-1", two.as_str())), ConnectReturnCode::BadUserNamePassword),
        (id.as_str(), Some(("gw-2", two.as_str())), ConnectReturnCode::BadClientId),
        ("other", Some(("gw-1", one.as_str())), ConnectReturnCode::BadClientId),
        (id.as_str(), None, ConnectReturnCode::NotAuthorized),
        ("tidegate.default.gw-9", Some(("gw-9", one.as_str())), ConnectReturnCode::BadUserNamePassword),
        ("looker", Some(("admin", one.as_str())), ConnectReturnCode::BadUserNamePassword),
    ] {
        let refused = Client::connect(mqtt, client_id, login, None).await.err();
        assert_eq!(refused, Some(code), "{client_id} {:?}", login.map(|(user, _)| user));
    }

    let mut client = Client::connect(mqtt, &id, Some(("gw-1", &one)), None).await.unwrap();
    for filter in [
        topics().edge(&gw2, EdgeTopic::Down),
        topics().edge(&gw2, EdgeTopic::Presence),
        "#".to_owned(),
        topics().all(),
    ] {
        assert!(!client.subscribe(&filter).await, "{filter}");
    }
    assert!(client.subscribe(&topics().controller()).await);
    let presence = client
        .wait("the controller's presence", |packet| match packet {
            Packet::Publish(publish) => Some(publish),
            _ => None,
        })
        .await;
    assert!(presence.retain && presence.payload.starts_with(b"{\"epoch\""));
    for topic in
        [topics().edge(&gw2, EdgeTopic::Up), topics().edge(&gw1, EdgeTopic::Down), topics().controller()]
    {
        let mut client = Client::connect(mqtt, &id, Some(("gw-1", &one)), None).await.unwrap();
        client.mqtt.publish(&topic, QoS::AtLeastOnce, false, "x").await.unwrap();
        client.ended().await;
    }
    world.stop().await;
}

#[tokio::test]
async fn the_administrator_may_look_on_but_not_speak() {
    let tmp = tempfile::tempdir().unwrap();
    let world = World::start(settings(tmp.path(), StoreKind::Memory)).await;
    let credential = world.edge("gw-1").await;
    world.placed("a", "gw-1").await;
    let token = world.ready.admin_token.clone().unwrap();
    let login = Some(("admin", token.reveal()));
    let mut admin = Client::connect(world.mqtt(), "looker", login, None).await.unwrap();
    assert!(admin.subscribe(&topics().all()).await);

    let mut edge = Edge::online(world.mqtt(), "gw-1", &credential, 1).await;
    world.ok(world.call("POST", "/placements/a/gw-1/issue", None).await);
    let set = edge.hear_set().await;
    edge.applied(&set).await;
    drop(edge);
    // Seen until the will: presence only. What edge and controller say to each other holds passwords.
    let mut seen = Vec::new();
    admin
        .wait("the edge's will", |packet| {
            let Packet::Publish(publish) = packet else { return None };
            seen.push(publish.topic.clone());
            publish.payload.windows(12).any(|w| w == b"\"t\":\"will\",\"").then_some(())
        })
        .await;
    let presence = topics().edge(&EdgeId::new("gw-1").unwrap(), EdgeTopic::Presence);
    assert!(seen.iter().all(|topic| *topic == presence || *topic == topics().controller()), "{seen:?}");
    admin.mqtt.publish(&presence, QoS::AtLeastOnce, false, "x").await.unwrap();
    admin.ended().await;
    world.stop().await;
}

#[tokio::test]
async fn a_request_that_was_answered_before_a_restart_is_not_done_again() {
    let tmp = tempfile::tempdir().unwrap();
    let key = ("idempotency-key", "k-1");
    let body = json!({
        "name": "up",
        "remote": { "url": "mqtt://broker.example", "username": "u", "password": "s3cr3t" },
        "forwards": [{ "topic": "sensors/#" }],
    });
    let world = World::start(settings(tmp.path(), StoreKind::Sled)).await;
    let first = world.keyed("/rules", key, &body).await;
    assert_eq!(first.0, 201, "{first:?}");
    world.keyed("/edges", ("idempotency-key", "k-2"), &json!({ "id": "gw-1" })).await;
    world.stop().await;

    let world = World::start(settings(tmp.path(), StoreKind::Sled)).await;
    assert_eq!(world.keyed("/rules", key, &body).await, (201, first.1, true));
    let edge = world.keyed("/edges", ("idempotency-key", "k-2"), &json!({ "id": "gw-1" })).await;
    assert!(edge.2 && !edge.1.contains("tge_"), "{edge:?}");
    assert_eq!(world.call("GET", "/rules/up/versions", None).await.1["total"], 1);
    world.stop().await;
    // The credential was told once; it is nowhere on the disk.
    for entry in std::fs::read_dir(tmp.path().join("store")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            assert!(!bytes.windows(4).any(|w| w == b"tge_"), "{}", path.display());
        }
    }
}

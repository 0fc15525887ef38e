//! Who is not let in at the controller's broker: operators are told who it says it is, and nothing of what it presented.

use serde_json::Value;

use super::edge::{Client, Edge};
use super::world::{World, settings};
use crate::StoreKind;

async fn refused(world: &World, id: &str, login: Option<(&str, &str)>) {
    assert!(Client::connect(world.mqtt(), id, login, None).await.is_err(), "{id} {login:?}");
}

#[tokio::test]
async fn operators_see_who_is_refused_and_never_a_secret() {
    let tmp = tempfile::tempdir().unwrap();
    let world = World::start(settings(tmp.path(), StoreKind::Memory)).await;
    let credential = world.edge("gw-1").await;
    world.edge("gw-2").await;
    let summary = || async { world.ok(world.call("GET", "/summary", None).await) };
    assert_eq!(summary().await["refused_logins"], Value::Array(Vec::new()));
    for _ in 0..3 {
        refused(&world, "tidegate.default.gw-1", Some(("gw-1", "tge_hunter2"))).await;
    }
    refused(&world, "tidegate.default.gw-9", Some(("gw-9", "tge_hunter2"))).await;
    refused(&world, "tidegate.default.gw-2", Some(("gw-1", &credential))).await;
    refused(&world, "tidegate.default.gw-1", None).await;
    refused(&world, "tidegate.default.gw-1", Some(("tge_hunter2", "x"))).await;
    refused(&world, "looker", Some(("admin", "tga_hunter2"))).await;
    let told = summary().await;
    let mut seen: Vec<(&str, &str, u64)> = told["refused_logins"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["name"].as_str().unwrap(), it["why"].as_str().unwrap(), it["times"].as_u64().unwrap()))
        .collect();
    // The newest first.
    assert_eq!((seen[0].0, seen[4].0), ("admin", "gw-9"));
    seen.sort_unstable();
    assert_eq!(
        seen,
        [
            ("(not the name of an edge)", "no_credential", 1),
            ("(not the name of an edge)", "two_names", 1),
            ("admin", "wrong_token", 1),
            ("gw-1", "two_names", 1),
            ("gw-1", "wrong_credential", 3),
            ("gw-9", "unknown_edge", 1),
        ]
    );
    assert_eq!(told["refused_logins"][0]["from"], "127.0.0.1");
    assert!(!told.to_string().contains("hunter2"), "{told}");
    // The right one is let in: nothing is wrong with this name any more.
    let _edge = Edge::online(world.mqtt(), "gw-1", &credential, 1).await;
    let told = summary().await;
    let names = told["refused_logins"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap());
    assert!(!names.into_iter().any(|name| name == "gw-1"), "{told}");
    world.stop().await;
}

use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::world::{PATIENCE, World, settings};
use crate::{Settings, StoreKind, run};

async fn refused(settings: Settings) -> String {
    let (ready, _) = oneshot::channel();
    let ended = tokio::time::timeout(PATIENCE, run(settings, CancellationToken::new(), ready)).await;
    match ended.expect("it starts or not") {
        Err(error) => error.to_string(),
        Ok(()) => panic!("it started"),
    }
}

#[tokio::test]
async fn what_hinders_the_start_is_told_in_one_sentence() {
    let tmp = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let mut wanted = settings(tmp.path(), StoreKind::Memory);
    wanted.http = address;
    let told = refused(wanted).await;
    assert!(told.contains(&address.to_string()) && told.contains("--http"), "{told}");
    let mut wanted = settings(tmp.path(), StoreKind::Memory);
    wanted.mqtt = address;
    let told = refused(wanted).await;
    assert!(told.contains(&address.to_string()) && told.contains("another address"), "{told}");

    let world = World::start(settings(tmp.path(), StoreKind::Sled)).await;
    let told = refused(settings(tmp.path(), StoreKind::Sled)).await;
    assert!(told.contains("in use by another tidegate (process "), "{told}");
    world.stop().await;

    std::fs::write(tmp.path().join("store/db"), vec![0x5a; 100_000]).unwrap();
    let told = refused(settings(tmp.path(), StoreKind::Sled)).await;
    assert!(told.contains("damaged") && told.contains("import the last export"), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
}

#[tokio::test]
async fn it_stops_within_two_seconds_with_a_watcher_listening() {
    let tmp = tempfile::tempdir().unwrap();
    let world = World::start(settings(tmp.path(), StoreKind::Sled)).await;
    let watching = world.open("GET", "/events", None).await;
    assert_eq!(watching.status(), 200);
    let began = Instant::now();
    world.stop().await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    // Everything is let go of: the same directory serves again.
    World::start(settings(tmp.path(), StoreKind::Sled)).await.stop().await;
    drop(watching);
}

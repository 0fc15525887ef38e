//! Many connections: silent ones, slow ones, floods of them, too many for the process, and storms of take-overs.
#![allow(clippy::unwrap_used)] // test helpers outside #[test] functions

mod common;
use common::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

#[tokio::test]
async fn silent_connections_keep_nobody_out() {
    let mut config = config();
    config.limits.max_connecting = 8;
    let broker = start_with(config).await;
    let addr = broker.local_addr();
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(Raw::open(addr).await);
    }
    until("eight to wait", || (broker.stats().connecting == 8).then_some(())).await;
    // Nobody had a second yet: one more is closed.
    let opened = Instant::now();
    let mut extra = Raw::open(addr).await;
    if opened.elapsed() < Duration::from_millis(900) {
        assert_eq!(extra.try_packet().await, None);
        assert_eq!(broker.stats().refused_crowded, 1);
    }
    // Later the oldest goes, and whoever speaks is let in although all places are taken.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let mut client = Raw::client(addr, "client").await;
    assert_eq!(silent.remove(0).try_packet().await, None);
    for _ in 0..3 {
        silent.push(Raw::open(addr).await);
        serves(addr).await;
    }
    client.ping().await;
    assert!(broker.stats().connecting <= 8);
}

#[tokio::test]
async fn one_address_has_its_own_bound() {
    let mut config = config();
    config.limits.max_connecting_per_address = 3;
    config.limits.exempt_loopback = false;
    let broker = start_with(config).await;
    let addr = broker.local_addr();
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(Raw::open(addr).await);
    }
    until("three to wait", || (broker.stats().connecting == 3).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    // One more: the oldest silent one of the address goes.
    let _fourth = Raw::open(addr).await;
    assert_eq!(silent[0].try_packet().await, None);
    silent[1].ping_after_connect().await;
}

impl Raw {
    async fn ping_after_connect(&mut self) {
        self.send(&connect("patient").bytes()).await;
        assert_eq!(self.packet().await, Packet(0x20, vec![0, 0]));
        self.ping().await;
    }
}

#[tokio::test]
async fn a_connect_that_drips_ends_in_time() {
    let mut config = config();
    config.limits.connect_timeout = Duration::from_millis(400);
    let broker = start_with(config).await;
    let mut slow = Raw::open(broker.local_addr()).await;
    let drip = async {
        for byte in connect(&"x".repeat(200)).bytes() {
            slow.send(&[byte]).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let ended = until("it to be given up", || (broker.stats().refused_incomplete == 1).then_some(()));
    tokio::select! { () = drip => panic!("it dripped to its end"), () = ended => {} }
    serves(broker.local_addr()).await;
}

#[tokio::test]
async fn a_flood_of_connections_leaves_nothing_behind() {
    let broker = start().await;
    let addr = broker.local_addr();
    for round in 0..20usize {
        let mut open = Vec::new();
        for n in 0..40 {
            let mut raw = Raw::open(addr).await;
            raw.send(&connect("flood").bytes()[..(round * n) % 19]).await;
            open.push(raw);
        }
    }
    serves(addr).await;
    until("all to be gone", || {
        let stats = broker.stats();
        (stats.connecting == 0 && stats.connected == 0 && stats.refused == 800).then_some(())
    })
    .await;
    assert_eq!(broker.stats().panics, 0);
}

#[tokio::test]
async fn two_clients_with_one_id_take_over_from_each_other_a_thousand_times() {
    let broker = start().await;
    let addr = broker.local_addr();
    let mut witness = Raw::client(addr, "witness").await;
    witness.subscribe(&[("will", 0)]).await;
    let hello = || connect("same").persistent().will("will", "w", 0, false);
    let (mut holder, _) = Raw::join(addr, hello()).await;
    for _ in 0..1_000 {
        let (next, present) = Raw::join(addr, hello()).await;
        assert!(present);
        holder.closed().await;
        holder = next;
        assert_eq!(witness.got().await.payload, b"w");
    }
    holder.ping().await;
    witness.quiet().await;
    let stats = broker.stats();
    assert_eq!((stats.taken_over, stats.wills), (1_000, 1_000));
    assert_eq!((stats.sessions, stats.connected, stats.waiting_bytes), (2, 2, 0));
}

#[tokio::test]
async fn under_churn_a_will_comes_once_for_who_was_lost_and_never_for_who_left() {
    let broker = start().await;
    let addr = broker.local_addr();
    let mut witness = Raw::client(addr, "witness").await;
    witness.subscribe(&[("will/+", 1)]).await;
    let clients: Vec<_> = (0..150usize)
        .map(|n| {
            tokio::spawn(async move {
                let topic = format!("will/{n}");
                let (mut raw, _) =
                    Raw::join(addr, connect(&format!("c{n}")).will(&topic, "w", 1, true)).await;
                match n % 3 {
                    0 => raw.bye().await,
                    1 => drop(raw),
                    _ => {
                        raw.send(&[0xf0, 0]).await;
                        raw.closed().await;
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let mut wills = BTreeMap::new();
    for _ in 0..100 {
        let got = witness.got().await;
        witness.ack(0x40, got.id).await;
        *wills.entry(got.topic).or_insert(0) += 1;
    }
    witness.quiet().await;
    assert!(wills.values().all(|count| *count == 1));
    assert!((0..150).all(|n| wills.contains_key(&format!("will/{n}")) == (n % 3 != 0)));
    // Who subscribes only now finds each of them, retained.
    let mut late = Raw::client(addr, "late").await;
    late.subscribe(&[("will/#", 0)]).await;
    for _ in 0..100 {
        assert!(late.got().await.retain);
    }
    late.quiet().await;
}

/// The other process of the next test: a broker whose process may open few files. Does nothing when it is not asked for.
#[tokio::test]
async fn the_broker_that_may_open_few_files() {
    if std::env::var_os("TIDEGATE_FEW_FILES").is_none() {
        return;
    }
    let broker = start().await;
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(open + 8), maximum }).unwrap();
    println!("listening {}", broker.local_addr());
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        println!("errors {}", broker.stats().accept_errors);
    }
}

#[tokio::test]
async fn the_listener_survives_that_no_more_files_can_be_opened() {
    use std::io::{BufRead, BufReader};
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_broker_that_may_open_few_files", "--nocapture"])
        .env("TIDEGATE_FEW_FILES", "1")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    // The line of the test runner comes first, without an end.
    let addr: SocketAddr =
        lines.find_map(|line| line.split_once("listening ")?.1.trim().parse().ok()).unwrap();
    let mut crowd = Vec::new();
    for n in 0..30 {
        let mut raw = Raw::open(addr).await;
        raw.send(&connect(&format!("c{n}")).bytes()).await;
        crowd.push(raw);
    }
    let failed = |line: String| line.strip_prefix("errors ")?.parse::<u64>().ok().filter(|n| *n > 0);
    assert!(lines.find_map(failed).is_some(), "accepting failed");
    crowd[0].packet().await;
    crowd[0].ping().await;
    drop(crowd);
    serves(addr).await;
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn two_hundred_idle_connections_are_kept_and_cost_nobody_else() {
    let broker = start().await;
    let addr = broker.local_addr();
    let mut idle = Vec::new();
    for n in 0..200 {
        idle.push(Raw::join(addr, connect(&format!("idle-{n}")).keep_alive(1)).await.0);
    }
    let from = Instant::now();
    let mut rounds = 0u32;
    // While some talk, all others stay by their pings alone.
    while from.elapsed() < Duration::from_secs(3) {
        for raw in &mut idle {
            raw.send(&[0xc0, 0]).await;
        }
        serves(addr).await;
        rounds += 1;
        for raw in &mut idle {
            assert_eq!(raw.packet().await, Packet(0xd0, vec![]));
        }
    }
    assert!(rounds > 1);
    assert_eq!(broker.stats().connected, 200);
    // And without pings they end, all of them, by their keep-alive: they neither close nor answer, as a peer that vanished.
    until("all to time out", || (broker.stats().keep_alive_timeouts == 200).then_some(())).await;
}

//! The control plane under a fleet: how long it takes from an operator's command to the gateway's durable result, alone and
//! for all gateways at once, beside a bare request and acknowledgement of the same payloads through mosquitto; what a connected
//! gateway costs; how a fleet comes back after the controller was killed.
//!
//! `cargo build --release --bins && cargo bench-control [-- 100 1000 5000]`; needs Debian's mosquitto.
#![allow(clippy::print_stdout, reason = "a measurement is printed")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidegate_bench::api::{Api, for_each};
use tidegate_bench::echo::{Echo, Payloads};
use tidegate_bench::fleet::{Fleet, Told, all};
use tidegate_bench::usage;
use tidegate_e2e::controller::Controller;
use tidegate_e2e::mosquitto::Mosquitto;
use tidegate_e2e::rule::Rule;

/// What the simulated gateways and the echo's clients cost is not what is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Requests of operators at a time.
const OPERATORS: usize = 8;
/// Placements of one request, as the command line has it.
const TARGETS: usize = 250;
/// Commands measured one by one at the most.
const SINGLES: usize = 1_000;
/// How long a quiet fleet is watched.
const QUIET: Duration = Duration::from_secs(20);
/// How often the whole fleet is synced, and the echo sent; the median counts.
const ROUNDS: u32 = 5;
/// Longest wait for a fleet.
const LIMIT: Duration = Duration::from_secs(300);
const RULE: &str = "bench";

/// One line of the table.
struct Row {
    edges: usize,
    p50: Duration,
    p99: Duration,
    echo_p50: Duration,
    echo_p99: Duration,
    issue_all: Duration,
    sync_all: Duration,
    echo_all: Duration,
    kib_per_edge: f64,
    sync_cpu_us: f64,
    quiet_cpu_us: f64,
    back: Duration,
    back_cpu: Duration,
}

fn main() {
    let counts: Vec<usize> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let counts = if counts.is_empty() { vec![100, 1_000, 5_000] } else { counts };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let rows: Vec<Row> = counts.iter().map(|edges| runtime.block_on(measure(*edges))).collect();
    print(&rows);
}

async fn measure(edges: usize) -> Row {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    // Its operators are many, on one address.
    let mut controller = Controller::with(dir.path(), None, &[("TIDEGATE_HTTP_RATE", "0")]);
    let api = Api { address: controller.http, token: controller.token().to_owned() };
    let pid = |controller: &Controller| controller.process.pid().expect("the controller runs");
    let began = Instant::now();
    let credentials = prepare(&controller, &api, dir.path(), edges).await;
    println!("{edges} edges: made and placed in {:.1} s", began.elapsed().as_secs_f64());

    let empty = usage::of(pid(&controller));
    let began = Instant::now();
    let mut fleet = Fleet::start(controller.mqtt, &credentials);
    all(&mut fleet, 0..edges, |told| matches!(told, Told::Welcome), LIMIT).await;
    println!("{edges} edges: connected and welcome in {:.1} s", began.elapsed().as_secs_f64());

    let issue_all = everywhere(&api, &mut fleet, edges, "issue").await;
    let full = usage::of(pid(&controller));
    let (p50, p99) = percentiles(one_by_one(&api, &mut fleet, edges).await);

    let (mut syncs, mut sync_cpu) = (Vec::new(), Duration::ZERO);
    for version in 0..ROUNDS {
        controller.apply(&rule(&format!("v{}/", version + 2)));
        let before = usage::of(pid(&controller));
        syncs.push(everywhere(&api, &mut fleet, edges, "sync").await);
        sync_cpu += (usage::of(pid(&controller)).cpu - before.cpu) / ROUNDS;
    }
    let sync_all = median(syncs);
    let pending = controller.ok(&["status"]).json();
    assert_eq!(pending["tally"]["issue"]["issued"], edges, "{pending}");

    let before = usage::of(pid(&controller));
    tokio::time::sleep(QUIET).await;
    let quiet_cpu = usage::of(pid(&controller)).cpu - before.cpu;

    let sizes = |size: &std::sync::atomic::AtomicUsize| size.load(std::sync::atomic::Ordering::Relaxed);
    let payloads = Payloads {
        set: sizes(&fleet.sizes.set),
        received: sizes(&fleet.sizes.received),
        result: sizes(&fleet.sizes.result),
    };
    println!("{edges} edges: payloads in bytes {payloads:?}");

    while fleet.told.try_recv().is_ok() {}
    controller.process.kill9();
    let began = Instant::now();
    controller.start_again();
    all(&mut fleet, 0..edges, |told| matches!(told, Told::Welcome), LIMIT).await;
    let back = began.elapsed();
    let back_cpu = usage::of(pid(&controller)).cpu;
    drop(fleet);
    controller.process.kill9();

    let (echo_p50, echo_p99, echo_all) = echo(dir.path(), edges, payloads).await;
    let per_edge = |duration: Duration| duration.as_secs_f64() * 1e6 / edges as f64;
    Row {
        edges,
        p50,
        p99,
        echo_p50,
        echo_p99,
        issue_all,
        sync_all,
        echo_all,
        kib_per_edge: full.resident.saturating_sub(empty.resident) as f64 / 1_024.0 / edges as f64,
        sync_cpu_us: per_edge(sync_cpu),
        quiet_cpu_us: per_edge(quiet_cpu) * 60.0 / QUIET.as_secs_f64(),
        back,
        back_cpu,
    }
}

fn rule(prefix: &str) -> Rule {
    let nowhere = "127.0.0.1:1883".parse().expect("an address");
    let mut rule = Rule::new(RULE, nowhere);
    rule.mountpoint = format!("{prefix}{{edge}}/");
    rule
}

/// Makes the edges and places the rule on each; gives names and credentials.
async fn prepare(controller: &Controller, api: &Api, dir: &Path, edges: usize) -> Vec<(String, String)> {
    std::fs::create_dir_all(dir.join("rules")).expect("the temporary directory can be written");
    controller.apply(&rule("v1/"));
    let made = Arc::new(Mutex::new(vec![(String::new(), String::new()); edges]));
    let all = Arc::clone(&made);
    for_each(api, edges, OPERATORS, move |mut client, index| {
        let all = Arc::clone(&all);
        async move {
            let name = format!("gw-{index}");
            let answer = client.ok("POST", "/edges", "", &format!("{{\"id\":\"{name}\"}}")).await;
            let answer: serde_json::Value = serde_json::from_str(&answer).expect("the API answers JSON");
            let credential = answer["credential"].as_str().expect("a credential is told once").to_owned();
            client.ok("PUT", &format!("/rules/{RULE}/placements/{name}"), "", "{}").await;
            all.lock().expect("no task panicked")[index] = (name, credential);
            client
        }
    })
    .await;
    let made = made.lock().expect("no task panicked");
    made.clone()
}

/// One action on every placement, as `tidegate sync --all` sends it; the time until the controller has the last result on
/// disk.
async fn everywhere(api: &Api, fleet: &mut Fleet, edges: usize, action: &'static str) -> Duration {
    while fleet.told.try_recv().is_ok() {}
    let began = Instant::now();
    let requests = edges.div_ceil(TARGETS);
    let asked = for_each(api, requests, 1, move |mut client, request| async move {
        let indices = request * TARGETS..edges.min((request + 1) * TARGETS);
        let targets: Vec<_> =
            indices.map(|index| serde_json::json!({ "rule": RULE, "edge": format!("gw-{index}") })).collect();
        let body = serde_json::json!({ "action": action, "targets": targets });
        let answer = client.ok("POST", "/actions", "", &body.to_string()).await;
        assert!(answer.contains("\"refused\":0"), "{answer}");
        client
    });
    let settled = all(fleet, 0..edges, |told| matches!(told, Told::Settled), LIMIT);
    let ((), settled) = tokio::join!(asked, settled);
    settled.values().max().map_or(Duration::ZERO, |last| *last - began)
}

/// Issues again, one edge after the other with [`OPERATORS`] at a time; each one's time from the request to the durable
/// result.
async fn one_by_one(api: &Api, fleet: &mut Fleet, edges: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    let mut chunk = 0;
    while times.len() < SINGLES.min(edges * 4) {
        let since: Arc<Mutex<Vec<Option<Instant>>>> = Arc::new(Mutex::new(vec![None; edges]));
        let first = (chunk * OPERATORS) % edges;
        let count = OPERATORS.min(edges - first);
        chunk += 1;
        while fleet.told.try_recv().is_ok() {}
        let shared = Arc::clone(&since);
        let asked = for_each(api, count, OPERATORS, move |mut client, offset| {
            let (index, since) = (first + offset, Arc::clone(&shared));
            async move {
                since.lock().expect("no task panicked")[index] = Some(Instant::now());
                client.ok("POST", &format!("/placements/{RULE}/gw-{index}/issue-again"), "", "").await;
                client
            }
        });
        let settled = all(fleet, first..first + count, |told| matches!(told, Told::Settled), LIMIT);
        let ((), settled) = tokio::join!(asked, settled);
        let since = since.lock().expect("no task panicked");
        times.extend(settled.iter().filter_map(|(index, at)| Some(*at - since[*index]?)));
    }
    times
}

async fn echo(dir: &Path, edges: usize, payloads: Payloads) -> (Duration, Duration, Duration) {
    let mosquitto = Mosquitto::open(dir);
    let echo = Echo::start(mosquitto.address, edges, payloads);
    let singles = echo.run(SINGLES.min(edges * 4).div_ceil(edges), OPERATORS).await.0;
    let (p50, p99) = percentiles(singles);
    // As many at a time as mosquitto takes without dropping: it is the floor that is wanted.
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..ROUNDS {
        times.push(echo.run(1, 256).await.1);
    }
    (p50, p99, median(times))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn percentiles(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    (at(50), at(99))
}

fn print(rows: &[Row]) {
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    println!("\none command, {OPERATORS} at a time: request to durable result, ms");
    println!("{:>8}{:>10}{:>10}{:>12}{:>12}", "edges", "p50", "p99", "echo p50", "echo p99");
    for row in rows {
        println!(
            "{:>8}{:>10.1}{:>10.1}{:>12.1}{:>12.1}",
            row.edges,
            ms(row.p50),
            ms(row.p99),
            ms(row.echo_p50),
            ms(row.echo_p99)
        );
    }
    println!("\nthe whole fleet, seconds; ratio to the echo of the same payloads");
    println!("{:>8}{:>10}{:>10}{:>10}{:>8}", "edges", "issue", "sync", "echo", "ratio");
    for row in rows {
        println!(
            "{:>8}{:>10.2}{:>10.2}{:>10.2}{:>8.2}",
            row.edges,
            row.issue_all.as_secs_f64(),
            row.sync_all.as_secs_f64(),
            row.echo_all.as_secs_f64(),
            row.sync_all.as_secs_f64() / row.echo_all.as_secs_f64()
        );
    }
    println!("\nwhat an edge costs the controller");
    println!(
        "{:>8}{:>14}{:>18}{:>20}{:>14}{:>14}",
        "edges", "KiB each", "sync CPU us each", "quiet CPU us/min", "storm over s", "storm CPU s"
    );
    for row in rows {
        println!(
            "{:>8}{:>14.1}{:>18.0}{:>20.0}{:>14.1}{:>14.1}",
            row.edges,
            row.kib_per_edge,
            row.sync_cpu_us,
            row.quiet_cpu_us,
            row.back.as_secs_f64(),
            row.back_cpu.as_secs_f64()
        );
    }
}

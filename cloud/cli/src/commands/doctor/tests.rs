//! Each check in each of its results, but for those that the transcripts of tests/whole_run.rs show.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use clap::Parser as _;
use serde_json::{Value, json};
use tidegate_model::doctor::{Check, Outcome};

use super::{fleet, here, server};
use crate::api;
use crate::args::Cli;
use crate::client::Client;
use crate::env::Env;

/// What was told of one check, each result with its reason and what to do.
fn told(checks: &[Check], name: &str) -> Vec<(Outcome, String, String)> {
    let named = checks.iter().filter(|check| check.name == name);
    named.map(|check| (check.result, check.why.clone(), check.fix.clone())).collect()
}

/// The one line of this name.
#[track_caller]
fn one(checks: &[Check], name: &str) -> (Outcome, String, String) {
    let told = told(checks, name);
    assert_eq!(told.len(), 1, "{name} in {checks:?}");
    let (result, why, fix) = told.into_iter().next().unwrap();
    let needs_nothing = matches!(result, Outcome::Ok | Outcome::Skipped);
    assert_eq!(fix.is_empty(), needs_nothing, "who complains says what to do: {why}");
    (result, why, fix)
}

fn file(dir: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

/// What is found of the contexts in this file.
fn contexts(config_file: PathBuf, args: &[&str]) -> (Option<Client>, Vec<Check>) {
    // What is not given is empty, whatever the environment of the tests says.
    let not_given = ["--server", "--token", "--context"].into_iter().filter(|flag| !args.contains(flag));
    let empty = not_given.flat_map(|flag| [flag, ""]);
    let args = ["tidegate", "doctor"].into_iter().chain(args.iter().copied()).chain(empty);
    let env = Env { config_file: Some(config_file), ..Env::default() };
    let mut checks = Vec::new();
    let client = here::client(&Cli::parse_from(args).global, &env, &mut checks);
    (client, checks)
}

#[test]
fn contexts_and_the_rights_of_their_files() {
    let dir = tempfile::tempdir().unwrap();
    let token = file(dir.path(), "lab.token", "tga_x\n", 0o640);
    let text = format!(
        "current = \"lab\"\n[contexts.lab]\nserver = \"http://lab:7180\"\ntoken_file = \"{}\"\n",
        token.display()
    );
    let config = file(dir.path(), "config.toml", &text, 0o644);
    let (client, checks) = contexts(config.clone(), &[]);
    assert!(client.is_some());
    assert_eq!(one(&checks, "context").1, "lab, server http://lab:7180");
    for (name, path, mode) in [("context file", &config, "644"), ("token file", &token, "640")] {
        let (result, why, fix) = one(&checks, name);
        assert_eq!(result, Outcome::Warn);
        assert!(why.contains("read by others") && why.contains(mode), "{why}");
        assert_eq!(fix, format!("chmod 600 {}", path.display()));
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let (_, checks) = contexts(config.clone(), &[]);
    assert_eq!(one(&checks, "context file").0, Outcome::Ok);
    assert_eq!(one(&checks, "token file").0, Outcome::Ok);
    // A context that is not there, and a file that is none.
    let (client, checks) = contexts(config, &["--context", "gone"]);
    assert!(client.is_none() && told(&checks, "server")[0].0 == Outcome::Bad, "{checks:?}");
    let broken = file(dir.path(), "broken.toml", "current = ", 0o600);
    let (_, checks) = contexts(broken.clone(), &["--server", "http://lab:7180", "--token", "tga_x"]);
    let (result, why, _) = one(&checks, "context file");
    assert!(result == Outcome::Bad && why.contains("broken.toml"), "{why}");
}

#[test]
fn a_missing_token_and_files_that_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let (client, checks) = contexts(dir.path().join("none.toml"), &["--server", "http://127.0.0.1:1"]);
    assert!(client.is_some());
    let (result, _, fix) = one(&checks, "token");
    assert!(result == Outcome::Bad && fix.contains("TIDEGATE_TOKEN"), "{fix}");

    let mut checks = Vec::new();
    here::rights("token file", &dir.path().join("gone"), &mut checks);
    let (result, why, _) = one(&checks, "token file");
    assert!(result == Outcome::Bad && why.contains("cannot be looked at"), "{why}");
    // A socket cannot be opened as a file, by nobody.
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut checks = Vec::new();
    here::rights("token file", &socket, &mut checks);
    let (result, why, _) = one(&checks, "token file");
    assert!(result == Outcome::Bad && why.contains("cannot be read"), "{why}");
}

#[test]
fn the_disk_is_that_of_the_directory_that_was_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut checks = Vec::new();
    here::disk(None, Some(dir.path()), &mut checks);
    assert!(told(&checks, "disk")[0].1.contains("MiB are free"), "{checks:?}");
    let mut checks = Vec::new();
    here::disk(None, Some(&dir.path().join("gone")), &mut checks);
    let (result, _, fix) = one(&checks, "disk");
    assert_eq!((result, fix.as_str()), (Outcome::Bad, "check --data-dir"));
    let mut checks = Vec::new();
    let elsewhere = Client::new("http://lab:7180", None).unwrap();
    here::disk(Some(&elsewhere), None, &mut checks);
    assert_eq!(checks, [], "the disk of another machine is not looked at");
}

/// An answer to one path: status line, headers, body.
type Page = (&'static str, String, String);

/// A server that answers these paths until the test ends; its client.
fn scripted(pages: BTreeMap<&'static str, Page>) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            let path = head.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default();
            let nothing = ("404 Not Found", String::new(), String::new());
            let (status, headers, body) = pages.get(path).cloned().unwrap_or(nothing);
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    Client::new(&url, Some("tga_x".into())).unwrap()
}

fn page(status: &'static str, body: &Value) -> Page {
    (status, "content-type: application/json\r\n".into(), body.to_string())
}

/// Healthy, but for what is said otherwise.
fn healthy(other: impl IntoIterator<Item = (&'static str, Page)>) -> Client {
    let fine = || page("200 OK", &json!({}));
    let metrics = format!("tidegate_build_info{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION"));
    let mut pages = BTreeMap::from([
        ("/healthz", fine()),
        ("/readyz", fine()),
        ("/api/v1/summary", fine()),
        ("/metrics", ("200 OK", String::new(), metrics)),
    ]);
    pages.extend(other);
    scripted(pages)
}

async fn reachable(client: &Client) -> (bool, Vec<Check>) {
    let mut checks = Vec::new();
    (server::reachable(client, &mut checks).await, checks)
}

#[tokio::test]
async fn what_stands_between_here_and_the_server() {
    // `.invalid` is known nowhere (RFC 2606).
    let (is_reachable, checks) = reachable(&Client::new("http://lab.invalid", None).unwrap()).await;
    let (result, why, _) = one(&checks, "name");
    assert!(!is_reachable && result == Outcome::Bad && why.contains("lab.invalid"), "{checks:?}");

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (is_reachable, checks) = reachable(&Client::new(&format!("http://{closed}"), None).unwrap()).await;
    assert_eq!(one(&checks, "name").0, Outcome::Ok);
    let (result, why, fix) = one(&checks, "connection");
    assert!(!is_reachable && result == Outcome::Bad && fix.contains("tidegate serve"), "{why}");

    let (is_reachable, checks) = reachable(&scripted(BTreeMap::new())).await;
    let (result, why, _) = one(&checks, "http");
    assert!(!is_reachable && result == Outcome::Bad && why.contains("HTTP 404"), "{why}");
    assert_eq!(one(&checks, "connection").0, Outcome::Ok);

    // A port behind which nobody speaks HTTP.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", mute.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in mute.incoming() {
            // The client may be gone already.
            let _ = stream.unwrap().write_all(b"\x20\x02\x00\x00");
        }
    });
    let (is_reachable, checks) = reachable(&Client::new(&url, None).unwrap()).await;
    assert!(!is_reachable && one(&checks, "http").0 == Outcome::Bad, "{checks:?}");
}

#[tokio::test]
async fn what_the_server_says_of_itself() {
    let (is_reachable, checks) = reachable(&healthy([])).await;
    assert!(is_reachable && checks.iter().all(|check| check.result == Outcome::Ok), "{checks:?}");
    assert_eq!(told(&checks, "clock"), [], "a server that tells no time is not blamed for it");

    let sick = page("503 Service Unavailable", &json!({ "detail": "the broker cannot be reached" }));
    let (is_reachable, checks) = reachable(&healthy([("/readyz", sick)])).await;
    let (result, why, _) = one(&checks, "store, broker");
    assert_eq!((is_reachable, result, why.as_str()), (true, Outcome::Bad, "the broker cannot be reached"));

    for (off, result) in [(0, Outcome::Ok), (60, Outcome::Warn), (-60, Outcome::Warn)] {
        let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(off);
        let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&at).unwrap();
        let told = ("200 OK", format!("date: {date}\r\n"), String::new());
        let (_, checks) = reachable(&healthy([("/healthz", told)])).await;
        assert_eq!(one(&checks, "clock").0, result, "{off} s: {checks:?}");
    }
}

#[tokio::test]
async fn the_token_and_the_versions() {
    async fn signed_in(client: &Client) -> (bool, Vec<Check>) {
        let mut checks = Vec::new();
        (server::signed_in(client, &mut checks).await, checks)
    }
    let (is_in, checks) = signed_in(&healthy([])).await;
    assert!(is_in && one(&checks, "token").0 == Outcome::Ok);
    assert!(one(&checks, "version").1.contains("here and there"), "{checks:?}");

    let problem = json!({ "title": "A token is needed", "detail": "the token is not valid", "code": "UNAUTHENTICATED" });
    let refused =
        ("401 Unauthorized", "content-type: application/problem+json\r\n".into(), problem.to_string());
    let (is_in, checks) = signed_in(&healthy([("/api/v1/summary", refused)])).await;
    let (result, why, fix) = one(&checks, "token");
    assert!(!is_in && result == Outcome::Bad && why.contains("not valid"), "{why}");
    assert!(fix.contains("admin.token"), "{fix}");

    let newer =
        ("200 OK", String::new(), "tidegate_build_info{commit=\"x\",version=\"99.0.0\"} 1\n".to_owned());
    let (_, checks) = signed_in(&healthy([("/metrics", newer)])).await;
    let (result, why, _) = one(&checks, "version");
    assert!(result == Outcome::Warn && why.contains("99.0.0 on the server"), "{why}");
    let silent = page("401 Unauthorized", &json!({}));
    let (_, checks) = signed_in(&healthy([("/metrics", silent)])).await;
    assert_eq!(one(&checks, "version").0, Outcome::Skipped);
}

#[test]
fn the_version_is_read_from_its_metric() {
    let text = "# TYPE tidegate_build_info gauge\ntidegate_build_info{commit=\"x\",version=\"0.1.0\"} 1\n";
    assert_eq!(server::version(text).as_deref(), Some("0.1.0"));
    assert_eq!(server::version("up 1\n"), None);
}

fn edges(list: Value) -> Vec<api::Edge> {
    serde_json::from_value(list).unwrap()
}

#[test]
fn edges_that_are_away_or_held() {
    let links = |list: Value| {
        let mut checks = Vec::new();
        fleet::links(&edges(list), &mut checks);
        one(&checks, "edges")
    };
    assert!(links(json!([])).2.contains("tidegate edge create"));
    let online = json!({ "id": "gw-1", "link": "online" });
    let (result, why, _) = links(json!([online]));
    assert_eq!((result, why.as_str()), (Outcome::Ok, "1 edge is online"));
    let mut crowd = vec![online];
    crowd.extend((2..9).map(|n| json!({ "id": format!("gw-{n}"), "link": "offline" })));
    let (result, why, _) = links(json!(crowd));
    assert_eq!(result, Outcome::Warn);
    assert_eq!(why, "7 of 8 not online: gw-2, gw-3, gw-4, gw-5, gw-6, …");

    let held = |next: &str| {
        let mut checks = Vec::new();
        let reason = json!({ "code": "CLOUD_BEHIND", "detail": "the edge is ahead", "next": next });
        fleet::held(&edges(json!([{ "id": "gw-1", "link": "online", "held": reason }])), &mut checks);
        one(&checks, "edge")
    };
    let (result, why, fix) = held("confirm it");
    assert_eq!((result, why.as_str()), (Outcome::Bad, "gw-1: the edge is ahead (CLOUD_BEHIND)"));
    assert_eq!((fix.as_str(), held("").2.as_str()), ("confirm it", "tidegate edge get gw-1"));
}

fn placement(rule: &str, issue: &str, run: &str, reason: Value) -> Value {
    json!({ "rule": rule, "edge": "gw-1", "issue_state": issue, "run_state": run, "version": 1, "link": "online",
            "reason": reason })
}

fn pending(list: Vec<Value>) -> Vec<Check> {
    let placements: Vec<api::Placement> = serde_json::from_value(Value::Array(list)).unwrap();
    let mut checks = Vec::new();
    fleet::pending(&placements, &["gw-held"], &mut checks);
    checks
}

#[test]
fn placements_that_failed_have_a_fault_or_wait() {
    let aligned = placement("a", "issued", "running", Value::Null);
    let (result, why, _) = one(&pending(vec![aligned.clone()]), "placement");
    assert_eq!((result, why.as_str()), (Outcome::Ok, "1 placement is aligned"));

    let reason = |next: &str| json!({ "code": "AUTH", "detail": "wrong password", "next": next });
    let (result, why, fix) =
        one(&pending(vec![placement("a", "failed", "running", reason("mend it"))]), "placement");
    assert_eq!(
        (result, why.as_str(), fix.as_str()),
        (Outcome::Bad, "a/gw-1: wrong password (AUTH)", "mend it")
    );
    let (_, _, fix) = one(&pending(vec![placement("a", "issued", "paused_fault", reason(""))]), "placement");
    assert_eq!(fix, "tidegate rule get a");
    let (_, why, _) = one(&pending(vec![placement("a", "failed", "not_running", Value::Null)]), "placement");
    assert_eq!(why, "a/gw-1: Failed to issue");

    let many = (0..7).map(|n| placement(&format!("r{n}"), "failed", "running", reason("mend it")));
    let lines = told(&pending(many.collect()), "placement");
    assert_eq!(lines.len(), 6, "five by name, and how many more");
    assert_eq!((lines[5].1.as_str(), lines[5].2.as_str()), ("2 more have failed", "tidegate status"));

    let mut full = aligned.clone();
    let reason =
        json!({ "code": "QUEUE_FULL", "detail": "the queue is full", "next": "give it a larger one" });
    full["queue_full"] = json!({ "since": "2026-01-01T00:00:00Z", "reason": reason });
    let (result, why, _) = one(&pending(vec![full]), "placement");
    assert_eq!((result, why.as_str()), (Outcome::Warn, "a/gw-1: the queue is full (QUEUE_FULL)"));

    let waiting = vec![
        aligned,
        placement("b", "not_issued", "not_running", Value::Null),
        placement("c", "updates_not_issued", "running", Value::Null),
    ];
    let (result, why, fix) = one(&pending(waiting), "placement");
    assert_eq!((result, why.as_str()), (Outcome::Warn, "2 pending: b/gw-1, c/gw-1"));
    assert_eq!(fix, "tidegate sync --all");

    // What waits for its gateway, or on an edge that is held, is no work for a sync.
    let mut queued = placement("d", "not_issued", "not_running", Value::Null);
    queued["in_flight"] =
        json!({ "id": "1", "action": "issue", "queued": true, "since": "2026-01-01T00:00:00Z" });
    let mut held = placement("e", "updates_not_issued", "running", Value::Null);
    held["edge"] = json!("gw-held");
    let (result, why, fix) = one(&pending(vec![queued, held]), "placement");
    assert_eq!((result, why.as_str()), (Outcome::Warn, "1 queued: d/gw-1"));
    assert!(fix.starts_with("nothing: "));

    let mut losing = placement("f", "issued", "running", Value::Null);
    losing["counters"] = json!({ "forwarded": 1, "dropped": { "full": 2, "expired": 3 } });
    let (result, why, _) = one(&pending(vec![losing]), "placement");
    assert_eq!(
        (result, why.as_str()),
        (Outcome::Warn, "messages were given up since the agent began: f/gw-1 (5)")
    );

    let mut refused = placement("g", "issued", "running", Value::Null);
    refused["counters"] = json!({ "set_aside": 2 });
    let (result, why, _) = one(&pending(vec![refused]), "placement");
    assert_eq!(
        (result, why.as_str()),
        (Outcome::Warn, "messages are set aside that the broker does not take: g/gw-1 (2)")
    );
}

#[test]
fn who_was_refused_is_told_with_what_to_do() {
    let now = jiff::Timestamp::from_second(1_000).unwrap();
    let refused = |names: &[&str], why: &str| -> Vec<api::RefusedLogin> {
        let one = |name| json!({ "name": name, "why": why, "times": 12, "last": "1970-01-01T00:16:30Z", "from": "10.0.0.5" });
        names.iter().map(|name| serde_json::from_value(one(name)).unwrap()).collect()
    };
    let checked = |refused: Option<&[api::RefusedLogin]>| {
        let mut checks = Vec::new();
        fleet::logins(refused, now, &mut checks);
        checks
    };
    assert!(checked(None).is_empty());
    assert_eq!(one(&checked(Some(&[])), "logins").0, Outcome::Ok);
    let (result, why, fix) = one(&checked(Some(&refused(&["gw-7"], "wrong_credential"))), "logins");
    assert_eq!(result, Outcome::Warn);
    assert_eq!(why, "10.0.0.5 tried to log in as gw-7 with a wrong credential, 12 times, last 10 s ago");
    assert!(fix.contains("give the gateway at this address the credential of gw-7"), "{fix}");
    for why in ["wrong_token", "unknown_edge", "two_names", "no_credential", "of_a_newer_server"] {
        one(&checked(Some(&refused(&["gw-7"], why))), "logins");
    }
    let many = checked(Some(&refused(&["a", "b", "c", "d", "e", "f", "g"], "unknown_edge")));
    assert_eq!((many.len(), many[5].why.as_str()), (6, "2 more were refused"));
}

//! What bad clients meet at the real socket: each gets one clear problem, soon, and nobody else notices.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::world::{PATIENCE, World, settings};
use crate::{Settings, StoreKind};

async fn world(change: impl FnOnce(&mut Settings)) -> (tempfile::TempDir, World) {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path(), StoreKind::Memory);
    change(&mut settings);
    let world = World::start(settings).await;
    (dir, world)
}

/// Sends raw bytes and reads one answer: status, head, body.
async fn raw(world: &World, bytes: &[u8]) -> (u16, String, Value) {
    let mut stream = TcpStream::connect(world.ready.http).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    answer(&mut stream).await
}

async fn answer(stream: &mut TcpStream) -> (u16, String, Value) {
    let mut seen = Vec::new();
    let reading = async {
        loop {
            let text = String::from_utf8_lossy(&seen);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let head = head.to_lowercase();
                let length =
                    head.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok());
                if body.len() >= length.unwrap_or(0) {
                    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                    return (status, head, serde_json::from_str(body).unwrap_or(Value::Null));
                }
            }
            let mut chunk = [0; 4096];
            let read = stream.read(&mut chunk).await.unwrap();
            assert_ne!(read, 0, "closed after {}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&chunk[..read]);
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap()
}

fn request(world: &World, line: &str, more: &str) -> Vec<u8> {
    let token = world.token();
    format!("{line} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n{more}\r\n").into_bytes()
}

#[tokio::test]
async fn what_is_too_large_is_refused_at_once_with_a_problem() {
    let (_dir, world) = world(|_| {}).await;
    let many: String = (0..70).map(|n| format!("x-{n}: 1\r\n")).collect();
    let cases = [
        ("POST /api/v1/rules".to_owned(), "content-length: 99999999999\r\n".to_owned(), 413, "TOO_LARGE"),
        ("GET /api/v1/rules".to_owned(), "content-length: 99999999999\r\n".to_owned(), 413, "TOO_LARGE"),
        (format!("GET /api/v1/{}", "x".repeat(2_000)), String::new(), 414, "URI_TOO_LONG"),
        (format!("GET /api/v1/rules?q={}", "x".repeat(20_000)), String::new(), 414, "URI_TOO_LONG"),
        ("GET /api/v1/rules".to_owned(), many, 431, "HEADERS_TOO_LARGE"),
        ("GET /api/v1/rules".to_owned(), format!("x: {}\r\n", "y".repeat(20_000)), 431, "HEADERS_TOO_LARGE"),
    ];
    for (line, more, status, code) in cases {
        let began = Instant::now();
        let (got, head, body) = raw(&world, &request(&world, &line, &more)).await;
        let shown: String = line.chars().take(60).collect();
        assert_eq!((got, body["code"].as_str()), (status, Some(code)), "{shown}: {head} {body}");
        assert!(head.contains("application/problem+json") && head.contains("x-request-id"), "{head}");
        // A body that never comes is not waited for.
        assert!(began.elapsed() < Duration::from_secs(8), "{shown}: {:?}", began.elapsed());
    }
    world.stop().await;
}

#[tokio::test]
async fn methods_and_paths_that_are_not_there_are_told() {
    let (_dir, world) = world(|_| {}).await;
    let cases = [
        ("GET /api/v1/nothing", 404, "UNKNOWN_PATH"),
        ("GET /api/v1/rules/", 404, "UNKNOWN_PATH"),
        ("GET //api/v1/rules", 404, "UNKNOWN_PATH"),
        ("GET /api/v1/rules/../edges", 404, "UNKNOWN_PATH"),
        ("GET /api/v1/rules/a%2Fb", 404, "UNKNOWN_RULE"),
        ("GET /api/v1/rules/a%00", 404, "UNKNOWN_RULE"),
        ("GET /api/v1/rules/%ff", 400, "BAD_REQUEST"),
        ("GET /api/v1/rules/%zz", 404, "UNKNOWN_RULE"),
        ("GET /api/v1/rules?q=%ff", 422, "BAD_REQUEST"),
        ("GET /api/v1/rules?limit=0", 422, "BAD_REQUEST"),
        ("GET /api/v1/rules?limit=5&limit=6", 422, "BAD_REQUEST"),
        ("GET /api/v1/rules?cursor=AAAA", 422, "BAD_REQUEST"),
        ("GET /api/v1/rules?cursor=!!", 422, "BAD_REQUEST"),
        ("GET /api/v1/placements?cursor=YQ", 422, "BAD_REQUEST"),
        ("PUT /api/v1/rules", 405, "METHOD_NOT_ALLOWED"),
        ("FOO /api/v1/rules", 405, "METHOD_NOT_ALLOWED"),
        ("DELETE /healthz", 405, "METHOD_NOT_ALLOWED"),
    ];
    for (line, status, code) in cases {
        let (got, head, body) = raw(&world, &request(&world, line, "")).await;
        assert_eq!((got, body["code"].as_str()), (status, Some(code)), "{line}: {head} {body}");
        if status == 405 {
            assert!(head.contains("\r\nallow: get"), "{line}: {head}");
        }
    }
    let (status, head, _) = raw(&world, &request(&world, "OPTIONS /api/v1/rules", "")).await;
    assert!(status == 204 && head.contains("allow: get,head,post"), "{head}");
    assert!(!head.contains("access-control"), "{head}");
    let mut stream = TcpStream::connect(world.ready.http).await.unwrap();
    stream.write_all(&request(&world, "HEAD /api/v1/summary", "connection: close\r\n")).await.unwrap();
    let mut head = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut head)).await.unwrap().unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
    world.stop().await;
}

#[tokio::test]
async fn who_asks_too_often_waits_and_who_has_a_token_is_not_kept_out_by_who_has_none() {
    let (_dir, world) = world(|settings| settings.http_rate = 10).await;
    let mut stream = TcpStream::connect(world.ready.http).await.unwrap();
    let mut limited = None;
    for _ in 0..500 {
        stream.write_all(&request(&world, "GET /api/v1/summary", "")).await.unwrap();
        let (status, head, body) = answer(&mut stream).await;
        if status != 200 {
            limited = Some((status, head, body));
            break;
        }
    }
    let (status, head, body) = limited.expect("500 requests are more than 50 at once and 10 per second");
    assert_eq!((status, &body["code"]), (429, &Value::from("RATE_LIMITED")));
    let wait = head.lines().find_map(|line| line.strip_prefix("retry-after: ")).unwrap();
    tokio::time::sleep(Duration::from_secs(wait.parse().unwrap())).await;
    stream.write_all(&request(&world, "GET /api/v1/summary", "")).await.unwrap();
    assert_eq!(answer(&mut stream).await.0, 200);
    world.stop().await;

    let (_dir, world) = self::world(|_| {}).await;
    let wrong = b"GET /api/v1/summary HTTP/1.1\r\nhost: x\r\nauthorization: Bearer tga_wrong\r\n\r\n";
    let mut stream = TcpStream::connect(world.ready.http).await.unwrap();
    let mut statuses = Vec::new();
    while statuses.last() != Some(&429) && statuses.len() < 2_000 {
        stream.write_all(wrong).await.unwrap();
        statuses.push(answer(&mut stream).await.0);
    }
    assert_eq!((statuses[0], statuses.last()), (401, Some(&429)));
    stream.write_all(&request(&world, "GET /api/v1/summary", "")).await.unwrap();
    assert_eq!(answer(&mut stream).await.0, 200);
    world.stop().await;
}

#[tokio::test]
async fn a_head_that_comes_drop_by_drop_ends_its_connection() {
    let (_dir, world) = world(|_| {}).await;
    let mut stream = TcpStream::connect(world.ready.http).await.unwrap();
    stream.write_all(b"GET /api/v1/summary HTTP/1.1\r\n").await.unwrap();
    let dripping = async {
        let mut byte = [0];
        loop {
            tokio::select! {
                read = stream.read(&mut byte) => if !matches!(read, Ok(1)) { return },
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
            }
            if stream.write_all(b"x").await.is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), dripping).await.expect("the connection is ended");
    world.stop().await;
}

#[tokio::test]
async fn a_body_that_comes_drop_by_drop_is_a_problem() {
    let (_dir, world) = world(|_| {}).await;
    let more = "content-type: application/json\r\ncontent-length: 1000\r\n";
    let (status, _, body) = raw(&world, &request(&world, "POST /api/v1/rules", more)).await;
    assert_eq!((status, &body["code"]), (408, &Value::from("REQUEST_TIMEOUT")));
    world.stop().await;
}

#[tokio::test]
async fn metrics_tell_what_happened_and_no_label_is_a_clients() {
    let (_dir, world) = world(|_| {}).await;
    world.edge("gw-1").await;
    world.placed("up", "gw-1").await;
    raw(&world, &request(&world, "GET /api/v1/rules/secret-name-of-a-client", "")).await;
    raw(&world, &request(&world, "BREW /api/v1/rules/secret-name-of-a-client", "")).await;
    raw(&world, &request(&world, "GET /nothing/secret-name-of-a-client", "")).await;
    let (status, _, _) = raw(&world, b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(status, 401);
    let text = world.open_root("/metrics").await;
    for wanted in [
        "tidegate_rules 1",
        "tidegate_placements{issue_state=\"not_issued\"} 1",
        "tidegate_placements{issue_state=\"failed\"} 0",
        "tidegate_placements_run{run_state=\"not_running\"} 1",
        "tidegate_pending 1",
        "tidegate_edges{link=\"unknown\"} 1",
        "tidegate_edges{link=\"online\"} 0",
        "tidegate_build_info{version=",
        "tidegate_sse_clients 0",
        "tidegate_store_op_duration_seconds_count{op=\"apply\"}",
        "tidegate_http_request_duration_seconds_count{route=\"/api/v1/rules/{rule}\",method=\"GET\",status=\"404\"} 1",
        "method=\"other\",status=\"405\"} 1",
        "route=\"-\",method=\"GET\",status=\"404\"} 1",
        "tidegate_broker_connections 0",
        "tidegate_broker_dropped_total{reason=\"queue_full\"} 0",
        "tidegate_loop_queue{of=\"calls\"} 0",
        "tidegate_http_auth_failed_total 1",
        "# EOF",
    ] {
        assert!(text.contains(wanted), "{wanted} in\n{text}");
    }
    assert!(!text.contains("secret-name"), "{text}");
    let documented: std::collections::BTreeSet<&str> = include_str!("../../../../../docs/operations.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `tidegate_")?.split('`').next())
        // Those of the agent stand in a table of their own.
        .filter(|name| !name.starts_with("edge_"))
        .collect();
    let shown: std::collections::BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE tidegate_")?.split_once(' '))
        .map(|(name, kind)| match kind {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.to_owned(),
        })
        .collect();
    for name in &shown {
        assert!(documented.contains(name.as_str()), "docs/operations.md does not have tidegate_{name}");
    }
    for name in documented {
        // No action ended yet; the journey sees this one.
        assert!(shown.contains(name) || name == "issue_total", "there is no tidegate_{name}");
    }
    world.stop().await;

    let (_dir, world) = self::world(|settings| settings.metrics_public = true).await;
    assert_eq!(raw(&world, b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await.0, 200);
    assert_eq!(raw(&world, b"GET /api/v1/summary HTTP/1.1\r\nhost: x\r\n\r\n").await.0, 401);
    world.stop().await;
}

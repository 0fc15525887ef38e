//! The backup of a running controller.

use axum::body::Body;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::harness::{Api, rule};
use crate::store::{Check, Counts};

/// Begins an export, and reads nothing of it yet: it waits for its reader.
async fn begin(api: &Api) -> Body {
    let request = api.request("GET", "/admin/export").body(Body::empty()).unwrap();
    let response = api.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/jsonl");
    assert_eq!(response.headers()["cache-control"], "no-store");
    response.into_body()
}

async fn whole(body: Body) -> (Counts, Vec<Value>) {
    let bytes = body.collect().await.unwrap().to_bytes();
    let mut check = Check::default();
    check.feed(&bytes).unwrap();
    let lines = bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty());
    (check.finish().unwrap().counts, lines.map(|l| serde_json::from_slice(l).unwrap()).collect())
}

/// Names and versions of the rules, then of the versions, that an export holds.
fn told(lines: &[Value], kind: &str) -> Vec<String> {
    let of = lines.iter().filter(|line| line["kind"] == kind).map(|line| &line["record"]);
    of.map(|record| format!("{} v{}", record["content"]["name"].as_str().unwrap(), record["version"]))
        .collect()
}

#[tokio::test]
async fn an_export_is_one_moment_however_long_it_takes_and_whatever_changes() {
    let api = Api::start().await;
    api.create("kept").await;
    api.create("gone").await;
    let tag = api.get("/rules/gone").await.header("etag").to_owned();
    api.call("DELETE", "/rules/gone", &[("if-match", &tag)], "").await.ok(204);
    api.post("/edges", &json!({"id": "gw-1"})).await.ok(201);
    // Enough for more chunks than may wait: the export cannot run ahead of its reader.
    for n in 0..120 {
        let mut wide = rule(&format!("wide-{n}"));
        wide["forwards"] = (0..60).map(|i| json!({"topic": format!("{i}/{}", "x".repeat(60))})).collect();
        api.post("/rules", &wide).await.ok(201);
    }
    let body = begin(&api).await;

    let busy = api.get("/admin/export").await;
    assert!(busy.problem(503, "UNAVAILABLE")["detail"].as_str().unwrap().contains("another export"));
    let etag = api.get("/rules/kept").await.header("etag").to_owned();
    let mut changed = rule("kept");
    changed["mountpoint"] = json!("other/");
    let headers = [("if-match", etag.as_str()), ("content-type", "application/json")];
    api.call("PUT", "/rules/kept", &headers, &changed.to_string()).await.ok(200);
    api.create("later").await;
    api.call("PUT", "/rules/kept/placements/gw-1", &[("content-type", "application/json")], "{}")
        .await
        .ok(201);
    let tag = api.get("/rules/wide-7").await.header("etag").to_owned();
    api.call("DELETE", "/rules/wide-7", &[("if-match", &tag)], "").await.ok(204);

    let (counts, lines) = whole(body).await;
    assert_eq!(counts, Counts { rules: 121, versions: 122, edges: 1, placements: 0 });
    let (rules, versions) = (told(&lines, "rule"), told(&lines, "version"));
    assert!(rules.contains(&"kept v1".to_owned()) && rules.contains(&"wide-7 v1".to_owned()), "{rules:?}");
    assert!(versions.contains(&"gone v1".to_owned()), "the history of a deleted rule is kept");
    for later in ["kept v2", "later v1"] {
        assert!(!rules.contains(&later.to_owned()) && !versions.contains(&later.to_owned()), "{later}");
    }
    // The next one tells the next moment.
    let (counts, lines) = whole(begin(&api).await).await;
    assert_eq!(counts, Counts { rules: 121, versions: 124, edges: 1, placements: 1 });
    assert!(told(&lines, "rule").contains(&"kept v2".to_owned()));
}

#[tokio::test]
async fn an_export_that_is_cut_short_is_seen_to_be() {
    let api = Api::start().await;
    for n in 0..120 {
        let mut wide = rule(&format!("wide-{n}"));
        wide["forwards"] = (0..60).map(|i| json!({"topic": format!("{i}/{}", "x".repeat(60))})).collect();
        api.post("/rules", &wide).await.ok(201);
    }
    let body = begin(&api).await;
    api.stop.cancel();
    let error = body.collect().await.unwrap_err().to_string();
    assert!(error.contains("did not come to its end"), "{error}");
}

use serde_json::json;

use super::harness::{Api, rule};

#[tokio::test]
async fn a_rule_is_placed_listed_and_taken_off() {
    let api = Api::start().await;
    api.create("a").await;
    api.call("PUT", "/rules/a/placements/gw-1", &[], "").await.problem(404, "UNKNOWN_EDGE");
    api.post("/edges", &json!({ "id": "gw-1" })).await.ok(201);
    let placed = api.call("PUT", "/rules/a/placements/gw-1", &[], "").await.ok(201);
    assert_eq!(placed.header("location"), "/api/v1/placements/a/gw-1");
    assert_eq!(placed.json()["issue_state"], "not_issued");
    api.call("PUT", "/rules/a/placements/gw-1", &[], "").await.ok(200);
    let vars = json!({ "vars": { "nope": "x" } }).to_string();
    let json = [("content-type", "application/json")];
    api.call("PUT", "/rules/a/placements/gw-1", &json, &vars).await.problem(422, "INVALID_CONFIG");

    for path in [
        "/placements",
        "/placements?rule=a&edge=gw-1&issue_state=not_issued&run_state=not_running",
        "/rules/a/placements",
    ] {
        assert_eq!(api.get(path).await.ok(200).json()["total"], 1, "{path}");
    }
    assert_eq!(api.get("/placements?issue_state=failed").await.ok(200).json()["total"], 0);
    let one = api.get("/placements/a/gw-1").await.ok(200).json();
    assert_eq!((&one["rule"], &one["edge"], &one["link"]), (&json!("a"), &json!("gw-1"), &json!("unknown")));
    assert_eq!(api.get("/rules/a").await.json()["placements"][0]["edge"], "gw-1");
    api.get("/rules/b/placements").await.problem(404, "UNKNOWN_RULE");
    api.get("/placements/a/gw-2").await.problem(404, "UNKNOWN_RULE");

    api.call("DELETE", "/rules/a/placements/gw-1", &[], "").await.ok(204);
    api.get("/placements/a/gw-1").await.problem(404, "UNKNOWN_RULE");
    api.call("DELETE", "/rules/a/placements/gw-1", &[], "").await.problem(404, "UNKNOWN_RULE");
}

#[tokio::test]
async fn one_action_on_many_placements_tells_what_became_of_each() {
    let api = Api::start().await;
    api.create("a").await;
    for edge in ["gw-1", "gw-2"] {
        api.post("/edges", &json!({ "id": edge })).await.ok(201);
        api.call("PUT", &format!("/rules/a/placements/{edge}"), &[], "").await.ok(201);
    }
    let on = |edges: &[&str]| edges.iter().map(|e| json!({ "rule": "a", "edge": e })).collect::<Vec<_>>();
    let ask = json!({ "action": "issue", "targets": on(&["gw-2", "gw-9", "gw-1"]), "when_offline": "queue" });

    let rehearsed = api.post("/actions?dry_run=true", &ask).await.ok(200).json();
    assert_eq!((&rehearsed["answer"]["begun"], &rehearsed["affected_total"]), (&json!(2), &json!(2)));
    assert!(api.get("/placements/a/gw-1").await.json()["in_flight"].is_null());

    let answer = api.post("/actions", &ask).await.ok(200).json();
    assert_eq!((&answer["begun"], &answer["already"], &answer["refused"]), (&json!(2), &json!(0), &json!(1)));
    let edges: Vec<_> = answer["items"].as_array().unwrap().iter().map(|item| &item["edge"]).collect();
    assert_eq!(edges, ["gw-2", "gw-9", "gw-1"], "the order in which they were named");
    assert_eq!(answer["items"][1]["problem"]["code"], "UNKNOWN_EDGE");
    let placement = api.get("/placements/a/gw-1").await.json();
    assert_eq!(placement["in_flight"]["id"], answer["items"][2]["operation"]["id"]);

    let refused =
        api.post("/actions", &json!({ "action": "sync", "targets": on(&["gw-1"]) })).await.ok(200).json();
    assert_eq!((&refused["refused"], &refused["items"][0]["operation"]), (&json!(1), &json!(null)));
    api.post("/actions", &json!({ "action": "deploy", "targets": [] })).await.problem(422, "BAD_REQUEST");
    let too_many = vec!["gw-1"; tidegate_cloud_core::MAX_TARGETS + 1];
    api.post("/actions", &json!({ "action": "stop", "targets": on(&too_many) }))
        .await
        .problem(422, "BAD_REQUEST");
}

#[tokio::test]
async fn c05_an_action_on_an_edge_that_is_offline_is_refused_or_queued() {
    let api = Api::start().await;
    api.create("a").await;
    api.post("/edges", &json!({ "id": "gw-1" })).await.ok(201);
    api.call("PUT", "/rules/a/placements/gw-1", &[], "").await.ok(201);
    let before = api.get("/placements/a/gw-1").await.text;
    let refused = api.call("POST", "/placements/a/gw-1/issue", &[], "").await.problem(409, "EDGE_OFFLINE");
    assert_eq!(refused["type"], "/problems/edge-offline");
    assert_eq!(refused["actions"].as_array().unwrap().len(), 5);
    assert_eq!(api.get("/placements/a/gw-1").await.text, before);

    let queued = api.call("POST", "/placements/a/gw-1/issue?when_offline=queue", &[], "").await.ok(202);
    let body = queued.json();
    assert_eq!((&body["operation"]["queued"], &body["operation"]["action"]), (&json!(true), &json!("issue")));
    assert_eq!(body["placement"]["in_flight"]["id"], body["operation"]["id"]);
    assert_eq!(queued.header("location"), "/api/v1/placements/a/gw-1");
    api.call("POST", "/placements/a/gw-1/start", &[], "").await.problem(409, "NOT_ALLOWED");
    api.post("/placements/a/gw-1/issue", &json!({ "when_offline": "maybe" }))
        .await
        .problem(422, "BAD_REQUEST");
    api.call("POST", "/placements/a/gw-1/deploy", &[], "").await.problem(404, "UNKNOWN_ACTION");
    api.call("POST", "/placements/b/gw-1/issue", &[], "").await.problem(404, "UNKNOWN_RULE");
}

#[tokio::test]
async fn an_edge_is_made_known_once_and_removed() {
    let api = Api::start().await;
    let created = api.post("/edges", &json!({ "id": "gw-1" })).await.ok(201);
    assert_eq!(
        (created.header("location"), created.header("cache-control")),
        ("/api/v1/edges/gw-1", "no-store")
    );
    let body = created.json();
    assert!(body["credential"].as_str().unwrap().starts_with("tge_"));
    assert_eq!((&body["id"], &body["link"]), (&json!("gw-1"), &json!("unknown")));
    api.post("/edges", &json!({ "id": "gw-1" })).await.problem(409, "CONFLICT");
    assert!(api.get("/edges/gw-1").await.ok(200).json().get("credential").is_none());
    assert_eq!(api.get("/edges").await.ok(200).json()["total"], 1);
    api.call("POST", "/edges/gw-1/confirm", &[], "").await.problem(409, "CONFLICT");
    api.call("POST", "/edges/gw-2/confirm", &[], "").await.problem(404, "UNKNOWN_EDGE");

    api.post("/rules", &rule("a")).await.ok(201);
    api.call("PUT", "/rules/a/placements/gw-1", &[], "").await.ok(201);
    api.call("POST", "/placements/a/gw-1/issue?when_offline=queue", &[], "").await.ok(202);
    let summary = api.get("/summary").await.ok(200).json();
    assert_eq!(
        (&summary["rules"], &summary["indicator"], &summary["tally"]["pending"]),
        (&json!(1), &json!("red"), &json!(1))
    );
    api.call("DELETE", "/edges/gw-1", &[], "").await.problem(409, "CONFLICT");
    api.call("DELETE", "/edges/gw-1?leave_running=perhaps", &[], "").await.problem(422, "BAD_REQUEST");
    api.call("DELETE", "/edges/gw-1?leave_running=true", &[], "").await.ok(204);
    api.get("/edges/gw-1").await.problem(404, "UNKNOWN_EDGE");
    assert_eq!(api.transport.disconnected.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_variable_that_is_left_over_on_an_edge_names_the_edge() {
    let api = Api::start().await;
    let mut with_var = rule("a");
    with_var["vars"] = json!({ "site": { "default": "x" } });
    with_var["mountpoint"] = json!("plant/{site}/");
    api.post("/rules", &with_var).await.ok(201);
    api.post("/edges", &json!({ "id": "gw-7" })).await.ok(201);
    let vars = json!({ "vars": { "site": "lyon" } }).to_string();
    let content = ("content-type", "application/json");
    api.call("PUT", "/rules/a/placements/gw-7", &[content], &vars).await.ok(201);
    let tag = api.get("/rules/a").await.header("etag").to_owned();
    let put = api.call("PUT", "/rules/a", &[content, ("if-match", &tag)], &rule("a").to_string()).await;
    let problem = put.problem(422, "INVALID_CONFIG");
    assert_eq!(
        (&problem["type"], &problem["errors"][0]["edge"]),
        (&json!("/problems/invalid-on-edge"), &json!("gw-7"))
    );
    assert!(problem["detail"].as_str().unwrap().contains("gw-7"), "{problem}");
    assert!(problem["errors"][0]["help"].as_str().is_some_and(|help| !help.is_empty()), "{problem}");
}

use serde_json::{Value, json};

use super::harness::{Api, rule};

/// What the request would do, and that it did not.
async fn would(api: &Api, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Value {
    let same_id = [("x-request-id", "same")];
    let get = |path| api.call("GET", path, &same_id, "");
    let seen = || async { (get("/rules/a").await.text, get("/placements").await.text) };
    let before = seen().await;
    let path = format!("{path}{}dry_run=true", if path.contains('?') { '&' } else { '?' });
    let told = api.call(method, &path, headers, body).await.ok(200).json();
    assert_eq!(seen().await, before, "{method} {path}");
    assert_eq!(told["dry_run"], true);
    told
}

#[tokio::test]
async fn what_would_be_is_told_and_then_is_so() {
    let api = Api::start().await;
    let content = [("content-type", "application/json")];
    let told = would(&api, "POST", "/rules", &content, &rule("a").to_string()).await;
    assert_eq!((&told["status"], &told["answer"]["saved"]), (&json!(201), &json!("created")));
    let done = api.create("a").await;
    assert_eq!((&told["etag"], done.header("etag")), (&json!(done.header("etag")), done.header("etag")));

    api.post("/edges", &json!({ "id": "gw-1" })).await.ok(201);
    let told = would(&api, "PUT", "/rules/a/placements/gw-1", &[], "").await;
    assert_eq!((&told["status"], &told["affected_total"]), (&json!(201), &json!(1)));
    assert_eq!(told["affected"][0]["issue_state_before"], Value::Null);
    assert_eq!(told["affected"][0]["after"]["issue_state"], "not_issued");
    api.call("PUT", "/rules/a/placements/gw-1", &[], "").await.ok(201);

    let path = "/placements/a/gw-1/issue?when_offline=queue";
    let told = would(&api, "POST", path, &[], "").await;
    assert_eq!((&told["status"], &told["affected"][0]["sends"]), (&json!(202), &json!(false)));
    let done = api.call("POST", path, &[], "").await.ok(202).json();
    assert_eq!(told["answer"]["placement"]["generation"], done["placement"]["generation"]);
    assert_eq!(told["answer"]["operation"]["queued"], true);

    let tag = api.get("/rules/a").await.header("etag").to_owned();
    let patch = json!({ "mountpoint": "other/" }).to_string();
    let merge = [("content-type", "application/merge-patch+json"), ("if-match", tag.as_str())];
    let told = would(&api, "PATCH", "/rules/a", &merge, &patch).await;
    assert_eq!((&told["answer"]["version"], &told["answer"]["saved"]), (&json!(2), &json!("changed")));
    let put = [("content-type", "application/json"), ("if-match", tag.as_str())];
    let told = would(&api, "PUT", "/rules/a", &put, &rule("a").to_string()).await;
    assert_eq!((&told["answer"]["saved"], &told["affected_total"]), (&json!("unchanged"), &json!(0)));
    let told = would(&api, "POST", "/rules/a/restore", &content, "{\"version\":1}").await;
    assert_eq!(told["answer"]["saved"], "unchanged");

    let told = would(&api, "DELETE", "/rules/a/placements/gw-1", &[], "").await;
    assert_eq!(told["affected"][0]["rule"], "a");
    let told = would(&api, "DELETE", "/rules/a", &[("if-match", &tag)], "").await;
    assert_eq!((&told["status"], &told["answer"]), (&json!(204), &Value::Null));
}

#[tokio::test]
async fn a_refusal_is_the_same_with_and_without() {
    let api = Api::start().await;
    api.create("a").await;
    api.post("/edges", &json!({ "id": "gw-1" })).await.ok(201);
    api.call("PUT", "/rules/a/placements/gw-1", &[], "").await.ok(201);
    let cases = [
        ("POST", "/rules", "application/json", rule("a").to_string()),
        ("POST", "/placements/a/gw-1/issue", "application/json", "{}".to_owned()),
        ("POST", "/placements/a/gw-2/issue", "application/json", "{}".to_owned()),
        ("PUT", "/rules/a", "application/json", rule("a").to_string()),
        ("DELETE", "/rules/b/placements/gw-1", "application/json", String::new()),
    ];
    for (method, path, content_type, body) in cases {
        let headers = [("content-type", content_type), ("x-request-id", "same")];
        let does = api.call(method, path, &headers, &body).await;
        let would = api.call(method, &format!("{path}?dry_run=true"), &headers, &body).await;
        assert!(does.status.is_client_error(), "{does:?}");
        assert_eq!((does.status, does.text), (would.status, would.text), "{method} {path}");
    }
}

#[tokio::test]
async fn a_dry_run_is_not_kept_under_its_key() {
    let api = Api::start().await;
    let headers = [("content-type", "application/json"), ("idempotency-key", "k")];
    let body = rule("a").to_string();
    api.call("POST", "/rules?dry_run=true", &headers, &body).await.ok(200);
    api.call("POST", "/rules", &headers, &body).await.ok(201);
    api.call("POST", "/edges?dry_run=true", &headers, "{}").await.problem(422, "IDEMPOTENCY_KEY_REUSED");
    api.post("/edges?dry_run=true", &json!({ "id": "gw-1" })).await.problem(422, "BAD_REQUEST");
}

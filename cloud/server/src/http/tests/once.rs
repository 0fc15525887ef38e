use serde_json::{Value, json};

use super::harness::{Answer, Api, rule};

const JSON: (&str, &str) = ("content-type", "application/json");

async fn keyed(api: &Api, key: &str, path: &str, body: &Value) -> Answer {
    api.call("POST", path, &[JSON, ("idempotency-key", key)], &body.to_string()).await
}

#[track_caller]
fn same(first: &Answer, again: &Answer) {
    assert_eq!((first.status, &first.text), (again.status, &again.text));
    assert_eq!((first.header("idempotency-replayed"), again.header("idempotency-replayed")), ("", "true"));
    for name in ["etag", "location", "content-type"] {
        assert_eq!(first.header(name), again.header(name), "{name}");
    }
}

#[tokio::test]
async fn the_same_request_under_a_key_gets_the_first_answer() {
    let api = Api::start().await;
    let first = keyed(&api, "k-1", "/rules?note=one", &rule("a")).await.ok(201);
    same(&first, &keyed(&api, "\"k-1\"", "/rules?note=one", &rule("a")).await);
    assert_eq!(api.get("/rules").await.json()["total"], 1);

    // Anything else under the key is another request: body, query, path, precondition.
    for (path, body) in [
        ("/rules?note=one", rule("b")),
        ("/rules?note=two", rule("a")),
        ("/rules", rule("a")),
        ("/edges", rule("a")),
        ("/rules/a/restore", json!({ "version": 1 })),
    ] {
        keyed(&api, "k-1", path, &body).await.problem(422, "IDEMPOTENCY_KEY_REUSED");
    }
    // What was refused may be asked again under its key.
    keyed(&api, "k-2", "/rules", &rule("a")).await.problem(409, "CONFLICT");
    keyed(&api, "k-2", "/rules", &rule("b")).await.ok(201);
    // A GET or a PUT needs no key and does not look at it.
    api.call("GET", "/rules", &[("idempotency-key", "k-1")], "").await.ok(200);
}

#[tokio::test]
async fn an_action_and_a_restore_are_done_once_also_when_what_they_read_is_gone() {
    let api = Api::start().await;
    api.create("a").await;
    api.post("/edges", &json!({ "id": "gw-1" })).await.ok(201);
    api.call("PUT", "/rules/a/placements/gw-1", &[], "").await.ok(201);
    let queue = json!({ "when_offline": "queue" });
    let first = keyed(&api, "act", "/placements/a/gw-1/issue", &queue).await.ok(202);
    same(&first, &keyed(&api, "act", "/placements/a/gw-1/issue", &queue).await);

    api.post("/rules/a/restore", &json!({ "version": 1 })).await.ok(200);
    let restored = keyed(&api, "back", "/rules/a/restore", &json!({ "version": 1 })).await.ok(200);
    let tag = api.get("/rules/a").await.header("etag").to_owned();
    api.call("DELETE", "/rules/a", &[("if-match", &tag)], "").await.ok(204);
    same(&restored, &keyed(&api, "back", "/rules/a/restore", &json!({ "version": 1 })).await);
}

#[tokio::test]
async fn an_edges_credential_is_told_once() {
    let api = Api::start().await;
    let first = keyed(&api, "edge", "/edges", &json!({ "id": "gw-1" })).await.ok(201).json();
    let again = keyed(&api, "edge", "/edges", &json!({ "id": "gw-1" })).await.ok(201);
    assert_eq!(again.header("cache-control"), "no-store");
    let again = again.json();
    assert!(first["credential"].as_str().unwrap().starts_with("tge_") && first["mqtt_port"] == 7183);
    assert!(again["credential"].is_null());
    assert!(again["credential_help"].as_str().unwrap().contains("DELETE /api/v1/edges/gw-1"), "{again}");
    assert_eq!(first["id"], again["id"]);
}

#[tokio::test]
async fn two_that_come_together_are_one_deed() {
    let api = Api::start().await;
    let body = json!({ "id": "gw-1" });
    let answers = futures_util::future::join_all((0..8).map(|_| keyed(&api, "edge", "/edges", &body))).await;
    let told = answers.iter().filter(|a| a.status == 201 && a.json()["credential"].is_string()).count();
    assert_eq!(told, 1, "{answers:?}");
    assert!(answers.iter().all(|answer| answer.status == 201), "{answers:?}");
}

#[tokio::test]
async fn a_key_has_its_form() {
    let api = Api::start().await;
    for bad in ["", "a b", &"k".repeat(129)] {
        let problem = keyed(&api, bad, "/rules", &rule("a")).await.problem(422, "BAD_REQUEST");
        assert_eq!(problem["errors"][0]["code"], "bad-idempotency-key");
    }
    let twice = [JSON, ("idempotency-key", "a"), ("idempotency-key", "b")];
    api.call("POST", "/rules", &twice, &rule("a").to_string()).await.problem(422, "BAD_REQUEST");
    let large = " ".repeat(256 * 1024 + 1);
    api.call("POST", "/rules", &[JSON, ("idempotency-key", "a")], &large).await.problem(413, "TOO_LARGE");
}

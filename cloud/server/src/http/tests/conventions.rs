use axum::body::Body;
use axum::http::Request;
use serde_json::json;
use tidegate_broker::Health;

use super::harness::{Api, rule};
use super::openapi::routes;

#[tokio::test]
async fn no_route_but_health_and_the_description_opens_without_a_token() {
    let api = Api::start().await;
    let routes = routes();
    assert!(routes.len() > 24, "{routes:?}");
    for (method, path) in routes {
        let open = ["/healthz", "/readyz", "/api/v1/openapi.json"].contains(&path.as_str());
        let full = path
            .replace("{rule}", "a")
            .replace("{edge}", "b")
            .replace("{action}", "issue")
            .replace("{version}", "1");
        for token in [None, Some("Bearer tga_wrong"), Some("Basic YTpi"), Some("Bearer")] {
            let mut request = Request::builder().method(method.as_str()).uri(&full);
            if let Some(token) = token {
                request = request.header("authorization", token);
            }
            let answer = api.send(request.body(Body::empty()).unwrap()).await;
            if open {
                answer.ok(200);
            } else {
                let body = answer.problem(401, "UNAUTHENTICATED");
                assert!(body["next"].as_str().unwrap().contains("admin.token"), "{method} {full}");
                assert!(answer.header("www-authenticate").starts_with("Bearer"));
            }
        }
    }
    let unknown = Request::builder().uri("/api/v1/nothing").body(Body::empty()).unwrap();
    api.send(unknown).await.problem(401, "UNAUTHENTICATED");
}

#[tokio::test]
async fn an_edges_credential_does_not_open_the_api() {
    let api = Api::start().await;
    let credential = api.post("/edges", &json!({ "id": "gw-1" })).await.ok(201).json()["credential"].clone();
    let request = Request::builder()
        .uri("/api/v1/rules")
        .header("authorization", format!("Bearer {}", credential.as_str().unwrap()))
        .body(Body::empty())
        .unwrap();
    api.send(request).await.problem(403, "FORBIDDEN");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_too() {
    let api = Api::start().await;
    api.get("/nothing").await.problem(404, "UNKNOWN_PATH");
    let answer = api.call("DELETE", "/rules", &[], "").await;
    answer.problem(405, "METHOD_NOT_ALLOWED");
    assert!(answer.header("allow").contains("POST"));
}

#[tokio::test]
async fn a_sane_request_id_is_kept_and_another_is_replaced() {
    let api = Api::start().await;
    let answer = api.call("GET", "/summary", &[("x-request-id", "my-1")], "").await.ok(200);
    assert_eq!(answer.header("x-request-id"), "my-1");
    let answer = api.call("GET", "/summary", &[("x-request-id", "a b\"c")], "").await.ok(200);
    assert_eq!(answer.header("x-request-id").len(), 36);
}

#[tokio::test]
async fn unknown_parameters_and_fields_are_refused_all_at_once() {
    let api = Api::start().await;
    let body = api.get("/rules?limit=0&colour=red&issue_state=green").await.problem(422, "BAD_REQUEST");
    let names: Vec<_> =
        body["errors"].as_array().unwrap().iter().map(|e| e["parameter"].as_str().unwrap()).collect();
    assert_eq!(names, ["limit", "issue_state", "colour"]);
    api.get("/rules?limit=501").await.problem(422, "BAD_REQUEST");
    api.get("/rules?cursor=%25").await.problem(422, "BAD_REQUEST");
    api.get("/edges?limit=1&limit=2").await.problem(422, "BAD_REQUEST");
    api.post("/edges", &json!({ "id": "gw-1", "colour": "red" })).await.problem(422, "BAD_REQUEST");
    api.post("/edges", &json!({ "id": "GW 1" })).await.problem(422, "BAD_REQUEST");
    for (method, path) in routes().into_iter().filter(|(method, _)| method == "GET") {
        let Some(path) = path.strip_prefix("/api/v1") else { continue };
        let path = path.replace("{rule}", "a").replace("{edge}", "b").replace("{version}", "1");
        let answer = api.call(&method, &format!("{path}?colour=red"), &[], "").await;
        assert!([422, 404].contains(&answer.status.as_u16()), "{method} {path}: {answer:?}");
    }
}

#[tokio::test]
async fn bodies_are_bounded_and_of_a_known_type() {
    let api = Api::start().await;
    let json = [("content-type", "application/json")];
    api.call("POST", "/rules", &json, &" ".repeat(256 * 1024 + 1)).await.problem(413, "TOO_LARGE");
    api.call("POST", "/rules", &[("content-type", "text/plain")], "x")
        .await
        .problem(415, "UNSUPPORTED_MEDIA_TYPE");
    api.call("POST", "/rules", &[], "x").await.problem(415, "UNSUPPORTED_MEDIA_TYPE");
    api.call("POST", "/edges", &json, "{\"id\":").await.problem(422, "BAD_REQUEST");
}

#[tokio::test]
async fn lists_come_in_pages() {
    let api = Api::start().await;
    for number in 0..5 {
        api.create(&format!("rule-{number}")).await;
    }
    let mut seen = Vec::new();
    let mut path = "/rules?limit=2&q=rule".to_owned();
    loop {
        let answer = api.get(&path).await.ok(200);
        let body = answer.json();
        assert_eq!((&body["total"], &body["summary"]["total"]), (&json!(5), &json!(5)));
        seen.extend(body["items"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap().to_owned()));
        if body["next_cursor"].is_null() {
            assert_eq!(answer.header("link"), "");
            break;
        }
        let link = answer.header("link");
        let next = link.strip_prefix("</api/v1").unwrap().strip_suffix(">; rel=\"next\"").unwrap();
        path = next.to_owned();
    }
    assert_eq!(seen, ["rule-0", "rule-1", "rule-2", "rule-3", "rule-4"]);
    assert_eq!(api.get("/rules?q=rule-3").await.json()["total"], 1);
}

#[tokio::test]
async fn ready_tells_of_the_broker_and_health_of_the_loop() {
    let api = Api::start().await;
    api.get("/healthz").await.ok(200);
    api.get("/readyz").await.ok(200);
    api.health.send(Health::Unhealthy("no canary".to_owned())).unwrap();
    let answer = api.get("/readyz").await;
    answer.problem(503, "UNAVAILABLE");
    assert_eq!(answer.header("retry-after"), "1");
    api.stop.cancel();
    // The loop is gone; nothing hangs.
    api.get("/healthz").await.problem(503, "UNAVAILABLE");
    api.post("/rules", &rule("a")).await.problem(503, "UNAVAILABLE");
}

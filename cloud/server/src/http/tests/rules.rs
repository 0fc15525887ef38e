use serde_json::json;

use super::harness::{Api, rule};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn a_rule_is_created_read_replaced_and_deleted() {
    let api = Api::start().await;
    let created = api.create("camera-up").await;
    assert_eq!(created.header("location"), "/api/v1/rules/camera-up");
    let first = created.header("etag").to_owned();
    assert!(first.starts_with("\"1-") && first.len() == 12, "{first}");
    assert_eq!(created.json()["saved"], "created");
    api.post("/rules", &rule("camera-up")).await.problem(409, "CONFLICT");

    let read = api.get("/rules/camera-up").await.ok(200);
    assert_eq!(read.header("etag"), first);
    let body = read.json();
    assert_eq!((&body["version"], &body["content"]["remote"]["password_set"]), (&json!(1), &json!(true)));
    assert_eq!((&body["placements"], &body["changed_by"]), (&json!([]), &json!("admin")));
    api.call("GET", "/rules/camera-up", &[("if-none-match", &first)], "").await.ok(304);

    // The answer's content can be sent back as it is: nothing changes.
    let same = body["content"].to_string();
    let put = api.call("PUT", "/rules/camera-up", &[JSON, ("if-match", &first)], &same).await.ok(200);
    assert_eq!((&put.json()["saved"], put.header("etag")), (&json!("unchanged"), first.as_str()));

    let mut changed = rule("camera-up");
    changed["mountpoint"] = json!("other/");
    let put = |tag: String, path: &'static str, body: String| {
        let api = &api;
        async move { api.call("PUT", path, &[JSON, ("if-match", &tag)], &body).await }
    };
    let second = put(first.clone(), "/rules/camera-up?note=move", changed.to_string()).await.ok(200);
    assert_eq!((&second.json()["version"], &second.json()["saved"]), (&json!(2), &json!("changed")));

    let stale = put(first.clone(), "/rules/camera-up", changed.to_string()).await.problem(412, "CONFLICT");
    assert_eq!(format!("\"{}\"", stale["current_etag"].as_str().unwrap()), second.header("etag"));
    assert!(stale["detail"].as_str().unwrap().contains("admin"), "{stale}");
    let body = changed.to_string();
    let absent = api.call("PUT", "/rules/camera-up", &[JSON], &body).await;
    absent.problem(428, "PRECONDITION_REQUIRED");
    api.call("DELETE", "/rules/camera-up", &[], "").await.problem(428, "PRECONDITION_REQUIRED");
    api.call("DELETE", "/rules/camera-up", &[("if-match", &first)], "").await.problem(412, "CONFLICT");
    let other = api.call("PUT", "/rules/other", &[JSON, ("if-none-match", "*")], &body).await;
    assert_eq!(other.problem(422, "BAD_REQUEST")["errors"][0]["pointer"], "/name");

    api.call("DELETE", "/rules/camera-up", &[("if-match", "*")], "").await.ok(204);
    api.get("/rules/camera-up").await.problem(404, "UNKNOWN_RULE");
    put("\"1-00000000\"".to_owned(), "/rules/camera-up", body).await.problem(404, "UNKNOWN_RULE");
}

#[tokio::test]
async fn a_put_may_be_only_to_create() {
    let api = Api::start().await;
    let body = rule("a").to_string();
    let headers = [JSON, ("if-none-match", "*")];
    api.call("PUT", "/rules/a", &headers, &body).await.ok(201);
    api.call("PUT", "/rules/a", &headers, &body).await.problem(412, "CONFLICT");
}

#[tokio::test]
async fn rules_are_read_in_three_formats_and_problems_have_places() {
    let api = Api::start().await;
    let toml = "name = \"a\"\n[remote]\nurl = \"mqtt://h\"\n[[forwards]]\ntopic = \"x\"\n";
    api.call("POST", "/rules?note=first", &[("content-type", "application/toml")], toml).await.ok(201);
    let yaml = "name: b\nremote:\n  url: mqtt://h\nforwards:\n  - topic: x\n";
    api.call("POST", "/rules", &[("content-type", "application/yaml; charset=utf-8")], yaml).await.ok(201);
    assert_eq!(api.get("/rules/a/versions").await.json()["items"][0]["note"], "first");

    let bad = "name = \"c\"\n[remote]\nurl = \"http://h\"\ncolour = 1\n[[forwards]]\ntopic = \"a/#/b\"\n";
    let body = api
        .call("POST", "/rules", &[("content-type", "application/toml")], bad)
        .await
        .problem(422, "INVALID_CONFIG");
    let errors = body["errors"].as_array().unwrap();
    let at = |pointer: &str| {
        errors.iter().find(|e| e["pointer"] == pointer).unwrap_or_else(|| panic!("{pointer}: {body}"))
    };
    assert_eq!(
        (&at("/remote/url")["line"], &at("/remote/colour")["line"], &at("/forwards/0/topic")["line"]),
        (&json!(3), &json!(4), &json!(6))
    );
    assert!(errors.iter().all(|e| !e["help"].as_str().unwrap().is_empty()));
}

#[tokio::test]
async fn a_patch_changes_only_what_it_names() {
    let api = Api::start().await;
    let tag = api.create("a").await.header("etag").to_owned();
    let patch = |tag: String, body: serde_json::Value| {
        let api = &api;
        let headers_body = body.to_string();
        async move {
            let headers = [("content-type", "application/merge-patch+json"), ("if-match", tag.as_str())];
            api.call("PATCH", "/rules/a", &headers, &headers_body).await
        }
    };
    let next = patch(tag, json!({ "remote": { "url": "mqtt://elsewhere" } })).await.ok(200);
    let body = next.json();
    assert_eq!((&body["version"], &body["content"]["remote"]["password_set"]), (&json!(2), &json!(true)));
    assert_eq!(body["content"]["remote"]["username"], "lyon");

    let tag = next.header("etag").to_owned();
    let masked = patch(tag.clone(), json!({ "remote": { "password": "******" } }))
        .await
        .problem(422, "INVALID_CONFIG");
    assert_eq!(masked["errors"][0]["pointer"], "/remote/password");
    assert!(masked["errors"][0].get("line").is_none());
    patch(tag.clone(), json!({ "name": "b" })).await.problem(422, "BAD_REQUEST");
    patch(tag.clone(), json!([1])).await.problem(422, "BAD_REQUEST");
    let cleared = patch(tag, json!({ "remote": { "password": null } })).await.ok(200).json();
    assert_eq!(
        (&cleared["version"], &cleared["content"]["remote"]["password_set"]),
        (&json!(3), &json!(false))
    );
}

#[tokio::test]
async fn versions_are_listed_compared_and_restored() {
    let api = Api::start().await;
    let tag = api.create("a").await.header("etag").to_owned();
    let headers = [("content-type", "application/merge-patch+json"), ("if-match", tag.as_str())];
    let patch = json!({ "mountpoint": "new/", "remote": { "password": "other-canary" } }).to_string();
    api.call("PATCH", "/rules/a?note=why", &headers, &patch).await.ok(200);

    let list = api.get("/rules/a/versions?limit=1").await.ok(200).json();
    assert_eq!(
        (&list["items"][0]["version"], &list["items"][0]["note"], &list["total"]),
        (&json!(2), &json!("why"), &json!(2))
    );
    let cursor = list["next_cursor"].as_str().unwrap();
    let list = api.get(&format!("/rules/a/versions?limit=1&cursor={cursor}")).await.ok(200).json();
    assert_eq!((&list["items"][0]["version"], &list["next_cursor"]), (&json!(1), &json!(null)));
    assert_eq!(api.get("/rules/a/versions/1").await.ok(200).json()["content"]["mountpoint"], "plant/{edge}/");
    for wrong in ["9", "x", "-1"] {
        api.get(&format!("/rules/a/versions/{wrong}")).await.problem(404, "UNKNOWN_VERSION");
    }

    let diff = api.get("/rules/a/diff").await.ok(200).json();
    assert_eq!((&diff["from"], &diff["to"]), (&json!(1), &json!(2)));
    let changes = diff["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 2, "{diff}");
    assert_eq!(
        changes[0],
        json!({ "pointer": "/mountpoint", "op": "changed", "from": "plant/{edge}/", "to": "new/" })
    );
    assert_eq!(changes[1], json!({ "pointer": "/remote/password", "op": "changed" }));
    let unified = diff["unified"].as_str().unwrap();
    assert!(unified.contains("-mountpoint = \"plant/{edge}/\"\n+mountpoint = \"new/\""), "{unified}");
    assert_eq!(api.get("/rules/a/diff?from=2&to=2").await.json()["changes"], json!([]));
    api.get("/rules/a/diff?from=7&to=2").await.problem(404, "UNKNOWN_VERSION");

    let restored =
        api.post("/rules/a/restore", &json!({ "version": 1, "note": "back" })).await.ok(200).json();
    assert_eq!(
        (&restored["version"], &restored["content"]["mountpoint"]),
        (&json!(3), &json!("plant/{edge}/"))
    );
    let newest = api.get("/rules/a/versions?limit=1").await.json()["items"][0].clone();
    assert_eq!((&newest["restored_from"], &newest["note"]), (&json!(1), &json!("back")));
    api.post("/rules/a/restore", &json!({ "version": 8 })).await.problem(404, "UNKNOWN_VERSION");
}

#[tokio::test]
async fn a_check_saves_nothing_and_shows_effective_topics() {
    let api = Api::start().await;
    let body = api.post("/rules/check?edge=gw-7,gw-8", &rule("a")).await.ok(200).json();
    assert_eq!(body["valid"], true);
    let edge = &body["edges"][0];
    assert_eq!((&edge["edge"], &edge["client_id"]), (&json!("gw-7"), &json!("gw-7-a")));
    assert_eq!(edge["forwards"][0]["local"], "sensors/#");
    assert_eq!(edge["forwards"][0]["remote"], "plant/gw-7/sensors/#");
    assert_eq!(edge["subscriptions"][0]["remote"], "commands/gw-7/#");
    assert_eq!(body["edges"].as_array().unwrap().len(), 2);
    api.get("/rules/a").await.problem(404, "UNKNOWN_RULE");
    let mut empty = rule("a");
    empty["forwards"] = json!([]);
    empty["subscriptions"] = json!([]);
    api.post("/rules/check", &empty).await.problem(422, "INVALID_CONFIG");
    api.post("/rules/check?edge=GW", &rule("a")).await.problem(422, "BAD_REQUEST");
}

//! What becomes of a topic on an edge.

use serde_json::json;

use super::harness::Api;

#[tokio::test]
async fn a_topic_is_explained_entry_by_entry_with_the_values_of_the_edge() {
    let api = Api::start().await;
    let rule = json!({
        "name": "up", "mountpoint": "plant/{site}/", "remote": { "url": "mqtt://h" }, "vars": { "site": { "default": "x" } },
        "forwards": [
            { "topic": "sensors/#", "exclude": ["sensors/+/debug"] },
            { "topic": "sensors/+", "retain": "keep" },
        ],
    });
    api.post("/rules", &rule).await.ok(201);
    api.post("/edges", &json!({ "id": "gw-1" })).await.ok(201);
    let told = api.get("/rules/up/explain?edge=gw-1&topic=sensors/t").await.ok(200).json();
    assert_eq!(
        (&told["placed"], &told["version"], &told["edge_version"]),
        (&json!(false), &json!(1), &json!(null))
    );
    assert_eq!(told["forwards"][0]["becomes"], "plant/x/sensors/t");
    assert_eq!((&told["forwards"][0]["taken"], &told["forwards"][1]["taken"]), (&json!(true), &json!(false)));
    assert_eq!(told["oddities"][0]["entry"], 1);

    let vars = json!({ "vars": { "site": "lyon" } }).to_string();
    let placed =
        api.call("PUT", "/rules/up/placements/gw-1", &[("content-type", "application/json")], &vars).await;
    placed.ok(201);
    let told = api.get("/rules/up/explain?edge=gw-1&topic=sensors/t/debug").await.ok(200).json();
    assert_eq!((&told["placed"], &told["topic"]), (&json!(true), &json!("sensors/t/debug")));
    assert_eq!(told["forwards"][0]["why"], "exclude 'sensors/+/debug' leaves it out");
    let told = api.get("/rules/up/explain?edge=gw-1&topic=sensors/t").await.ok(200).json();
    assert_eq!(told["forwards"][0]["becomes"], "plant/lyon/sensors/t");
    let bare = api.get("/rules/up/explain?edge=gw-1").await.ok(200).json();
    assert!(
        bare["topic"].is_null() && bare["forwards"] == json!([]) && bare["oddities"][0]["what"].is_string()
    );

    let missing = api.get("/rules/up/explain").await.problem(422, "BAD_REQUEST");
    assert_eq!(missing["errors"][0]["parameter"], "edge", "{missing}");
    api.get("/rules/up/explain?edge=gw-1&topic=a/%23").await.problem(422, "BAD_REQUEST");
    api.get("/rules/up/explain?edge=gw-9&topic=a").await.problem(404, "UNKNOWN_EDGE");
    api.get("/rules/none/explain?edge=gw-1").await.problem(404, "UNKNOWN_RULE");
}

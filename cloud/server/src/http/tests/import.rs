//! Drafts from another broker's configuration.

use serde_json::json;

use super::harness::Api;

#[tokio::test]
async fn a_mosquitto_file_becomes_drafts_that_can_be_saved_and_a_report_without_the_password() {
    let api = Api::start().await;
    let text = "connection up\naddress broker.example\nremote_username u\nremote_password s3cr3t-canary\ntopic a/# out 1\n\
                connection tls\naddress h:8883\nbridge_psk 00ff\ntopic a/#\n";
    let answer = api.post("/rules/import", &json!({"format": "mosquitto", "text": text})).await.ok(200);
    assert!(!answer.text.contains("s3cr3t-canary"), "{}", answer.text);
    let told = answer.json();
    assert_eq!(
        (&told["drafts"][0]["name"], &told["drafts"][0]["password_in_file"]),
        (&json!("up"), &json!(true))
    );
    assert_eq!((&told["drafts"][1]["content"], &told["drafts"][1]["line"]), (&json!(null), &json!(6)));
    let outcomes: Vec<&str> =
        told["lines"].as_array().unwrap().iter().map(|l| l["outcome"].as_str().unwrap()).collect();
    let expected = "mapped mapped mapped mapped mapped mapped mapped refused mapped";
    assert_eq!(outcomes.join(" "), expected);
    let saved = api.post("/rules", &told["drafts"][0]["content"]).await.ok(201).json();
    assert_eq!(saved["content"]["forwards"][0]["topic"], "a/#");
    assert!(api.get("/rules/tls").await.status == 404, "nothing else was saved");

    let wrong = api.post("/rules/import", &json!({"format": "nanomq", "text": ""})).await;
    assert_eq!(wrong.problem(422, "BAD_REQUEST")["errors"][0]["pointer"], "/format");
}

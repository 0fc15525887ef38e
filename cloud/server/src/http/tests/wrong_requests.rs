//! Wrong requests that people and programs send, each with one mistake: each gets one problem that says what, why, where and
//! what to do. The texts are in the snapshot, to be read by eye.

use std::fmt::Write as _;

use serde_json::json;

use super::harness::Api;

const JSON: (&str, &str) = ("content-type", "application/json");

/// What is wrong, and the request: method, path, headers, body.
type Wrong<'a> = (&'a str, &'a str, &'a str, &'a [(&'a str, &'a str)], &'a str);

#[tokio::test]
async fn each_wrong_request_gets_one_problem_that_says_what_to_do() {
    let api = Api::start().await;
    api.create("a").await;
    api.post("/edges", &json!({ "id": "gw-1" })).await.ok(201);
    api.call("PUT", "/rules/a/placements/gw-1", &[], "").await.ok(201);
    let unconditional =
        json!({ "name": "a", "remote": { "url": "mqtt://h" }, "forwards": [{ "topic": "x" }] });
    let unconditional = unconditional.to_string();
    let wrong: [Wrong<'_>; 24] = [
        ("a path with a slash too many", "GET", "/rules/", &[], ""),
        ("a rule that is not there", "GET", "/rules/camera", &[], ""),
        ("a name that is none", "GET", "/rules/Camera%20Up", &[], ""),
        ("a method that is none here", "DELETE", "/rules", &[], ""),
        ("no If-Match", "PUT", "/rules/a", &[JSON], &unconditional),
        ("an old If-Match", "PUT", "/rules/a", &[JSON, ("if-match", "\"7-00000000\"")], &unconditional),
        ("an If-Match without quotes", "PUT", "/rules/a", &[JSON, ("if-match", "1-x")], &unconditional),
        ("another name than the path's", "PUT", "/rules/b", &[JSON, ("if-none-match", "*")], &unconditional),
        ("a rule that is there already", "POST", "/rules", &[JSON], &unconditional),
        ("half a body", "POST", "/rules", &[JSON], "{\"name\":"),
        ("no content type", "POST", "/rules", &[], &unconditional),
        ("a form", "POST", "/rules", &[("content-type", "application/x-www-form-urlencoded")], "name=a"),
        ("a field that is not known", "POST", "/edges", &[JSON], "{\"id\":\"gw-2\",\"site\":\"lyon\"}"),
        ("an edge's name in capitals", "POST", "/edges", &[JSON], "{\"id\":\"GW-2\"}"),
        ("an edge that is there already", "POST", "/edges", &[JSON], "{\"id\":\"gw-1\"}"),
        ("an edge with rules on it", "DELETE", "/edges/gw-1", &[], ""),
        ("an edge with nothing to confirm", "POST", "/edges/gw-1/confirm", &[], ""),
        ("a page of no size", "GET", "/rules?limit=0", &[], ""),
        ("a cursor that is none", "GET", "/placements?cursor=%21%21", &[], ""),
        ("a filter that is not known", "GET", "/placements?state=issued", &[], ""),
        ("a state that is none", "GET", "/placements?issue_state=ok", &[], ""),
        ("an action that is none", "POST", "/placements/a/gw-1/deploy", &[], ""),
        ("an edge that was never seen", "POST", "/placements/a/gw-1/issue", &[], ""),
        ("a version that is none", "GET", "/rules/a/diff?from=1&to=9", &[], ""),
    ];
    let mut told = String::new();
    for (what, method, path, headers, body) in wrong {
        let answer = api.call(method, path, headers, body).await;
        let problem = answer.json();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        assert!((400..500).contains(&answer.status.as_u16()), "{what}: {answer:?}");
        assert!(
            !text(&problem["detail"]).is_empty() && !text(&problem["next"]).is_empty(),
            "{what}: {answer:?}"
        );
        let (code, detail, next) = (text(&problem["code"]), text(&problem["detail"]), text(&problem["next"]));
        writeln!(
            told,
            "{what}: {method} {path}\n    {} {code}: {detail}\n    next: {next}",
            answer.status.as_u16()
        )
        .unwrap();
        for error in problem["errors"].as_array().into_iter().flatten() {
            let place = [&error["pointer"], &error["parameter"]].map(text).concat();
            writeln!(told, "    at {place}: {} {}", text(&error["detail"]), text(&error["help"])).unwrap();
        }
        told.push('\n');
    }
    insta::assert_snapshot!(told);
}

//! The API's description and the API are one: every route is described, and every answer that any test of this folder
//! gets is held against the description (`check`, called by the harness).

use std::collections::BTreeSet;
use std::sync::LazyLock;

use axum::body::Body;
use axum::http::Request;
use jsonschema::Validator;
use serde_json::{Value, json};

use super::harness::{Answer, Api};
use crate::http::kind::Kind;
use crate::http::openapi;

/// The committed copy.
const COPY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");

pub(super) static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(&openapi::text()).unwrap());

/// Every route: method and full path.
pub(super) fn routes() -> Vec<(String, String)> {
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let all = paths.iter().flat_map(|(path, item)| {
        item.as_object().unwrap().keys().map(move |method| (method.to_uppercase(), path.clone()))
    });
    all.collect()
}

/// The operation that a request meets, if there is one.
fn operation<'d>(method: &str, path: &str) -> Option<&'d Value> {
    let fits = |pattern: &str| {
        let (a, b): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), path.split('/').collect());
        a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a == b || (a.starts_with('{') && !b.is_empty()))
    };
    let paths = DOCUMENT["paths"].as_object().unwrap();
    // A route without a variable goes first.
    let (_, item) = paths
        .iter()
        .filter(|(pattern, _)| fits(pattern))
        .min_by_key(|(pattern, _)| pattern.matches('{').count())?;
    item.get(if method == "HEAD" { "get".to_owned() } else { method.to_lowercase() })
}

/// Holds an answer against the description.
#[track_caller]
pub(super) fn check(method: &str, path: &str, answer: &Answer) {
    let Some(operation) = operation(method, path) else {
        assert!([401, 404, 405].contains(&answer.status.as_u16()), "{method} {path} is not described");
        return;
    };
    let id = &operation["operationId"];
    let described = &operation["responses"][answer.status.as_str()];
    assert!(described.is_object(), "{id} is not described to answer {answer:?}");
    let kind = answer.header("content-type").split(';').next().unwrap();
    if kind.is_empty() {
        assert!(described.get("content").is_none() || answer.text.is_empty(), "{id}: {answer:?}");
        return;
    }
    let schema = &described["content"][kind]["schema"];
    assert!(schema.is_object(), "{id} answers {} as {kind}, which is not described", answer.status);
    if !kind.ends_with("json") {
        return;
    }
    let whole = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "allOf": [schema],
        "components": DOCUMENT["components"],
    });
    let validator: Validator = jsonschema::validator_for(&whole).unwrap();
    let body = answer.json();
    let errors: Vec<String> =
        validator.iter_errors(&body).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{id} {}: {errors:#?}\n{body:#}", answer.status);
    if kind == "application/problem+json" {
        let told = described["description"].as_str().unwrap();
        let slug = body["type"].as_str().unwrap().rsplit('/').next().unwrap();
        assert!(told.contains(&format!("({slug})")), "{id} is not described to answer {slug}");
    }
}

#[test]
fn the_committed_copy_is_the_same() {
    let text = openapi::text();
    if std::env::var_os("TIDEGATE_UPDATE").is_some() {
        std::fs::write(COPY, &text).unwrap();
    }
    let copy = std::fs::read_to_string(COPY).unwrap_or_default();
    assert!(
        copy == text,
        "docs/openapi.json is not what the API is; look at the difference and write it anew: \
         TIDEGATE_UPDATE=1 cargo test -p tidegate-cloud the_committed_copy_is_the_same"
    );
}

#[test]
fn every_route_is_made_with_its_description() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/http");
    for entry in std::fs::read_dir(dir).unwrap().chain(std::fs::read_dir(format!("{dir}/..")).unwrap()) {
        let path = entry.unwrap().path();
        if path.is_file() {
            let text = std::fs::read_to_string(&path).unwrap();
            for without in [".route(", ".route_service(", ".nest_service(", "MethodRouter"] {
                assert!(!text.contains(without), "{} makes a route without a description", path.display());
            }
        }
    }
    assert!(routes().len() >= 27, "{:?}", routes());
    let ids: BTreeSet<&str> = DOCUMENT["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|item| item.as_object().unwrap().values())
        .map(|operation| operation["operationId"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), routes().len(), "an operation's id is its own");
}

#[tokio::test]
async fn every_described_operation_is_there() {
    let api = Api::start().await;
    for (method, path) in routes() {
        let path = path
            .replace("{rule}", "a")
            .replace("{edge}", "b")
            .replace("{version}", "1")
            .replace("{action}", "x");
        if path == "/api/v1/events" {
            continue;
        }
        let token = format!("Bearer {}", api.token);
        let request = Request::builder().method(method.as_str()).uri(&path).header("authorization", token);
        let answer = api.send(request.body(Body::empty()).unwrap()).await;
        assert!(!answer.text.contains("UNKNOWN_PATH") && answer.status != 405, "{method} {path}: {answer:?}");
    }
}

#[test]
fn every_kind_of_problem_is_some_operations() {
    let everywhere = [Kind::UnknownPath, Kind::MethodNotAllowed];
    let described: BTreeSet<Kind> = DOCUMENT["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|item| item.as_object().unwrap().values())
        .flat_map(|operation| openapi::problems(operation["operationId"].as_str().unwrap()))
        .collect();
    for kind in Kind::ALL {
        assert!(described.contains(kind) || everywhere.contains(kind), "{kind:?} is never answered");
    }
}

#[test]
fn operations_table_lists_every_kind_of_problem_and_no_other() {
    let text = include_str!("../../../../../docs/operations.md");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| `/problems/")).collect();
    let expected: Vec<String> = Kind::ALL.iter().map(|kind| row(*kind)).collect();
    let missing: Vec<&String> = expected.iter().filter(|row| !rows.contains(&row.as_str())).collect();
    assert!(missing.is_empty(), "docs/operations.md lacks these rows:\n{}", expected.join("\n"));
    assert_eq!(rows.len(), expected.len(), "docs/operations.md has rows of problems that there are not");
}

fn row(kind: Kind) -> String {
    let (status, code) = (kind.status().as_u16(), kind.code());
    format!("| `/problems/{}` | {status} | `{code}` | {} | {} |", kind.slug(), kind.title(), kind.next())
}

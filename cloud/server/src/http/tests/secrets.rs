//! No answer, header or line of the log holds a secret.

use std::io;
use std::sync::{Arc, Mutex};

use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use super::harness::{Answer, Api};
use super::openapi::routes;

const CANARY: &str = "s3cr3t-canary";

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn scan(what: &str, answer: &Answer, secrets: &[String]) {
    for secret in secrets {
        assert!(!answer.text.contains(secret), "{what}: {}", answer.text);
        let headers = format!("{:?}", answer.headers);
        assert!(!headers.contains(secret), "{what}: {headers}");
    }
}

#[tokio::test]
async fn no_secret_leaves_the_controller() {
    let log = Log::default();
    // For the whole process: what other tests say is read too. A subscriber of one thread would miss what tracing caches
    // for the others.
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let api = Api::start().await;

    let created = api.create("a").await;
    let tag = created.header("etag").to_owned();
    let edge = api.post("/edges", &json!({ "id": "b" })).await.ok(201);
    let credential = edge.json()["credential"].as_str().unwrap().to_owned();
    let secrets =
        [CANARY.to_owned(), "other-canary".to_owned(), api.token.clone(), credential, "$sha256$".to_owned()];
    let no_credential = [secrets[0].clone(), secrets[1].clone(), secrets[2].clone(), secrets[4].clone()];
    scan("create rule", &created, &secrets);
    scan("create edge", &edge, &no_credential);

    let mut answers = Vec::new();
    answers.push(api.call("PUT", "/rules/a/placements/b", &[], "").await.ok(201));
    answers.push(api.call("POST", "/placements/a/b/issue?when_offline=queue", &[], "").await.ok(202));
    let patch = [("content-type", "application/merge-patch+json"), ("if-match", tag.as_str())];
    answers.push(
        api.call("PATCH", "/rules/a", &patch, r#"{"remote":{"password":"other-canary"}}"#).await.ok(200),
    );
    // Refusals of requests that hold a password.
    let toml = [("content-type", "application/toml")];
    let json = [("content-type", "application/json")];
    for (headers, body) in [
        (toml, "name = \"x\"\n[remote]\nurl = \"mqtt://h\"\nusername = 1\npassword = \"s3cr3t-canary\"\n"),
        (toml, "password = \"s3cr3t-canary\nname = \"x\"\n"),
        (json, r#"{"name": "x", "remote": {"url": "mqtt://h", "password": "s3cr3t-canary"}}"#),
        (json, r#"{"name": "x", "remote": {"url": "mqtt://h", "password": ["s3cr3t-canary"]}}"#),
        (json, r#"{"name": "x", "remote": "s3cr3t-canary"#),
        (patch[..1].try_into().unwrap(), "{}"),
    ] {
        answers.push(api.call("POST", "/rules", &headers, body).await);
        answers.push(api.call("POST", "/rules/check?edge=b", &headers, body).await);
    }
    answers.push(api.post("/rules/a/restore", &json!({ "version": 1 })).await.ok(200));
    for (_, path) in routes().into_iter().filter(|(method, path)| method == "GET" && !path.contains("events"))
    {
        let path = path.replace("{rule}", "a").replace("{edge}", "b").replace("{version}", "1");
        let path =
            path.strip_prefix("/api/v1").unwrap_or(&path).replace("/explain", "/explain?edge=b&topic=a/b");
        let answer = api.get(&path).await.ok(200);
        if path == "/admin/export" {
            // A backup has to hold the rules' passwords; what it must not hold is what only the caller knows.
            assert!(answer.text.contains(CANARY));
            scan("export", &answer, &secrets[2..4]);
        } else {
            answers.push(answer);
        }
    }
    answers.push(api.get("/rules/a/diff?from=1&to=2").await.ok(200));
    assert!(answers.len() > 25, "{}", answers.len());
    for answer in &answers {
        scan("answer", answer, &secrets);
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("answered") && log.contains("was created by"), "the log was not caught: {log}");
    for secret in &secrets {
        assert!(!log.contains(secret), "{log}");
    }
}

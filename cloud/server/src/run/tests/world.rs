//! A controller under test and how to talk to it.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{Ready, RunError, Settings, StoreKind, run};

/// How long anything may take that has to happen.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A controller that runs.
pub(super) struct World {
    pub(super) ready: Ready,
    pub(super) stop: CancellationToken,
    pub(super) task: JoinHandle<Result<(), RunError>>,
    http: reqwest::Client,
    token: String,
}

pub(super) fn settings(dir: &Path, store: StoreKind) -> Settings {
    Settings {
        http: "127.0.0.1:0".parse().unwrap(),
        mqtt: "127.0.0.1:0".parse().unwrap(),
        store,
        cache_mib: 8,
        ..Settings::with_data_dir(dir)
    }
}

impl World {
    pub(super) async fn start(settings: Settings) -> Self {
        let (stop, (ready, is_ready)) = (CancellationToken::new(), oneshot::channel());
        let task = tokio::spawn(run(settings, stop.clone(), ready));
        let ready = tokio::time::timeout(PATIENCE, is_ready).await.unwrap().expect("the controller starts");
        let token = ready.admin_token.as_ref().unwrap().reveal().to_owned();
        Self { ready, stop, task, http: reqwest::Client::builder().no_proxy().build().unwrap(), token }
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// What is at this path, which is not below `/api/v1`.
    pub(super) async fn open_root(&self, path: &str) -> String {
        let url = format!("http://{}{path}", self.ready.http);
        let request = self.http.get(url).bearer_auth(&self.token);
        let response = tokio::time::timeout(PATIENCE, request.send()).await.unwrap().unwrap();
        assert_eq!(response.status(), 200);
        response.text().await.unwrap()
    }

    /// A POST under a key: status, body, and whether it was answered before.
    pub(super) async fn keyed(&self, path: &str, key: (&str, &str), body: &Value) -> (u16, String, bool) {
        let url = format!("http://{}/api/v1{path}", self.ready.http);
        let request = self.http.post(url).bearer_auth(&self.token).header(key.0, key.1);
        let request = request.header("content-type", "application/json").body(body.to_string());
        let response = tokio::time::timeout(PATIENCE, request.send()).await.unwrap().unwrap();
        let replayed = response.headers().contains_key("idempotency-replayed");
        (response.status().as_u16(), response.text().await.unwrap(), replayed)
    }

    /// Where the embedded broker listens.
    pub(super) fn mqtt(&self) -> std::net::SocketAddr {
        self.ready.mqtt.expect("it has a broker of its own")
    }

    pub(super) async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let response = self.open(method, path, body).await;
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    pub(super) async fn open(&self, method: &str, path: &str, body: Option<Value>) -> reqwest::Response {
        let url = format!("http://{}/api/v1{path}", self.ready.http);
        let mut request = self.http.request(method.parse().unwrap(), url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        tokio::time::timeout(PATIENCE, request.send()).await.unwrap().unwrap()
    }

    #[track_caller]
    pub(super) fn ok(&self, answer: (u16, Value)) -> Value {
        assert!((200..300).contains(&answer.0), "{answer:?}");
        answer.1
    }

    /// Makes an edge known; gives its credential.
    pub(super) async fn edge(&self, name: &str) -> String {
        let made = self.call("POST", "/edges", Some(json!({ "id": name }))).await;
        self.ok(made)["credential"].as_str().unwrap().to_owned()
    }

    /// A rule that is placed.
    pub(super) async fn placed(&self, rule: &str, edge: &str) {
        let body = json!({
            "name": rule,
            "remote": { "url": "mqtt://broker.example", "username": "u", "password": "pw" },
            "forwards": [{ "topic": "sensors/#" }],
        });
        self.ok(self.call("POST", "/rules", Some(body)).await);
        self.ok(self.call("PUT", &format!("/rules/{rule}/placements/{edge}"), None).await);
    }

    /// Waits until the placement is as wanted.
    pub(super) async fn until(&self, rule: &str, edge: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let path = format!("/placements/{rule}/{edge}");
        let mut seen = Value::Null;
        let waiting = async {
            loop {
                seen = self.call("GET", &path, None).await.1;
                if wanted(&seen) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let done = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(done.is_ok(), "the placement stays {seen}");
        seen
    }

    pub(super) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
    }
}

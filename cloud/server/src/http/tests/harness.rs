//! A controller without sockets: the real router, loop and store, and a transport that keeps what is sent.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tidegate_broker::Health;
use tidegate_cloud_core::Controller;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::auth::{AdminAuth, Credentials, RefusedLogins};
use crate::data_dir::DataDir;
use crate::events::Events;
use crate::http::{Access, App, Parts, router};
use crate::metrics::Metrics;
use crate::run::{Clock, CoreLoop, core_channel};
use crate::store::{Memory, Store};
use crate::transport::{BrokerWatch, Nowhere};

/// A running controller.
pub(super) struct Api {
    pub(super) router: Router,
    pub(super) token: String,
    pub(super) transport: Nowhere,
    pub(super) health: watch::Sender<Health>,
    pub(super) stop: CancellationToken,
    _dir: tempfile::TempDir,
}

/// An answer, read whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// A problem with this status and code; gives its body.
    #[track_caller]
    pub(super) fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        let body = self.json();
        assert_eq!((&body["status"], &body["code"]), (&json!(status), &json!(code)), "{body}");
        assert!(body["type"].as_str().unwrap().starts_with("/problems/"), "{body}");
        for field in ["title", "detail", "next", "instance", "request_id"] {
            assert!(body[field].as_str().is_some_and(|text| !text.is_empty()), "{field} in {body}");
        }
        assert_eq!(body["request_id"], self.header("x-request-id"));
        body
    }

    #[track_caller]
    pub(super) fn ok(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert!(!self.header("x-request-id").is_empty());
        self
    }
}

impl Api {
    pub(super) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (admin, token) = AdminAuth::open(&DataDir::open(dir.path()).unwrap()).unwrap();
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let clock = Clock::start();
        let settings = tidegate_cloud_core::Settings::default();
        let (controller, first) = Controller::restore(settings, store.load().await.unwrap(), 0, clock.now());
        store.apply(first.writes).await.unwrap();
        let metrics = Metrics::default();
        let (core, inbox) = core_channel();
        let (credentials, events) = (Arc::new(Credentials::default()), Arc::new(Events::new(1)));
        let transport = Nowhere::default();
        let (health, watched) = watch::channel(Health::Healthy);
        let broker = BrokerWatch::Embedded { at: "127.0.0.1:7183".parse().unwrap(), health: watched };
        let stop = CancellationToken::new();
        let parts = Parts {
            core,
            store: Arc::clone(&store),
            admin,
            events: Arc::clone(&events),
            broker,
            refused: Some(Arc::new(RefusedLogins::new(Arc::clone(&events)))),
            broker_stats: None,
            metrics: metrics.clone(),
            access: Access { rate: 0, metrics_public: false },
            stopping: stop.clone(),
        };
        let router = router(App::new(parts));
        let transport_box = Box::new(transport.clone());
        let core_loop = CoreLoop {
            controller,
            inbox,
            store,
            transport: transport_box,
            credentials,
            events,
            changed: Arc::default(),
            clock,
            metrics,
        };
        tokio::spawn(core_loop.run(first.effects, stop.clone()));
        let token = token.unwrap().reveal().to_owned();
        Self { router, token, transport, health, stop, _dir: dir }
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let answer = Answer { status: parts.status, headers: parts.headers, text };
        super::openapi::check(method.as_str(), &path, &answer);
        answer
    }

    pub(super) fn request(&self, method: &str, path: &str) -> axum::http::request::Builder {
        let path = if ["/healthz", "/readyz", "/metrics"].iter().any(|open| path.starts_with(open)) {
            path.to_owned()
        } else {
            format!("/api/v1{path}")
        };
        Request::builder()
            .method(method.parse::<Method>().unwrap())
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
    }

    /// A call with these headers and this body.
    pub(super) async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = self.request(method, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], "").await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, &[("content-type", "application/json")], &body.to_string()).await
    }

    pub(super) async fn create(&self, name: &str) -> Answer {
        self.post("/rules", &rule(name)).await.ok(201)
    }
}

/// A small rule.
pub(super) fn rule(name: &str) -> Value {
    json!({
        "name": name,
        "mountpoint": "plant/{edge}/",
        "remote": { "url": "mqtt://broker.example", "username": "lyon", "password": "s3cr3t-canary" },
        "forwards": [{ "topic": "sensors/#" }],
        "subscriptions": [{ "topic": "commands/{edge}/#" }],
    })
}

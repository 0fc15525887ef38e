use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::harness::Api;

struct Stream {
    body: Body,
    text: String,
}

impl Stream {
    async fn open(api: &Api, path: &str, last_id: Option<&str>) -> Self {
        let mut request = api.request("GET", path);
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        let response = api.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        Self { body: response.into_body(), text: String::new() }
    }

    /// Reads until the text holds this; `false`: the stream ended before.
    async fn until(&mut self, wanted: &str) -> bool {
        let reading = async {
            while !self.text.contains(wanted) {
                let Some(frame) = self.body.frame().await else { return false };
                self.text.push_str(std::str::from_utf8(frame.unwrap().data_ref().unwrap()).unwrap());
            }
            true
        };
        tokio::time::timeout(Duration::from_secs(10), reading).await.expect("the stream is silent")
    }
}

#[tokio::test]
async fn watchers_see_what_they_asked_for_and_can_come_back() {
    let api = Api::start().await;
    let mut all = Stream::open(&api, "/events", None).await;
    let mut some = Stream::open(&api, "/events?topics=rule/b,edge/x", None).await;
    api.create("a").await;
    api.create("b").await;
    assert!(all.until("id: 1-2").await);
    assert!(all.text.contains("event: rule") && all.text.contains("\"rule\":\"a\""), "{}", all.text);
    assert!(some.until("id: 1-2").await);
    assert!(!some.text.contains("id: 1-1"), "{}", some.text);

    let mut back = Stream::open(&api, "/events", Some("1-1")).await;
    assert!(back.until("id: 1-2").await);
    assert!(!back.text.contains("resync"));
    let mut lost = Stream::open(&api, "/events", Some("0-77")).await;
    assert!(lost.until("event: resync").await);

    api.get("/events?topics=job/1").await.problem(422, "BAD_REQUEST");
    api.stop.cancel();
    assert!(!all.until("never").await);
}

#[tokio::test]
async fn there_is_a_bound_on_watchers() {
    let api = Api::start().await;
    let mut open = Vec::new();
    for _ in 0..super::super::MAX_WATCHERS {
        open.push(Stream::open(&api, "/events", None).await);
    }
    api.get("/events").await.problem(503, "UNAVAILABLE");
    open.pop();
    open.push(Stream::open(&api, "/events", None).await);
}

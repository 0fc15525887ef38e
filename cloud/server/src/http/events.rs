//! The stream of events (server-sent events): what changed, for watchers that read the new state themselves.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::sse::{Event as Sse, KeepAlive};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use tidegate_cloud_core::{Event, EventKind};
use tokio_stream::wrappers::BroadcastStream;

use super::App;
use super::params::Params;
use super::problem::Problem;
use crate::events::{Events, Numbered};

/// How often a silent stream says that it is still there.
const PING: Duration = Duration::from_secs(15);
/// Topics of one stream at the most.
const MAX_TOPICS: usize = 64;
/// Longest list of topics, in bytes.
const MAX_TOPICS_BYTES: usize = 8 * 1024;
/// Header by which a client that comes back says what it saw last.
const LAST_EVENT_ID: &str = "last-event-id";
/// Asks proxies not to hold events back.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Which events a watcher wants.
enum Topics {
    All,
    These { rules: Names, edges: Names },
}

#[derive(Default)]
struct Names {
    all: bool,
    these: BTreeSet<String>,
}

impl Names {
    fn want(&self, name: Option<&str>) -> bool {
        name.is_some_and(|name| self.all || self.these.contains(name))
    }

    fn add(&mut self, name: &str) {
        if name == "*" {
            self.all = true;
        } else {
            self.these.insert(name.to_owned());
        }
    }
}

impl Topics {
    fn take(params: &mut Params) -> Self {
        let text = params.text("topics").unwrap_or_default();
        if text.is_empty() || text == "*" {
            return Self::All;
        }
        let (mut rules, mut edges, mut all) = (Names::default(), Names::default(), false);
        if text.len() > MAX_TOPICS_BYTES || text.split(',').count() > MAX_TOPICS {
            params.error("topics", "too-many", format!("at most {MAX_TOPICS} topics are watched at once"));
            return Self::All;
        }
        for topic in text.split(',').map(str::trim) {
            match topic.split_once('/') {
                Some(("rule", name)) => rules.add(name),
                Some(("edge", name)) => edges.add(name),
                None if topic == "*" => all = true,
                Some(_) | None => params.error(
                    "topics",
                    "bad-topic",
                    "topics are rule/NAME, edge/NAME, rule/*, edge/* or *, with commas between them"
                        .to_owned(),
                ),
            }
        }
        if all { Self::All } else { Self::These { rules, edges } }
    }

    fn want(&self, event: &Event) -> bool {
        match self {
            Self::All => true,
            Self::These { rules, edges } => {
                rules.want(event.rule.as_ref().map(|r| r.as_str()))
                    || edges.want(event.edge.as_ref().map(|e| e.as_str()))
            }
        }
    }
}

/// `GET /events?topics=`
#[utoipa::path(
    get, path = "/events", operation_id = "stream_events", tag = "monitoring",
    params(("topics" = Option<String>, Query, description = "`rule/NAME`, `edge/NAME`, `rule/*`, `edge/*` or `*`, with commas between them"), ("Last-Event-ID" = Option<String>, Header, description = "The last event that was seen")),
    responses((status = 200, description = "Server-sent events: the data of each is an `Event`; `resync` says that some were missed", body = Event, content_type = "text/event-stream"))
)]
pub(super) async fn stream(
    State(app): State<App>,
    mut params: Params,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let topics = Topics::take(&mut params);
    params.finish()?;
    let seat = Arc::clone(&app.watchers).try_acquire_owned().map_err(|_| {
        Problem::unavailable("too many watch already; try again later, or ask for the state now and then")
    })?;
    let after = headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok());
    let watch = app.events.watch(after);
    let events = Arc::clone(&app.events);
    let first = watch.resync.then(|| resync(&events, watch.last));
    let missed = watch.missed.into_iter().map(Ok);
    let coming = futures_util::stream::iter(missed).chain(BroadcastStream::new(watch.live));
    let told = coming.filter_map(move |event| {
        // The seat is taken for as long as the stream lives.
        let _seat = &seat;
        std::future::ready(match event {
            Ok(numbered) => topics.want(&numbered.event).then(|| tell(&events, &numbered)),
            Err(_lagged) => Some(resync(&events, events.last())),
        })
    });
    let told = futures_util::stream::iter(first).chain(told).map(Ok::<Sse, Infallible>);
    let told = told.take_until(app.stopping.clone().cancelled_owned());
    let sse = axum::response::Sse::new(told).keep_alive(KeepAlive::new().interval(PING).text("ping"));
    let mut response = sse.into_response();
    response.headers_mut().insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn tell(events: &Events, numbered: &Numbered) -> Sse {
    let name = match numbered.event.kind {
        EventKind::Rule => "rule",
        EventKind::Placement => "placement",
        EventKind::Edge => "edge",
        EventKind::Controller => "controller",
    };
    let data =
        serde_json::to_string(&numbered.event).expect("an event has text keys and no failing serializer");
    Sse::default().id(events.id(numbered.number)).event(name).data(data)
}

/// Tells a watcher that it missed something: it has to read everything anew.
fn resync(events: &Events, last: u64) -> Sse {
    Sse::default().id(events.id(last)).event("resync").data("{}")
}

//! What a monitor reads at `/metrics`: names, labels and units, in the OpenMetrics text format that Prometheus reads.
//!
//! Owns what is counted while it happens. What can be looked up at any time (rules, states, the broker's counters) is
//! looked up when somebody asks (`http/metrics.rs`). No label has values that a client can make up: a route is the
//! pattern that matched, a code one of our own.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tidegate_broker::Stats;
use tidegate_cloud_core::Summary;
use tidegate_model::code::Code;
use tidegate_model::placement::{Action, IssueState, RunState};

/// The MIME type of what [`Metrics::render`] gives.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Buckets for what takes micro- or milliseconds, in seconds.
const SHORT: [f64; 10] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0];
/// Buckets for what waits for an edge, in seconds.
const LONG: [f64; 10] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0];

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct HttpLabels {
    route: String,
    method: &'static str,
    status: u16,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SettledLabels {
    action: &'static str,
    result: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OpLabels {
    op: &'static str,
}

/// An operation of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreOp {
    /// Everything is read, at the start.
    Load,
    /// A batch is made durable.
    Apply,
    /// Versions of rules are read.
    Read,
    /// It is asked whether it works.
    Health,
}

/// What is counted while it happens.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    http: Family<HttpLabels, Histogram, fn() -> Histogram>,
    settled: Family<SettledLabels, Counter>,
    issue_duration: Histogram,
    store: Family<OpLabels, Histogram, fn() -> Histogram>,
    rate_limited: Counter,
    auth_failed: Counter,
}

/// What is looked up when somebody asks.
pub(crate) struct Now {
    pub(crate) summary: Summary,
    pub(crate) kept_answers: usize,
    pub(crate) waiting_calls: usize,
    pub(crate) waiting_messages: usize,
    pub(crate) sse_clients: usize,
    /// Counters of the embedded broker; `None` where another broker carries the messages.
    pub(crate) broker: Option<Stats>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            http: Family::new_with_constructor(|| Histogram::new(SHORT)),
            settled: Family::default(),
            issue_duration: Histogram::new(LONG),
            store: Family::new_with_constructor(|| Histogram::new(SHORT)),
            rate_limited: Counter::default(),
            auth_failed: Counter::default(),
        }
    }
}

impl Metrics {
    /// A request was answered. `route` is the pattern that matched.
    pub(crate) fn answered(&self, route: &str, method: &str, status: u16, took: Duration) {
        // A client may make methods up.
        let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
        let method = known.into_iter().find(|m| *m == method).unwrap_or("other");
        let labels = HttpLabels { route: route.to_owned(), method, status };
        self.http.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A request was refused because its address asks too often.
    pub(crate) fn rate_limited(&self) {
        self.rate_limited.inc();
    }

    /// A request came without a token, or with a wrong one.
    pub(crate) fn auth_failed(&self) {
        self.auth_failed.inc();
    }

    /// An action, or a removal (`None`), ended.
    pub(crate) fn settled(&self, action: Option<Action>, code: Code, took_ms: i64) {
        let result = if code.is_success() { "ok" } else { "failed" };
        let labels =
            SettledLabels { action: action.map_or("removal", Action::as_str), result, reason: code.as_str() };
        self.settled.get_or_create(&labels).inc();
        if action.is_some_and(Action::is_issue_kind) && code.is_success() {
            let took = Duration::from_millis(u64::try_from(took_ms).unwrap_or(0));
            self.issue_duration.observe(took.as_secs_f64());
        }
    }

    /// An operation of the store ended, well or not.
    pub(crate) fn stored(&self, op: StoreOp, took: Duration) {
        let op = match op {
            StoreOp::Load => "load",
            StoreOp::Apply => "apply",
            StoreOp::Read => "read",
            StoreOp::Health => "health",
        };
        self.store.get_or_create(&OpLabels { op }).observe(took.as_secs_f64());
    }

    /// Everything as text.
    pub(crate) fn render(&self, now: &Now) -> Result<String, std::fmt::Error> {
        let mut all = Registry::with_prefix("tidegate");
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        all.register("build", "The version of the controller", Info::new(version));
        self.counted(&mut all);
        states(&mut all, &now.summary);
        gauge(&mut all, "sse_clients", "Streams of events that are open", now.sse_clients);
        gauge(&mut all, "idempotency_keys", "Answers that are kept under their keys", now.kept_answers);
        let queue = Family::<Vec<(&str, &str)>, Gauge>::default();
        for (of, waiting) in [("calls", now.waiting_calls), ("messages", now.waiting_messages)] {
            queue.get_or_create(&vec![("of", of)]).set(saturating(waiting));
        }
        all.register("loop_queue", "Requests and messages of edges that wait for the loop", queue);
        if let Some(stats) = &now.broker {
            broker(&mut all, stats);
        }
        let mut text = String::new();
        encode(&mut text, &all)?;
        Ok(text)
    }

    fn counted(&self, all: &mut Registry) {
        let (settled, took) = (self.settled.clone(), self.issue_duration.clone());
        all.register("issue", "Actions and removals that ended, by their result and code", settled);
        let help = "From an issue, issue again or sync to the edge's word that it is done";
        all.register_with_unit("issue_duration", help, Unit::Seconds, took);
        let help = "Operations of the store, until they are durable";
        all.register_with_unit("store_op_duration", help, Unit::Seconds, self.store.clone());
        let help = "Requests, until the answer begins";
        all.register_with_unit("http_request_duration", help, Unit::Seconds, self.http.clone());
        let help = "Requests refused because their address asked too often";
        all.register("http_rate_limited", help, self.rate_limited.clone());
        all.register("http_auth_failed", "Requests without a valid token", self.auth_failed.clone());
    }
}

fn states(all: &mut Registry, summary: &Summary) {
    gauge(all, "rules", "Rules", count(summary.rules));
    gauge(all, "pending", "Placements that something is still to be done for", count(summary.tally.pending));
    gauge(all, "edges_held", "Edges whose actions are held, up to 20", summary.held.len());
    let edges = Family::<Vec<(&str, &str)>, Gauge>::default();
    for link in tidegate_model::placement::Link::ALL {
        let known = summary.edges.get(link.as_str()).copied().unwrap_or(0);
        edges.get_or_create(&vec![("link", link.as_str())]).set(i64::from(known));
    }
    all.register("edges", "Edges by their link", edges);
    let issue = Family::<Vec<(&str, &str)>, Gauge>::default();
    for state in IssueState::ALL {
        let known = summary.tally.issue.get(&state).copied().unwrap_or(0);
        issue.get_or_create(&vec![("issue_state", state.as_str())]).set(i64::from(known));
    }
    all.register("placements", "Placements by their issue state", issue);
    let help = "Placements whose queue is full and makes whoever sends wait";
    gauge(all, "placements_queue_full", help, count(summary.tally.queue_full));
    let run = Family::<Vec<(&str, &str)>, Gauge>::default();
    for state in RunState::ALL {
        let known = summary.tally.run.get(&state).copied().unwrap_or(0);
        run.get_or_create(&vec![("run_state", state.as_str())]).set(i64::from(known));
    }
    all.register("placements_run", "Placements by their run state, as last reported", run);
}

fn broker(all: &mut Registry, stats: &Stats) {
    let broker = all.sub_registry_with_prefix("broker");
    gauge(broker, "connections", "MQTT clients that are connected", stats.connected);
    gauge(broker, "sessions", "MQTT sessions, also of clients that are away", stats.sessions);
    gauge(broker, "subscriptions", "Subscriptions of all sessions", stats.subscriptions);
    gauge(broker, "retained_messages", "Retained messages", stats.retained_messages);
    let count = |broker: &mut Registry, name: &str, help: &str, value: u64| {
        broker.register(name, help, ConstCounter::new(value));
    };
    count(broker, "accepted", "TCP connections that were accepted", stats.accepted);
    count(broker, "refused", "Connections that were refused or ended before a CONNECT", stats.refused);
    count(
        broker,
        "taken_over",
        "Connections closed because another one took their client id",
        stats.taken_over,
    );
    count(broker, "received", "Messages that clients published", stats.received);
    count(broker, "sent", "Messages that were sent to clients", stats.sent);
    count(broker, "wills", "Last wills that were published", stats.wills);
    let dropped = Family::<Vec<(&str, &str)>, Counter>::default();
    for (reason, value) in [
        ("qos0", stats.dropped_qos0),
        ("queue_full", stats.dropped_queue_full),
        ("all_full", stats.dropped_all_full),
        ("not_retained", stats.not_retained),
        ("refused_by_loop", stats.dropped_by_tap),
    ] {
        dropped.get_or_create(&vec![("reason", reason)]).inc_by(value);
    }
    broker.register("dropped", "Messages that were dropped, by reason", dropped);
}

fn gauge(all: &mut Registry, name: &str, help: &str, value: usize) {
    let gauge: Gauge = Gauge::default();
    gauge.set(saturating(value));
    all.register(name, help, gauge);
}

fn count(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn saturating(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

//! What a monitor reads from this gateway: `/metrics` on a loopback address, in the text format that Prometheus reads.
//!
//! Owns the names. Counts nothing itself: the bridges and queues do, and the loop is asked when somebody reads.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tidegate_edge_core::{LinkView, RuleView};
use tidegate_model::placement::RunState;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::control::{Ask, Reply, Rules, Status};

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// How long the loop may take for its answer.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RuleLabel {
    rule: String,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DirectionLabels {
    rule: String,
    direction: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DropLabels {
    rule: String,
    reason: String,
}

/// Serves the counters until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    _stop: DropGuard,
}

impl Server {
    /// Opens the port. Two requests at a time, both of this machine: the settings allow no other address.
    pub async fn start(address: SocketAddr, asks: mpsc::Sender<Ask>) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let app = Router::new().route("/metrics", get(metrics)).with_state(asks);
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            if let Err(error) = axum::serve(listener, app).await {
                tracing::error!(%error, "metrics are not served any more");
            }
        }));
        Ok(Self { address, _stop: stop.drop_guard() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn metrics(State(asks): State<mpsc::Sender<Ask>>) -> Response {
    let answer = tokio::time::timeout(PATIENCE, async {
        let Reply::Status(status) = ask(&asks, Ask::Status).await? else { return None };
        let Reply::Rules(rules) = ask(&asks, Ask::Rules).await? else { return None };
        render(&status, &rules).ok()
    });
    match answer.await {
        Ok(Some(text)) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Ok(None) | Err(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, "the agent did not answer in time\n").into_response()
        }
    }
}

async fn ask(asks: &mpsc::Sender<Ask>, ask: impl FnOnce(oneshot::Sender<Reply>) -> Ask) -> Option<Reply> {
    let (reply, answer) = oneshot::channel();
    asks.send(ask(reply)).await.ok()?;
    answer.await.ok()
}

/// The text. Names of rules are letters, digits and '-', reasons are our own words.
fn render(status: &Status, rules: &Rules) -> Result<String, std::fmt::Error> {
    let mut all = Registry::with_prefix("tidegate_edge");
    all.register("build", "The version of the agent", Info::new(vec![("version", status.version.clone())]));
    let connected = i64::from(status.controller.is_some() && status.link == LinkView::Welcomed);
    all.register(
        "controller_connected",
        "1: the controller answered in this session",
        ConstGauge::new(connected),
    );
    let troubles = i64::try_from(status.file_troubles).unwrap_or(i64::MAX);
    let troubles = troubles + i64::from(status.rules_dir_trouble.is_some());
    all.register("rule_files_in_trouble", "Rule files that have no effect", ConstGauge::new(troubles));
    let states = |is: fn(RunState) -> bool| {
        let family = Family::<RuleLabel, Gauge>::default();
        for rule in &rules.items {
            family.get_or_create(&label(rule)).set(i64::from(is(rule.run.state)));
        }
        family
    };
    all.register("rule_running", "1: the rule moves data", states(|state| state == RunState::Running));
    // The two are one thing: running means that the remote broker let the rule in, subscriptions and all.
    all.register("bridge_connected", "1: connected to the remote broker", states(|s| s == RunState::Running));
    all.register("rule_fault", "1: the rule wants to run and cannot", states(|s| s == RunState::PausedFault));
    let full = Family::<RuleLabel, Gauge>::default();
    for rule in &rules.items {
        full.get_or_create(&label(rule)).set(i64::from(rule.run.queue_full.is_some()));
    }
    all.register("queue_full", "1: a queue of the rule is full, and whoever sends waits", full);
    let gauge = |of: fn(&RuleView) -> u64| {
        let family = Family::<RuleLabel, Gauge>::default();
        for rule in &rules.items {
            family.get_or_create(&label(rule)).set(i64::try_from(of(rule)).unwrap_or(i64::MAX));
        }
        family
    };
    all.register("queue_messages", "Messages that wait", gauge(|rule| rule.counters.queued));
    let help = "Messages that lie aside, because the remote broker does not take them";
    all.register("queue_set_aside", help, gauge(|rule| rule.counters.set_aside));
    let help = "Bytes that wait on disk";
    all.register_with_unit("queue", help, Unit::Bytes, gauge(|rule| rule.counters.queued_bytes));
    let oldest = gauge(|rule| rule.counters.oldest_age_ms / 1_000);
    all.register_with_unit("queue_oldest_age", "Age of the oldest message that waits", Unit::Seconds, oldest);
    let messages = Family::<DirectionLabels, Counter>::default();
    let dropped = Family::<DropLabels, Counter>::default();
    let reconnects = Family::<RuleLabel, Counter>::default();
    for view in &rules.items {
        let rule = view.name.to_string();
        let counters = &view.counters;
        for (direction, count) in [("forwarded", counters.forwarded), ("received", counters.received)] {
            messages.get_or_create(&DirectionLabels { rule: rule.clone(), direction }).inc_by(count);
        }
        for (reason, count) in &counters.dropped.0 {
            dropped.get_or_create(&DropLabels { rule: rule.clone(), reason: reason.clone() }).inc_by(*count);
        }
        reconnects.get_or_create(&label(view)).inc_by(counters.reconnects);
    }
    all.register("messages", "Messages that a rule moved, since the agent began", messages);
    all.register("dropped", "Messages that were given up, by reason", dropped);
    all.register("reconnects", "Connections to the remote broker after the first", reconnects);
    let drops = status.drops;
    let ignored = drops.stale_session + drops.stale_controller + drops.repeated + drops.unreadable;
    let help = "Messages of the controller that had no effect";
    all.register("controller_messages_ignored", help, ConstCounter::new(ignored));
    let mut text = String::new();
    encode(&mut text, &all)?;
    Ok(text)
}

fn label(rule: &RuleView) -> RuleLabel {
    RuleLabel { rule: rule.name.to_string() }
}

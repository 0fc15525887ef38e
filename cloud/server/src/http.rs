//! The API: rules, placements, actions, edges, events, summary and health.
//!
//! Owns the HTTP conventions (errors, entity tags, pages, bounds); asks the loop for everything else. No answer holds a
//! secret, but for an edge's credential in the answer that made it, and an export.

use std::sync::Arc;

use axum::Router;
use tidegate_cloud_core::{How, Rejection, Reply, Request};
use tidegate_model::placement::Role;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{AdminAuth, RefusedLogins};
use crate::events::Events;
use crate::metrics::Metrics;
use crate::run::CoreLink;
use crate::store::Store;
use crate::transport::BrokerWatch;

mod answer;
mod body;
mod caller;
mod diff;
mod edges;
mod etag;
mod events;
mod explain;
mod export;
mod health;
mod import;
mod kind;
mod listener;
mod metrics;
mod middleware;
mod once;
mod openapi;
mod page;
mod params;
mod placements;
mod problem;
mod rate;
mod rules;
mod server;
#[cfg(test)]
mod tests;
mod versions;

use caller::Caller;
pub(crate) use listener::Bounded;
use middleware::Limits;
use problem::Problem;
pub(crate) use server::serve;

/// Watchers of events at the same time at the most.
const MAX_WATCHERS: usize = 256;

/// What the routes share.
#[derive(Clone)]
pub(crate) struct App {
    core: CoreLink,
    store: Arc<dyn Store>,
    admin: AdminAuth,
    events: Arc<Events>,
    watchers: Arc<Semaphore>,
    exports: Arc<Semaphore>,
    broker: BrokerWatch,
    refused: Option<Arc<RefusedLogins>>,
    broker_stats: Option<BrokerStats>,
    metrics: Metrics,
    limits: Arc<Limits>,
    stopping: CancellationToken,
}

/// Reads the counters of the embedded broker.
pub(crate) type BrokerStats = Arc<dyn Fn() -> tidegate_broker::Stats + Send + Sync>;

/// What operators choose about who may ask, and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Access {
    /// Requests per second of one address; 0: no bound.
    pub(crate) rate: u32,
    /// `/metrics` needs no token.
    pub(crate) metrics_public: bool,
}

/// What an [`App`] is made of.
pub(crate) struct Parts {
    pub(crate) core: CoreLink,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) admin: AdminAuth,
    pub(crate) events: Arc<Events>,
    pub(crate) broker: BrokerWatch,
    /// `None` where another broker lets the gateways in.
    pub(crate) refused: Option<Arc<RefusedLogins>>,
    /// `None` where another broker carries the messages.
    pub(crate) broker_stats: Option<BrokerStats>,
    pub(crate) metrics: Metrics,
    pub(crate) access: Access,
    /// Ends the streams of events, so that the server can stop.
    pub(crate) stopping: CancellationToken,
}

impl App {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { core, store, admin, events, broker, refused, broker_stats, metrics, access, stopping } =
            parts;
        let watchers = Arc::new(Semaphore::new(MAX_WATCHERS));
        let exports = Arc::new(Semaphore::new(export::MAX_EXPORTS));
        let limits = Arc::new(Limits::new(access));
        Self {
            core,
            store,
            admin,
            events,
            watchers,
            exports,
            broker,
            refused,
            broker_stats,
            metrics,
            limits,
            stopping,
        }
    }

    /// Asks the loop for a change; a refusal becomes a problem.
    async fn change(&self, caller: Caller, dry_run: bool, request: Request) -> Result<Reply, Problem> {
        let how = How { once: caller.once, dry_run };
        match self.core.request(caller.by, ROLE, request, how).await? {
            Ok(reply) => Ok(*reply),
            Err(rejection) => Err(Problem::from(*rejection)),
        }
    }
}

/// The one role that there is: who holds the administrator's token.
const ROLE: Role = Role::Administrator;

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        problem::of_rejection(&rejection)
    }
}

/// All routes with their descriptions: a route that is not described cannot be made here.
fn routes() -> OpenApiRouter<App> {
    let api = OpenApiRouter::new()
        .routes(routes!(rules::list, rules::create))
        .routes(routes!(rules::check))
        .routes(routes!(explain::get))
        .routes(routes!(import::import))
        .routes(routes!(rules::get, rules::put, rules::patch, rules::delete))
        .routes(routes!(versions::list))
        .routes(routes!(versions::get))
        .routes(routes!(versions::diff))
        .routes(routes!(versions::restore))
        .routes(routes!(placements::of_rule))
        .routes(routes!(placements::place, placements::unplace))
        .routes(routes!(placements::list))
        .routes(routes!(placements::get))
        .routes(routes!(placements::act))
        .routes(routes!(placements::act_on_many))
        .routes(routes!(edges::list, edges::create))
        .routes(routes!(edges::get, edges::remove))
        .routes(routes!(edges::confirm))
        .routes(routes!(edges::remove_unmanaged))
        .routes(routes!(events::stream))
        .routes(routes!(health::summary))
        .routes(routes!(export::export_all))
        .routes(routes!(openapi::openapi));
    let mut all = OpenApiRouter::with_openapi(openapi::beginning())
        .nest("/api/v1", api)
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(metrics::metrics));
    openapi::complete(all.get_openapi_mut());
    all
}

/// All routes, with what surrounds them.
pub(crate) fn router(app: App) -> Router {
    let (router, _) = routes().split_for_parts();
    router
        .fallback(middleware::no_such_path)
        .method_not_allowed_fallback(middleware::no_such_method)
        .layer(axum::middleware::from_fn_with_state(app.clone(), once::once))
        .layer(axum::middleware::from_fn_with_state(app.clone(), middleware::authenticate))
        .layer(axum::middleware::from_fn_with_state(app.clone(), middleware::rate))
        .layer(axum::middleware::from_fn(middleware::bounds))
        .layer(axum::middleware::from_fn_with_state(app.clone(), middleware::surround))
        .with_state(app)
}

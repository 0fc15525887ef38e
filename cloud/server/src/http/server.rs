//! Serves connections: HTTP/1.1 with bounds on the time and the size of a head, and an end in good order.

use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::serve::Listener as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::listener::Bounded;
use super::middleware::{MAX_HEADER_BYTES, MAX_HEADERS};

/// How long the head of a request may take to come, counted from its connection or from the answer before it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest head that is read at all, in bytes. Beyond it the connection gets a bare 431 or 414: what our own bounds refuse
/// with a problem has to be read first.
const MAX_HEAD_BYTES: usize = 4 * MAX_HEADER_BYTES;

/// Who a connection comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// Serves until `stop`, then lets answers that are under way end.
pub(crate) async fn serve(mut listener: Bounded, router: Router, stop: CancellationToken) {
    let graceful = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(2 * MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES);
    loop {
        let (stream, peer) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (router, peer) = (router.clone(), Peer(peer.ip()));
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let mut request: Request = request.map(Body::new);
            request.extensions_mut().insert(peer);
            let router = router.clone();
            async move {
                Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|never| match never {}))
            }
        });
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an HTTP connection ended with an error");
            }
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

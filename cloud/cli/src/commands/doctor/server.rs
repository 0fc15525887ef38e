//! What is checked on the way to the server, and of the server itself.

use std::net::SocketAddr;
use std::time::Duration;

use tidegate_model::doctor::Check;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::{Client, Probe};

/// How long a name, or a connection, may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Seconds by which clocks may differ: the server tells whole seconds, and its answer travels.
const MAX_SKEW_S: i64 = 5;

/// Name, connection, HTTP, readiness, clock.
pub(super) async fn reachable(client: &Client, checks: &mut Vec<Check>) -> bool {
    let base = client.base();
    let Some((host, port)) = client.host_port() else { return false };
    let Some(addresses) = resolve(&host, port, checks).await else { return false };
    if !connect(&addresses, port, checks).await {
        return false;
    }
    match client.probe("/healthz").await {
        Ok(answer) if answer.status == 200 => {
            checks.push(Check::ok("http", format!("{base} answers")));
            clock(&answer, checks);
        }
        Ok(answer) => {
            let why = format!("{base} answers HTTP {} to /healthz", answer.status);
            checks.push(Check::bad(
                "http",
                why,
                "is this a Tidegate controller? Check --server; read its log",
            ));
            return false;
        }
        Err(error) => {
            checks.push(Check::bad("http", error.to_string(), "check that the port is that of the API"));
            return false;
        }
    }
    match client.probe("/readyz").await {
        Ok(answer) if answer.status == 200 => checks.push(Check::ok("store, broker", "both are ready")),
        Ok(answer) => {
            let why = answer.json["detail"].as_str().unwrap_or("not ready").to_owned();
            checks.push(Check::bad("store, broker", why, "read the controller's log; its disk may be full"));
        }
        Err(error) => checks.push(Check::bad("store, broker", error.to_string(), "try again")),
    }
    true
}

async fn resolve(host: &str, port: u16, checks: &mut Vec<Check>) -> Option<Vec<SocketAddr>> {
    let bare = host.trim_matches(['[', ']']);
    match timeout(PATIENCE, tokio::net::lookup_host((bare, port))).await {
        Ok(Ok(found)) => {
            let found: Vec<SocketAddr> = found.collect();
            let shown: Vec<String> = found.iter().map(|address| address.ip().to_string()).collect();
            checks.push(Check::ok("name", format!("{bare} is {}", shown.join(", "))));
            Some(found)
        }
        Ok(Err(_)) => {
            checks.push(Check::bad(
                "name",
                format!("{bare} is not known"),
                "check its spelling and the DNS server",
            ));
            None
        }
        Err(_) => {
            checks.push(Check::bad("name", format!("nobody says who {bare} is"), "check the DNS server"));
            None
        }
    }
}

async fn connect(addresses: &[SocketAddr], port: u16, checks: &mut Vec<Check>) -> bool {
    let mut why = "the name has no address".to_owned();
    for address in addresses {
        match timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(_)) => {
                checks.push(Check::ok("connection", format!("port {port} is open")));
                return true;
            }
            Ok(Err(error)) => why = format!("{address}: {}", tidegate_cloud::os::plain(&error)),
            Err(_) => why = format!("{address} does not answer within {} s", PATIENCE.as_secs()),
        }
    }
    let fix = "start the controller (tidegate serve, or tidegate dev); check port, firewall and VPN";
    checks.push(Check::bad("connection", why, fix));
    false
}

fn clock(answer: &Probe, checks: &mut Vec<Check>) {
    let Some(theirs) = answer.date else { return };
    let skew = (jiff::Timestamp::now().as_second() - theirs).abs();
    checks.push(if skew > MAX_SKEW_S {
        Check::warn(
            "clock",
            format!("this machine and the server differ by {skew} s"),
            "set both by NTP (timedatectl)",
        )
    } else {
        Check::ok("clock", "in step with the server")
    });
}

/// The token and the versions.
pub(super) async fn signed_in(client: &Client, checks: &mut Vec<Check>) -> bool {
    match client.get("/summary").await {
        Ok(_) => checks.push(Check::ok("token", "the server takes it")),
        Err(error) => {
            let fix = "the server's own token is in admin.token in its data directory (tidegate context set … --token-file)";
            checks.push(Check::bad("token", error.to_string().lines().next().unwrap_or_default(), fix));
            return false;
        }
    }
    let own = env!("CARGO_PKG_VERSION");
    match client.probe("/metrics").await.ok().and_then(|answer| version(&answer.text)) {
        Some(theirs) if theirs == own => checks.push(Check::ok("version", format!("{own} here and there"))),
        Some(theirs) => checks.push(Check::warn(
            "version",
            format!("{own} here, {theirs} on the server"),
            "install the same version on both",
        )),
        None => checks.push(Check::skipped("version", "the server does not tell its own")),
    }
    true
}

/// The version in the metric that tells it.
pub(super) fn version(metrics: &str) -> Option<String> {
    let line = metrics.lines().find(|line| line.starts_with("tidegate_build_info{"))?;
    let (_, rest) = line.split_once("version=\"")?;
    rest.split_once('"').map(|(version, _)| version.to_owned())
}

//! The local side: the port that devices connect to, or the broker that is there already; and the port for metrics.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tidegate_model::doctor::Check;
use tokio::net::{TcpListener, TcpStream};

use super::agent::Running;
use crate::bridge::{NotWelcome, Visit};
use crate::settings::{AgentConfig, LocalBroker, LocalSide};

/// How long a connection, or a login, may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The local side, and the port for metrics if there is one.
pub(super) async fn side(config: &AgentConfig, running: &Running) -> Vec<Check> {
    const NAME: &str = "local broker";
    let mut checks = Vec::new();
    match (&config.local, running) {
        (LocalSide::Embedded { .. }, Running::Yes(status, _)) => {
            checks.push(reachable(NAME, &status.local, connect(&status.local).await));
        }
        (LocalSide::Embedded { listen, .. }, Running::No) => {
            checks.push(free(NAME, "local.listen", *listen, bind(*listen).await));
        }
        (LocalSide::Embedded { .. }, Running::NotAllowed(_) | Running::Stuck(_)) => {
            checks.push(Check::skipped(NAME, "the agent does not say where it listens"));
        }
        (LocalSide::External(broker), _) => checks.push(visited(broker, visit(config, broker).await)),
    }
    if let Some(address) = config.metrics {
        checks.push(match running {
            Running::Yes(..) => {
                reachable("metrics", &address.to_string(), connect(&address.to_string()).await)
            }
            Running::No => free("metrics", "metrics", address, bind(address).await),
            Running::NotAllowed(_) | Running::Stuck(_) => {
                Check::skipped("metrics", "the agent does not answer")
            }
        });
    }
    checks
}

async fn connect(address: &str) -> Result<(), ErrorKind> {
    match tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await {
        Ok(connected) => connected.map(drop).map_err(|error| error.kind()),
        Err(_) => Err(ErrorKind::TimedOut),
    }
}

/// Takes the port for a moment.
async fn bind(address: SocketAddr) -> Result<(), ErrorKind> {
    TcpListener::bind(address).await.map(drop).map_err(|error| error.kind())
}

fn reachable(name: &'static str, address: &str, connected: Result<(), ErrorKind>) -> Check {
    match connected {
        Ok(()) => Check::ok(name, format!("the agent listens on {address}")),
        Err(error) => {
            let why = format!("the agent runs, and {address} does not take connections: {error}");
            Check::bad(name, why, "a firewall on this machine, or too many connections: read the agent's log")
        }
    }
}

fn free(name: &'static str, key: &str, address: SocketAddr, bound: Result<(), ErrorKind>) -> Check {
    let error = match bound {
        Ok(()) => return Check::ok(name, format!("{address} is free for the agent")),
        Err(error) => error,
    };
    let (why, fix) = if error == ErrorKind::AddrInUse {
        (
            format!("another program uses {address}"),
            format!(
                "ss -ltnp shows which; stop it, or give the agent another {key}; a broker that is to stay can be used: local.broker"
            ),
        )
    } else if error == ErrorKind::AddrNotAvailable {
        (format!("{address} is no address of this machine"), format!("correct {key}: ip address shows them"))
    } else if error == ErrorKind::PermissionDenied {
        (
            format!("this user may not listen on {address}"),
            format!("take a port from 1024 for {key}, or run the agent as a service that may"),
        )
    } else {
        (format!("{address} cannot be listened on: {error}"), format!("give the agent another {key}"))
    };
    Check::bad(name, why, fix)
}

async fn visit(config: &AgentConfig, broker: &LocalBroker) -> Result<(), NotWelcome> {
    let visit = Visit {
        host: broker.host.clone(),
        port: broker.port,
        // Of its own, so that no rule loses its connection.
        client_id: format!("tidegate.{}.doctor", config.name),
        username: broker.username.clone(),
        password: broker.password.clone(),
        filters: Vec::new(),
    };
    visit.pay(PATIENCE).await
}

fn visited(broker: &LocalBroker, visited: Result<(), NotWelcome>) -> Check {
    match visited {
        Ok(()) => Check::ok("local broker", format!("{broker} lets the agent in")),
        Err(NotWelcome::Login(why) | NotWelcome::Subscriptions(why)) => Check::bad(
            "local broker",
            format!("{broker}: {why}"),
            "start that broker, or correct local.broker, local.username and the password in the settings",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::told::result;
    use super::*;
    use tidegate_model::doctor::Outcome;

    #[tokio::test]
    async fn a_port_is_free_or_somebody_has_it() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let judged = |bound| free("local broker", "local.listen", address, bound);
        let check = judged(bind(address).await);
        assert_eq!(result(&check), Outcome::Bad);
        assert!(
            check.why.contains("another program uses") && check.fix.contains("local.broker"),
            "{check:?}"
        );
        assert_eq!(
            result(&reachable("x", &address.to_string(), connect(&address.to_string()).await)),
            Outcome::Ok
        );
        drop(taken);
        assert_eq!(result(&judged(bind(address).await)), Outcome::Ok);
        assert_eq!(
            result(&reachable("x", &address.to_string(), connect(&address.to_string()).await)),
            Outcome::Bad
        );
        // 192.0.2.1 is nobody's (RFC 5737).
        let foreign: SocketAddr = "192.0.2.1:1883".parse().unwrap();
        assert!(
            free("x", "local.listen", foreign, bind(foreign).await)
                .why
                .contains("no address of this machine")
        );
        for error in [ErrorKind::PermissionDenied, ErrorKind::OutOfMemory] {
            assert_eq!(result(&judged(Err(error))), Outcome::Bad, "{error}");
        }
    }

    #[test]
    fn an_external_broker_lets_the_agent_in_or_says_why_not() {
        let broker = LocalBroker { host: "h".into(), port: 1883, username: None, password: None };
        assert_eq!(result(&visited(&broker, Ok(()))), Outcome::Ok);
        let check = visited(&broker, Err(NotWelcome::Login("no".into())));
        assert_eq!((result(&check), check.why.as_str()), (Outcome::Bad, "mqtt://h:1883: no"));
    }
}

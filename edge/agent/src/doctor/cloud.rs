//! The way to the controller: name, connection, login and topics at its broker. Where the agent is connected, its word counts:
//! a second login under the same name would end its connection.

use std::net::SocketAddr;
use std::time::Duration;

use tidegate_edge_core::LinkView;
use tidegate_model::doctor::Check;
use tidegate_model::wire::Topics;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::agent::Running;
use crate::bridge::{NotWelcome, Visit};
use crate::control::Status;
use crate::settings::{AgentConfig, Controller, ControllerAddress};

/// How long a name, a connection or a login may take.
const PATIENCE: Duration = Duration::from_secs(5);
const NAME: &str = "controller";

/// The way to the controller, if there is one.
pub(super) async fn controller(config: &AgentConfig, running: &Running) -> Vec<Check> {
    let Some(controller) = &config.controller else {
        return vec![Check::ok(NAME, "none: this agent runs its own rules")];
    };
    let mut checks = Vec::new();
    if let Some(link) = running.status().and_then(|status| linked(controller, status)) {
        checks.push(link);
        return checks;
    }
    checks.extend(running.status().map(|status| not_linked(controller, status)));
    let Controller { address, .. } = controller;
    let addresses = timeout(PATIENCE, lookup_host((address.host.as_str(), address.port))).await;
    let addresses = addresses.map(|found| found.map(Iterator::collect::<Vec<_>>).map_err(|e| e.to_string()));
    let (check, addresses) =
        resolved(address, addresses.unwrap_or_else(|_| Err("nobody answers".to_owned())));
    checks.push(check);
    if addresses.is_empty() {
        return checks;
    }
    let connected = connect(&addresses).await;
    let is_open = connected.is_ok();
    checks.push(connection(address, connected));
    if !is_open {
        return checks;
    }
    checks.push(match running {
        Running::Yes(..) | Running::No => logged_in(config, controller, log_in(config, controller).await),
        Running::NotAllowed(_) | Running::Stuck(_) => Check::skipped(
            "controller login",
            "an agent may be connected, and a second login under its name would end its connection",
        ),
    });
    checks
}

/// What a connected agent says of the controller; `None`: it is not connected.
fn linked(controller: &Controller, status: &Status) -> Option<Check> {
    let address = &controller.address;
    match status.link {
        LinkView::Welcomed => {
            Some(Check::ok(NAME, format!("the agent is connected to {address}, and the controller answers")))
        }
        LinkView::Online => Some(Check::warn(
            NAME,
            format!("the agent is connected to {address}, and the controller has not answered yet"),
            "wait for a minute; then look at the controller (tidegate doctor), and at the access rules of a broker of your own",
        )),
        LinkView::Idle | LinkView::Waiting | LinkView::Dialing => None,
    }
}

/// What an agent that is not connected says of it.
fn not_linked(controller: &Controller, status: &Status) -> Check {
    let why = status.controller_trouble.as_deref().unwrap_or("it is still trying");
    let fix = "the lines below say how far one comes; the agent tries again by itself";
    Check::bad(NAME, format!("the agent is not connected to {}: {why}", controller.address), fix)
}

fn resolved(address: &ControllerAddress, found: Result<Vec<SocketAddr>, String>) -> (Check, Vec<SocketAddr>) {
    const NAME: &str = "controller name";
    let host = &address.host;
    let fix = "check the spelling of controller.url, and this gateway's DNS server (resolvectl status)";
    match found {
        Ok(found) if found.is_empty() => (Check::bad(NAME, format!("{host} has no address"), fix), found),
        Ok(found) => {
            let shown: Vec<String> = found.iter().map(|address| address.ip().to_string()).collect();
            (Check::ok(NAME, format!("{host} is {}", shown.join(", "))), found)
        }
        Err(why) => (Check::bad(NAME, format!("{host} is not found: {why}"), fix), Vec::new()),
    }
}

async fn connect(addresses: &[SocketAddr]) -> Result<(), String> {
    let mut why = String::new();
    for address in addresses {
        match timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => why = format!("{address}: {error}"),
            Err(_) => why = format!("{address} does not answer within {} s", PATIENCE.as_secs()),
        }
    }
    Err(why)
}

fn connection(address: &ControllerAddress, connected: Result<(), String>) -> Check {
    const NAME: &str = "controller connection";
    match connected {
        Ok(()) => Check::ok(NAME, format!("port {} is open", address.port)),
        Err(why) => {
            let fix = "check that the controller runs and listens for gateways (tidegate serve --mqtt), port, firewall and VPN";
            Check::bad(NAME, why, fix)
        }
    }
}

async fn log_in(config: &AgentConfig, controller: &Controller) -> Result<(), NotWelcome> {
    let topics = Topics::new(config.account.clone());
    let visit = Visit {
        host: controller.address.host.clone(),
        port: controller.address.port,
        client_id: topics.client_id(&config.name),
        username: Some(controller.username.clone()),
        password: controller.password.clone(),
        filters: topics.edge_may_subscribe(&config.name),
    };
    visit.pay(PATIENCE).await
}

fn logged_in(config: &AgentConfig, controller: &Controller, answer: Result<(), NotWelcome>) -> Check {
    const NAME: &str = "controller login";
    let name = &config.name;
    match answer {
        Ok(()) => Check::ok(NAME, format!("{} lets {name} in and gives it its topics", controller.address)),
        Err(NotWelcome::Login(why)) => {
            let fix = format!(
                "is {name} known there, and is this its credential? A new one: tidegate edge remove {name} --leave-running, then tidegate edge create {name}"
            );
            Check::bad(NAME, why, fix)
        }
        Err(NotWelcome::Subscriptions(why)) => {
            let fix = format!(
                "a broker of your own has to let {name} read its topics: docs/operations.md, \"A broker of your own\""
            );
            Check::bad(NAME, why, fix)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidegate_broker::{
        Broker, BrokerConfig, ConnectRequest, Decision, Gate, PassAll, Permit, Quiet, Refusal, Rights,
    };
    use tidegate_model::doctor::Outcome;

    use super::super::told::result;
    use super::*;
    use crate::settings::Flags;

    /// Lets `gw-7` in with its password, to the topics that it is given.
    struct Door(Vec<String>);

    impl Gate for Door {
        fn authenticate<'a>(&'a self, connect: &'a ConnectRequest) -> Decision<'a> {
            let password = connect.password.as_ref().map(|password| password.expose().to_vec());
            let is_it =
                connect.client_id == "tidegate.default.gw-7" && password.as_deref() == Some(b"hunter2");
            let rights =
                Rights { publish: Permit::Filters(Vec::new()), subscribe: Permit::Filters(self.0.clone()) };
            Box::pin(std::future::ready(if is_it { Ok(rights) } else { Err(Refusal::BadCredentials) }))
        }
    }

    async fn broker(topics: &[&str]) -> Broker {
        let config = BrokerConfig::new("127.0.0.1:0".parse().unwrap());
        let gate = Arc::new(Door(topics.iter().map(|topic| (*topic).to_owned()).collect()));
        Broker::start(config, gate, Arc::new(PassAll), Arc::new(Quiet)).await.unwrap()
    }

    fn config(url: &str, password: &str) -> (tempfile::TempDir, AgentConfig) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("edge.toml");
        let text = format!("name = \"gw-7\"\n[controller]\nurl = \"{url}\"\npassword = \"{password}\"\n");
        std::fs::write(&file, text).unwrap();
        let config = AgentConfig::from_process(Some(&file), &Flags::default()).unwrap();
        (dir, config)
    }

    async fn examined(url: &str, password: &str, running: &Running) -> Vec<(&'static str, Outcome, String)> {
        let (_dir, config) = config(url, password);
        let checks = controller(&config, running).await;
        checks.iter().map(|check| (check.name, result(check), check.why.clone())).collect()
    }

    fn nobody() -> Running {
        Running::No
    }

    #[tokio::test]
    async fn each_step_to_the_controller_is_told() {
        let lets_in = broker(&["tidegate/1/default/gw-7/#", "tidegate/1/default/controller"]).await;
        let url = format!("mqtt://{}", lets_in.local_addr());
        let told = examined(&url, "hunter2", &nobody()).await;
        let all_well: Vec<_> = told.iter().map(|(name, result, _)| (*name, *result)).collect();
        let ok = Outcome::Ok;
        let expected = [("controller name", ok), ("controller connection", ok), ("controller login", ok)];
        assert_eq!(all_well, expected, "{told:?}");

        let told = examined(&url, "wrong", &nobody()).await;
        assert_eq!((told[2].0, told[2].1), ("controller login", Outcome::Bad));
        assert!(
            told[2].2.contains("user name or password is wrong") && !told[2].2.contains("wrong)"),
            "{told:?}"
        );

        let stingy = broker(&["tidegate/1/default/gw-7/#"]).await;
        let told = examined(&format!("mqtt://{}", stingy.local_addr()), "hunter2", &nobody()).await;
        assert_eq!(told[2].1, Outcome::Bad);
        assert!(
            told[2].2.contains("refused the subscription of 'tidegate/1/default/controller'"),
            "{told:?}"
        );

        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let told = examined(&format!("mqtt://{closed}"), "hunter2", &nobody()).await;
        assert_eq!((told.len(), told[1].0, told[1].1), (2, "controller connection", Outcome::Bad));

        // `.invalid` is known nowhere (RFC 2606).
        let told = examined("mqtt://cloud.invalid", "hunter2", &nobody()).await;
        assert_eq!((told.len(), told[0].0, told[0].1), (1, "controller name", Outcome::Bad));
    }

    #[tokio::test]
    async fn nobody_logs_in_beside_an_agent_that_may_be_connected() {
        let lets_in = broker(&["#"]).await;
        let url = format!("mqtt://{}", lets_in.local_addr());
        for running in [Running::Stuck("it hangs".into()), Running::NotAllowed("not yours".into())] {
            let told = examined(&url, "hunter2", &running).await;
            assert_eq!((told[2].0, told[2].1), ("controller login", Outcome::Skipped), "{told:?}");
        }
        assert_eq!(lets_in.stats().sessions, 0);
    }

    #[test]
    fn a_connected_agents_word_counts() {
        let (_dir, config) = config("mqtt://h", "hunter2");
        let controller = config.controller.unwrap();
        let status = |link| Status {
            edge: config.name.clone(),
            version: String::new(),
            link,
            session: tidegate_model::ids::SessionId { store: tidegate_model::ids::StoreId(1), epoch: 1 },
            controller: None,
            controller_trouble: Some("connection refused".into()),
            controller_epoch: 0,
            clock_skew_ms: None,
            local: String::new(),
            rules: 0,
            full_queues: Vec::new(),
            drops: Default::default(),
            rules_dir: None,
            rules_dir_trouble: None,
            file_troubles: 0,
        };
        let linked = |link| super::linked(&controller, &status(link));
        assert_eq!(linked(LinkView::Welcomed).map(|check| result(&check)), Some(Outcome::Ok));
        assert_eq!(linked(LinkView::Online).map(|check| result(&check)), Some(Outcome::Warn));
        for link in [LinkView::Idle, LinkView::Waiting, LinkView::Dialing] {
            assert_eq!(linked(link), None);
        }
        let check = not_linked(&controller, &status(LinkView::Waiting));
        assert_eq!(result(&check), Outcome::Bad);
        assert!(check.why.contains("connection refused"), "{check:?}");
    }
}

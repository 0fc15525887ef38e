//! `tidegate edge`.

use std::path::PathBuf;

use reqwest::Method;
use serde_json::json;
use tidegate_cloud::os;
use tidegate_model::code::Code;
use tidegate_model::ids::{AccountId, EdgeId};
use tidegate_model::wire::Topics;

use super::{Session, targets};
use crate::api::{self, Edge};
use crate::args::EdgeCommand;
use crate::client::{Call, segment, with_query};
use crate::context::write_private;
use crate::failure::{Exit, Failure};
use crate::output::edges;
use crate::output::words::count;
use crate::prompt;

/// Port of the controller's broker, where an older server does not tell it, unless the caller says otherwise.
const MQTT_PORT: u64 = 7183;

/// Makes edges known, lists, shows and removes them.
pub async fn run(session: &Session, command: EdgeCommand) -> Result<Exit, Failure> {
    match command {
        EdgeCommand::Create { name, mqtt, out } => create(session, &name, mqtt, out).await,
        EdgeCommand::List(_) => list(session).await,
        EdgeCommand::Get { name, .. } => get(session, &name).await,
        EdgeCommand::Confirm { name } => confirm(session, &name).await,
        EdgeCommand::RemoveRule { name, rule } => remove_rule(session, &name, &rule).await,
        EdgeCommand::Remove { name, leave_running, confirm } => {
            remove(session, &name, leave_running, confirm.as_deref()).await
        }
    }
}

async fn create(
    session: &Session,
    name: &str,
    mqtt: Option<String>,
    file: Option<PathBuf>,
) -> Result<Exit, Failure> {
    EdgeId::new(name).map_err(|error| Failure::Usage(error.to_string()))?;
    if let Some(file) = file.as_deref().filter(|file| file.exists()) {
        return Err(Failure::Conflict(format!(
            "{} is there already and is not overwritten; choose another file, or remove it",
            file.display()
        )));
    }
    let mut answer = session.client.send(Call::post("/edges", &json!({ "id": name }))).await?.body;
    let Some(credential) = answer.get("credential").and_then(serde_json::Value::as_str) else {
        // The connection broke, and the request was sent again.
        return Err(Failure::Failed(format!(
            "edge {name} was created, but the answer with its credential was lost with the connection, and it is told only once: remove the edge (tidegate edge remove {name}) and create it again"
        )));
    };
    let place = place_of(&answer, host_of(session.client.base()));
    let controller = mqtt.unwrap_or_else(|| place.address().to_owned());
    let settings = agent_settings(name, &controller, credential);
    if let Some(file) = file {
        write_private(&file, settings.as_bytes()).map_err(|error| {
            Failure::Failed(format!(
                "edge {name} was created, but {} cannot be written: {}. Its credential is lost: remove the edge (tidegate edge remove {name}) and create it again",
                file.display(),
                os::plain(&error)
            ))
        })?;
        let shown = file.display();
        session.out.note(format_args!(
            "edge {name} was created; its settings and credential are in {shown} (mode 0600)"
        ));
        session.out.note(format_args!(
            "The gateway has to reach the controller's broker at {controller}; --mqtt HOST:PORT writes another address"
        ));
        if let BrokerPlace::External(broker) = &place {
            session.out.note(account_needed(name, broker));
        }
        session.out.note(format_args!("Next, on the gateway:  tidegate-edge run --config {shown}"));
        if !session.out.for_people() {
            // The credential is in the file, and nowhere else.
            answer["credential"] = serde_json::Value::Null;
            answer["file"] = json!(file);
            session.out.done(&answer, name, "")?;
        }
        return Ok(Exit::Done);
    }
    session.out.show(&answer, |_| Ok(settings.clone()), || vec![name.to_owned()])?;
    if session.out.for_people() {
        session.out.note(format_args!(
            "\nedge {name} was created. Its credential is shown only now: keep the lines above as {name}.toml on the gateway (chmod 600), then:\n  tidegate-edge run --config {name}.toml"
        ));
        if let BrokerPlace::External(broker) = &place {
            session.out.note(account_needed(name, broker));
        }
    }
    Ok(Exit::Done)
}

/// Where a gateway finds the broker.
#[derive(Debug, PartialEq, Eq)]
enum BrokerPlace {
    /// The controller's own, at this address.
    Embedded(String),
    /// One of somebody else: it has to be told of each gateway.
    External(String),
}

impl BrokerPlace {
    fn address(&self) -> &str {
        match self {
            Self::Embedded(address) | Self::External(address) => address,
        }
    }
}

/// What the answer that made an edge says of the broker; its own one is on the server's host.
fn place_of(answer: &serde_json::Value, host: &str) -> BrokerPlace {
    match answer.get("broker_url").and_then(serde_json::Value::as_str) {
        Some(url) => BrokerPlace::External(url.strip_prefix("mqtt://").unwrap_or(url).to_owned()),
        None => {
            let port = answer.get("mqtt_port").and_then(serde_json::Value::as_u64).unwrap_or(MQTT_PORT);
            BrokerPlace::Embedded(format!("{host}:{port}"))
        }
    }
}

/// Which account has to be made at a broker of somebody else, which lets in and bounds the gateway in our place.
fn account_needed(name: &str, broker: &str) -> String {
    let topics = Topics::new(AccountId::default_account());
    let Ok(edge) = EdgeId::new(name) else { return String::new() };
    let list = |topics: Vec<String>| topics.join(", ");
    format!(
        "\nThe broker at {broker} is not the controller's own: make an account for the gateway there.\n  user name  {name}\n  password   the one in its settings (mosquitto: mosquitto_passwd FILE {name})\n  may write  {}\n  may read   {}\nNobody else may write there: docs/operations.md, \"A broker of your own\".",
        list(topics.edge_may_publish(&edge)),
        list(topics.edge_may_subscribe(&edge)),
    )
}

fn host_of(base: &str) -> &str {
    let rest = base.split_once("://").map_or(base, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') => &authority[..colon],
        Some(_) | None => authority,
    }
}

fn agent_settings(name: &str, controller: &str, credential: &str) -> String {
    format!(
        "# Settings of the agent on {name}. Holds its credential: keep it to yourself (chmod 600).\nname = \"{name}\"\ndata_dir = \"{name}-data\"              # rules, states and queues; give it a disk that lasts\n\n[controller]\nurl = \"mqtt://{controller}\"\npassword = \"{credential}\"\n\n[local]\nlisten = \"127.0.0.1:1883\"           # where devices publish and subscribe\nanonymous = true                     # or users_file = \"FILE\" with lines of user:password\n"
    )
}

/// Lists edges.
pub async fn list(session: &Session) -> Result<Exit, Failure> {
    let list = session.client.list("/edges", &[]).await?;
    let shown: api::List<Edge> = api::read(&list)?;
    let names = || shown.items.iter().map(|edge| edge.id.clone()).collect();
    let table = |wide| {
        Ok(if shown.items.is_empty() {
            "No edges yet. Next: tidegate edge create NAME".to_owned()
        } else {
            edges::edges(&session.out, session.now, &shown.items, wide)
        })
    };
    session.out.show(&list, table, names)?;
    Ok(Exit::Done)
}

/// Shows an edge.
pub async fn get(session: &Session, name: &str) -> Result<Exit, Failure> {
    let mut edge = session.client.get(format!("/edges/{}", segment(name))).await?.body;
    let placed = session.client.list("/placements", &[("edge", name)]).await?;
    let placements: api::List<api::Placement> = api::read(&placed)?;
    let shown: Edge = api::read(&edge)?;
    edge["placements"] = placed["items"].clone();
    session.out.show(
        &edge,
        |wide| Ok(edges::edge(&session.out, session.now, &shown, &placements.items, wide)),
        || vec![shown.id.clone()],
    )?;
    Ok(Exit::Done)
}

/// Ends `CLOUD_BEHIND`: the operator looked at what the gateway runs.
async fn confirm(session: &Session, name: &str) -> Result<Exit, Failure> {
    let path = format!("/edges/{}", segment(name));
    let edge: Edge = api::read(&session.client.get(&path).await?.body)?;
    // Where there is nothing to confirm the server says so better than a question.
    if edge.held.is_some_and(|held| held.code == Code::CloudBehind.as_str()) {
        let question = format!(
            "Take what edge {name} holds for what happened, and number the cloud's actions above it? What waits for it is sent then; what differs stays as it is until you say so."
        );
        prompt::confirm(&session.out, &question, session.yes)?;
    }
    let answer = session.client.send(Call::post(format!("{path}/confirm"), &json!({}))).await?.body;
    if session.out.for_people() {
        session.out.note(format_args!(
            "edge {name} is confirmed; tidegate sync --edge {name} sends it the cloud's versions where they differ"
        ));
    } else {
        session.out.show(&answer, |_| Ok(String::new()), || vec![name.to_owned()])?;
    }
    Ok(Exit::Done)
}

/// Takes a rule off a gateway that this cloud does not manage.
async fn remove_rule(session: &Session, name: &str, rule: &str) -> Result<Exit, Failure> {
    let path = format!("/edges/{}", segment(name));
    let edge: Edge = api::read(&session.client.get(&path).await?.body)?;
    let unmanaged = edge.unmanaged.unwrap_or_default();
    let mut found = unmanaged.iter().filter(|it| it.rule == rule || it.name.as_deref() == Some(rule));
    let id = match (found.next(), found.next()) {
        (Some(one), None) => one.rule.clone(),
        (Some(_), Some(_)) => {
            return Err(Failure::Conflict(format!(
                "edge {name} has several unmanaged rules '{rule}'; name one by its id: tidegate edge get {name} -o wide"
            )));
        }
        (None, _) => {
            return Err(Failure::NotFound(format!(
                "edge {name} tells of no unmanaged rule '{rule}'. A rule of this cloud is taken off with tidegate rule unplace {rule} --edge {name}"
            )));
        }
    };
    let question = format!(
        "Take rule {rule} off edge {name}? It stops there, what waits in its queue is lost, and no cloud can bring it back."
    );
    prompt::confirm(&session.out, &question, session.yes)?;
    session.client.send(Call::new(Method::DELETE, format!("{path}/unmanaged/{}", segment(&id)))).await?;
    let text = match edge.link.reachable() {
        true => format!("rule {rule} is being removed from {name}"),
        false => format!("rule {rule} is removed from {name} when the edge returns"),
    };
    session.out.done(&json!({ "rule": rule, "edge": name, "pending": true }), rule, text)?;
    Ok(Exit::Done)
}

async fn remove(
    session: &Session,
    name: &str,
    leave_running: bool,
    confirm: Option<&str>,
) -> Result<Exit, Failure> {
    let placed = targets::on_edges(session, &[name.to_owned()]).await?;
    let effect = match (placed.len(), leave_running) {
        (0, _) => format!("Removes edge {name} and revokes its credential."),
        (n, true) => format!(
            "Removes edge {name} and revokes its credential. {} stay on it and go on running there, unseen.",
            count(n, "rule", "rules")
        ),
        (n, false) => {
            let rules = count(n, "rule", "rules");
            let are = if n == 1 { "is" } else { "are" };
            let here = if placed.iter().all(|placement| placement.removing) {
                format!(
                    "{rules} {are} being taken off edge {name}, which ends when the gateway says so. Wait for it"
                )
            } else {
                format!(
                    "{rules} {are} on edge {name}. Take them off first (tidegate rule unplace RULE --edge {name})"
                )
            };
            return Err(Failure::Conflict(format!(
                "{here}, or pass --leave-running to forget the edge and what runs there"
            )));
        }
    };
    prompt::confirm_by_name(&session.out, &effect, name, confirm)?;
    let query: &[(&str, &str)] = if leave_running { &[("leave_running", "true")] } else { &[] };
    let path = with_query(&format!("/edges/{}", segment(name)), query);
    session.client.send(Call::new(Method::DELETE, path)).await?;
    session.out.done(
        &json!({ "id": name, "removed": true }),
        name,
        format_args!("edge {name} is removed"),
    )?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_of_an_agent_are_toml_and_name_the_controller() {
        let text = agent_settings("gw-1", "10.0.0.5:7183", "tge_x");
        let value: toml::Value = toml::from_str(&text).unwrap();
        assert_eq!(value["name"].as_str(), Some("gw-1"));
        assert_eq!(value["controller"]["url"].as_str(), Some("mqtt://10.0.0.5:7183"));
        assert_eq!(value["controller"]["password"].as_str(), Some("tge_x"));
    }

    #[test]
    fn a_broker_of_somebody_else_is_named_with_the_account_that_it_needs() {
        let external = place_of(&json!({ "broker_url": "mqtt://broker.example:1884" }), "cloud");
        assert_eq!(external, BrokerPlace::External("broker.example:1884".to_owned()));
        assert_eq!(place_of(&json!({ "mqtt_port": 7 }), "cloud").address(), "cloud:7");
        let told = account_needed("gw-1", external.address());
        for part in ["broker.example:1884", "tidegate/1/default/gw-1/up", "tidegate/1/default/gw-1/down"] {
            assert!(told.contains(part), "{part} in {told}");
        }
    }

    #[test]
    fn the_host_of_a_server_is_found_with_and_without_a_port() {
        for (base, host) in [
            ("http://127.0.0.1:7180", "127.0.0.1"),
            ("http://cloud", "cloud"),
            ("http://[::1]:7180", "[::1]"),
            ("http://[::1]", "[::1]"),
        ] {
            assert_eq!(host_of(base), host);
        }
    }
}

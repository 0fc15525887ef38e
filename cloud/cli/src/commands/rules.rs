//! `tidegate rule`: everything but applying and comparing.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{Session, apply, diff, targets, transfer};
use crate::api::{self, Explanation, Placement, Rule};
use crate::args::{ListArgs, PlaceArgs, RuleCommand};
use crate::client::{Call, segment, with_query};
use crate::failure::{Exit, Failure};
use crate::output::words::count;
use crate::output::{Several, rules};
use crate::prompt;

/// Does what a rule command says.
pub async fn run(session: &Session, command: RuleCommand) -> Result<Exit, Failure> {
    match command {
        RuleCommand::Apply(args) => apply::apply(session, &args).await,
        RuleCommand::Check { files } => apply::check(session, &files).await,
        RuleCommand::Explain { name, edge, topic } => explain(session, &name, &edge, topic.as_deref()).await,
        RuleCommand::Diff(args) => Ok(diff::diff(session, &args).await),
        RuleCommand::List(args) => list(session, &args).await,
        RuleCommand::Get { name, version: None, .. } => get(session, &name).await,
        RuleCommand::Get { name, version: Some(version), .. } => get_version(session, &name, version).await,
        RuleCommand::Export(args) => transfer::export(session, &args).await,
        RuleCommand::Import(command) => {
            transfer::import(&session.out, || Ok(session.clone()), &command).await
        }
        RuleCommand::Versions { name } => versions(session, &name).await,
        RuleCommand::Restore { name, to, note } => restore(session, &name, to, &note).await,
        RuleCommand::Delete { name, confirm } => delete(session, &name, confirm.as_deref()).await,
        RuleCommand::Place(args) => place_all(session, &args).await,
        RuleCommand::Unplace { name, edges } => unplace(session, &name, &edges).await,
    }
}

fn path(name: &str) -> String {
    format!("/rules/{}", segment(name))
}

/// Lists rules.
pub async fn list(session: &Session, args: &ListArgs) -> Result<Exit, Failure> {
    let filters = [
        ("q", &args.q),
        ("issue_state", &args.issue_state),
        ("run_state", &args.run_state),
        ("edge", &args.edge),
    ];
    let query: Vec<(&str, &str)> =
        filters.iter().filter_map(|(name, value)| value.as_deref().map(|v| (*name, v))).collect();
    let list = session.client.list("/rules", &query).await?;
    let shown: api::List<Rule> = api::read(&list)?;
    let table = |wide| {
        Ok(match (shown.items.is_empty(), query.is_empty()) {
            (true, true) => "No rules yet. Next: tidegate rule apply -f FILE".to_owned(),
            (true, false) => "No rule is so.".to_owned(),
            (false, _) => rules::rules(&session.out, session.now, &shown.items, wide),
        })
    };
    session.out.show(&list, table, || shown.items.iter().map(|rule| rule.name.clone()).collect())?;
    Ok(Exit::Done)
}

/// Shows a rule.
pub async fn get(session: &Session, name: &str) -> Result<Exit, Failure> {
    let rule = session.client.get(path(name)).await?.body;
    let shown: Rule = api::read(&rule)?;
    let placements = shown.placements.clone().unwrap_or_default();
    session.out.show(
        &rule,
        |wide| Ok(rules::rule(&session.out, session.now, &shown, &placements, wide)),
        || vec![shown.name.clone()],
    )?;
    Ok(Exit::Done)
}

async fn get_version(session: &Session, name: &str, version: u64) -> Result<Exit, Failure> {
    let record = session.client.get(format!("{}/versions/{version}", path(name))).await?.body;
    let table = |_| {
        let note = record.get("note").and_then(Value::as_str).filter(|note| !note.is_empty());
        let by = record.get("by").and_then(Value::as_str).unwrap_or("-");
        let at = record.get("at").and_then(Value::as_str).unwrap_or("-");
        let content = toml::to_string(record.get("content").unwrap_or(&Value::Null))
            .or_else(|_| serde_json::to_string_pretty(&record))
            .unwrap_or_default();
        Ok(format!(
            "# {name} v{version}, saved {at} by {by}{}\n{content}",
            note.map_or(String::new(), |n| format!(": {n}"))
        ))
    };
    session.out.show(&record, table, || vec![name.to_owned()])?;
    Ok(Exit::Done)
}

async fn versions(session: &Session, name: &str) -> Result<Exit, Failure> {
    let list = session.client.list(&format!("{}/versions", path(name)), &[]).await?;
    let items = list["items"].as_array().cloned().unwrap_or_default();
    session.out.show(
        &list,
        |_| Ok(rules::versions(&session.out, session.now, &items)),
        || items.iter().map(|item| format!("v{}", item["version"])).collect(),
    )?;
    Ok(Exit::Done)
}

/// Tells what becomes of a topic, and what is odd about the rule's entries.
async fn explain(session: &Session, name: &str, edge: &str, topic: Option<&str>) -> Result<Exit, Failure> {
    let mut query = vec![("edge", edge)];
    query.extend(topic.map(|topic| ("topic", topic)));
    let told = session.client.get(with_query(&format!("{}/explain", path(name)), &query)).await?.body;
    let explanation: Explanation = api::read(&told)?;
    session.out.show(
        &told,
        |_| Ok(rules::explanation(&session.out, &explanation)),
        || {
            let taken =
                explanation.forwards.iter().chain(&explanation.subscriptions).filter(|fate| fate.taken);
            taken.filter_map(|fate| fate.becomes.clone()).collect()
        },
    )?;
    Ok(Exit::Done)
}

async fn restore(session: &Session, name: &str, to: u64, note: &str) -> Result<Exit, Failure> {
    let etag = session.client.get(path(name)).await?.etag.unwrap_or_default();
    let call = Call::post(format!("{}/restore", path(name)), &json!({ "version": to, "note": note }))
        .header("if-match", etag);
    let saved = session.client.send(call).await?.body;
    let version = saved["version"].as_u64().unwrap_or_default();
    let text = if saved["saved"] == "unchanged" {
        format!("rule {name} has the content of v{to} already; it stays v{version}")
    } else {
        format!("rule {name} is v{version} now, with the content of v{to}. Next: tidegate sync {name}")
    };
    session.out.show(&saved, |_| Ok(text), || vec![name.to_owned()])?;
    Ok(Exit::Done)
}

async fn delete(session: &Session, name: &str, confirm: Option<&str>) -> Result<Exit, Failure> {
    let found = session.client.get(path(name)).await?;
    let rule: Rule = api::read(&found.body)?;
    let placed = rule.placements.unwrap_or_default();
    let (on_edge, offline) = (
        placed.iter().filter(|p| p.edge_version.is_some() || p.in_flight.is_some()).count(),
        placed.iter().filter(|p| p.edge_version.is_some() && !p.link.reachable()).count(),
    );
    if on_edge == 0 {
        prompt::confirm(
            &session.out,
            &format!("Delete rule {name} (on no edge)?"),
            session.yes || confirm == Some(name),
        )?;
    } else {
        let waiting = if offline == 0 {
            String::new()
        } else {
            format!(" {} offline: the rule is removed there later.", count(offline, "edge is", "edges are"))
        };
        let effect = format!(
            "Deletes rule {name} and removes it from {}; what waits in its queues there is lost.{waiting}",
            count(on_edge, "edge", "edges")
        );
        prompt::confirm_by_name(&session.out, &effect, name, confirm)?;
    }
    let call = Call::new(Method::DELETE, path(name)).header("if-match", found.etag.unwrap_or_default());
    session.client.send(call).await?;
    session.out.done(
        &json!({ "name": name, "deleted": true }),
        name,
        format_args!("rule {name} is deleted"),
    )?;
    Ok(Exit::Done)
}

async fn place_all(session: &Session, args: &PlaceArgs) -> Result<Exit, Failure> {
    let mut shown = Several::new(&session.out);
    let mut placed = Ok(());
    for edge in &args.edges {
        placed = place(session, &args.name, edge, &args.vars, &mut shown).await;
        if placed.is_err() {
            break;
        }
    }
    // What was placed before the one that failed is placed.
    shown.end(args.edges.len() == 1)?;
    placed.map(|()| Exit::Done)
}

/// Puts a rule on an edge; says so. Variables that are not named keep the values that they have there; one that is set
/// to nothing loses its value.
pub async fn place(
    session: &Session,
    name: &str,
    edge: &str,
    vars: &[(String, String)],
    shown: &mut Several<'_>,
) -> Result<(), Failure> {
    let before = placement_of(session, name, edge).await?;
    let (kept, vars) = (vars_in(before.as_ref()), merged(vars_in(before.as_ref()), vars));
    let changed = vars != kept;
    let to = format!("{}/placements/{}", path(name), segment(edge));
    let answer = session.client.send(Call::new(Method::PUT, to).json(&json!({ "vars": vars }))).await?;
    let was_going = before.as_ref().filter(|before| before["removing"] == true);
    let text = if let Some(removal) = was_going {
        placed_again(name, edge, removal)
    } else if answer.status == 201 {
        format!(
            "rule {name} is placed on {edge}; nothing was sent. Next: tidegate issue {name} --edge {edge}"
        )
    } else if changed && answer.body["edge_version"].is_u64() {
        format!(
            "rule {name} has other variables on {edge} now; nothing was sent. Next: tidegate sync {name} --edge {edge}"
        )
    } else if changed {
        format!("rule {name} has other variables on {edge} now. Next: tidegate issue {name} --edge {edge}")
    } else {
        format!("rule {name} is on {edge} already")
    };
    shown.add(answer.body, format!("{name}/{edge}"), text)
}

/// What placing did to a removal that the edge had not confirmed yet.
fn placed_again(name: &str, edge: &str, removal: &Value) -> String {
    if removal["in_flight"]["queued"] == true {
        // It was never sent.
        format!(
            "rule {name} is placed on {edge} again; its removal, which waited for the edge, is withdrawn. What the edge has stays as it is there; tidegate rule get {name} shows it"
        )
    } else {
        format!(
            "rule {name} is placed on {edge} again. Its removal was sent already: the edge may have taken the rule off, and says so by itself. Next: tidegate rule get {name} shows what it has, tidegate issue {name} --edge {edge} sends the rule"
        )
    }
}

/// A placement, also one that is being removed.
async fn placement_of(session: &Session, name: &str, edge: &str) -> Result<Option<Value>, Failure> {
    let placed = session.client.list(&format!("{}/placements", path(name)), &[("edge", edge)]).await?;
    let found = placed["items"].as_array().into_iter().flatten().find(|p| p["edge"] == edge);
    Ok(found.cloned())
}

/// The variables that a placement has.
fn vars_in(placement: Option<&Value>) -> Map<String, Value> {
    placement.and_then(|placement| placement["vars"].as_object()).cloned().unwrap_or_default()
}

/// The variables that a placement would have after these were set.
pub(super) async fn vars_after(
    session: &Session,
    name: &str,
    edge: &str,
    set: &[(String, String)],
) -> Result<Map<String, Value>, Failure> {
    Ok(merged(vars_in(placement_of(session, name, edge).await?.as_ref()), set))
}

/// The variables of a placement after some were set.
fn merged(mut vars: Map<String, Value>, set: &[(String, String)]) -> Map<String, Value> {
    for (name, value) in set {
        if value.is_empty() {
            vars.remove(name);
        } else {
            vars.insert(name.clone(), json!(value));
        }
    }
    vars
}

async fn unplace(session: &Session, name: &str, edges: &[String]) -> Result<Exit, Failure> {
    let placed = targets::of_rule(session, name, edges).await?;
    let issued = placed.iter().filter(|p| p.edge_version.is_some() && !p.removing).count();
    if issued > 0 {
        let question = format!(
            "Take rule {name} off {}? It stops there, and what waits in its queue is lost.",
            count(issued, "edge", "edges")
        );
        prompt::confirm(&session.out, &question, session.yes)?;
    }
    let mut shown = Several::new(&session.out);
    let mut ended = Ok(());
    for placement in &placed {
        ended = take_off(session, name, placement, &mut shown).await;
        if ended.is_err() {
            break;
        }
    }
    // What was taken off before the one that failed is taken off.
    shown.end(placed.len() == 1)?;
    ended.map(|()| Exit::Done)
}

async fn take_off(
    session: &Session,
    name: &str,
    placement: &Placement,
    shown: &mut Several<'_>,
) -> Result<(), Failure> {
    let edge = &placement.edge;
    let to = format!("{}/placements/{}", path(name), segment(edge));
    let pending = session.client.send(Call::new(Method::DELETE, to)).await?.status == 202;
    let text = match (pending, placement.removing, placement.link.reachable()) {
        (true, true, true) => {
            format!(
                "rule {name} is being removed from {edge} already; the edge has not said yet that it is gone"
            )
        }
        (true, true, false) => {
            format!("rule {name} is being removed from {edge} already, as soon as the edge returns")
        }
        (true, false, true) => format!("rule {name} is being removed from {edge}"),
        (true, false, false) => format!("rule {name} is removed from {edge} when the edge returns"),
        (false, _, _) => format!("rule {name} is off {edge}"),
    };
    let taken_off = json!({ "rule": name, "edge": edge, "pending": pending });
    shown.done(taken_off, format!("{name}/{edge}"), text);
    Ok(())
}

/// Finds a rule that may not be there yet, with its entity tag.
pub async fn find(session: &Session, name: &str) -> Result<Option<(Value, String)>, Failure> {
    let found = session.client.find(with_query(&path(name), &[])).await?;
    Ok(found.map(|answer| (answer.body, answer.etag.unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_are_not_named_stay_and_one_that_is_set_to_nothing_goes() {
        let vars = |value: Value| value.as_object().unwrap().clone();
        let set = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        let before = vars(json!({"site": "lyon", "line": "2"}));
        assert_eq!(merged(before.clone(), &[]), before);
        assert_eq!(
            merged(before.clone(), &set("site", "paris")),
            vars(json!({"site": "paris", "line": "2"}))
        );
        assert_eq!(merged(before, &set("site", "")), vars(json!({"line": "2"})));
    }
}

//! `--dry-run`: what the server says that a command would do, in words. Nothing is guessed here.

use reqwest::Method;
use serde_json::{Value, json};
use tidegate_model::placement::Action;

use super::apply;
use super::files::RuleFile;
use super::{Session, rules};
use crate::api::Acted;
use crate::args::ApplyArgs;
use crate::client::{Call, segment};
use crate::failure::Failure;
use crate::output::Several;
use crate::output::words::count;

/// Edges that one line names at the most.
const NAMED: usize = 5;

/// What an action on one placement would do.
pub(super) fn action(action: Action, would: &Acted, answer: &Value) -> String {
    let placement = &would.placement;
    let on = format!("{} on {}", placement.rule, placement.edge);
    let sends = answer["affected"][0]["sends"].as_bool().unwrap_or(false);
    match &would.operation {
        None => format!("{on}: it is so already, nothing would be sent"),
        Some(_) if sends => {
            format!("{on}: {action} would be sent now, as generation {}", placement.generation)
        }
        Some(_) => format!("{on}: {action} would be queued until the edge returns (7 days)"),
    }
}

/// Tells what applying a file would do, without saving it.
pub(super) async fn apply(
    session: &Session,
    file: &RuleFile,
    args: &ApplyArgs,
    shown: &mut Several<'_>,
) -> Result<(), Failure> {
    let (told, before) = apply::send(session, file, args).await?;
    let name = told["answer"]["name"].as_str().unwrap_or_default().to_owned();
    let text = saved(&told, before);
    shown.add(told, name.clone(), text)?;
    for edge in &args.place {
        if before == 0 {
            session.out.note(format_args!("rule {name} would be placed on {edge}"));
            continue;
        }
        let path = format!("/rules/{}/placements/{}?dry_run=true", segment(&name), segment(edge));
        let vars = rules::vars_after(session, &name, edge, &args.vars).await?;
        let call = Call::new(Method::PUT, path).json(&json!({ "vars": vars }));
        let told = session.client.send(call).await?.body;
        let text = if told["status"] == 201 { "would be placed on" } else { "would stay on" };
        session.out.note(format_args!("rule {name} {text} {edge}"));
    }
    Ok(())
}

/// What a save would do.
fn saved(told: &Value, before: u64) -> String {
    let rule = &told["answer"];
    let name = rule["name"].as_str().unwrap_or_default();
    let version = rule["version"].as_u64().unwrap_or_default();
    match rule["saved"].as_str() {
        Some("created") => return format!("rule {name} would be created (v{version})"),
        Some("unchanged") => return format!("rule {name} is unchanged (v{version})"),
        Some(_) | None => {}
    }
    let change = format!("rule {name} would change v{before} -> v{version}");
    let affected: Vec<&str> =
        told["affected"].as_array().into_iter().flatten().filter_map(|a| a["edge"].as_str()).collect();
    let all = usize::try_from(told["affected_total"].as_u64().unwrap_or_default()).unwrap_or(usize::MAX);
    match all {
        0 => change,
        _ => {
            let named = affected.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
            let more = if all > NAMED { ", …" } else { "" };
            let on = count(all, "edge", "edges");
            format!("{change}; updates would not be issued on {on}: {named}{more}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(saved: &str, edges: usize) -> Value {
        let affected: Vec<Value> = (0..edges).map(|n| json!({ "edge": format!("gw-{n}") })).collect();
        json!({ "answer": { "name": "up", "version": 4, "saved": saved }, "affected": affected, "affected_total": edges })
    }

    #[test]
    fn a_save_is_told_in_one_line() {
        assert_eq!(saved(&told("created", 0), 0), "rule up would be created (v4)");
        assert_eq!(saved(&told("unchanged", 0), 4), "rule up is unchanged (v4)");
        assert_eq!(saved(&told("changed", 0), 3), "rule up would change v3 -> v4");
        assert_eq!(
            saved(&told("changed", 6), 3),
            "rule up would change v3 -> v4; updates would not be issued on 6 edges: gw-0, gw-1, gw-2, gw-3, gw-4, …"
        );
    }
}

//! `tidegate rule apply` and `rule check`: files go to the server as they are written, so that its problems name their
//! lines.

use std::path::PathBuf;

use reqwest::Method;
use serde_json::Value;

use super::files::{self, RuleFile};
use super::{Session, dry_run, rules};
use crate::args::ApplyArgs;
use crate::client::{Call, ClientError, segment, with_query};
use crate::failure::{Exit, Failure};
use crate::output::Several;
use crate::output::words::count;

/// Creates or changes the rules of all files. One bad file does not keep the others from being applied.
pub async fn apply(session: &Session, args: &ApplyArgs) -> Result<Exit, Failure> {
    let files = files::read_all(&args.files)?;
    let (mut failed, mut shown) = (Vec::new(), Several::new(&session.out));
    let all = files.len();
    for file in files {
        match apply_one(session, file, args, &mut shown).await {
            Ok(()) => {}
            Err(error) => failed.push(error),
        }
    }
    shown.end(is_one(&args.files))?;
    end(failed, all)
}

/// Whether one file is meant, and not those of a directory.
fn is_one(paths: &[PathBuf]) -> bool {
    matches!(paths, [path] if !path.is_dir())
}

/// Saves the rule of one file, then puts it on the edges that were named.
async fn apply_one(
    session: &Session,
    file: Result<RuleFile, Failure>,
    args: &ApplyArgs,
    shown: &mut Several<'_>,
) -> Result<(), Failure> {
    let file = file?;
    if args.dry_run {
        return dry_run::apply(session, &file, args, shown).await;
    }
    let (mut saved, text) = save(session, &file, args).await?;
    let name = saved["name"].as_str().unwrap_or_default().to_owned();
    if session.out.for_people() {
        session.out.line(text)?;
    }
    let (mut failed, mut placed) = (Vec::new(), Several::new(&session.out));
    for edge in &args.place {
        match rules::place(session, &name, edge, &args.vars, &mut placed).await {
            Ok(()) => {}
            Err(error) => failed.push(error),
        }
    }
    if !args.place.is_empty() {
        // The rule as it was saved, with the placements that came after.
        saved["placed"] = placed.into_items().into();
    }
    shown.for_programs(saved, name);
    match failed.len() {
        0 => Ok(()),
        1 => Err(failed.remove(0)),
        _ => Err(Failure::Failed(failed.iter().filter_map(Failure::text).collect::<Vec<_>>().join("\n"))),
    }
}

/// Saves the rule of a file; gives the server's answer, and what people are told of it.
pub(super) async fn save(
    session: &Session,
    file: &RuleFile,
    args: &ApplyArgs,
) -> Result<(Value, String), Failure> {
    let (saved, before) = send(session, file, args).await?;
    let name = saved["name"].as_str().unwrap_or_default();
    let version = saved["version"].as_u64().unwrap_or_default();
    let behind = saved["tally"]["pending"].as_u64().unwrap_or_default();
    let text = match saved["saved"].as_str() {
        Some("created") if !args.place.is_empty() => format!("rule {name} created (v{version})"),
        Some("created") => {
            format!("rule {name} created (v{version}). Next: tidegate rule place {name} --edge EDGE")
        }
        Some("unchanged") => format!("rule {name} unchanged (v{version})"),
        _ if behind > 0 => format!("rule {name} changed v{before} -> v{version}. Next: tidegate sync {name}"),
        _ => format!("rule {name} changed v{before} -> v{version}"),
    };
    Ok((saved, text))
}

/// Sends a file, for real or for a dry run; gives the answer and the version that the rule had (0: it is new).
pub(super) async fn send(
    session: &Session,
    file: &RuleFile,
    args: &ApplyArgs,
) -> Result<(Value, u64), Failure> {
    let note = args.note.as_deref().map(|note| ("note", note));
    let query: Vec<(&str, &str)> =
        note.into_iter().chain(args.dry_run.then_some(("dry_run", "true"))).collect();
    let known = match file.rule_name() {
        Some(name) => rules::find(session, &name).await?.map(|found| (name, found)),
        // The server says what is wrong with it.
        None => None,
    };
    let (call, before) = match &known {
        Some((name, (rule, etag))) => {
            let path = with_query(&format!("/rules/{}", segment(name)), &query);
            let call = Call::new(Method::PUT, path).header("if-match", etag.clone());
            (call, rule["version"].as_u64().unwrap_or_default())
        }
        None => (Call::new(Method::POST, with_query("/rules", &query)), 0),
    };
    let sent = session.client.send(call.text(file.language.content_type(), file.text.clone())).await;
    Ok((sent.map_err(|error| in_file(error, file))?.body, before))
}

/// Checks files; nothing is saved.
pub async fn check(session: &Session, paths: &[PathBuf]) -> Result<Exit, Failure> {
    let files = files::read_all(paths)?;
    let (mut failed, mut shown) = (Vec::new(), Several::new(&session.out));
    let all = files.len();
    for file in files {
        match check_one(session, file, &mut shown).await {
            Ok(()) => {}
            Err(error) => failed.push(error),
        }
    }
    shown.end(is_one(paths))?;
    end(failed, all)
}

async fn check_one(
    session: &Session,
    file: Result<RuleFile, Failure>,
    shown: &mut Several<'_>,
) -> Result<(), Failure> {
    let file = file?;
    let call = Call::new(Method::POST, "/rules/check").text(file.language.content_type(), file.text.clone());
    let answer = session.client.send(call).await.map_err(|error| in_file(error, &file))?.body;
    let name = answer["name"].as_str().unwrap_or_default().to_owned();
    let (effects, misfits) = (effects(&file.shown, &name, &answer), misfits(&answer));
    shown.add(answer, name.clone(), effects)?;
    if misfits.is_empty() {
        Ok(())
    } else {
        let on = misfits.iter().map(|line| format!("\n  {line}")).collect::<String>();
        Err(Failure::Failed(format!("{}: rule {name} does not fit where it is placed:{on}", file.shown)))
    }
}

/// What is wrong with a rule on single edges that it is placed on: it would be refused there.
fn misfits(answer: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for edge in answer["edges"].as_array().into_iter().flatten() {
        let id = edge["edge"].as_str().unwrap_or_default();
        for error in edge["errors"].as_array().into_iter().flatten() {
            let text = |field: &str| error[field].as_str().unwrap_or_default().to_owned();
            lines.push(format!("{id}: {} — {}", text("detail"), text("help")));
        }
    }
    lines
}

/// What a checked rule does on each edge that it is placed on.
fn effects(file: &str, name: &str, answer: &Value) -> String {
    let fine = if misfits(answer).is_empty() { "is fine" } else { "can be read" };
    let mut lines = vec![format!("{file}: rule {name} {fine}")];
    for edge in answer["edges"].as_array().into_iter().flatten() {
        let id = edge["edge"].as_str().unwrap_or_default();
        for (routes, from, to) in [("forwards", "local", "remote"), ("subscriptions", "remote", "local")] {
            for route in edge[routes].as_array().into_iter().flatten() {
                let text = |field: &str| route[field].as_str().unwrap_or_default().to_owned();
                lines.push(format!("  {id}: {from} {} -> {to} {}", text(from), text(to)));
            }
        }
    }
    lines.join("\n")
}

/// A refusal with its problems placed in the file: `file:line:col field: what — help`.
pub(super) fn in_file(error: ClientError, file: &RuleFile) -> Failure {
    if let ClientError::Refused(problem) = &error
        && !problem.errors.is_empty()
    {
        let lines: Vec<String> = problem.errors.iter().map(|e| e.in_file(Some(&file.shown))).collect();
        return Failure::InFile {
            file: file.shown.clone(),
            text: lines.join("\n"),
            problem: problem.clone(),
        };
    }
    Failure::Client(error)
}

fn end(mut failed: Vec<Failure>, all: usize) -> Result<Exit, Failure> {
    match failed.len() {
        0 => Ok(Exit::Done),
        1 if all == 1 => Err(failed.remove(0)),
        n => {
            let texts: Vec<String> = failed.iter().filter_map(Failure::text).collect();
            let text = format!("{}\n{n} of {} failed", texts.join("\n"), count(all, "file", "files"));
            let exits: Vec<Exit> = failed.iter().map(Failure::exit).collect();
            Err(Failure::of_several(&exits, all, text))
        }
    }
}

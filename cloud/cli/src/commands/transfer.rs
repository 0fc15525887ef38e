//! `tidegate rule export` and `tidegate rule import`: rules as files, and bridges of mosquitto as rules.

use serde_json::{Value, json};
use tidegate_cloud::os;
use tidegate_model::ids::{AccountId, EdgeId};
use tidegate_model::rule::mosquitto::{self, Import, ImportedBridge, ImportedLine, Outcome};
use tidegate_model::rule::{Limits, RenderContext, SecretInput, SecretRefs, parse};

use super::files::{Language, RuleFile};
use super::{Session, apply, files, targets};
use crate::api;
use crate::args::{ApplyArgs, ExportFormat, ImportCommand, MosquittoArgs, RuleExportArgs};
use crate::client::segment;
use crate::context::write_private;
use crate::failure::{Exit, Failure};
use crate::output::words::count;
use crate::output::{Format, Out, Several, finish, table};

/// Writes rules in a format, to standard output or one file each.
pub async fn export(session: &Session, args: &RuleExportArgs) -> Result<Exit, Failure> {
    let names = if args.all {
        let list: api::List<api::Rule> = api::read(&session.client.list("/rules", &[]).await?)?;
        list.items.into_iter().map(|rule| rule.name).collect()
    } else {
        args.names.clone()
    };
    let format = args.format.unwrap_or(match session.out.format {
        Format::Json => ExportFormat::Json,
        Format::Yaml => ExportFormat::Yaml,
        Format::Table | Format::Wide | Format::Name => ExportFormat::Toml,
    });
    let is_text = session.out.for_people() || args.format.is_some();
    if is_text && names.len() > 1 && format != ExportFormat::Mosquitto && args.out.is_none() {
        return Err(Failure::Usage(
            "several rules do not fit into one file of this format: --out DIR writes one file for each"
                .into(),
        ));
    }
    let one = names.len() == 1 && !args.all;
    let mut rules = Vec::new();
    for name in names {
        let (content, text) = exported(session, &name, format, args.edge.as_deref()).await?;
        rules.push((name, content, text));
    }
    let mut shown = Several::new(&session.out);
    match &args.out {
        Some(dir) => {
            for (name, _, text) in &rules {
                let file = dir.join(format!("{name}.{}", format.extension()));
                write_private(&file, text.as_bytes()).map_err(|error| {
                    Failure::Failed(format!("{} cannot be written: {}", file.display(), os::plain(&error)))
                })?;
                shown.for_programs(json!({ "name": name, "file": file }), name.clone());
            }
            let written = count(rules.len(), "rule", "rules");
            session.out.note(format_args!("{written} written to {}", dir.display()));
        }
        None if session.out.for_people() => {
            let texts: Vec<&str> = rules.iter().map(|(_, _, text)| text.trim_end()).collect();
            session.out.line(texts.join("\n\n"))?;
        }
        None => {
            for (name, content, text) in rules {
                let is_asked_for = args.format.is_none() || format == ExportFormat::Json;
                // A text of another format is a text to programs.
                let item = if is_asked_for { content } else { json!({ "name": name, "text": text }) };
                shown.for_programs(item, name);
            }
        }
    }
    shown.end(one)?;
    Ok(Exit::Done)
}

/// The content of a rule as it may be applied again, and the same in a format.
async fn exported(
    session: &Session,
    name: &str,
    format: ExportFormat,
    edge: Option<&str>,
) -> Result<(Value, String), Failure> {
    let rule = session.client.get(format!("/rules/{}", segment(name))).await?.body;
    let mut content = rule["content"].clone();
    if format == ExportFormat::Mosquitto {
        let text = connection(session, name, &content, edge).await?;
        return Ok((content, text));
    }
    let mut was_set = |table: &str, fact: &str| {
        let table = content.pointer_mut(table).and_then(Value::as_object_mut);
        table.and_then(|table| table.remove(fact)) == Some(Value::Bool(true))
    };
    let note = match (was_set("/remote", "password_set"), was_set("/remote/tls", "key_set")) {
        (false, false) => "",
        (true, false) => "# The password is not exported; applying this file keeps the one that is stored.\n",
        (false, true) => {
            "# The private key is not exported; applying this file keeps the one that is stored.\n"
        }
        (true, true) => {
            "# Password and private key are not exported; applying this file keeps those that are stored.\n"
        }
    };
    let cannot = |error: String| Failure::Failed(format!("rule {name} cannot be written so: {error}"));
    let text = match format {
        ExportFormat::Toml => {
            format!("{note}{}", toml::to_string(&content).map_err(|e| cannot(e.to_string()))?)
        }
        ExportFormat::Yaml => {
            format!("{note}{}", serde_saphyr::to_string(&content).map_err(|e| cannot(e.to_string()))?)
        }
        ExportFormat::Json | ExportFormat::Mosquitto => {
            serde_json::to_string_pretty(&content).map_err(|e| cannot(e.to_string()))?
        }
    };
    Ok((content, text))
}

/// A rule as a bridge of mosquitto, for an edge or for any.
async fn connection(
    session: &Session,
    name: &str,
    content: &Value,
    edge: Option<&str>,
) -> Result<String, Failure> {
    let told = |problems: tidegate_model::rule::Problems| {
        Failure::Failed(format!("rule {name} cannot be written for mosquitto:\n{problems}"))
    };
    let draft = parse(&content.to_string(), tidegate_model::rule::Format::Json)
        .and_then(|draft| draft.validate(&Limits::default()));
    let (rule, _) = draft.map_err(told)?;
    let context = match edge {
        Some(edge) => {
            let vars = targets::one(session, name, edge).await?.vars;
            let edge = EdgeId::new(edge).map_err(|error| Failure::Usage(error.to_string()))?;
            Some(RenderContext {
                account: AccountId::default_account(),
                edge,
                vars,
                secrets: SecretRefs::default(),
            })
        }
        None => None,
    };
    let written = mosquitto::export(&rule, context.as_ref()).map_err(told)?;
    for note in &written.notes {
        session.out.note(format_args!("note: {name}: {note}"));
    }
    Ok(written.text)
}

/// Imports what another broker's configuration says. `open` gives the session where one is needed.
pub async fn import(
    out: &Out,
    open: impl FnOnce() -> Result<Session, Failure>,
    command: &ImportCommand,
) -> Result<Exit, Failure> {
    let ImportCommand::Mosquitto(args) = command;
    let (shown, text) = files::read_any(&args.file)?;
    let done = mosquitto::import(&text)
        .map_err(|problems| Failure::Usage(problems.in_file(shown.clone()).to_string()))?;
    let bridges = chosen(&done, args, &shown)?;
    let lines: Vec<&ImportedLine> = done
        .lines
        .iter()
        .filter(|line| {
            args.connection.is_none()
                || bridges.iter().any(|b| line.connection.as_deref() == Some(b.connection.as_str()))
        })
        .collect();
    out.note(report(out, &shown, &lines));
    if args.dry_run {
        print(out, &shown, &bridges, &lines)?;
    } else {
        let session = open()?;
        let save = ApplyArgs {
            files: Vec::new(),
            note: args.note.clone().or(Some(format!("imported from {shown}"))),
            dry_run: false,
            place: Vec::new(),
            vars: Vec::new(),
        };
        let (mut told, mut ended) = (Several::new(&session.out), Ok(()));
        for file in bridges.iter().filter_map(|bridge| file(bridge, &shown)) {
            ended = match apply::save(&session, &file, &save).await {
                Ok((saved, text)) => {
                    let name = saved["name"].as_str().unwrap_or_default().to_owned();
                    told.add(saved, name, text)
                }
                Err(failure) => Err(failure),
            };
            if ended.is_err() {
                break;
            }
        }
        // What was saved before the one that failed is saved.
        told.end(args.connection.is_some())?;
        ended?;
    }
    let refused: Vec<&ImportedBridge> = bridges.iter().copied().filter(|b| b.rule.is_none()).collect();
    if refused.is_empty() {
        return Ok(Exit::Done);
    }
    let why = refused.iter().map(|bridge| refusals(&shown, bridge, &lines)).collect::<Vec<_>>().join("\n");
    let text = format!(
        "{why}\n{} of {} not imported",
        refused.len(),
        count(bridges.len(), "connection", "connections")
    );
    Err(if refused.len() < bridges.len() { Failure::PartlyFailed(text) } else { Failure::Failed(text) })
}

fn chosen<'d>(
    done: &'d Import,
    args: &MosquittoArgs,
    shown: &str,
) -> Result<Vec<&'d ImportedBridge>, Failure> {
    let names: Vec<&str> = done.bridges.iter().map(|bridge| bridge.connection.as_str()).collect();
    if names.is_empty() {
        return Err(Failure::Failed(format!(
            "{shown} holds no bridge: no line begins with 'connection'. Files of an include_dir are imported one by one"
        )));
    }
    let bridges: Vec<&ImportedBridge> = done
        .bridges
        .iter()
        .filter(|b| args.connection.as_ref().is_none_or(|name| *name == b.connection))
        .collect();
    if bridges.is_empty() {
        return Err(Failure::NotFound(format!(
            "{shown} has no connection '{}'; it has {}",
            args.connection.as_deref().unwrap_or_default(),
            names.join(", ")
        )));
    }
    Ok(bridges)
}

/// Every line, and what became of it.
fn report(out: &Out, shown: &str, lines: &[&ImportedLine]) -> String {
    let mut rows = table(out, &["LINE", "CONNECTION", "OPTION", "OUTCOME", "WHY"]);
    for line in lines {
        rows.add_row(vec![
            line.line.to_string(),
            line.connection.clone().unwrap_or_else(|| "-".into()),
            line.option.clone(),
            outcome(line.outcome).to_owned(),
            line.note.clone(),
        ]);
    }
    let of = |outcome: Outcome| lines.iter().filter(|line| line.outcome == outcome).count();
    format!(
        "{}\n{shown}: {} mapped, {} ignored, {} refused",
        finish(rows),
        of(Outcome::Mapped),
        of(Outcome::Ignored),
        of(Outcome::Refused)
    )
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Mapped => "mapped",
        Outcome::Ignored => "ignored",
        Outcome::Refused => "refused",
    }
}

/// The drafts, as they would be applied but for the password.
fn print(
    out: &Out,
    shown: &str,
    bridges: &[&ImportedBridge],
    lines: &[&ImportedLine],
) -> Result<(), Failure> {
    let drafts: Vec<Value> = bridges
        .iter()
        .map(|b| {
            json!({
                "connection": b.connection,
                "line": b.line,
                "name": b.spec.name,
                "content": b.rule.as_ref().map(|rule| rule.to_json()),
                "password_in_file": matches!(b.secrets.password, SecretInput::Set(_)),
            })
        })
        .collect();
    let text = |_| {
        let mut texts = Vec::new();
        for bridge in bridges {
            let mut text = format!("# from {shown}:{}, connection {}\n", bridge.line, bridge.connection);
            if matches!(bridge.secrets.password, SecretInput::Set(_)) {
                text.push_str("# its password is in that file and not shown\n");
            }
            match &bridge.rule {
                Some(rule) => text.push_str(&rule.canonical_toml()),
                None => text.push_str("# no rule: a line was refused\n"),
            }
            texts.push(text);
        }
        Ok(texts.join("\n"))
    };
    let names = || bridges.iter().filter(|b| b.rule.is_some()).map(|b| b.spec.name.to_string()).collect();
    out.show(&json!({ "drafts": drafts, "lines": lines }), text, names)
}

/// What is sent for a connection: the rule with its password.
fn file(bridge: &ImportedBridge, shown: &str) -> Option<RuleFile> {
    let mut content = bridge.rule.as_ref()?.to_json();
    let remote = content["remote"].as_object_mut()?;
    if let SecretInput::Set(secret) = &bridge.secrets.password {
        remote.insert("password".into(), secret.reveal().into());
    }
    let shown = format!("{shown} (connection {})", bridge.connection);
    Some(RuleFile { shown, language: Language::Json, text: content.to_string() })
}

fn refusals(shown: &str, bridge: &ImportedBridge, lines: &[&ImportedLine]) -> String {
    lines
        .iter()
        .filter(|line| {
            line.outcome == Outcome::Refused && line.connection.as_deref() == Some(bridge.connection.as_str())
        })
        .map(|line| format!("{shown}:{} {}: {}", line.line, line.option, line.note))
        .collect::<Vec<_>>()
        .join("\n")
}

impl ExportFormat {
    fn extension(self) -> &'static str {
        match self {
            Self::Toml => "toml",
            Self::Yaml => "yaml",
            Self::Json => "json",
            Self::Mosquitto => "conf",
        }
    }
}

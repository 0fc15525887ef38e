//! `tidegate rule diff`: ends with 0 for no difference, 1 for differences, 2 for an error, so that CI can gate on it.

use std::path::Path;

use serde_json::{Value, json};

use super::{Session, apply, files, rules};
use crate::args::DiffArgs;
use crate::client::{Call, segment, with_query};
use crate::failure::{Exit, Failure};
use crate::output::complain;
use reqwest::Method;

/// Compares; tells errors itself, because every one of them ends with 2.
pub async fn diff(session: &Session, args: &DiffArgs) -> Exit {
    let compared = match (&args.name, &args.file) {
        (Some(name), _) => versions(session, name, args.from, args.to).await,
        (None, Some(file)) => file_with_server(session, file).await,
        (None, None) => Err(Failure::Usage("name a rule with --from, or a file with -f".into())),
    };
    match compared {
        Ok(true) => Exit::Failed,
        Ok(false) => Exit::Done,
        Err(failure) => {
            complain(session.out.format, &failure);
            match failure {
                Failure::Interrupted(_) => Exit::Interrupted,
                Failure::Output(_) => failure.exit(),
                Failure::Usage(_)
                | Failure::Failed(_)
                | Failure::NotFound(_)
                | Failure::Conflict(_)
                | Failure::PartlyFailed(_)
                | Failure::AllFailed { .. }
                | Failure::TimedOut(_)
                | Failure::InFile { .. }
                | Failure::Client(_) => Exit::Usage,
            }
        }
    }
}

async fn versions(
    session: &Session,
    name: &str,
    from: Option<u64>,
    to: Option<u64>,
) -> Result<bool, Failure> {
    let (from, to) = (from.map(|n| n.to_string()), to.map(|n| n.to_string()));
    let query: Vec<(&str, &str)> = [("from", &from), ("to", &to)]
        .into_iter()
        .filter_map(|(name, value)| value.as_deref().map(|v| (name, v)))
        .collect();
    let path = with_query(&format!("/rules/{}/diff", segment(name)), &query);
    let found = session.client.get(path).await?.body;
    let unified = found["unified"].as_str().unwrap_or_default().to_owned();
    let differs =
        found["changes"].as_array().is_some_and(|changes| !changes.is_empty()) || !unified.is_empty();
    let text = if differs && unified.is_empty() { unseen(&found["changes"]) } else { unified };
    session.out.show(&found, |_| Ok(text), || if differs { vec![name.to_owned()] } else { Vec::new() })?;
    Ok(differs)
}

/// Differences that the text of the two versions does not show, such as another password.
fn unseen(changes: &Value) -> String {
    let pointers = changes.as_array().into_iter().flatten().filter_map(|c| c["pointer"].as_str());
    pointers.map(|pointer| format!("~ {pointer} (not shown)")).collect::<Vec<_>>().join("\n")
}

/// Compares a file with the rule of its name: both as the server understands them.
async fn file_with_server(session: &Session, path: &Path) -> Result<bool, Failure> {
    let mut files = files::read_all(&[path.to_owned()])?;
    let (Some(file), true) = (files.pop(), files.is_empty()) else {
        return Err(Failure::Usage("one file is compared at a time; a directory holds several".into()));
    };
    let file = &file?;
    let call = Call::new(Method::POST, "/rules/check").text(file.language.content_type(), file.text.clone());
    let checked = session.client.send(call).await.map_err(|error| apply::in_file(error, file))?.body;
    let name = checked["name"].as_str().unwrap_or_default().to_owned();
    let new = parse(session, file)?;
    let Some((rule, _)) = rules::find(session, &name).await? else {
        let shown = json!({ "rule": name, "changes": [{ "pointer": "", "op": "added" }] });
        session.out.show(
            &shown,
            |_| Ok(format!("rule {name} is new: the server does not have it")),
            || vec![name.clone()],
        )?;
        return Ok(true);
    };
    let old = rule["content"].clone();
    let changes = changes(&old, &new);
    let lines: Vec<String> = changes
        .iter()
        .map(|(pointer, old, new)| match (old, new) {
            (Some(old), Some(new)) => format!("~ {pointer}: {old} -> {new}"),
            (Some(old), None) => format!("- {pointer}: {old}"),
            (None, Some(new)) => format!("+ {pointer}: {new}"),
            (None, None) => String::new(),
        })
        .collect();
    let shown = json!({
        "rule": name,
        "changes": changes.iter().map(|(p, old, new)| json!({ "pointer": p, "from": old, "to": new })).collect::<Vec<_>>(),
    });
    session.out.show(
        &shown,
        |_| Ok(lines.join("\n")),
        || if lines.is_empty() { vec![] } else { vec![name.clone()] },
    )?;
    Ok(!lines.is_empty())
}

/// The content of a file in the API's form, with the defaults filled in. A secret in the file cannot be compared: the
/// server never shows its own.
fn parse(session: &Session, file: &files::RuleFile) -> Result<Value, Failure> {
    use tidegate_model::rule::{Format, Limits, SecretInputs, parse};
    let format = match file.language {
        files::Language::Toml => Format::Toml,
        files::Language::Yaml => Format::Yaml,
        files::Language::Json => Format::Json,
    };
    let draft = parse(&file.text, format).and_then(|draft| draft.validate(&Limits::default()));
    let (rule, secrets) =
        draft.map_err(|problems| Failure::Failed(problems.in_file(&file.shown).to_string()))?;
    if secrets != SecretInputs::default() {
        session.out.note(
            "note: password and key of the file are not compared: the server does not show those that it holds",
        );
    }
    Ok(rule.to_json())
}

type Change = (String, Option<Value>, Option<Value>);

/// Fields in which two objects differ, by JSON pointer.
fn changes(old: &Value, new: &Value) -> Vec<Change> {
    let mut found = Vec::new();
    compare("", Some(old), Some(new), &mut found);
    found
}

fn compare(pointer: &str, old: Option<&Value>, new: Option<&Value>, found: &mut Vec<Change>) {
    // Whether a secret is set is a fact of the server's, not of the file's.
    if matches!(pointer, "/remote/password_set" | "/remote/tls/key_set") || old == new {
        return;
    }
    match (old, new) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                compare(&format!("{pointer}/{key}"), old.get(key), new.get(key), found);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            for index in 0..old.len().max(new.len()) {
                compare(&format!("{pointer}/{index}"), old.get(index), new.get(index), found);
            }
        }
        (old, new) => found.push((pointer.to_owned(), old.cloned(), new.cloned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_told_by_field() {
        let old = json!({"a": 1, "b": [1, 2], "remote": {"password_set": true, "url": "x"}});
        let new = json!({"a": 2, "b": [1], "remote": {"password_set": false, "url": "x"}, "c": null});
        let pointers: Vec<String> = changes(&old, &new).into_iter().map(|(pointer, _, _)| pointer).collect();
        assert_eq!(pointers, ["/a", "/b/1", "/c"]);
        assert!(changes(&old, &old).is_empty());
    }
}

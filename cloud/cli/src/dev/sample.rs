//! The sample: one edge and one rule, made over the API at the first start and left alone after that.

use std::net::SocketAddr;
use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};
use tidegate_model::rule::Secret;

use crate::client::{Call, Client, with_query};
use crate::context::write_private;
use crate::failure::Failure;
use crate::output::Out;

/// The edge's name.
pub const EDGE: &str = "gateway-1";
/// The rule's name.
pub const RULE: &str = "sample";
/// Keeps the edge's credential, which the controller shows once.
const CREDENTIAL_FILE: &str = "gateway-1.credential";
/// Keeps the remote broker's URL as it was written into the rule; once it is there, the sample is complete.
const DONE_FILE: &str = "sample.url";

/// Makes the edge known if it is not, and returns its credential.
pub async fn edge(client: &Client, dir: &Path) -> Result<Secret, Failure> {
    let file = dir.join(CREDENTIAL_FILE);
    let kept = std::fs::read_to_string(&file)
        .ok()
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty());
    let known = client.find(format!("/edges/{EDGE}")).await?.is_some();
    if let (true, Some(credential)) = (known, kept) {
        return Ok(Secret::new(credential));
    }
    if known {
        // Its credential is lost, and nobody can tell it again: it gets a new one.
        client
            .send(Call::new(
                Method::DELETE,
                with_query(&format!("/edges/{EDGE}"), &[("leave_running", "true")]),
            ))
            .await?;
    }
    let made = client.send(Call::post("/edges", &json!({ "id": EDGE }))).await?.body;
    let credential = made["credential"].as_str().unwrap_or_default();
    write_private(&file, credential.as_bytes()).map_err(|error| cannot_write(&file, &error))?;
    Ok(Secret::new(credential))
}

/// Creates, places and issues the rule at the first start. Later it only follows the remote broker to another port, and
/// only while the rule still names the port of the last start.
pub async fn rule(client: &Client, dir: &Path, remote: SocketAddr, out: &Out) -> Result<(), Failure> {
    let file = dir.join(DONE_FILE);
    let url = format!("mqtt://{remote}");
    let done = std::fs::read_to_string(&file).ok().map(|text| text.trim().to_owned());
    let known = client.find(format!("/rules/{RULE}")).await?;
    match (known, done) {
        (Some(_), Some(last)) if last == url => return Ok(()),
        (Some(known), Some(last)) => {
            if known.body["content"]["remote"]["url"] != last.as_str() {
                return Ok(());
            }
            let patch = Call::new(
                Method::PATCH,
                with_query(&format!("/rules/{RULE}"), &[("note", "dev: the remote broker moved")]),
            )
            .header("if-match", known.etag.unwrap_or_default())
            .text("application/merge-patch+json", json!({ "remote": { "url": url } }).to_string());
            client.send(patch).await?;
            if issued(&known.body) {
                client.send(action("sync")).await?;
            }
            out.note(format_args!(
                "the remote broker listens on another port than last time; rule {RULE} follows"
            ));
        }
        // Deleted by the operator: it stays so.
        (None, Some(_)) => return Ok(()),
        (known, None) => {
            if known.is_none() {
                let call =
                    Call::new(Method::POST, with_query("/rules", &[("note", "the sample of tidegate dev")]));
                client.send(call.text("application/toml", text(&url))).await?;
            }
            let to = format!("/rules/{RULE}/placements/{EDGE}");
            client.send(Call::new(Method::PUT, to).json(&json!({ "vars": {} }))).await?;
            if !known.is_some_and(|rule| issued(&rule.body)) {
                client.send(action("issue")).await?;
            }
        }
    }
    write_private(&file, url.as_bytes()).map_err(|error| cannot_write(&file, &error))
}

/// An action that waits for the gateway, which is only just connecting.
fn action(word: &str) -> Call {
    Call::post(format!("/placements/{RULE}/{EDGE}/{word}"), &json!({ "when_offline": "queue" }))
}

/// Whether the gateway holds the rule, or will.
fn issued(rule: &Value) -> bool {
    let placements = rule["placements"].as_array();
    placements.into_iter().flatten().any(|p| p["edge"] == EDGE && p["generation"].as_u64() > Some(0))
}

fn text(url: &str) -> String {
    format!(
        "name = \"{RULE}\"\nmountpoint = \"plant/{{edge}}/\"\n\n[remote]\nurl = \"{url}\"\n\n[[forwards]]\ntopic = \"sensors/#\"\n\n[[subscriptions]]\ntopic = \"commands/{{edge}}/#\"\n"
    )
}

fn cannot_write(file: &Path, error: &std::io::Error) -> Failure {
    Failure::Failed(format!(
        "{} cannot be written: {error}; choose another --data-dir, or mend its rights",
        file.display()
    ))
}

#[cfg(test)]
mod tests {
    use tidegate_model::rule::{Format, Limits, parse};

    #[test]
    fn the_sample_is_a_valid_rule() {
        let draft = parse(&super::text("mqtt://127.0.0.1:7383"), Format::Toml).unwrap();
        let (rule, _) = draft.validate(&Limits::default()).unwrap();
        assert_eq!(rule.name().as_str(), super::RULE);
    }
}

mod between;
mod documentation;
mod edges;
mod explanations;
mod problems;
mod round_trip;
mod tls;

use super::*;
use crate::ids::{AccountId, EdgeId};
use crate::topic::TopicName;

/// The rule of the issue, with one more of everything.
const FULL: &str = r#"
name = "camera-up"
mountpoint = "plant/{site}/{edge}/"
start = "manual"

[remote]
url = "mqtt://broker.example:1884"
client_id = "{edge}-camera-up"
username = "lyon"
password = "hunter2"
keep_alive = "90s"
clean_session = true

[[forwards]]
topic = "sensors/#"
qos = 0
strip = "sensors/"
prefix = "s/"
retain = true

[[forwards]]
topic = "alarms/+"

[[subscriptions]]
topic = "commands/{edge}/#"
prefix = "in/"

[queue]
max_bytes = "1GiB"
max_age = "36h"
when_full = "block"

[policy]
verify_s = 30
on_wipe = "keep"
on_drift = "heal"

[vars]
site = { default = "unknown" }
"#;

fn valid(text: &str) -> ValidRule {
    valid_with_secret(text).0
}

fn valid_with_secret(text: &str) -> (ValidRule, SecretInputs) {
    let draft = parse(text, Format::Toml).unwrap_or_else(|problems| panic!("{problems}"));
    draft.validate(&Limits::default()).unwrap_or_else(|problems| panic!("{problems}"))
}

/// A rule with these lines behind `[remote]`.
fn rule_with(lines: &str) -> String {
    format!("name = \"r\"\n[remote]\nurl = \"mqtt://h\"\n{lines}")
}

fn problems(text: &str, format: Format) -> Problems {
    match parse(text, format) {
        Err(problems) => problems,
        Ok(draft) => match draft.validate(&Limits::default()) {
            Err(problems) => problems,
            Ok(_) => panic!("accepted:\n{text}"),
        },
    }
}

fn context() -> RenderContext {
    RenderContext {
        account: AccountId::new("default").unwrap(),
        edge: EdgeId::new("gw-7").unwrap(),
        vars: std::collections::BTreeMap::new(),
        secrets: SecretRefs::default(),
    }
}

fn topic(text: &str) -> TopicName {
    TopicName::new(text).unwrap()
}

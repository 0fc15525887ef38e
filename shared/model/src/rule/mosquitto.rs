//! Bridges of a `mosquitto.conf` as rules, and rules as bridges (console-cli-api.md section 7.2; mosquitto.conf(5) of 2.0 and
//! 2.1, and what `src/conf.c` of mosquitto does where the page is silent).
//!
//! An import has two results: a draft for each `connection`, and a report in which every line of the file is mapped, ignored
//! or refused, with its number. A connection with a refused line is no rule: something that it says would be missing.
//! Nothing quotes a password. Leaves to others: reading the file, saving the drafts, showing the report.

mod line;
mod options;
mod topic;
mod write;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

pub use write::{Exported, export};

use super::check::{self, Limits};
use super::problem::{Problem, Problems};
use super::secret::SecretInputs;
use super::spec::{
    PolicySpec, QueueSpec, RemoteSpec, RuleSpec, Start, default_client_id, default_keep_alive,
};
use super::valid::ValidRule;
use crate::ids::RuleName;
use crate::limits::{MAX_NAME_BYTES, MAX_RULE_TEXT_BYTES};
use line::Line;

/// Connections of one file that become drafts at the most.
pub const MAX_CONNECTIONS: usize = 100;

/// What became of one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Outcome {
    /// The rule says it; a note tells where it says it a little differently.
    Mapped,
    /// The rule does not need it, or it is none of a bridge's business; the note tells why.
    Ignored,
    /// The rule cannot say it, or mosquitto itself would not take it; the note tells why, and what to do.
    Refused,
}

/// One line of the file, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ImportedLine {
    /// Its number, from 1.
    pub line: u32,
    /// The connection that it stands in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
    /// Its option; never its value.
    pub option: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Why; empty where it is mapped as it stands.
    pub note: String,
}

/// What one `connection` becomes.
#[derive(Debug, Clone)]
pub struct ImportedBridge {
    /// Its name in the file.
    pub connection: String,
    /// The line on which it begins.
    pub line: u32,
    /// The rule as far as it could be read.
    pub spec: RuleSpec,
    /// The secrets of the file.
    pub secrets: SecretInputs,
    /// The rule; `None` if a line was refused.
    pub rule: Option<ValidRule>,
}

/// What a file becomes.
#[derive(Debug, Clone, Default)]
pub struct Import {
    /// One for each `connection`, in the order of the file.
    pub bridges: Vec<ImportedBridge>,
    /// Every line that is neither empty nor a comment, in the order of the file.
    pub lines: Vec<ImportedLine>,
}

/// A connection while its lines are read.
struct Bridge {
    connection: String,
    spec: RuleSpec,
    secrets: SecretInputs,
    /// The lines of fields, by JSON pointer: where a problem of the whole rule is told.
    lines: BTreeMap<String, usize>,
    /// Options that may stand once and did.
    seen: BTreeSet<&'static str>,
    /// Whether retain flags go out.
    outgoing_retain: bool,
    /// Its first line, as an index into the report.
    begins: usize,
}

/// Reads a `mosquitto.conf`.
///
/// # Errors
/// [`Problems`] with `too-large`: nothing of it was read.
pub fn import(text: &str) -> Result<Import, Problems> {
    if text.len() > MAX_RULE_TEXT_BYTES {
        let mut problems = Problems::default();
        let what = format!("the text has {} bytes, at most {MAX_RULE_TEXT_BYTES} are read", text.len());
        problems.add("", "too-large", what, "import its connections in parts");
        return Err(problems);
    }
    let mut reader = Reader::default();
    for line in line::lines(text) {
        reader.line(&line);
    }
    reader.close();
    Ok(reader.done)
}

#[derive(Default)]
struct Reader {
    done: Import,
    open: Option<Bridge>,
    names: BTreeSet<String>,
}

/// What an option says of its line.
struct Said {
    outcome: Outcome,
    note: String,
}

impl Said {
    fn mapped() -> Self {
        Self { outcome: Outcome::Mapped, note: String::new() }
    }

    fn but(note: impl Into<String>) -> Self {
        Self { outcome: Outcome::Mapped, note: note.into() }
    }

    fn ignored(note: impl Into<String>) -> Self {
        Self { outcome: Outcome::Ignored, note: note.into() }
    }

    fn refused(note: impl Into<String>) -> Self {
        Self { outcome: Outcome::Refused, note: note.into() }
    }
}

impl Reader {
    fn line(&mut self, line: &Line<'_>) {
        if line.option == "connection" {
            self.close();
            self.begin(line);
            return;
        }
        let at = self.done.lines.len();
        let said = match (&mut self.open, options::of_bridge(line.option)) {
            (Some(bridge), Some(option)) => bridge.take(option, line, at),
            (None, Some(_)) => Said::refused("it belongs to a bridge, but no 'connection' stands above it"),
            (_, None) => options::of_broker(line.option),
        };
        self.report(line, said);
    }

    fn report(&mut self, line: &Line<'_>, said: Said) {
        let connection = self.open.as_ref().map(|bridge| bridge.connection.clone());
        let Said { outcome, note } = said;
        self.done.lines.push(ImportedLine {
            line: line.number,
            connection,
            option: line::brief(line.option),
            outcome,
            note,
        });
    }

    fn begin(&mut self, line: &Line<'_>) {
        let words = line.words();
        let Some(connection) = words.first().filter(|name| !name.is_empty()) else {
            let said = Said::refused("the connection has no name; the lines below it belong to no bridge");
            return self.report(line, said);
        };
        let (name, renamed) = rule_name(connection, line.number);
        let said = if self.done.bridges.len() >= MAX_CONNECTIONS {
            Said::refused(format!(
                "one import takes at most {MAX_CONNECTIONS} connections; import the others apart"
            ))
        } else if !self.names.insert(name.to_string()) {
            Said::refused(format!(
                "another connection of this file becomes the rule '{name}' already; rename one of them"
            ))
        } else if renamed {
            Said::but(format!("the rule is called '{name}': names have a-z, 0-9 and '-'"))
        } else {
            Said::mapped()
        };
        let remote = RemoteSpec {
            url: String::new(),
            fallback_urls: Vec::new(),
            proxy: None,
            client_id: default_client_id(),
            username: None,
            keep_alive: default_keep_alive(),
            clean_session: false,
            tls: None,
        };
        let begins = self.done.lines.len();
        self.open = Some(Bridge {
            connection: line::brief(connection),
            spec: RuleSpec {
                name,
                mountpoint: String::new(),
                start: Start::Auto,
                remote,
                forwards: Vec::new(),
                subscriptions: Vec::new(),
                queue: QueueSpec::default(),
                policy: PolicySpec::default(),
                vars: BTreeMap::new(),
            },
            secrets: SecretInputs::default(),
            lines: BTreeMap::new(),
            seen: BTreeSet::new(),
            outgoing_retain: true,
            begins,
        });
        self.report(line, said);
    }

    /// Ends the connection that is open: checks it as a whole, and tells what is wrong at the lines that say so.
    fn close(&mut self) {
        let Some(mut bridge) = self.open.take() else { return };
        for forward in &mut bridge.spec.forwards {
            forward.retain = bridge.outgoing_retain;
        }
        if bridge.spec.remote.tls.is_some() {
            bridge.over_tls();
        }
        let lines = &mut self.done.lines;
        let refused =
            |lines: &[ImportedLine]| lines[bridge.begins..].iter().any(|l| l.outcome == Outcome::Refused);
        // What follows from a line that was refused already would only be told twice.
        let before = refused(lines);
        if bridge.spec.remote.url.is_empty() {
            if !bridge.seen.contains("address") {
                add(lines, bridge.begins, "the connection has no 'address'");
            }
        } else {
            let problems = check::rule(&bridge.spec, &bridge.secrets, &Limits::default());
            for problem in problems.iter().filter(|p| !before || p.code != "empty-rule") {
                add(lines, bridge.line_of(problem), &format!("{} — {}", problem.what, problem.help));
            }
        }
        let rule = (!refused(lines)).then(|| ValidRule::trusted(bridge.spec.clone()));
        let line = lines[bridge.begins].line;
        let Bridge { connection, spec, secrets, .. } = bridge;
        self.done.bridges.push(ImportedBridge { connection, line, spec, secrets, rule });
    }
}

/// Refuses a line for what was found later.
fn add(lines: &mut [ImportedLine], at: usize, why: &str) {
    let line = &mut lines[at];
    if line.outcome == Outcome::Refused {
        line.note = format!("{}; {why}", line.note);
    } else {
        line.outcome = Outcome::Refused;
        why.clone_into(&mut line.note);
    }
}

impl Bridge {
    /// The line that says what a problem is about, else the first one.
    fn line_of(&self, problem: &Problem) -> usize {
        let mut pointer = problem.place.pointer.as_str();
        loop {
            if let Some(at) = self.lines.get(pointer) {
                return *at;
            }
            match pointer.rsplit_once('/') {
                Some((outer, _)) => pointer = outer,
                None => return self.begins,
            }
        }
    }
}

/// The rule's name for a connection's, and whether it had to be changed.
fn rule_name(connection: &str, line: u32) -> (RuleName, bool) {
    if let Ok(name) = RuleName::new(connection) {
        return (name, false);
    }
    let mut name = String::new();
    for c in connection.chars().flat_map(char::to_lowercase) {
        let c = if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
        if name.len() < MAX_NAME_BYTES && !(c == '-' && (name.is_empty() || name.ends_with('-'))) {
            name.push(c);
        }
    }
    let stand_in = || RuleName::new(format!("bridge-{line}")).expect("a word, '-' and a number are a name");
    (RuleName::new(name.trim_end_matches('-')).unwrap_or_else(|_| stand_in()), true)
}

#[cfg(test)]
mod tests;

//! What can go wrong between us and the server, in words for the person at the terminal.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tidegate_model::ids::{EdgeId, RuleName};

use crate::failure::Exit;

/// A call without a good answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection, or it broke.
    #[error(
        "the server at {url} cannot be reached: {cause}. Check that it runs (tidegate serve, or tidegate dev) and that the address is right (--server, tidegate context show)"
    )]
    Unreachable {
        /// Its URL.
        url: String,
        /// Why.
        cause: String,
    },
    /// A long answer stopped in the middle.
    #[error("the answer of {url} broke off: {cause}. Try again; the server's log may tell why")]
    BrokenOff {
        /// Its URL.
        url: String,
        /// Why.
        cause: String,
    },
    /// The server refused.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// Something answered that is no Tidegate.
    #[error(
        "{url} answered (HTTP {status}), but not as a Tidegate controller does. Check the address (--server, tidegate context show)"
    )]
    NotOurs {
        /// The URL.
        url: String,
        /// The status of the answer.
        status: u16,
    },
    /// The answer has another shape than this version knows.
    #[error(
        "the server's answer cannot be read: {why}. Is the server of another version? (tidegate version)"
    )]
    Unreadable {
        /// What is strange.
        why: String,
    },
    /// TLS is not there yet.
    #[error(
        "https is not supported yet, so {url} cannot be used. Use http:// over loopback or a private network, or a tunnel (ssh -L 7180:127.0.0.1:7180 HOST)"
    )]
    Tls {
        /// The URL.
        url: String,
    },
    /// The URL cannot be used.
    #[error("'{url}' is no URL of a server: {why}. An example: http://127.0.0.1:7180")]
    BadUrl {
        /// What was given.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// The token cannot be sent.
    #[error(
        "the token holds characters that cannot be sent; copy it again from the server's admin.token file"
    )]
    BadToken,
}

impl ClientError {
    /// What the server said, if it refused.
    pub fn problem(&self) -> Option<&Problem> {
        if let Self::Refused(problem) = self { Some(problem) } else { None }
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Unreachable { .. } => Exit::Unreachable,
            Self::Refused(problem) => Exit::of_status(problem.status),
            Self::BrokenOff { .. } | Self::NotOurs { .. } | Self::Unreadable { .. } => Exit::Failed,
            Self::Tls { .. } | Self::BadUrl { .. } | Self::BadToken => Exit::Usage,
        }
    }
}

/// A refusal of the API (RFC 9457).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The HTTP status; taken from the answer itself.
    #[serde(default)]
    pub status: u16,
    /// The kind, for programs: `/problems/unknown-edge`.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// The path that was asked for.
    #[serde(default)]
    pub instance: String,
    /// The kind, for people.
    #[serde(default)]
    pub title: String,
    /// What failed, why, and what to do.
    #[serde(default)]
    pub detail: String,
    /// What to do.
    #[serde(default)]
    pub next: String,
    /// For programs.
    #[serde(default)]
    pub code: String,
    /// To find it in the server's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Everything that is wrong with what was sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldProblem>,
    /// What else the server says; shown to programs as it came.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// One thing that is wrong with what was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldProblem {
    /// JSON pointer to the field.
    #[serde(default)]
    pub pointer: String,
    /// The edge on which a rule does not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge: Option<String>,
    /// Line in the text, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// What is wrong.
    #[serde(default)]
    pub detail: String,
    /// How to mend it.
    #[serde(default)]
    pub help: String,
    /// What else the server says; shown to programs as it came.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Problem {
    /// What failed and why.
    pub fn said(&self) -> String {
        let said = if self.detail.is_empty() { &self.title } else { &self.detail };
        let sign_in = ". Sign in with --token, TIDEGATE_TOKEN or a context; the server's own token is in admin.token in its data directory";
        format!("{said}{}", if self.status == 401 { sign_in } else { "" })
    }

    /// What stands below: everything that is wrong with what was sent, what to do, and how to find it in the server's log.
    pub fn below(&self) -> Vec<String> {
        let said = if self.detail.is_empty() { &self.title } else { &self.detail };
        // The detail may list the fields already.
        let fields = self.errors.iter().filter(|field| !said.contains(field.detail.as_str()));
        let mut lines: Vec<String> = fields.map(|field| field.in_file(None)).collect();
        let next = self.what_next();
        if !next.is_empty() && self.status != 401 && !said.contains(next.as_str()) {
            lines.push(format!("Next: {next}"));
        }
        match (self.code.is_empty(), &self.request_id) {
            (false, Some(id)) => lines.push(format!("({}, request {id})", self.code)),
            (false, None) => lines.push(format!("({})", self.code)),
            (true, Some(id)) => lines.push(format!("(request {id})")),
            (true, None) => {}
        }
        lines
    }

    /// What to do, as a command where there is one.
    fn what_next(&self) -> String {
        next_here(&self.kind).map_or_else(|| self.next.clone(), |next| named(next, &self.instance))
    }

    /// For programs: as the server said it, but for the next step, which is a command here.
    pub fn document(&self) -> Value {
        let shown = Self { next: self.what_next(), ..self.clone() };
        serde_json::to_value(shown).unwrap_or_else(|_| Value::String(self.to_string()))
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.said())?;
        self.below().iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// What to do about a kind of problem where the API's own words name requests and fields: the same as commands.
fn next_here(kind: &str) -> Option<&'static str> {
    match kind.strip_prefix("/problems/")? {
        "unknown-rule" => Some("tidegate rule list; tidegate rule apply -f FILE makes one"),
        "unknown-version" => Some("tidegate rule versions RULE"),
        "unknown-edge" => Some("tidegate edge list; tidegate edge create EDGE makes one known"),
        "unknown-placement" => {
            Some("tidegate rule get RULE shows where it is, tidegate rule place RULE --edge EDGE places it")
        }
        "rule-exists" | "already-there" => {
            Some("choose another name, or change that rule: tidegate rule apply -f FILE")
        }
        "edge-in-use" => Some(
            "tidegate rule unplace RULE --edge EDGE, or --leave-running to forget the edge while they go on there",
        ),
        "edge-offline" => Some("try again when it is back, or add --when-offline queue to send it then"),
        "nothing-to-confirm" => Some("tidegate edge get EDGE shows how it is"),
        "forgotten-twin" => Some("tidegate edge remove-rule EDGE RULE"),
        "unknown-unmanaged-rule" => {
            Some("tidegate edge get EDGE -o wide shows the rules that are not managed")
        }
        "cloud-behind" => Some("tidegate edge get EDGE shows what it runs; then tidegate edge confirm EDGE"),
        "version-conflict" => Some("look at the change (tidegate rule get RULE), then do yours again"),
        "rate-limited" => Some(
            "try again in a moment; http_rate in the controller's settings says how many requests a second one address may make",
        ),
        "unavailable" => Some("try again in a moment; if it lasts, look at the controller's log"),
        "too-large" | "uri-too-long" | "headers-too-large" => {
            Some("send less; what is too large is said above")
        }
        "invalid-request" | "invalid-rule" => Some("correct what is listed"),
        "unknown-path"
        | "unknown-action"
        | "method-not-allowed"
        | "unsupported-media-type"
        | "bad-path"
        | "precondition-required"
        | "key-reused" => {
            Some("is the server of another version than this program? tidegate version tells both")
        }
        "request-timeout" => Some("try again; the connection to the server is very slow"),
        _ => None,
    }
}

/// A next step with the rule and the edge of a path of the API in place of `RULE` and `EDGE`, so that it can be copied.
fn named(next: &str, path: &str) -> String {
    let parts: Vec<&str> = path.strip_prefix("/api/v1/").unwrap_or_default().split('/').collect();
    let (rule, edge) = match parts.as_slice() {
        ["placements", rule, edge, ..] | ["rules", rule, "placements", edge, ..] => {
            (Some(*rule), Some(*edge))
        }
        ["rules", rule, ..] => (Some(*rule), None),
        ["edges", edge, ..] => (None, Some(*edge)),
        _ => (None, None),
    };
    // What is no name stands escaped in the path, and would be misread in a command.
    let rule = rule.filter(|rule| RuleName::new(*rule).is_ok()).unwrap_or("RULE");
    let edge = edge.filter(|edge| EdgeId::new(*edge).is_ok()).unwrap_or("EDGE");
    next.replace("RULE", rule).replace("EDGE", edge)
}

impl FieldProblem {
    /// `file:line:col on edge E: field: what — help`, each part where it is known.
    pub fn in_file(&self, file: Option<&str>) -> String {
        let field =
            tidegate_model::rule::Place { pointer: self.pointer.clone(), line: None, column: None }.field();
        let place = match (file, self.line) {
            (Some(file), Some(line)) => format!("{file}:{line}:{} ", self.column.unwrap_or(1)),
            (Some(file), None) => format!("{file}: "),
            (None, Some(line)) => format!("{line}:{} ", self.column.unwrap_or(1)),
            (None, None) => String::new(),
        };
        let help = if self.help.is_empty() { String::new() } else { format!(" — {}", self.help) };
        let edge = self.edge.as_ref().map(|edge| format!("on edge {edge}: ")).unwrap_or_default();
        format!("{place}{edge}{field}: {}{help}", self.detail)
    }
}

/// The last cause of an error: "connection refused" rather than "error sending request".
pub(super) fn root(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    // "Connection refused (os error 111)": the number helps nobody.
    tidegate_model::plain::system(&last.to_string())
}

/// All causes of an error, outermost first.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_step_names_what_was_asked_for() {
        let step = "tidegate rule place RULE --edge EDGE";
        for (path, shown) in [
            ("/api/v1/placements/camera-up/gw-1/issue", "tidegate rule place camera-up --edge gw-1"),
            ("/api/v1/rules/camera-up/placements/gw-1", "tidegate rule place camera-up --edge gw-1"),
            ("/api/v1/rules/camera-up/versions/9", "tidegate rule place camera-up --edge EDGE"),
            ("/api/v1/edges/gw-1/confirm", "tidegate rule place RULE --edge gw-1"),
            ("/api/v1/rules/a%20b", step),
            ("/api/v1/actions", step),
            ("", step),
        ] {
            assert_eq!(named(step, path), shown, "{path}");
        }
    }

    /// The table of all problems, as the controller's operators read it; a test of the controller holds it true.
    const OPERATIONS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations.md"));

    #[test]
    fn no_next_step_speaks_of_requests() {
        let rows = OPERATIONS.lines().filter_map(|line| line.strip_prefix("| `/problems/"));
        let mut seen = 0;
        for row in rows {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let [slug, status, code, title, next, ..] = cells.as_slice() else { panic!("{row}") };
            let problem = Problem {
                kind: format!("/problems/{}", slug.trim_end_matches('`')),
                status: status.parse().unwrap(),
                code: code.trim_matches('`').to_owned(),
                title: (*title).to_owned(),
                next: (*next).to_owned(),
                ..Problem::default()
            };
            let told = format!("{problem} {}", problem.document()["next"]);
            for word in [
                "Retry-After",
                "If-Match",
                "If-None",
                "ETag",
                "Content-Type",
                "GET ",
                "POST ",
                "/api/",
                "=queue",
                "errors lists",
            ] {
                assert!(!told.contains(word), "{slug}: {word} in {told}");
            }
            seen += 1;
        }
        assert!(seen > 30, "the table has moved: {seen} rows");
    }
}

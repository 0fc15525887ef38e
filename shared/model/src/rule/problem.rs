//! What is wrong with a rule: every problem at once, each with its place, a code, the reason and the remedy.

use std::fmt;

use crate::limits::MAX_PROBLEMS;

/// Every code that a [`Problem`] can have; docs/rules.md explains each.
pub const CODES: [&str; 42] = [
    "ambiguous-subscriptions",
    "bad-certificate",
    "bad-client-id",
    "bad-filter",
    "bad-key",
    "bad-mapping",
    "bad-mountpoint",
    "bad-name",
    "bad-password",
    "bad-prefix",
    "bad-qos",
    "bad-quantity",
    "bad-strip",
    "bad-tls",
    "bad-url",
    "bad-username",
    "bad-value",
    "bad-variable",
    "credentials-in-url",
    "duplicate-topic",
    "empty-rule",
    "masked-secret",
    "missing-field",
    "missing-key",
    "missing-variable",
    "out-of-range",
    "password-without-username",
    "reserved-topic",
    "shared-subscription",
    "syntax",
    "too-large",
    "too-many-addresses",
    "too-many-excludes",
    "too-many-routes",
    "too-many-variables",
    "topic-loop",
    "unbalanced-brace",
    "unknown-field",
    "unknown-variable",
    "unsupported-field",
    "useless-exclude",
    "wrong-type",
];

/// Where a problem stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize)]
pub struct Place {
    /// JSON pointer (RFC 6901) to the field: `/forwards/0/topic`; empty for the whole rule.
    pub pointer: String,
    /// Line in the text, from 1. `None` where there is no text, as for a rendered rule.
    pub line: Option<u32>,
    /// Column in characters, from 1.
    pub column: Option<u32>,
}

impl Place {
    /// The field in the words of the file: `forwards[0].topic`; `rule` for the whole.
    pub fn field(&self) -> String {
        let mut out = String::new();
        for part in self.pointer.split('/').skip(1) {
            let part = part.replace("~1", "/").replace("~0", "~");
            if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) {
                out.push('[');
                out.push_str(&part);
                out.push(']');
            } else {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(&part);
            }
        }
        if out.is_empty() { "rule".into() } else { out }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// Which kind, kebab-case, stable: programs may rely on it.
    pub code: &'static str,
    /// What is wrong, for people.
    pub what: String,
    /// How to mend it, for people.
    pub help: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.place.line {
            write!(f, "{line}:{} ", self.place.column.unwrap_or(1))?;
        }
        write!(f, "{}: {} — {}", self.place.field(), self.what, self.help)
    }
}

/// Everything that is wrong, in the order of the text. Never empty as an error; at most
/// [`MAX_PROBLEMS`] are kept, the rest is counted.
#[derive(Debug, Clone, PartialEq, Eq, Default, thiserror::Error)]
pub struct Problems {
    file: Option<String>,
    list: Vec<Problem>,
    left_out: usize,
}

impl Problems {
    /// The problems in the order of the text.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.list.iter()
    }

    /// How many there are, those beyond the bound included.
    pub fn len(&self) -> usize {
        self.list.len() + self.left_out
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many were found beyond the bound and are not listed.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// The same with the name of the file, which stands before line and column when printed.
    #[must_use]
    pub fn in_file(self, file: impl Into<String>) -> Self {
        Self { file: Some(file.into()), ..self }
    }

    pub(crate) fn push(&mut self, problem: Problem) {
        debug_assert!(CODES.contains(&problem.code), "{} is not listed", problem.code);
        if self.list.len() < MAX_PROBLEMS {
            self.list.push(problem);
        } else {
            self.left_out += 1;
        }
    }

    /// Adds a problem whose line is not known (yet).
    pub(crate) fn add(
        &mut self,
        pointer: impl Into<String>,
        code: &'static str,
        what: impl Into<String>,
        help: impl Into<String>,
    ) {
        let place = Place { pointer: pointer.into(), line: None, column: None };
        self.push(Problem { place, code, what: what.into(), help: help.into() });
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.left_out += other.left_out;
        for problem in other.list {
            self.push(problem);
        }
    }

    pub(crate) fn for_each_place(&mut self, mut change: impl FnMut(&mut Place)) {
        self.list.iter_mut().for_each(|problem| change(&mut problem.place));
    }

    pub(crate) fn retain(&mut self, keep: impl FnMut(&Problem) -> bool) {
        self.list.retain(keep);
    }

    /// `Ok` when nothing is wrong; else the problems, sorted by place.
    pub(crate) fn into_result(mut self) -> Result<(), Self> {
        if self.is_empty() {
            return Ok(());
        }
        self.list.sort_by_key(|p| (p.place.line.unwrap_or(u32::MAX), p.place.column));
        Err(self)
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            match (&self.file, problem.place.line) {
                (Some(file), Some(_)) => write!(f, "{file}:{problem}")?,
                (Some(file), None) => write!(f, "{file}: {problem}")?,
                (None, _) => write!(f, "{problem}")?,
            }
        }
        if self.left_out > 0 {
            write!(f, "\nand {} more", self.left_out)?;
        }
        Ok(())
    }
}

/// Appends a key to a JSON pointer.
pub(crate) fn pointer(base: &str, key: impl fmt::Display) -> String {
    let mut pointer = format!("{base}/{key}");
    let key = &pointer[base.len() + 1..];
    if key.contains(['~', '/']) {
        let key = key.replace('~', "~0").replace('/', "~1");
        pointer.truncate(base.len() + 1);
        pointer.push_str(&key);
    }
    pointer
}

//! From a text to a [`Draft`].

use std::collections::BTreeMap;

use super::check::{self, Limits};
use super::decode::{self, Decoded, FileField, Home};
use super::located;
use super::problem::{Place, Problem, Problems};
use super::reader::Places;
use super::secret::{Secret, SecretInput, SecretInputs};
use super::spec::{RuleSpec, TlsSpec};
use super::valid::ValidRule;

use crate::limits::MAX_RULE_TEXT_BYTES;

/// The three formats of a rule's file. They hold the same fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// `.toml`
    Toml,
    /// `.yaml`, `.yml`
    Yaml,
    /// `.json`
    Json,
}

impl Format {
    /// Guesses by the end of a file's name; `None` for another.
    pub fn from_path(path: &str) -> Option<Self> {
        let (_, end) = path.rsplit_once('.')?;
        match end.to_ascii_lowercase().as_str() {
            "toml" => Some(Self::Toml),
            "yaml" | "yml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// A rule whose fields have the right types; not yet known to make sense.
#[derive(Debug, Clone)]
pub struct Draft {
    spec: RuleSpec,
    secrets: SecretInputs,
    files: BTreeMap<FileField, String>,
    places: Places,
}

/// Reads a rule. Nothing but this text decides: no variables are filled in yet.
///
/// # Errors
///
/// Every problem of the text at once. When fields are unknown, missing or of the wrong type, the problems that
/// [`Draft::validate`] would find in the rest are told too, under the default [`Limits`].
pub fn parse(text: &str, format: Format) -> Result<Draft, Problems> {
    read(text, format, Home::Cloud)
}

/// Reads a rule that lies on the gateway that is to run it: the same fields, and others that name a file
/// which holds a field ([`FileField`]); the caller reads them ([`Draft::files`], [`Draft::with`]).
///
/// # Errors
///
/// As [`parse`].
pub fn parse_on_site(text: &str, format: Format) -> Result<Draft, Problems> {
    read(text, format, Home::Site)
}

fn read(text: &str, format: Format, home: Home) -> Result<Draft, Problems> {
    let mut problems = Problems::default();
    if text.len() > MAX_RULE_TEXT_BYTES {
        problems.add(
            "",
            "too-large",
            format!("the text has {} bytes, at most {MAX_RULE_TEXT_BYTES} are read", text.len()),
            "split it into several rules",
        );
        return Err(problems);
    }
    let tree = located::read(text, format).map_err(|error| {
        let place = Place {
            pointer: String::new(),
            line: error.at.map(|pos| pos.line),
            column: error.at.map(|pos| pos.column),
        };
        let (what, help) = (error.what, "mend the syntax; nothing else was checked".to_owned());
        problems.push(Problem { place, code: "syntax", what, help });
        problems
    })?;
    let (reader, decoded) = decode::rule(&tree, home);
    let mut problems = reader.problems;
    let Some(Decoded { spec, secrets, files }) = decoded else {
        reader.places.locate(&mut problems);
        return Err(problems);
    };
    if !problems.is_empty() {
        let mut more = check::rule(&spec, &secrets, &Limits::default());
        more.retain(|problem| !depends_on(&problem.place.pointer, &reader.broken));
        problems.extend(more);
        reader.places.locate(&mut problems);
        problems.into_result()?;
    }
    Ok(Draft { spec, secrets, files, places: reader.places })
}

/// Whether a field lies in, or around, one that could not be read.
fn depends_on(pointer: &str, broken: &std::collections::BTreeSet<String>) -> bool {
    let within = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    broken.iter().any(|bad| within(pointer, bad) || within(bad, pointer))
}

impl Draft {
    /// What was written, defaults filled in.
    pub fn spec(&self) -> &RuleSpec {
        &self.spec
    }

    /// What was written about the secrets.
    pub fn secrets(&self) -> &SecretInputs {
        &self.secrets
    }

    /// The files that hold fields, as they were written; only [`parse_on_site`] reads them.
    pub fn files(&self) -> &BTreeMap<FileField, String> {
        &self.files
    }

    /// The same with this text in the field.
    #[must_use]
    pub fn with(mut self, field: FileField, text: Secret) -> Self {
        match field {
            FileField::Password => self.secrets.password = SecretInput::Set(text),
            FileField::Key => self.secrets.key = SecretInput::Set(text),
            FileField::Ca => self.tls().ca = Some(text.reveal().to_owned()),
            FileField::Certificate => self.tls().certificate = Some(text.reveal().to_owned()),
        }
        self
    }

    fn tls(&mut self) -> &mut TlsSpec {
        self.spec.remote.tls.get_or_insert_default()
    }

    /// Checks that the rule makes sense as a whole.
    ///
    /// # Errors
    ///
    /// Every problem at once, each with its place in the text.
    pub fn validate(self, limits: &Limits) -> Result<(ValidRule, SecretInputs), Problems> {
        let mut problems = check::rule(&self.spec, &self.secrets, limits);
        self.places.locate(&mut problems);
        problems.into_result()?;
        Ok((ValidRule::trusted(self.spec), self.secrets))
    }
}

//! Parameters of the query: each taken by name, all problems at once, unknown ones refused.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::problem::{FieldError, Problem};

/// The parameters of a request that were not taken yet.
pub(super) struct Params {
    pairs: Vec<(String, String)>,
    errors: Vec<FieldError>,
}

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let unreadable =
            || Problem::invalid(vec![FieldError::parameter("", "bad-query", "the query is not UTF-8")]);
        let query = parts.uri.query().unwrap_or_default();
        percent_encoding::percent_decode_str(query).decode_utf8().map_err(|_| unreadable())?;
        let Query(pairs) =
            Query::<Vec<(String, String)>>::try_from_uri(&parts.uri).map_err(|_| unreadable())?;
        Ok(Self { pairs, errors: Vec::new() })
    }
}

impl Params {
    /// All parameters, as they came.
    pub(super) fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }

    /// Takes a text; an empty one counts as absent, two of one name are a problem.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        let mut values = Vec::new();
        self.pairs.retain_mut(|(n, value)| {
            if n == name {
                values.push(std::mem::take(value));
            }
            n != name
        });
        if values.len() > 1 {
            self.error(name, "repeated", format!("{name} is given {} times", values.len()));
        }
        values.into_iter().next().filter(|value| !value.is_empty())
    }

    /// Takes a value that is read from its text.
    pub(super) fn parse<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        let text = self.text(name)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.error(name, "bad-value", format!("{name}: {error}"));
                None
            }
        }
    }

    /// Takes one of the API's words.
    pub(super) fn word<T: DeserializeOwned>(&mut self, name: &str, words: &str) -> Option<T> {
        let text = self.text(name)?;
        let word = serde_json::from_value(serde_json::Value::String(text)).ok();
        if word.is_none() {
            self.error(name, "bad-value", format!("{name} is one of {words}"));
        }
        word
    }

    /// Takes `true` or `false`; absent is `false`.
    pub(super) fn flag(&mut self, name: &str) -> bool {
        self.parse(name).unwrap_or(false)
    }

    pub(super) fn error(&mut self, name: &str, code: &str, detail: String) {
        self.errors.push(FieldError::parameter(name, code, detail));
    }

    /// Everything is taken: what is left is unknown.
    pub(super) fn finish(mut self) -> Result<(), Problem> {
        for (name, _) in std::mem::take(&mut self.pairs) {
            let shown: String = name.chars().take(64).collect();
            self.error(&shown, "unknown-parameter", format!("'{shown}' is not a parameter of this request"));
        }
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::invalid(self.errors)) }
    }
}

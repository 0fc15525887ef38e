//! Reads fields of a located tree: collects what is unknown, missing or of the wrong type instead of stopping at it.

use std::collections::{BTreeMap, BTreeSet};

use super::located::{Entry, Node, Pos, Value};
use super::problem::{Place, Problem, Problems, pointer};

/// Collects problems and places while fields are read.
#[derive(Default)]
pub(crate) struct Reader {
    pub problems: Problems,
    pub places: Places,
    /// Pointers whose values could not be read: what depends on them is not judged.
    pub broken: BTreeSet<String>,
}

/// Where each field stands in the text.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places(BTreeMap<String, Pos>);

impl Places {
    /// The place of a field, or of the nearest thing around it that has one.
    pub fn find(&self, pointer: &str) -> Option<Pos> {
        let mut rest = pointer;
        loop {
            if let Some(pos) = self.0.get(rest) {
                return Some(*pos);
            }
            rest = &rest[..rest.rfind('/')?];
        }
    }

    /// Fills in line and column of problems that have none.
    pub fn locate(&self, problems: &mut Problems) {
        problems.for_each_place(|place| {
            if place.line.is_none()
                && let Some(pos) = self.find(&place.pointer)
            {
                (place.line, place.column) = (Some(pos.line), Some(pos.column));
            }
        });
    }
}

/// A table whose fields are being read.
pub(crate) struct Fields<'n> {
    pub pointer: String,
    entries: &'n [Entry],
}

impl<'n> Fields<'n> {
    /// A field's value; `null` counts as left out.
    pub fn get(&self, key: &str) -> Option<&'n Node> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        (!matches!(entry.node.value, Value::Null)).then_some(&entry.node)
    }

    pub fn pointer(&self, key: &str) -> String {
        pointer(&self.pointer, key)
    }

    pub fn entries(&self) -> &'n [Entry] {
        self.entries
    }
}

impl Reader {
    /// Notes a problem of a field whose value cannot be used.
    pub fn fail(&mut self, at: String, code: &'static str, what: impl Into<String>, help: impl Into<String>) {
        self.problems.add(at.as_str(), code, what, help);
        self.broken.insert(at);
    }

    fn note(&mut self, at: &str, pos: Option<Pos>) {
        if let Some(pos) = pos {
            self.places.0.insert(at.to_owned(), pos);
        }
    }

    fn wrong_type(&mut self, at: String, node: &Node, help: &str) {
        self.note(&at, node.at);
        self.fail(at, "wrong-type", format!("this is {}", node.value.kind()), help);
    }

    /// Opens a table. Fields that are not `known` are problems; an empty list of known fields allows all.
    pub fn table<'n>(&mut self, node: &'n Node, at: String, known: &[&str]) -> Option<Fields<'n>> {
        self.note(&at, node.at);
        let Value::Map(entries) = &node.value else {
            self.wrong_type(at, node, "write a table with fields");
            return None;
        };
        for entry in entries {
            let field = pointer(&at, &entry.key);
            self.note(&field, entry.node.at.or(entry.at));
            if !known.is_empty() && !known.contains(&entry.key.as_str()) {
                self.unknown(field, entry, known);
            }
        }
        Some(Fields { pointer: at, entries })
    }

    fn unknown(&mut self, at: String, entry: &Entry, known: &[&str]) {
        let shown: String = entry.key.chars().take(64).filter(|c| !c.is_control()).collect();
        let help = match nearest(&entry.key, known) {
            Some(near) => format!("did you mean '{near}'?"),
            None if matches!(shown.as_str(), "protocol" | "retry") => {
                "it comes in a later release; remove it until then".to_owned()
            }
            None => format!("remove it; known here: {}", known.join(", ")),
        };
        let place =
            Place { pointer: at, line: entry.at.map(|pos| pos.line), column: entry.at.map(|pos| pos.column) };
        let what = format!("the field '{shown}' is not known");
        self.problems.push(Problem { place, code: "unknown-field", what, help });
    }

    /// Opens the table under a key; `None` when it is absent or no table.
    pub fn child<'n>(&mut self, fields: &Fields<'n>, key: &str, known: &[&str]) -> Option<Fields<'n>> {
        let node = fields.get(key)?;
        self.table(node, fields.pointer(key), known)
    }

    /// The items of a list with their pointers; empty when it is absent.
    pub fn list<'n>(&mut self, fields: &Fields<'n>, key: &str) -> Vec<(String, &'n Node)> {
        let Some(node) = fields.get(key) else { return Vec::new() };
        let at = fields.pointer(key);
        match &node.value {
            Value::List(items) => items.iter().enumerate().map(|(i, n)| (pointer(&at, i), n)).collect(),
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Text(_)
            | Value::Map(_)
            | Value::Other(_) => {
                self.wrong_type(at, node, "write a list");
                Vec::new()
            }
        }
    }

    /// A list of texts; empty when it is absent. What is no text has an empty stand-in.
    pub fn texts(&mut self, fields: &Fields<'_>, key: &str) -> Vec<String> {
        let items = self.list(fields, key);
        let text = |(at, node): (String, &Node)| {
            if let Value::Text(text) = &node.value {
                self.note(&at, node.at);
                return text.clone();
            }
            self.wrong_type(at, node, "write a text in quotes");
            String::new()
        };
        items.into_iter().map(text).collect()
    }

    /// `true`, `false`, or a word for one of them.
    pub fn flag_or_choice(&mut self, fields: &Fields<'_>, key: &str, words: &[(&str, bool)]) -> Option<bool> {
        if let Value::Text(_) = fields.get(key)?.value {
            self.choice(fields, key, words)
        } else {
            self.flag(fields, key)
        }
    }

    pub fn missing(&mut self, fields: &Fields<'_>, key: &str, help: &str) {
        self.fail(fields.pointer(key), "missing-field", format!("the field '{key}' is missing"), help);
    }

    pub fn text(&mut self, fields: &Fields<'_>, key: &str) -> Option<String> {
        let node = fields.get(key)?;
        if let Value::Text(text) = &node.value {
            return Some(text.clone());
        }
        let help = match &node.value {
            Value::Int(number) => {
                format!("write it in quotes: \"{number}\", with a unit where one is needed")
            }
            Value::Bool(flag) => format!("write it in quotes: \"{flag}\""),
            Value::Null | Value::Text(_) | Value::List(_) | Value::Map(_) | Value::Other(_) => {
                "write a text in quotes".to_owned()
            }
        };
        self.wrong_type(fields.pointer(key), node, &help);
        None
    }

    pub fn flag(&mut self, fields: &Fields<'_>, key: &str) -> Option<bool> {
        let node = fields.get(key)?;
        if let Value::Bool(flag) = &node.value {
            return Some(*flag);
        }
        self.wrong_type(fields.pointer(key), node, "write true or false, without quotes");
        None
    }

    pub fn number(&mut self, fields: &Fields<'_>, key: &str) -> Option<i64> {
        let node = fields.get(key)?;
        if let Value::Int(number) = &node.value {
            return Some(*number);
        }
        self.wrong_type(fields.pointer(key), node, "write a whole number, without quotes");
        None
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, fields: &Fields<'_>, key: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(fields, key)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let all: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let shown: String = text.chars().take(64).collect();
        self.fail(
            fields.pointer(key),
            "bad-value",
            format!("'{shown}' is not possible here"),
            format!("write {}", all.join(" or ")),
        );
        None
    }
}

/// The known word that a misspelt one most likely means.
fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    if word.len() > crate::limits::MAX_NAME_BYTES {
        return None;
    }
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    known
        .iter()
        .map(|candidate| (distance(&word.to_lowercase(), candidate), *candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let cost = (diagonal + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], cost);
        }
    }
    row[b.len()]
}

//! One tree for three formats: values with their line and column, so that there is one decoder.

mod json;
mod toml;
mod yaml;

use super::parse::Format;

/// Line and column, both from 1; the column counts characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pos {
    pub line: u32,
    pub column: u32,
}

/// A value and where it begins.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub value: Value,
    pub at: Option<Pos>,
}

/// What a value can be in all three formats.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// Absent in TOML; counts as left out.
    Null,
    Bool(bool),
    Int(i64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Something that no field of a rule takes, in words: "a date".
    Other(&'static str),
}

/// A key of a map, where it stands, and its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub key: String,
    pub at: Option<Pos>,
    pub node: Node,
}

impl Value {
    /// The kind in words.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Int(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a table",
            Self::Other(kind) => kind,
        }
    }
}

/// Why a text is not TOML, YAML or JSON.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub at: Option<Pos>,
    pub what: String,
}

/// Reads a text into the tree.
pub(crate) fn read(text: &str, format: Format) -> Result<Node, SyntaxError> {
    match format {
        Format::Toml => toml::read(text),
        Format::Yaml => yaml::read(text),
        Format::Json => json::read(text),
    }
}

/// Finds lines and columns of byte offsets.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn new(text: &'t str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    fn pos(&self, offset: usize) -> Pos {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts[line - 1];
        let before = self.text.get(start..offset).map_or(0, |t| t.chars().count());
        Pos { line: small(line), column: small(before + 1) }
    }
}

/// Texts are bounded far below 4 GiB, so nothing is cut off in practice.
fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

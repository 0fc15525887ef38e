//! TOML with the spans that toml_edit keeps.

use toml_edit::{Document, Item, Table, Value as Toml};

use super::{Entry, Lines, Node, Pos, SyntaxError, Value};

pub(super) fn read(text: &str) -> Result<Node, SyntaxError> {
    let lines = Lines::new(text);
    match Document::parse(text) {
        Ok(document) => {
            let mut root = table(document.as_table(), &lines);
            root.at = Some(Pos { line: 1, column: 1 });
            Ok(root)
        }
        Err(error) => Err(SyntaxError {
            at: error.span().map(|span| lines.pos(span.start)),
            what: error.message().replace('\n', ", "),
        }),
    }
}

fn at(span: Option<std::ops::Range<usize>>, lines: &Lines<'_>) -> Option<Pos> {
    span.map(|span| lines.pos(span.start))
}

fn table(table: &Table, lines: &Lines<'_>) -> Node {
    let entries = table
        .iter()
        .map(|(name, node)| Entry {
            key: name.to_owned(),
            at: at(table.key(name).and_then(toml_edit::Key::span), lines),
            node: item(node, lines),
        })
        .collect();
    Node { value: Value::Map(entries), at: at(table.span(), lines) }
}

fn item(node: &Item, lines: &Lines<'_>) -> Node {
    match node {
        Item::None => Node { value: Value::Null, at: None },
        Item::Value(node) => value(node, lines),
        Item::Table(node) => table(node, lines),
        Item::ArrayOfTables(nodes) => Node {
            value: Value::List(nodes.iter().map(|node| table(node, lines)).collect()),
            at: at(nodes.span(), lines),
        },
    }
}

fn value(node: &Toml, lines: &Lines<'_>) -> Node {
    let value = match node {
        Toml::String(text) => Value::Text(text.value().clone()),
        Toml::Integer(number) => Value::Int(*number.value()),
        Toml::Boolean(flag) => Value::Bool(*flag.value()),
        Toml::Float(_) => Value::Other("a decimal number"),
        Toml::Datetime(_) => Value::Other("a date"),
        Toml::Array(nodes) => Value::List(nodes.iter().map(|node| self::value(node, lines)).collect()),
        Toml::InlineTable(nodes) => Value::Map(
            nodes
                .iter()
                .map(|(name, node)| Entry {
                    key: name.to_owned(),
                    at: at(nodes.key(name).and_then(toml_edit::Key::span), lines),
                    node: self::value(node, lines),
                })
                .collect(),
        ),
    };
    Node { value, at: at(node.span(), lines) }
}

//! YAML with the locations of serde-saphyr. Anchors and aliases work, within the library's budget.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::{Entry, Node, Pos, SyntaxError, Value};

pub(super) fn read(text: &str) -> Result<Node, SyntaxError> {
    match serde_saphyr::from_str::<Spanned<Value>>(text) {
        Ok(root) => Ok(Node { at: Some(Pos { line: 1, column: 1 }), value: root.value }),
        Err(error) => {
            Err(SyntaxError { at: error.location().and_then(pos), what: words(error.without_snippet()) })
        }
    }
}

/// What is wrong, in words for people; its place is told beside it.
fn words(error: &serde_saphyr::Error) -> String {
    let said = error.to_string().replace('\n', ", ");
    // Within an alias the library keeps the text of the error only.
    if said.contains("budget breached") {
        return "it holds far more than a rule can need (nesting, anchors, aliases or entries); write the rule out plainly"
            .to_owned();
    }
    // "… at line 3, column 9"
    let bare = said.rsplit_once(" at line ").filter(|(_, place)| is_place(place));
    bare.map_or(said.as_str(), |(bare, _)| bare).to_owned()
}

/// `3, column 9`
fn is_place(text: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.split_once(", column ").is_some_and(|(line, column)| number(line) && number(column))
}

fn pos(location: Location) -> Option<Pos> {
    let number = |n: u64| u32::try_from(n).ok();
    match (number(location.line())?, number(location.column())?) {
        (0, _) => None,
        (line, column) => Some(Pos { line, column: column.max(1) }),
    }
}

fn node(spanned: Spanned<Value>) -> Node {
    Node { at: pos(spanned.referenced), value: spanned.value }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Int(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(i64::try_from(number).map_or(Value::Other("a number beyond all bounds"), Value::Int))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Other("a decimal number"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Value>>()? {
            list.push(node(item));
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = items.next_key::<Spanned<String>>()? {
            let value = items.next_value::<Spanned<Value>>()?;
            entries.push(Entry { at: pos(key.referenced), key: key.value, node: node(value) });
        }
        Ok(Value::Map(entries))
    }
}

//! JSON. serde_json checks the syntax and reads the leaves; a walk over the checked text finds the places, which
//! serde_json does not tell.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{Entry, Lines, Node, Pos, SyntaxError, Value};

pub(super) fn read(text: &str) -> Result<Node, SyntaxError> {
    if let Err(error) = serde_json::from_str::<Checked>(text) {
        let at = Pos { line: super::small(error.line()), column: super::small(error.column().max(1)) };
        return Err(SyntaxError { at: (at.line > 0).then_some(at), what: crate::plain::json(&error) });
    }
    Walk { text, at: 0, lines: Lines::new(text) }.value()
}

/// Any JSON of bounded depth. Unlike `IgnoredAny` it looks at every value by itself, which bounds the recursion below.
struct Checked;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Checked {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self, A::Error> {
        while list.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}

/// Walks over text that is known to be JSON.
struct Walk<'t> {
    text: &'t str,
    at: usize,
    lines: Lines<'t>,
}

impl Walk<'_> {
    /// The next byte that is not white space; 0 at the end.
    fn peek(&mut self) -> u8 {
        let rest = &self.text.as_bytes()[self.at..];
        let blank = rest.iter().take_while(|b| b.is_ascii_whitespace()).count();
        self.at += blank;
        rest.get(blank).copied().unwrap_or(0)
    }

    fn value(&mut self) -> Result<Node, SyntaxError> {
        let first = self.peek();
        let at = self.lines.pos(self.at);
        let value = match first {
            b'{' => self.map()?,
            b'[' => self.list()?,
            b'"' => Value::Text(self.text_token()?),
            _ => self.word(),
        };
        Ok(Node { value, at: Some(at) })
    }

    fn map(&mut self) -> Result<Value, SyntaxError> {
        self.at += 1;
        let mut entries: Vec<Entry> = Vec::new();
        while self.peek() == b'"' {
            let at = self.lines.pos(self.at);
            let key = self.text_token()?;
            if entries.iter().any(|entry| entry.key == key) {
                return Err(SyntaxError { at: Some(at), what: format!("the field '{key}' is given twice") });
            }
            self.skip(b':');
            let node = self.value()?;
            entries.push(Entry { key, at: Some(at), node });
            self.skip(b',');
        }
        self.skip(b'}');
        Ok(Value::Map(entries))
    }

    fn list(&mut self) -> Result<Value, SyntaxError> {
        self.at += 1;
        let mut list = Vec::new();
        while !matches!(self.peek(), b']' | 0) {
            list.push(self.value()?);
            self.skip(b',');
        }
        self.skip(b']');
        Ok(Value::List(list))
    }

    fn skip(&mut self, byte: u8) {
        if self.peek() == byte {
            self.at += 1;
        }
    }

    fn text_token(&mut self) -> Result<String, SyntaxError> {
        let start = self.at;
        let mut escaped = false;
        let bytes = &self.text.as_bytes()[start + 1..];
        let inner = bytes.iter().take_while(|b| {
            let end = **b == b'"' && !escaped;
            escaped = **b == b'\\' && !escaped;
            !end
        });
        self.at = (start + inner.count() + 2).min(self.text.len());
        serde_json::from_str(&self.text[start..self.at])
            .map_err(|error| SyntaxError { at: Some(self.lines.pos(start)), what: error.to_string() })
    }

    fn word(&mut self) -> Value {
        let rest = &self.text[self.at..];
        let end = rest
            .find(|c: char| c.is_ascii_whitespace() || matches!(c, ',' | ']' | '}'))
            .unwrap_or(rest.len());
        let word = &rest[..end];
        self.at += end.max(1);
        match word {
            "null" => Value::Null,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            number => number.parse().map_or(Value::Other("a decimal number"), Value::Int),
        }
    }
}

//! Reads the server's stream of events (server-sent events), bounded.

use serde_json::Value;

use super::error::ClientError;

/// Longest event that is read, in bytes; the server's are a few hundred.
const MAX_EVENT_BYTES: usize = 64 * 1024;

/// An open stream of events.
#[derive(Debug)]
pub struct Watch {
    url: String,
    response: reqwest::Response,
    parser: Parser,
    last_id: Option<String>,
}

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its kind; `message` unless the server says otherwise.
    pub name: String,
    /// Its data.
    pub data: Value,
}

/// Why a stream broke, without the words of the library about how it was cut into pieces.
const CLOSED: &str = "the connection was closed";

impl Watch {
    pub(super) fn new(url: String, response: reqwest::Response, after: Option<String>) -> Self {
        Self { url, response, parser: Parser::default(), last_id: after }
    }

    /// The id of the last event that had one: where a new stream goes on.
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// The next event; `None`: the server ended the stream. May be dropped and called again.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] when the connection breaks, [`ClientError::Unreadable`] for an event without end.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            if let Some((id, event)) = self.parser.pop() {
                self.last_id = id.or(self.last_id.take());
                return Ok(Some(event));
            }
            let chunk = self.response.chunk().await;
            let closed = |_| ClientError::Unreachable { url: self.url.clone(), cause: CLOSED.to_owned() };
            match chunk.map_err(closed)? {
                Some(bytes) => self.parser.push(&bytes),
                None => return Ok(None),
            }
            if self.parser.buffer.len() > MAX_EVENT_BYTES {
                return Err(ClientError::Unreadable { why: "an event has no end".into() });
            }
        }
    }
}

/// Cuts the bytes of the stream into events.
#[derive(Debug, Default)]
struct Parser {
    buffer: Vec<u8>,
}

impl Parser {
    fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend(bytes.iter().filter(|b| **b != b'\r'));
    }

    /// The next whole event that carries data, with its id. Comments are passed over.
    fn pop(&mut self) -> Option<(Option<String>, Event)> {
        loop {
            let end = self.buffer.windows(2).position(|w| w == b"\n\n")?;
            let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
            let block = String::from_utf8_lossy(&block);
            let (mut id, mut name, mut data) = (None, "message".to_owned(), Vec::new());
            for line in block.lines() {
                let (field, value) = line.split_once(':').unwrap_or((line, ""));
                let value = value.strip_prefix(' ').unwrap_or(value);
                match field {
                    "id" => id = Some(value.to_owned()),
                    "event" => name = value.to_owned(),
                    "data" => data.push(value),
                    _ => {}
                }
            }
            let resync = name == "resync";
            if data.is_empty() && !resync {
                continue;
            }
            let text = data.join("\n");
            let data = serde_json::from_str(&text).unwrap_or(Value::String(text));
            return Some((id, Event { name, data }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_are_cut_wherever_the_network_cuts_them() {
        let stream = ": hello\n\nid: 7\nevent: rule\ndata: {\"id\":\n\ndata: x\r\ndata: y\r\n\r\nevent: resync\n\n: ping\n\n";
        let stream = stream.replacen("{\"id\":", "{\"id\":\ndata: 3}", 1);
        for size in 1..stream.len() {
            let (mut parser, mut seen) = (Parser::default(), Vec::new());
            for chunk in stream.as_bytes().chunks(size) {
                parser.push(chunk);
                while let Some((id, event)) = parser.pop() {
                    seen.push((id, event.name, event.data));
                }
            }
            let expected = vec![
                (Some("7".to_owned()), "rule".to_owned(), json!({"id": 3})),
                (None, "message".to_owned(), json!("x\ny")),
                (None, "resync".to_owned(), json!("")),
            ];
            assert_eq!(seen, expected, "chunks of {size}");
            assert!(parser.buffer.is_empty());
        }
    }
}

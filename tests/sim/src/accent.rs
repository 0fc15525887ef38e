//! How newer software speaks: fields that nobody here knows, and messages of kinds that nobody here knows, which count
//! in the numbers of the session like any other.
//!
//! The cores know nothing of it: what they say is rewritten on its way.

use serde_json::{Value, json};

use crate::rng::Rng;

/// Of 1,000 messages, so many are followed by one of an unknown kind.
const UNKNOWN_KINDS: u32 = 60;

/// What one side said of its own in the session that stands.
#[derive(Debug, Clone, Default)]
pub struct Accent {
    /// The session and the controller's epoch, within which messages are counted.
    session: (String, u64),
    /// Unknown messages that were said in it.
    said: u64,
}

impl Accent {
    /// What is said instead of this payload.
    pub fn speak(&mut self, payload: &[u8], rng: &mut Rng) -> Vec<Vec<u8>> {
        let Ok(mut envelope) = serde_json::from_slice::<Value>(payload) else {
            return vec![payload.to_vec()];
        };
        let session = (envelope["sid"].to_string(), envelope["ce"].as_u64().unwrap_or(0));
        let number = envelope["sq"].as_u64().unwrap_or(0);
        // What is said aside, to a session of before, is outside all counting.
        if number != 0 && session != self.session {
            *self = Self { session, said: 0 };
        }
        envelope["mood"] = json!("a field of the envelope that nobody knows");
        if let Some(Ok(mut body)) = envelope["body"].as_str().map(serde_json::from_str::<Value>) {
            body["mood"] = json!({ "a": ["field", "that", "nobody", "knows"] });
            envelope["body"] = json!(body.to_string());
        }
        if number == 0 {
            return vec![envelope.to_string().into_bytes()];
        }
        envelope["sq"] = json!(number + self.said);
        let mut said = vec![envelope.to_string().into_bytes()];
        if rng.chance(UNKNOWN_KINDS) {
            self.said += 1;
            envelope["sq"] = json!(number + self.said);
            said.push(unknown_kind(envelope));
        }
        said
    }
}

/// The same envelope around a message of an unknown kind.
fn unknown_kind(mut envelope: Value) -> Vec<u8> {
    envelope["t"] = json!("forecast");
    envelope["body"] = json!("{\"rain\":true}");
    envelope.to_string().into_bytes()
}

/// The hello of software that speaks these protocols.
#[must_use]
pub fn hello_of(payload: Vec<u8>, protocols: &[u32]) -> Vec<u8> {
    let Ok(mut envelope) = serde_json::from_slice::<Value>(&payload) else { return payload };
    let is_hello = envelope["t"] == "hello";
    let body = envelope["body"].as_str().map(serde_json::from_str::<Value>);
    let Some(Ok(mut body)) = body.filter(|_| is_hello) else { return payload };
    body["protocols"] = json!(protocols);
    envelope["body"] = json!(body.to_string());
    envelope.to_string().into_bytes()
}

/// A payload that does not belong, after the example of one that does.
#[must_use]
pub fn oddity(like: Option<&[u8]>, oddity: crate::step::Oddity) -> Vec<u8> {
    use crate::step::Oddity;
    let like = like.and_then(|like| serde_json::from_slice::<Value>(like).ok());
    let Some(mut envelope) = like else { return b"\xff not an envelope".to_vec() };
    // Said aside, it is in nobody's way; a peer that counts what it cannot read is tried by `Accent`.
    envelope["sq"] = json!(0);
    match oddity {
        Oddity::Garbage => b"{\"v\":1,\"t\":\"hello\"".to_vec(),
        Oddity::OtherFormat => {
            envelope["v"] = json!(2);
            envelope.to_string().into_bytes()
        }
        Oddity::UnknownKind => unknown_kind(envelope),
        Oddity::BadBody => {
            envelope["body"] = json!("{\"nothing\":\"fits\"}");
            envelope.to_string().into_bytes()
        }
    }
}

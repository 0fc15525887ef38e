//! The envelope around every message: who says it, in which session, as the how-manieth.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::message::{Down, Up};
use crate::ids::{MessageId, SessionId};
use crate::limits::MAX_ENVELOPE_BYTES;

/// The envelope, as on the wire. `body` is the message's JSON as a string, so that a digest or a signature can cover
/// exact bytes. Unknown fields are ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Envelope format; always 1 (the major version of the protocol is in the topic).
    pub v: u32,
    /// Kind of the message.
    pub t: String,
    /// Who, when and in which order.
    pub header: Header,
    /// The message's JSON.
    pub body: String,
    /// Which key signed it; signing is off while it is absent.
    pub kid: Option<String>,
    /// Ed25519 signature, base64; signing is off while it is absent.
    pub sig: Option<String>,
}

/// What an envelope says beside its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Correlates an answer with its request.
    pub id: MessageId,
    /// The message that this one answers.
    pub re: Option<MessageId>,
    /// The session of the edge that says it, or for which it is meant.
    pub sid: SessionId,
    /// Counts per direction and (`sid`, `ce`) from 1; the will carries 0.
    pub sq: u64,
    /// Epoch of the controller that says it, or the highest that the edge has seen.
    pub ce: u64,
    /// Wall clock of the sender, in milliseconds since 1970: for people, never for ordering.
    pub ts: i64,
}

/// The fields of an envelope as they stand on the wire, side by side.
#[derive(Serialize, Deserialize)]
struct Fields<'a> {
    v: u32,
    #[serde(borrow)]
    t: Cow<'a, str>,
    id: MessageId,
    re: Option<MessageId>,
    sid: SessionId,
    sq: u64,
    ce: u64,
    ts: i64,
    #[serde(borrow)]
    body: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    kid: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    sig: Option<Cow<'a, str>>,
}

impl Fields<'_> {
    fn header(&self) -> Header {
        let &Self { id, re, sid, sq, ce, ts, .. } = self;
        Header { id, re, sid, sq, ce, ts }
    }
}

impl Serialize for Envelope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Header { id, re, sid, sq, ce, ts } = self.header;
        let (v, t, body) = (self.v, Cow::from(&self.t), Cow::from(&self.body));
        let (kid, sig) = (self.kid.as_ref().map(Cow::from), self.sig.as_ref().map(Cow::from));
        Fields { v, t, id, re, sid, sq, ce, ts, body, kid, sig }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Envelope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Fields::deserialize(deserializer)?;
        let header = fields.header();
        let Fields { v, t, body, kid, sig, .. } = fields;
        let (kid, sig) = (kid.map(Cow::into_owned), sig.map(Cow::into_owned));
        Ok(Self { v, t: t.into_owned(), header, body: body.into_owned(), kid, sig })
    }
}

/// Why a payload is not a message of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Longer than [`MAX_ENVELOPE_BYTES`].
    #[error("the message has {size} bytes; at most {MAX_ENVELOPE_BYTES} are allowed")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
    },
    /// Not an envelope.
    #[error("the message is not an envelope: {reason}")]
    NotAnEnvelope {
        /// What the JSON reader says, without the content.
        reason: String,
    },
    /// An envelope of a format that this software does not read.
    #[error("the envelope has format {format}; this software reads format 1")]
    UnknownFormat {
        /// Its format.
        format: u32,
    },
    /// An envelope whose `t` this software does not know: answered with a rejection, never a crash.
    #[error("the message kind '{kind}' is not known to this software")]
    UnknownKind {
        /// The kind, at most 32 characters of it.
        kind: String,
        /// The envelope's header, to answer to.
        header: Box<Header>,
    },
    /// A body that does not fit its kind.
    #[error("the body of the '{kind}' message cannot be read: {reason}")]
    BadBody {
        /// The kind.
        kind: &'static str,
        /// What the JSON reader says, without the content.
        reason: String,
        /// The envelope's header, to answer to.
        header: Box<Header>,
    },
}

/// Says where and of what kind an error is, without quoting the text: it may hold a secret.
fn describe(error: &serde_json::Error) -> String {
    let kind = match error.classify() {
        serde_json::error::Category::Io => "it ends early",
        serde_json::error::Category::Syntax => "it is not JSON",
        serde_json::error::Category::Data => "a field is missing or of the wrong type",
        serde_json::error::Category::Eof => "it ends early",
    };
    format!("{kind} (line {}, column {})", error.line(), error.column())
}

fn unknown_kind(fields: &Fields<'_>) -> WireError {
    WireError::UnknownKind { kind: fields.t.chars().take(32).collect(), header: Box::new(fields.header()) }
}

impl Envelope {
    /// Wraps a message of an edge.
    #[must_use]
    pub fn up(header: Header, message: &Up) -> Self {
        Self::wrap(header, message.kind(), message.body())
    }

    /// Wraps a message of the controller.
    #[must_use]
    pub fn down(header: Header, message: &Down) -> Self {
        Self::wrap(header, message.kind(), message.body())
    }

    fn wrap(header: Header, kind: &str, body: String) -> Self {
        Self { v: 1, t: kind.to_owned(), header, body, kid: None, sig: None }
    }

    /// The bytes on the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an envelope has string keys and no failing serializer")
    }

    fn read(payload: &[u8]) -> Result<Fields<'_>, WireError> {
        if payload.len() > MAX_ENVELOPE_BYTES {
            return Err(WireError::TooLarge { size: payload.len() });
        }
        let fields: Fields<'_> =
            serde_json::from_slice(payload).map_err(|e| WireError::NotAnEnvelope { reason: describe(&e) })?;
        if fields.v != 1 {
            return Err(WireError::UnknownFormat { format: fields.v });
        }
        Ok(fields)
    }

    /// Reads a payload that came from an edge.
    ///
    /// # Errors
    /// [`WireError`]: what is wrong with it. No error quotes the payload.
    pub fn read_up(payload: &[u8]) -> Result<(Header, Up), WireError> {
        let fields = Self::read(payload)?;
        let header = fields.header();
        match Up::read(&fields.t, &fields.body) {
            None => Err(unknown_kind(&fields)),
            Some((_, Ok(message))) => Ok((header, message)),
            Some((kind, Err(e))) => {
                Err(WireError::BadBody { kind, reason: describe(&e), header: Box::new(header) })
            }
        }
    }

    /// Reads a payload that came from a controller.
    ///
    /// # Errors
    /// [`WireError`]: what is wrong with it. No error quotes the payload.
    pub fn read_down(payload: &[u8]) -> Result<(Header, Down), WireError> {
        let fields = Self::read(payload)?;
        let header = fields.header();
        match Down::read(&fields.t, &fields.body) {
            None => Err(unknown_kind(&fields)),
            Some((_, Ok(message))) => Ok((header, message)),
            Some((kind, Err(e))) => {
                Err(WireError::BadBody { kind, reason: describe(&e), header: Box::new(header) })
            }
        }
    }
}

//! Who may connect, and to which topics. The owner answers through [`Gate`]; the front door turns the answer
//! into CONNACK codes, SUBACK 0x80 and closed connections.

use crate::filter;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;

/// What [`Gate::authenticate`] returns.
pub type Decision<'a> = Pin<Box<dyn Future<Output = Result<Rights, Refusal>> + Send + 'a>>;

/// Decides who may connect and what they may do.
///
/// A client id belongs to whoever connects with it: it takes over a connection and a session of the same id.
/// A gate that knows users must therefore also decide which ids a user may use.
pub trait Gate: Send + Sync + 'static {
    /// Decides on one CONNECT. It runs within [`crate::Limits::connect_timeout`]; expensive hashing belongs
    /// on `spawn_blocking`.
    fn authenticate<'a>(&'a self, connect: &'a ConnectRequest) -> Decision<'a>;
}

/// What a client said about itself.
#[derive(Debug, Clone)]
pub struct ConnectRequest {
    /// The client's id, or the one made for it when it sent none.
    pub client_id: String,
    /// User name, if the client sent one.
    pub username: Option<String>,
    /// Password, if the client sent one.
    pub password: Option<Password>,
    /// Address of the other end.
    pub peer: SocketAddr,
    /// True when the client wants no state from before and leaves none behind.
    pub clean_session: bool,
}

/// A password as it came off the wire. It never shows in `Debug` output.
#[derive(Clone)]
pub struct Password(Vec<u8>);

impl Password {
    /// Wraps the bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes, for hashing and comparing only.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(******)")
    }
}

/// Why a client is turned away; each is one CONNACK code. Code 1, unacceptable protocol version, is the front
/// door's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// CONNACK 2.
    #[error("client id refused")]
    IdentifierRejected,
    /// CONNACK 3: come back later.
    #[error("service unavailable")]
    ServerUnavailable,
    /// CONNACK 4.
    #[error("bad user name or password")]
    BadCredentials,
    /// CONNACK 5.
    #[error("not authorized")]
    NotAuthorized,
}

/// What a connected client may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// Topics it may publish to, its will included. A publish elsewhere closes the connection: MQTT 3.1.1 has
    /// no way to refuse one, and acknowledging what is thrown away would be a lie.
    pub publish: Permit,
    /// Filters it may subscribe to. Others get SUBACK 0x80.
    pub subscribe: Permit,
}

impl Rights {
    /// Everything.
    pub fn all() -> Self {
        Self { publish: Permit::All, subscribe: Permit::All }
    }
}

/// A set of topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permit {
    /// Every topic, those that begin with `$` included.
    All,
    /// Topics that one of these filters matches, by the rules of MQTT (a leading wildcard matches no `$`
    /// topic). An empty list permits nothing.
    Filters(Vec<String>),
}

impl Permit {
    /// True when a message on `topic` is permitted.
    pub fn allows_topic(&self, topic: &str) -> bool {
        match self {
            Permit::All => true,
            Permit::Filters(filters) => filters.iter().any(|f| filter::matches(f, topic)),
        }
    }

    /// True when every topic that `requested` can match is matched by one of the permitted filters.
    pub fn allows_filter(&self, requested: &str) -> bool {
        match self {
            Permit::All => true,
            Permit::Filters(filters) => filters.iter().any(|f| filter::covers(f, requested)),
        }
    }
}

/// Lets everybody do everything. Only for brokers on loopback.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllowAll;

impl Gate for AllowAll {
    fn authenticate<'a>(&'a self, _connect: &'a ConnectRequest) -> Decision<'a> {
        Box::pin(std::future::ready(Ok(Rights::all())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_does_not_show_in_debug_output() {
        assert!(!format!("{:?}", Password::new("hunter2")).contains("hunter2"));
    }

    #[test]
    fn a_permit_allows_what_its_filters_cover() {
        let permit = Permit::Filters(vec!["a/+/c".into(), "b/#".into()]);
        assert!(permit.allows_topic("a/x/c") && permit.allows_topic("b"));
        assert!(!permit.allows_topic("a/x/d"));
        assert!(permit.allows_filter("a/+/c") && permit.allows_filter("b/x/#"));
        assert!(!permit.allows_filter("a/#") && !permit.allows_filter("#"));
        assert!(!Permit::Filters(Vec::new()).allows_topic("a"));
    }
}

//! The local side: a broker of our own that devices connect to, or one that is there already.

use std::net::SocketAddr;

use tidegate_model::limits::MAX_CREDENTIAL_BYTES;
use tidegate_model::rule::Secret;

use super::{MQTT_PORT, files, layers::Layers};

/// What devices connect to.
#[derive(Debug, Clone)]
pub enum LocalSide {
    /// A broker inside the agent.
    Embedded {
        /// Where devices connect; port 0 lets the system choose.
        listen: SocketAddr,
        /// Who may connect there.
        access: LocalAccess,
    },
    /// A broker that is there already; the agent is one of its clients.
    External(LocalBroker),
}

/// Who may connect to the embedded broker.
#[derive(Debug, Clone)]
pub enum LocalAccess {
    /// Everybody who reaches it.
    Anonymous,
    /// These users with their passwords.
    Users(Vec<(String, Secret)>),
}

/// An external local broker, and how to log in there. `Debug` shows no password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalBroker {
    /// Name or address; an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// User name; `None`: an anonymous login.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
}

impl std::fmt::Display for LocalBroker {
    /// Without user name and password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        super::write_address(f, &self.host, self.port)
    }
}

/// Settings of the embedded broker, which mean nothing beside an external one.
const EMBEDDED: [&str; 3] = ["local.listen", "local.anonymous", "local.users_file"];
/// Settings of the login at an external broker, which mean nothing without one.
const LOGIN: [&str; 3] = ["local.username", "local.password", "local.password_file"];

pub(super) fn read(layers: &mut Layers) -> LocalSide {
    if layers.text("local.broker").is_some() {
        for key in set(layers, EMBEDDED) {
            let what = "it belongs to a broker inside the agent, and local.broker names one that is there already; \
                        remove one of the two";
            layers.note(key, what.to_owned());
        }
        return LocalSide::External(external(layers));
    }
    for key in set(layers, LOGIN) {
        let what = "it is for the login at an external local broker, and local.broker names none; \
                    name one, or remove this";
        layers.note(key, what.to_owned());
    }
    let listen = layers.optional("local.listen", |text| {
        text.parse::<SocketAddr>().map_err(|_| "write an address and a port, as in 127.0.0.1:1883".to_owned())
    });
    let listen = listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], MQTT_PORT)));
    LocalSide::Embedded { listen, access: access(layers, listen) }
}

/// Those of these settings that are set.
fn set(layers: &Layers, keys: [&'static str; 3]) -> Vec<&'static str> {
    keys.into_iter().filter(|key| layers.text(key).is_some()).collect()
}

fn external(layers: &mut Layers) -> LocalBroker {
    let nowhere = || LocalBroker { host: String::new(), port: MQTT_PORT, username: None, password: None };
    let mut broker = layers.optional("local.broker", url).unwrap_or_else(nowhere);
    if let Some(name) = layers.text("local.username") {
        if broker.username.is_some() {
            layers.note(
                "local.username",
                "local.broker names a user already; leave out one of them".to_owned(),
            );
        }
        broker.username = Some(name);
    }
    if let Some(password) = super::password(layers, "local.password", "local.password_file") {
        if broker.password.is_some() {
            let what = "local.broker holds a password already; leave out one of them";
            layers.note(first_set(layers), what.to_owned());
        }
        if broker.username.is_none() {
            let what = "a password needs a user name; set local.username, or write it into local.broker";
            layers.note(first_set(layers), what.to_owned());
        }
        broker.password = Some(password);
    }
    broker
}

/// Which of the two settings of a password is set.
fn first_set(layers: &Layers) -> &'static str {
    if layers.text("local.password").is_some() { "local.password" } else { "local.password_file" }
}

/// Reads `mqtt://[user[:password]@]host[:port]`. No error quotes what stands before the `@`.
fn url(url: &str) -> Result<LocalBroker, String> {
    const FORM: &str = "write mqtt://host:port or mqtt://user:password@host:port";
    let rest = match url.split_once("://") {
        Some(("mqtt", rest)) => rest.trim_end_matches('/'),
        Some(("mqtts" | "ssl" | "tls", _)) => {
            return Err(
                "TLS to a local broker comes in a later release; use mqtt:// on this machine or over a \
                        private network"
                    .to_owned(),
            );
        }
        Some(_) | None => return Err(FORM.to_owned()),
    };
    let (login, address) = match rest.rsplit_once('@') {
        Some((login, address)) => (Some(login), address),
        None => (None, rest),
    };
    let (host, port) = super::host_and_port(address, FORM)?;
    let (username, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
        Some((username, password)) => (Some(decoded(username)?), Some(decoded(password)?)),
        None => (None, None),
    };
    if username.as_ref().is_some_and(String::is_empty) {
        return Err(format!("there is no user name before the '@'; {FORM}"));
    }
    let password = password.filter(|password| !password.is_empty()).map(Secret::new);
    Ok(LocalBroker { host, port, username, password })
}

/// `%3A` is a colon.
fn decoded(text: &str) -> Result<String, String> {
    const WRONG: &str = "user name and password of the URL are UTF-8 with %XX for special characters, at most 1024 bytes \
                         each; or use local.username and local.password_file";
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let byte = if byte == b'%' {
            let digits: Option<Vec<u32>> = (0..2).map(|_| char::from(bytes.next()?).to_digit(16)).collect();
            let digits = digits.ok_or(WRONG)?;
            u8::try_from(digits[0] * 16 + digits[1]).map_err(|_| WRONG)?
        } else {
            byte
        };
        out.push(byte);
    }
    String::from_utf8(out)
        .ok()
        .filter(|text| text.len() <= MAX_CREDENTIAL_BYTES)
        .ok_or_else(|| WRONG.to_owned())
}

fn access(layers: &mut Layers, listen: SocketAddr) -> LocalAccess {
    let anonymous = layers.optional("local.anonymous", |text| {
        text.parse::<bool>().map_err(|_| "write true or false".to_owned())
    });
    if let Some(path) = layers.path("local.users_file") {
        if anonymous == Some(true) {
            let what = "either everybody may connect, or the users of a file; leave out one of local.anonymous and local.users_file";
            layers.note("local.users_file", what.to_owned());
        }
        return LocalAccess::Users(layers.check("local.users_file", files::users(&path)).unwrap_or_default());
    }
    if !anonymous.unwrap_or(listen.ip().is_loopback()) {
        let what = format!(
            "devices connect to {listen}, and nobody is allowed to; name a file of users in local.users_file, or set local.anonymous = true"
        );
        layers.note("local.users_file", what);
    }
    LocalAccess::Anonymous
}

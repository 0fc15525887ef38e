//! The address of a remote broker.

use crate::limits::MAX_HOST_BYTES;

/// Port of MQTT without TLS, registered with IANA.
const MQTT_PORT: u16 = 1883;
/// Port of MQTT over TLS, registered with IANA.
const MQTTS_PORT: u16 = 8883;

/// Where a remote broker listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BrokerAddress {
    /// Name or IP address; an IPv6 address without brackets.
    pub host: String,
    /// TCP port, never 0.
    pub port: u16,
}

impl std::fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Why a text is no address of a broker. It quotes nothing that may be a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {help}")]
pub struct InvalidBrokerUrl {
    what: String,
    help: String,
}

impl BrokerAddress {
    /// Reads `mqtt://host[:port]`, without credentials and without TLS, which only rules have.
    ///
    /// # Errors
    /// [`InvalidBrokerUrl`]: what is wrong, and what to write.
    pub fn parse(url: &str) -> Result<Self, InvalidBrokerUrl> {
        match parse(url) {
            Ok((address, Scheme::Mqtt)) => Ok(address),
            Ok((_, Scheme::Mqtts)) => Err(InvalidBrokerUrl {
                what: "TLS comes in a later release".to_owned(),
                help: "use mqtt:// over a private network or a local TLS proxy".to_owned(),
            }),
            Err((_, what, help)) if help == FORM => {
                Err(InvalidBrokerUrl { what, help: "write mqtt://host or mqtt://host:port".to_owned() })
            }
            Err((_, what, help)) => Err(InvalidBrokerUrl { what, help }),
        }
    }
}

/// What is wrong with a URL: code, what, help.
pub(crate) type UrlError = (&'static str, String, String);

fn bad(what: impl Into<String>, help: &str) -> UrlError {
    ("bad-url", what.into(), help.into())
}

const FORM: &str = "write mqtt://host, mqtt://host:port, or mqtts:// for TLS";

/// How a broker is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// In clear.
    Mqtt,
    /// Over TLS.
    Mqtts,
}

/// Reads `mqtt://host[:port]` or `mqtts://host[:port]`.
pub(crate) fn parse(url: &str) -> Result<(BrokerAddress, Scheme), UrlError> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(bad("the URL has no scheme", FORM));
    };
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "mqtt" => Scheme::Mqtt,
        "mqtts" => Scheme::Mqtts,
        _ => return Err(bad(format!("the scheme '{}' is not known", brief(scheme)), FORM)),
    };
    let default_port = match scheme {
        Scheme::Mqtt => MQTT_PORT,
        Scheme::Mqtts => MQTTS_PORT,
    };
    Ok((authority(rest, Some(default_port))?, scheme))
}

/// Reads the address of an HTTP proxy, `http://host:port`.
pub(crate) fn parse_proxy(url: &str) -> Result<BrokerAddress, UrlError> {
    const FORM: &str = "write http://host:port";
    match url.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => authority(rest, None),
        Some((scheme, _)) => Err(bad(format!("the scheme '{}' is not one of a proxy", brief(scheme)), FORM)),
        None => Err(bad("the URL has no scheme", FORM)),
    }
}

/// Reads `host[:port]`, which nothing may follow. Without a default the port must be there.
fn authority(rest: &str, default_port: Option<u16>) -> Result<BrokerAddress, UrlError> {
    let (authority, tail) = match rest.find(['/', '?', '#']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    // The text before '@' may be a password, so no message quotes it.
    if rest.contains('@') {
        return Err((
            "credentials-in-url",
            "the URL holds credentials".into(),
            "put them in remote.username and remote.password".into(),
        ));
    }
    if !tail.is_empty() {
        return Err(bad(
            "the URL goes on after host and port",
            "remove the path; topics belong in forwards, subscriptions and mountpoint",
        ));
    }
    let (host, port) = split_host_port(authority)?;
    let port = match port {
        None => default_port.ok_or_else(|| bad("the URL has no port", "write http://host:port"))?,
        Some(text) => match text.parse::<u16>() {
            Ok(port) if port > 0 && text.bytes().all(|b| b.is_ascii_digit()) => port,
            Ok(_) | Err(_) => return Err(bad(format!("'{}' is not a port", brief(text)), "use 1 to 65535")),
        },
    };
    Ok(BrokerAddress { host: host.to_ascii_lowercase(), port })
}

fn split_host_port(authority: &str) -> Result<(&str, Option<&str>), UrlError> {
    if let Some(rest) = authority.strip_prefix('[') {
        const HELP: &str = "write an IPv6 address as mqtt://[fd00::1]:1883";
        let (host, tail) = rest.split_once(']').ok_or_else(|| bad("the '[' is not closed", HELP))?;
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(bad(format!("'{}' is not an IPv6 address", brief(host)), HELP));
        }
        return match tail.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if tail.is_empty() => Ok((host, None)),
            None => Err(bad("something stands between ']' and the port", HELP)),
        };
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    const HELP: &str = "use a name of letters, digits, '.', '-' and '_', or an IP address";
    if host.is_empty() {
        return Err(bad("the URL has no host", HELP));
    }
    if host.len() > MAX_HOST_BYTES {
        return Err(bad(
            format!("the host has {} bytes, at most {MAX_HOST_BYTES} are allowed", host.len()),
            HELP,
        ));
    }
    if !host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
        return Err(bad(format!("'{}' is not a host name", brief(host)), HELP));
    }
    Ok((host, port))
}

fn brief(text: &str) -> String {
    text.chars().take(64).filter(|c| !c.is_control()).collect()
}

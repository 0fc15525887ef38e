//! A broker of somebody else, as an operator names it: `mqtt://user:password@host:port`.
//!
//! Nothing here shows a password: not `Debug`, not `Display`, no error.

use std::fmt;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tidegate_model::limits::MAX_CREDENTIAL_BYTES;
use tidegate_model::rule::{BrokerAddress, Secret};

/// What stays as it is in a user name that is shown in a URL.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A broker of somebody else that the controller uses in place of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalBroker {
    /// Host and port.
    pub address: BrokerAddress,
    /// The controller's user name there.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
}

impl ExternalBroker {
    /// Reads `mqtt://[user[:password]@]host[:port]`; a character that means something in a URL is percent-encoded.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").unwrap_or((url, ""));
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, rest),
        };
        let whole =
            if rest.is_empty() && login.is_none() { url.to_owned() } else { format!("{scheme}://{place}") };
        let address = BrokerAddress::parse(&whole)
            .map_err(|error| format!("{error}. The form is mqtt://user:password@host:port"))?;
        let (username, password) = match login {
            None => (None, None),
            Some(login) => {
                let (user, password) = match login.split_once(':') {
                    Some((user, password)) => (user, Some(decoded(password)?)),
                    None => (login, None),
                };
                (Some(decoded(user)?), password.map(Secret::new))
            }
        };
        if username.as_ref().is_some_and(String::is_empty) {
            return Err(
                "the user name is empty; write mqtt://user:password@host:port, or no '@' at all".to_owned()
            );
        }
        Ok(Self { address, username, password })
    }

    /// Takes the password from a file: its first line.
    pub(super) fn read_password(&mut self, file: &Path) -> Result<(), String> {
        let text = std::fs::read_to_string(file)
            .map_err(|error| format!("the password file {} cannot be read: {error}", file.display()))?;
        let password = text.lines().next().unwrap_or("").trim_end();
        if password.is_empty() || password.len() > MAX_CREDENTIAL_BYTES {
            return Err(format!(
                "the password file {} has to hold the password in its first line, 1 to {MAX_CREDENTIAL_BYTES} bytes",
                file.display()
            ));
        }
        self.password = Some(Secret::new(password));
        Ok(())
    }

    /// Whether what is sent there stays on this machine.
    pub(super) fn is_loopback(&self) -> bool {
        let host = self.address.host.as_str();
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// The URL for gateways: without the controller's own login.
    #[must_use]
    pub fn public_url(&self) -> String {
        format!("mqtt://{}", self.address)
    }
}

/// The URL without its password.
impl fmt::Display for ExternalBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.username {
            Some(user) => write!(f, "mqtt://{}@{}", utf8_percent_encode(user, UNRESERVED), self.address),
            None => write!(f, "mqtt://{}", self.address),
        }
    }
}

fn decoded(text: &str) -> Result<String, String> {
    let text = percent_decode_str(text).decode_utf8();
    let text = text.map_err(|_| "the login in the URL is not UTF-8 after percent-decoding".to_owned())?;
    if text.len() > MAX_CREDENTIAL_BYTES {
        return Err(format!("the login in the URL is longer than {MAX_CREDENTIAL_BYTES} bytes"));
    }
    Ok(text.into_owned())
}

/// A broker that is being put together: URL and password may be set at different places.
#[derive(Debug, Default)]
pub(super) struct BrokerDraft {
    pub(super) broker: Option<(ExternalBroker, super::keys::Place)>,
    pub(super) password_file: Option<(PathBuf, super::keys::Place)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_with_and_without_a_login_and_shown_without_its_password() {
        let broker = ExternalBroker::parse("mqtt://tide%40gate:p%3A%2F@Broker.example:1884").unwrap();
        assert_eq!(broker.address.to_string(), "broker.example:1884");
        assert_eq!(broker.username.as_deref(), Some("tide@gate"));
        assert_eq!(broker.password.as_ref().map(Secret::reveal), Some("p:/"));
        assert_eq!(broker.to_string(), "mqtt://tide%40gate@broker.example:1884");
        assert_eq!(broker.public_url(), "mqtt://broker.example:1884");
        assert!(!format!("{broker:?}").contains("p:/"));
        let plain = ExternalBroker::parse("mqtt://[::1]").unwrap();
        assert_eq!(
            (plain.to_string().as_str(), plain.username, plain.password),
            ("mqtt://[::1]:1883", None, None)
        );
    }

    #[test]
    fn a_wrong_url_is_told_without_what_may_be_a_password() {
        for wrong in [
            "broker.example",
            "mqtts://u:s3cret@broker.example",
            "http://u:s3cret@broker.example",
            "mqtt://u:s3cret@",
            "mqtt://u:s3cret@broker.example/path",
            "mqtt://u:s3cret@broker.example:0",
            "mqtt://:s3cret@broker.example",
            "mqtt://u:%ff%fes3cret@broker.example",
            "mqtt://",
            "",
        ] {
            let told = ExternalBroker::parse(wrong).unwrap_err();
            assert!(!told.contains("s3cret") && !told.is_empty(), "{wrong}: {told}");
        }
    }
}

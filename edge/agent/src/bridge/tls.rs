//! TLS towards the remote broker: by the system's authorities or those of the rule, with a client certificate where the rule has
//! one. The certificate and its name are always checked.

use std::{io, sync::Arc, time::Duration};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tidegate_model::rule::{EdgeTls, Secret};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::fault::LinkError;

/// How TLS is done, with the key of the client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TlsSetup {
    pub tls: EdgeTls,
    pub key: Option<Secret>,
}

impl TlsSetup {
    /// Speaks TLS over a connection to this host.
    pub async fn secure(
        &self,
        stream: TcpStream,
        host: &str,
        limit: Duration,
    ) -> Result<TlsStream<TcpStream>, LinkError> {
        let name = self.tls.server_name.as_deref().unwrap_or(host);
        let server_name = ServerName::try_from(name.to_owned())
            .map_err(|_| LinkError::TlsSetup(format!("'{name}' is no name that a certificate can bear")))?;
        let setup = self.clone();
        // Reads the system's authorities from disk: they may change while the agent runs.
        let config = tokio::task::spawn_blocking(move || setup.config())
            .await
            .map_err(|error| LinkError::Broken(io::Error::other(error)))??;
        let handshake = TlsConnector::from(Arc::new(config)).connect(server_name, stream);
        match timeout(limit, handshake).await {
            Err(_) => Err(LinkError::TlsSilent { address: host.to_owned(), after: limit }),
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(self
                .explained(&error, host)
                .unwrap_or(LinkError::TlsBroken { address: host.to_owned(), source: error })),
        }
    }

    fn config(&self) -> Result<ClientConfig, LinkError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let unusable = |error: rustls::Error| LinkError::TlsSetup(error.to_string());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_root_certificates(self.authorities()?);
        let mut config = match (&self.tls.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                let key = PrivateKeyDer::from_pem_slice(key.reveal().as_bytes()).map_err(|_| {
                    LinkError::TlsSetup("the private key of the rule cannot be read".to_owned())
                })?;
                builder.with_client_auth_cert(certificates("certificate", certificate)?, key).map_err(
                    |error| {
                        LinkError::TlsClientCert(format!(
                            "client certificate and private key of the rule cannot be used together: {error}"
                        ))
                    },
                )?
            }
            (Some(_), None) | (None, _) => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.tls.alpn.iter().map(|name| name.clone().into_bytes()).collect();
        Ok(config)
    }

    fn authorities(&self) -> Result<RootCertStore, LinkError> {
        let mut store = RootCertStore::empty();
        if let Some(ca) = &self.tls.ca {
            for certificate in certificates("ca", ca)? {
                store.add(certificate).map_err(|error| {
                    LinkError::TlsSetup(format!("a certificate of remote.tls.ca cannot be used: {error}"))
                })?;
            }
            return Ok(store);
        }
        let found = rustls_native_certs::load_native_certs();
        let (added, _) = store.add_parsable_certificates(found.certs);
        if added == 0 {
            return Err(LinkError::TlsSetup(
                "this system trusts no certificate authority; install the package ca-certificates, or give the rule \
                 remote.tls.ca"
                    .to_owned(),
            ));
        }
        Ok(store)
    }

    /// What an error of TLS means for an operator; `None`: it is none of TLS.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the library may add more, and each has its own words"
    )]
    pub fn explained(&self, error: &io::Error, address: &str) -> Option<LinkError> {
        let error: &rustls::Error = error.get_ref()?.downcast_ref()?;
        Some(match error {
            rustls::Error::InvalidCertificate(error) => self.bad_certificate(error, address),
            rustls::Error::AlertReceived(alert) => self.alerted(*alert, address),
            rustls::Error::InvalidMessage(_) => LinkError::TlsRefused {
                address: address.to_owned(),
                what: "it does not answer with TLS; is this its port for TLS?".to_owned(),
            },
            other => LinkError::TlsRefused { address: address.to_owned(), what: other.to_string() },
        })
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the library may add more, and each has its own words"
    )]
    fn bad_certificate(&self, error: &CertificateError, address: &str) -> LinkError {
        let untrusted = |what: &str| LinkError::TlsUntrusted(format!("the certificate of {address} {what}"));
        match error {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                let wanted = self.tls.server_name.as_deref().unwrap_or(address);
                LinkError::TlsName(format!(
                    "the certificate of {address} is not for '{wanted}'; correct the URL, or set remote.tls.server_name"
                ))
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                untrusted("has expired; renew it there, or set this gateway's clock if that is wrong")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                untrusted("is not valid yet; is this gateway's clock behind?")
            }
            // Another key under the name of the authority: it was renewed, or somebody pretends.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                untrusted(match self.tls.ca {
                    Some(_) => "is not signed by the authority in remote.tls.ca; replace that",
                    None => {
                        "is not signed by an authority that this gateway trusts; put its authority into remote.tls.ca"
                    }
                })
            }
            // What `openssl req -x509` makes, unless it is told otherwise.
            CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => untrusted(
                "is one of a certificate authority, which may not be a broker's own: make one for the broker \
                 (openssl req -x509 with -addext basicConstraints=critical,CA:FALSE), or have it signed by that authority",
            ),
            other => untrusted(&format!("cannot be trusted: {other}")),
        }
    }

    fn alerted(&self, alert: AlertDescription, address: &str) -> LinkError {
        let about_ours = matches!(
            alert,
            AlertDescription::CertificateRequired
                | AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                | AlertDescription::AccessDenied
                | AlertDescription::HandshakeFailure
                | AlertDescription::DecryptError
        );
        if !about_ours {
            let what = format!("it ended TLS with the alert {alert:?}");
            return LinkError::TlsRefused { address: address.to_owned(), what };
        }
        LinkError::TlsClientCert(match self.tls.certificate {
            Some(_) => {
                format!("{address} does not accept the client certificate of the rule (alert {alert:?})")
            }
            None => format!(
                "{address} ended TLS with the alert {alert:?}; it may want a client certificate: give the rule \
                 remote.tls.certificate and key"
            ),
        })
    }
}

fn certificates(field: &str, text: &str) -> Result<Vec<CertificateDer<'static>>, LinkError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    read.map_err(|_| {
        LinkError::TlsSetup(format!("remote.tls.{field} holds no certificates that can be read"))
    })
}

#[cfg(test)]
mod tests {
    use tidegate_model::rule::{Format, Limits, RenderContext, SecretRefs, parse, render};

    use super::*;

    #[test]
    fn a_rule_without_an_authority_of_its_own_is_told_to_name_one() {
        let text = "name = \"r\"\nforwards = [{ topic = \"a\" }]\nremote.url = \"mqtts://h\"\n";
        let (rule, _) =
            parse(text, Format::Toml).and_then(|draft| draft.validate(&Limits::default())).unwrap();
        let context = RenderContext {
            account: tidegate_model::ids::AccountId::default_account(),
            edge: "gw-1".parse().unwrap(),
            vars: std::collections::BTreeMap::new(),
            secrets: SecretRefs::default(),
        };
        let tls = render(&rule, &context).unwrap().rule.remote.tls.unwrap();
        let setup = TlsSetup { tls, key: None };
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let told =
            setup.explained(&io::Error::new(io::ErrorKind::InvalidData, unknown), "h").unwrap().to_string();
        assert!(told.contains("put its authority into remote.tls.ca"), "{told}");
        assert!(setup.explained(&io::Error::other("no TLS"), "h").is_none());
    }
}

//! What a rule says about TLS, as far as it can be judged without connecting: certificates and keys are PEM, names are names.
//! Whether a certificate is good, and fits its key, shows at the edge.

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::problem::{Problems, pointer};
use super::secret::Secret;
use super::spec::TlsSpec;
use crate::limits::{MAX_ALPN, MAX_PEM_BYTES};

/// Longest name of an application protocol, in bytes (RFC 7301, section 3.1).
const MAX_ALPN_BYTES: usize = 255;

/// Checks everything but the server name, which may hold variables.
pub(super) fn check(tls: &TlsSpec, problems: &mut Problems) {
    if let Some(ca) = &tls.ca {
        certificates("/remote/tls/ca", ca, problems);
    }
    if let Some(certificate) = &tls.certificate {
        certificates("/remote/tls/certificate", certificate, problems);
    }
    const ALPN: &str = "/remote/tls/alpn";
    if tls.alpn.len() > MAX_ALPN {
        let what = format!("{} protocols are offered, at most {MAX_ALPN} are allowed", tls.alpn.len());
        problems.add(ALPN, "bad-tls", what, "offer those that the broker asks for, as [\"mqtt\"]");
    }
    for (index, name) in tls.alpn.iter().enumerate() {
        if name.is_empty() || name.len() > MAX_ALPN_BYTES || name.chars().any(char::is_control) {
            let what = "this is no name of a protocol";
            problems.add(
                pointer(ALPN, index),
                "bad-tls",
                what,
                "write 1 to 255 bytes of plain text, as \"mqtt\"",
            );
        }
    }
}

/// Checks the name that a certificate must bear.
pub(super) fn check_server_name(at: &str, name: &str, problems: &mut Problems) {
    if ServerName::try_from(name).is_err() {
        let help = "write the name, or the IP address, that stands in the broker's certificate";
        problems.add(at, "bad-tls", "this is neither a host name nor an IP address", help);
    }
}

/// Checks a private key. Nothing of it is quoted.
pub(super) fn check_key(key: &Secret, tls: Option<&TlsSpec>, problems: &mut Problems) {
    const AT: &str = "/remote/tls/key";
    let text = key.reveal();
    let (code, what, help) = if text.len() >= 3 && text.bytes().all(|b| b == b'*') {
        (
            "masked-secret",
            "the key is only a mask",
            "leave the field out to keep the stored one, or write the new key",
        )
    } else if text.len() > MAX_PEM_BYTES {
        ("bad-key", "the key is longer than 24 KiB", "write one private key")
    } else if text.contains("ENCRYPTED") {
        ("bad-key", "the key is encrypted", "decrypt it (openssl pkey -in FILE), it is stored as a secret")
    } else if PrivateKeyDer::from_pem_slice(text.as_bytes()).is_err() {
        let help = "write it with its lines -----BEGIN PRIVATE KEY----- and -----END PRIVATE KEY-----";
        ("bad-key", "this is no private key (PEM)", help)
    } else if !needs_key(tls) {
        ("bad-key", "a key needs its certificate", "add certificate to [remote.tls], or remove the key")
    } else {
        return;
    };
    problems.add(AT, code, what, help);
}

/// Whether there is a client certificate, which is nothing without its key.
pub(super) fn needs_key(tls: Option<&TlsSpec>) -> bool {
    tls.is_some_and(|tls| tls.certificate.is_some())
}

/// A client certificate without its key.
pub(super) fn missing_key(problems: &mut Problems) {
    let help = "write key in [remote.tls], or remove the certificate";
    problems.add("/remote/tls", "missing-key", "the client certificate has no private key", help);
}

fn certificates(at: &str, text: &str, problems: &mut Problems) {
    let (what, help) = if text.len() > MAX_PEM_BYTES {
        (
            format!("the certificates have {} bytes, at most {MAX_PEM_BYTES} are allowed", text.len()),
            "leave out those that are not needed",
        )
    } else if text.contains("PRIVATE KEY-----") {
        // Fields of certificates are shown to whoever may read the rule.
        (
            "a private key stands among the certificates, where it would be shown".to_owned(),
            "move it to key, which is kept as a secret",
        )
    } else {
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        match read {
            Ok(certificates) if !certificates.is_empty() => return,
            Ok(_) => ("there is no certificate in it".to_owned(), PEM),
            Err(_) => ("this is no certificate (PEM)".to_owned(), PEM),
        }
    };
    problems.add(at, "bad-certificate", what, help);
}

const PEM: &str = "write it with its lines -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----";

//! Certificates for a broker of a test and for its clients.

use std::net::SocketAddr;
use std::path::Path;

use rcgen::{CertificateParams, KeyPair};

/// A certificate that its own key signed, and that key, as PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl Pair {
    /// For this name.
    ///
    /// # Panics
    /// When the name is none.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let key = KeyPair::generate().expect("there is randomness");
        let certificate = CertificateParams::new([name.to_owned()])
            .and_then(|params| params.self_signed(&key))
            .expect("the test gives a name");
        Self { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    fn write(&self, dir: &Path, name: &str) -> (String, String) {
        let (certificate, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        std::fs::write(&certificate, &self.certificate).expect("the test's directory can be written");
        std::fs::write(&key, &self.key).expect("the test's directory can be written");
        (certificate.display().to_string(), key.display().to_string())
    }
}

/// Lines for a mosquitto that listens here over TLS, too, and takes only clients with `client`'s certificate there.
#[must_use]
pub fn listener(dir: &Path, address: SocketAddr, broker: &Pair, client: &Pair) -> String {
    let (certificate, key) = broker.write(dir, "broker");
    let (clients, _) = client.write(dir, "clients");
    format!(
        "listener {} {}\ncertfile {certificate}\nkeyfile {key}\ncafile {clients}\nrequire_certificate true\n",
        address.port(),
        address.ip()
    )
}

//! The way to the remote broker: TLS, other addresses, a proxy.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rumqttc::mqttbytes::v4::{ConnectReturnCode, Packet};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tidegate_model::code::FaultCode;
use tidegate_model::rule::{EdgeRule, Secrets};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{Rig, Timing, peer::Peer, rule_of};

/// A certificate with its key, signed by itself.
struct Pair {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Pair {
    fn of(name: &str, years: std::ops::Range<i32>) -> Self {
        Self::with(name, years, IsCa::NoCa)
    }

    fn with(name: &str, years: std::ops::Range<i32>, is_ca: IsCa) -> Self {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.is_ca = is_ca;
        params.not_before = rcgen::date_time_ymd(2020 + years.start, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020 + years.end, 1, 1);
        let key = KeyPair::generate().unwrap();
        Self { certificate: params.self_signed(&key).unwrap(), key }
    }

    fn good(name: &str) -> Self {
        Self::of(name, 0..1_000)
    }

    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.der().clone()]
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }
}

/// Ends TLS and pipes what is within to `port`; its own port.
async fn tls_before(port: u16, own: &Pair, clients: Option<&Pair>) -> u16 {
    let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(clients.chain().remove(0)).unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let config = builder.with_single_cert(own.chain(), own.key()).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own_port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut within) = acceptor.accept(stream).await else { return };
                let Ok(mut broker) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                let _ = copy_bidirectional(&mut within, &mut broker).await;
            });
        }
    });
    own_port
}

/// A rule that forwards `sensors/#`, with these lines in `[remote]`.
fn rule(lines: &str) -> (Arc<EdgeRule>, Secrets) {
    rule_of(&format!(
        "name = \"r\"\nmountpoint = \"plant/\"\nforwards = [{{ topic = \"sensors/#\" }}]\n[remote]\nclient_id = \"c\"\n{lines}"
    ))
}

fn over_tls(port: u16, settings: &str) -> (Arc<EdgeRule>, Secrets) {
    rule(&format!("url = \"mqtts://localhost:{port}\"\n[remote.tls]\n{settings}"))
}

fn pem(field: &str, text: &str) -> String {
    format!("{field} = \"\"\"\n{text}\"\"\"\n")
}

fn run(rule: (Arc<EdgeRule>, Secrets)) -> Rig {
    Rig::run(rule, Timing { look_for_first: Duration::from_millis(50), ..Timing::default() }, false)
}

#[tokio::test]
async fn messages_go_over_tls_by_the_authority_of_the_rule() {
    let (peer, own) = (Peer::new().await, Pair::good("localhost"));
    let port = tls_before(peer.port(), &own, None).await;
    let mut rig = run(over_tls(port, &pem("ca", &own.certificate.pem())));
    rig.put(1..=3_000, 1);
    let mut conn = peer.log_in().await;
    rig.running(1).await;
    for number in 1..=3_000 {
        let publish = conn.publish().await;
        assert_eq!(publish.payload.as_ref(), number.to_string().as_bytes());
        conn.puback(publish.pkid).await;
    }
    rig.drained().await;
    // What is written last is not held back on this side.
    rig.put(3_001..=3_001, 1);
    assert_eq!(conn.publishes(1).await[0].0, 3_001);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_trusted_is_told_with_its_reason() {
    let peer = Peer::new().await;
    let (own, other) = (Pair::good("localhost"), Pair::good("localhost"));
    let port = tls_before(peer.port(), &own, None).await;
    let mut rig = run(over_tls(port, &pem("ca", &other.certificate.pem())));
    let why = rig.fault(FaultCode::TlsUntrusted).await;
    assert!(why.contains("remote.tls.ca") && why.contains("localhost"), "{why}");
    let expired = Pair::of("localhost", 0..1);
    let port = tls_before(peer.port(), &expired, None).await;
    let mut rig = run(over_tls(port, &pem("ca", &expired.certificate.pem())));
    let why = rig.fault(FaultCode::TlsUntrusted).await;
    assert!(why.contains("expired") && why.contains("clock"), "{why}");

    let authority = Pair::with("localhost", 0..1_000, IsCa::Ca(BasicConstraints::Unconstrained));
    let port = tls_before(peer.port(), &authority, None).await;
    let mut rig = run(over_tls(port, &pem("ca", &authority.certificate.pem())));
    let why = rig.fault(FaultCode::TlsUntrusted).await;
    assert!(why.contains("CA:FALSE"), "{why}");
}

#[tokio::test]
async fn the_name_is_checked_and_may_be_another_one() {
    let (peer, own) = (Peer::new().await, Pair::good("broker.example"));
    let port = tls_before(peer.port(), &own, None).await;
    let ca = pem("ca", &own.certificate.pem());
    let mut rig = run(over_tls(port, &ca));
    let why = rig.fault(FaultCode::TlsName).await;
    assert!(why.contains("'localhost'") && why.contains("server_name"), "{why}");
    let mut rig = run(over_tls(port, &format!("server_name = \"broker.example\"\n{ca}")));
    let _conn = peer.log_in().await;
    rig.running(1).await;
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_the_broker_wants_one() {
    let (peer, own, ours) = (Peer::new().await, Pair::good("localhost"), Pair::good("gw-1"));
    let port = tls_before(peer.port(), &own, Some(&ours)).await;
    let ca = pem("ca", &own.certificate.pem());
    let with = |pair: &Pair| {
        let pair = pem("certificate", &pair.certificate.pem()) + &pem("key", &pair.key.serialize_pem());
        over_tls(port, &(ca.clone() + &pair))
    };
    let mut rig = run(over_tls(port, &ca));
    let why = rig.fault(FaultCode::TlsClientCert).await;
    assert!(why.contains("may want a client certificate"), "{why}");
    let mut rig = run(with(&Pair::good("gw-1")));
    let why = rig.fault(FaultCode::TlsClientCert).await;
    assert!(why.contains("does not accept"), "{why}");
    let mut rig = run(with(&ours));
    let _conn = peer.log_in().await;
    rig.running(1).await;
    // A key of another certificate is found before anything is sent.
    let mixed = pem("certificate", &ours.certificate.pem()) + &pem("key", &own.key.serialize_pem());
    let mut rig = run(over_tls(port, &(ca.clone() + &mixed)));
    let why = rig.fault(FaultCode::TlsClientCert).await;
    assert!(why.contains("cannot be used together") && !why.contains("BEGIN"), "{why}");
}

#[tokio::test]
async fn a_port_without_tls_is_told_as_such() {
    let peer = Peer::new().await;
    let mut rig = run(over_tls(peer.port(), ""));
    let mut conn = peer.accept().await;
    conn.pingresp().await;
    let why = rig.fault(FaultCode::Tcp).await;
    assert!(why.contains("port for TLS"), "{why}");
}

#[tokio::test]
async fn another_address_is_used_while_the_first_is_away_and_left_when_it_is_back() {
    let (first, second) = (Peer::new().await, Peer::new().await);
    let address = first.address();
    drop(first);
    let lines = format!(
        "url = \"mqtt://{address}\"\nfallback_urls = [\"mqtt://127.0.0.1:1\", \"mqtt://{}\"]\n",
        second.address()
    );
    let mut rig = run(rule(&lines));
    let mut conn = second.log_in().await;
    // No fault is told on the way to it.
    rig.running(1).await;
    rig.put(1..=3, 1);
    let sent = conn.publishes(3).await;
    conn.puback(sent[0].1).await;
    let first = Peer::at(address).await;
    // The look for it and the login may be two connections.
    let mut back = loop {
        let mut conn = first.accept().await;
        if conn.next().await.is_some() {
            break conn;
        }
    };
    assert!(matches!(conn.next().await, Some(Packet::Disconnect)), "it says goodbye to the second one");
    back.connack(ConnectReturnCode::Success).await;
    let again: Vec<u32> = back.publishes(2).await.iter().map(|(number, _)| *number).collect();
    assert_eq!(again, [2, 3], "what was not acknowledged there is sent here");
}

#[tokio::test]
async fn when_no_address_works_the_fault_names_them_all() {
    let mut rig = run(rule("url = \"mqtt://127.0.0.1:1\"\nfallback_urls = [\"mqtt://127.0.0.1:2\"]\n"));
    let why = rig.fault(FaultCode::Tcp).await;
    assert!(
        why.contains("127.0.0.1:1:") && why.contains("the other addresses: ") && why.contains("127.0.0.1:2:"),
        "{why}"
    );
}

/// Answers CONNECT with these lines; pipes what follows to `port`, if it is given. Tells what it was asked.
async fn proxy(answer: &'static str, port: Option<u16>) -> (u16, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().port();
    let (asked, told) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut text = Vec::new();
            while !text.ends_with(b"\r\n\r\n") {
                text.push(stream.read_u8().await.unwrap());
            }
            let _ = asked.try_send(String::from_utf8(text).unwrap());
            stream.write_all(answer.as_bytes()).await.unwrap();
            if let Some(port) = port {
                let mut broker = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                tokio::spawn(async move { copy_bidirectional(&mut stream, &mut broker).await });
            }
        }
    });
    (own, told)
}

#[tokio::test]
async fn a_proxy_is_asked_for_a_tunnel_to_the_broker_by_its_name() {
    let peer = Peer::new().await;
    let (port, mut asked) =
        proxy("HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n", Some(peer.port())).await;
    let lines = format!("url = \"mqtt://broker.example\"\nproxy = \"http://127.0.0.1:{port}\"\n");
    let mut rig = run(rule(&lines));
    let _conn = peer.log_in().await;
    rig.running(1).await;
    assert_eq!(
        asked.recv().await.unwrap(),
        "CONNECT broker.example:1883 HTTP/1.1\r\nHost: broker.example:1883\r\n\r\n"
    );
}

#[tokio::test]
async fn what_a_proxy_refuses_is_told() {
    for (answer, code, what) in [
        ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", FaultCode::NotAuthorized, "wants a login"),
        ("HTTP/1.0 403 Forbidden\r\n\r\n", FaultCode::NotAuthorized, "does not permit"),
        ("HTTP/1.1 502 Bad Gateway\r\n\r\n", FaultCode::Tcp, "502"),
        ("SSH-2.0-OpenSSH\r\n\r\n", FaultCode::Tcp, "not HTTP"),
    ] {
        let (port, _asked) = proxy(answer, None).await;
        let lines = format!("url = \"mqtt://broker.example\"\nproxy = \"http://127.0.0.1:{port}\"\n");
        let why = run(rule(&lines)).fault(code).await;
        assert!(why.contains(what) && why.contains(&port.to_string()), "{why}");
    }
}

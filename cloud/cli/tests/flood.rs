//! Clients that knock without end do not fill the log of `tidegate serve`, and nothing that people asked for is left out of it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

/// How often each kind of nuisance is repeated.
const OFTEN: usize = 40;
/// Lines of a kind in a minute (`tidegate_logs::LINES`).
const LINES: usize = 10;

/// The controller, killed when the test ends before it.
struct Serve(Child);

impl Drop for Serve {
    fn drop(&mut self) {
        // It has ended where the test went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// CONNECT with a user and a password, MQTT 3.1.1, clean session.
fn connect(client_id: &str, user: &str, password: &str) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT\x04\xc2\x00\x3c".to_vec();
    for field in [client_id, user, password] {
        body.extend(u16::try_from(field.len()).expect("a short field").to_be_bytes());
        body.extend(field.as_bytes());
    }
    let mut packet = vec![0x10, u8::try_from(body.len()).expect("at most 127 bytes")];
    packet.append(&mut body);
    packet
}

fn knock(address: &str, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the controller listens");
    stream.write_all(bytes).expect("it is read");
    stream
}

/// Waits until the broker closed the connection.
fn closed(mut stream: TcpStream) {
    // Whatever comes first: the end, or a reset.
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn lines_that_a_peer_can_cause_are_bounded_by_kind_and_those_of_an_operator_are_not() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(["serve", "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--store", "memory"]);
    command.args(["--log-format", "json", "--data-dir"]).arg(dir.path()).env("HOME", dir.path());
    command.env_remove("TIDEGATE_CONFIG").env_remove("TIDEGATE_LOG").stderr(Stdio::piped());
    let mut serve = Serve(command.spawn().expect("the binary is built with the test"));
    let mut log = BufReader::new(serve.0.stderr.take().expect("it is piped")).lines().map_while(Result::ok);
    let served: serde_json::Value = log
        .by_ref()
        .map(|line| serde_json::from_str(&line).expect("each line is an object"))
        .find(|line: &serde_json::Value| line["message"] == "the controller serves")
        .expect("it serves");
    let rest = std::thread::spawn(move || log.collect::<Vec<_>>());
    let (http, mqtt) =
        (served["http"].as_str().expect("an address"), served["broker"].as_str().expect("an address"));
    let mqtt = mqtt.rsplit(['/', ' ']).next().expect("the last word");
    let token = std::fs::read_to_string(dir.path().join("admin.token")).expect("it is written");
    let tidegate = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(args).env("HOME", dir.path()).env("TIDEGATE_SERVER", format!("http://{http}"));
        command.env("TIDEGATE_TOKEN", token.trim()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(command.status().expect("it runs").success(), "{args:?}");
    };

    tidegate(&["edge", "create", "gw-1"]);
    for _ in 0..OFTEN {
        closed(knock(mqtt, b"GET / HTTP/1.1\r\n\r\n"));
        closed(knock(mqtt, &connect("tidegate.default.gw-1", "gw-1", "wrong")));
        let mut violator = knock(mqtt, &connect("violator", "admin", token.trim()));
        // The administrator may only read: a publish is a violation.
        violator.write_all(b"\x30\x04\x00\x01ax").expect("it is read");
        closed(violator);
    }
    for n in 0..=LINES {
        tidegate(&["edge", "create", &format!("gw-{}", n + 2)]);
    }
    let told = Command::new("kill").args(["-TERM", &serve.0.id().to_string()]).status();
    assert!(told.expect("kill can be run").success());
    assert!(serve.0.wait().expect("it ends").success());

    let lines = rest.join().expect("the log is read");
    for kind in ["connection-refused", "wrong-credential", "protocol-violation"] {
        let of_kind = lines.iter().filter(|line| line.contains(&format!("\"line.kind\":\"{kind}\""))).count();
        assert_eq!(of_kind, LINES, "{kind}: {lines:#?}");
    }
    let asked_for = lines.iter().filter(|line| line.contains("gw-") && !line.contains("line.kind")).count();
    assert!(asked_for > LINES, "{lines:#?}");
}

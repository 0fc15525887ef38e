//! Devices that knock without end do not fill the log of the real agent.

#[allow(dead_code)] // each test file uses a part of it
mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use common::{Running, until};

/// How often each kind of nuisance is repeated.
const OFTEN: usize = 40;
/// Lines of a kind in a minute (`tidegate_logs::LINES`).
const LINES: usize = 10;

/// CONNECT of an anonymous client, MQTT 3.1.1, clean session.
fn connect(client_id: &str) -> Vec<u8> {
    let mut packet = vec![0x10, u8::try_from(12 + client_id.len()).expect("a short id")];
    packet.extend(b"\x00\x04MQTT\x04\x02\x00\x3c\x00");
    packet.push(u8::try_from(client_id.len()).expect("a short id"));
    packet.extend(client_id.as_bytes());
    packet
}

/// Lets a client in.
fn admitted(address: &str, client_id: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the agent listens");
    stream.write_all(&connect(client_id)).expect("it is read");
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).expect("a CONNACK comes");
    assert_eq!(answer, [0x20, 2, 0, 0]);
    stream
}

/// Waits until the broker closed the connection.
fn closed(mut stream: TcpStream) {
    // Whatever comes first: the end, or a reset.
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn lines_that_a_device_can_cause_are_bounded_by_kind() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::create_dir(dir.path().join("rules")).expect("the test's directory can be written");
    let arg = |name: &str| dir.path().join(name).display().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-edge"));
    command.args(["run", "--name", "gw-7", "--listen", "127.0.0.1:0", "--log-format", "json"]);
    command.args(["--rules", &arg("rules"), "--data-dir", &arg("data")]).stderr(Stdio::piped());
    let mut agent = Running(command.spawn().expect("the binary runs"));
    let mut log = BufReader::new(agent.0.stderr.take().expect("it is piped")).lines();
    let address = until("the local broker", || {
        let line = log.next()?.ok()?;
        let line: serde_json::Value = serde_json::from_str(&line).expect("each line is an object");
        line["local_addr"].as_str().map(str::to_owned)
    });
    let rest = std::thread::spawn(move || log.map_while(Result::ok).collect::<Vec<_>>());

    for _ in 0..OFTEN {
        let mut stranger = TcpStream::connect(&address).expect("the agent listens");
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("it is read");
        closed(stranger);
        // A second CONNECT on one connection is a violation.
        let mut violator = admitted(&address, "violator");
        violator.write_all(&connect("violator")).expect("it is read");
        closed(violator);
    }
    let mut last = admitted(&address, "twin");
    for _ in 0..OFTEN {
        let next = admitted(&address, "twin");
        closed(std::mem::replace(&mut last, next));
    }
    agent.signal("-TERM");
    agent.ends();

    let lines = rest.join().expect("the log is read");
    for kind in ["connection-refused", "protocol-violation", "connection-taken-over"] {
        let of_kind = lines.iter().filter(|line| line.contains(&format!("\"line.kind\":\"{kind}\""))).count();
        assert_eq!(of_kind, LINES, "{kind}: {lines:#?}");
    }
    assert!(lines.len() < 5 * LINES, "{} lines", lines.len());
}

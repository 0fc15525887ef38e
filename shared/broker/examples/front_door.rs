//! Measures the front door, with the broker in a process of its own: messages per second through it, and what an idle
//! connection costs. To compare two states of the code, build this in both and run them in turn.
//!
//! ```sh
//! ulimit -n 20000
//! cargo run --release -p tidegate-broker --example front_door -- publish 200000
//! cargo run --release -p tidegate-broker --example front_door -- idle 5000
//! ```
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a tool for people

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_broker::{AllowAll, Broker, BrokerConfig, PassAll, Quiet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Payload bytes of a measured message.
const PAYLOAD_BYTES: usize = 256;
/// Messages that the publisher sends before it waits for acknowledgements.
const WINDOW: usize = 100;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let count = arguments.get(1).and_then(|n| n.parse().ok());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match (arguments.first().map(String::as_str), count) {
        (Some("serve"), _) => runtime.block_on(serve()),
        (Some("publish"), Some(count)) => runtime.block_on(publish(count)),
        (Some("idle"), Some(count)) => runtime.block_on(idle(count)),
        _ => println!("front_door publish MESSAGES | front_door idle CONNECTIONS"),
    }
}

async fn serve() {
    let mut config = BrokerConfig::new("127.0.0.1:0".parse().unwrap());
    config.limits.max_connections = 20_000;
    let broker = Broker::start(config, Arc::new(AllowAll), Arc::new(PassAll), Arc::new(Quiet)).await.unwrap();
    println!("{}", broker.local_addr());
    std::future::pending::<()>().await;
}

/// The broker's process; ended when this is dropped.
struct Server {
    child: Child,
    addr: SocketAddr,
}

impl Server {
    fn start() -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command.arg("serve").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, addr: line.trim().parse().unwrap() }
    }

    /// Memory of its own in KiB.
    fn memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Processor time it has used, in clock ticks of 10 ms.
    fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn client(addr: SocketAddr, id: &str, keep_alive: u16) -> TcpStream {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 2];
    body.extend(keep_alive.to_be_bytes());
    body.extend((id.len() as u16).to_be_bytes());
    body.extend(id.as_bytes());
    socket.write_all(&[&[0x10, body.len() as u8][..], &body].concat()).await.unwrap();
    let mut answer = [0; 4];
    socket.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0]);
    socket
}

/// Reads packets and says first byte and packet id of each (0 for none).
async fn packets(mut socket: impl AsyncReadExt + Unpin, found: mpsc::Sender<(u8, u16)>) {
    let mut buffer: Vec<u8> = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let Ok(count @ 1..) = socket.read(&mut chunk).await else { return };
        buffer.extend_from_slice(&chunk[..count]);
        let mut at = 0;
        while let Some(header) = buffer.get(at..at + 3) {
            let (length, head) = match header[1] {
                low @ 0..=127 => (usize::from(low), 2),
                low => (usize::from(low & 127) + usize::from(header[2]) * 128, 3),
            };
            let Some(body) = buffer.get(at + head..at + head + length) else { break };
            let id_at = if header[0] >> 4 == 3 { 2 + usize::from(body[1]) } else { 0 };
            let id = body.get(id_at..id_at + 2).map_or(0, |id| u16::from_be_bytes([id[0], id[1]]));
            if found.send((header[0], id)).await.is_err() {
                return;
            }
            at += head + length;
        }
        buffer.drain(..at);
    }
}

async fn publish(count: usize) {
    let server = Server::start();
    let mut to = client(server.addr, "to", 60).await;
    to.write_all(&[0x82, 6, 0, 1, 0, 1, b't', 1]).await.unwrap();
    to.read_exact(&mut [0; 5]).await.unwrap();
    let (reading, mut writing) = to.into_split();
    let (sender, mut got) = mpsc::channel(1_024);
    tokio::spawn(packets(reading, sender));
    let subscriber = tokio::spawn(async move {
        let mut acks = Vec::new();
        for _ in 0..count {
            let (_, id) = got.recv().await.unwrap();
            acks.extend([0x40, 2]);
            acks.extend(id.to_be_bytes());
            if got.is_empty() || acks.len() > 200 {
                writing.write_all(&acks).await.unwrap();
                acks.clear();
            }
        }
    });
    let from = client(server.addr, "from", 60).await;
    let (reading, mut writing) = from.into_split();
    let (sender, mut acked) = mpsc::channel(1_024);
    tokio::spawn(packets(reading, sender));
    let (begin, ticks) = (Instant::now(), server.cpu_ticks());
    let (mut sent, mut done) = (0, 0);
    while done < count {
        let mut batch = Vec::new();
        while sent < count && sent - done < WINDOW {
            let id = (sent % 60_000 + 1) as u16;
            let remaining = 3 + 2 + PAYLOAD_BYTES;
            batch.extend([0x32, (remaining % 128) as u8 | 128, (remaining / 128) as u8, 0, 1, b't']);
            batch.extend(id.to_be_bytes());
            batch.extend([b'x'; PAYLOAD_BYTES]);
            sent += 1;
        }
        writing.write_all(&batch).await.unwrap();
        acked.recv().await.unwrap();
        done += 1;
        while acked.try_recv().is_ok() {
            done += 1;
        }
    }
    subscriber.await.unwrap();
    let seconds = begin.elapsed().as_secs_f64();
    let micros = (server.cpu_ticks() - ticks) as f64 * 10_000.0 / count as f64;
    println!("{:.0} messages/s, {micros:.1} us of processor time each in the broker", count as f64 / seconds);
}

async fn idle(count: usize) {
    let server = Server::start();
    drop(client(server.addr, "warm-up", 60).await);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = server.memory_kib();
    let begin = Instant::now();
    let mut open = Vec::new();
    for n in 0..count {
        let mut socket = client(server.addr, &format!("idle-{n}"), 600).await;
        // As an edge does: one subscription, one message each way.
        socket.write_all(&[0x82, 6, 0, 1, 0, 1, b't', 1]).await.unwrap();
        socket.read_exact(&mut [0; 5]).await.unwrap();
        socket.write_all(&[0x30, 4, 0, 1, b'u', b'x']).await.unwrap();
        open.push(socket);
    }
    let connecting = begin.elapsed();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let each = (server.memory_kib() - before) as f64 / count as f64;
    let (ticks, from) = (server.cpu_ticks(), Instant::now());
    for socket in &mut open {
        socket.write_all(&[0xc0, 0]).await.unwrap();
    }
    for socket in &mut open {
        socket.read_exact(&mut [0; 2]).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let ping = (server.cpu_ticks() - ticks) as f64 * 10_000.0 / count as f64;
    let resting = server.cpu_ticks();
    tokio::time::sleep(Duration::from_secs(10)).await;
    println!(
        "{count} connections in {connecting:.1?}: {each:.2} KiB each; a keep-alive ping costs {ping:.1} us of processor time; \
         all pings took {:.1?}; 10 s of silence cost {} ms for all",
        from.elapsed() - Duration::from_secs(11),
        (server.cpu_ticks() - resting) * 10,
    );
}

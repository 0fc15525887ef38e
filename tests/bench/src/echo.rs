//! The floor: the same payloads, requested and acknowledged over mosquitto, with nothing decided, stored or remembered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_e2e::mqtt::{Login, Packet, connect};
use tokio::sync::Semaphore;

use crate::wire::Wire;

const KEEP_ALIVE_S: u16 = 120;
const LIMIT: Duration = Duration::from_secs(120);

/// Bytes of what is said.
#[derive(Debug, Clone, Copy)]
pub struct Payloads {
    /// A request.
    pub set: usize,
    /// The first answer.
    pub received: usize,
    /// The second answer.
    pub result: usize,
}

/// Connected clients that answer each request twice, as an agent does.
pub struct Echo {
    broker: SocketAddr,
    count: usize,
    payloads: Payloads,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Echo {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Echo {
    /// Connects `count` clients, and returns when all have subscribed.
    ///
    /// # Panics
    /// When the broker does not take them.
    #[must_use]
    pub fn start(broker: SocketAddr, count: usize, payloads: Payloads) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime starts");
        let (ready, all_ready) = std::sync::mpsc::channel();
        // As many connects under way as a backlog holds.
        let gate = Arc::new(Semaphore::new(64));
        for index in 0..count {
            let (ready, gate) = (ready.clone(), Arc::clone(&gate));
            runtime.spawn(async move {
                let login = Login::anonymous(&format!("echo-{index}"));
                let slot = gate.acquire_owned().await.expect("the gate stays open");
                let mut wire = Wire::connect(broker, &connect(&login, KEEP_ALIVE_S, None))
                    .await
                    .expect("mosquitto takes it");
                wire.subscribe(&[&format!("echo/{index}/down")]).await.expect("mosquitto grants it");
                drop(slot);
                ready.send(()).expect("the measurement waits");
                answer(wire, &format!("echo/{index}/up"), payloads).await;
            });
        }
        for _ in 0..count {
            all_ready.recv_timeout(LIMIT).expect("the clients connect");
        }
        Self { broker, count, payloads, runtime: Some(runtime) }
    }

    /// Asks every client once, `at_a_time` of them at a time; gives each one's time from request to second answer, and the
    /// time of all together.
    ///
    /// # Panics
    /// When an answer does not come.
    pub async fn run(&self, rounds: usize, at_a_time: usize) -> (Vec<Duration>, Duration) {
        let login = Login::anonymous("echo-controller");
        let mut wire = Wire::connect(self.broker, &connect(&login, KEEP_ALIVE_S, None))
            .await
            .expect("mosquitto takes it");
        wire.subscribe(&["echo/+/up"]).await.expect("mosquitto grants it");
        let request = vec![b'x'; self.payloads.set];
        let total = rounds * self.count;
        let began = Instant::now();
        let (mut asked, mut times) = (0, Vec::with_capacity(total));
        let mut since = vec![began; self.count];
        let mut answers = vec![0_u8; self.count];
        while times.len() < total {
            while asked < total && asked - times.len() < at_a_time {
                let index = asked % self.count;
                since[index] = Instant::now();
                wire.publish(&format!("echo/{index}/down"), &request, false);
                asked += 1;
            }
            wire.flush().await.expect("mosquitto stays");
            let packet = tokio::time::timeout(LIMIT, wire.next()).await.expect("answers come");
            if let Packet::Publish { topic, pkid, .. } = packet.expect("mosquitto stays") {
                wire.ack(pkid);
                let index: usize =
                    topic.split('/').nth(1).and_then(|i| i.parse().ok()).expect("it is one of our topics");
                answers[index] += 1;
                if answers[index] == 2 {
                    answers[index] = 0;
                    times.push(since[index].elapsed());
                }
            }
        }
        (times, began.elapsed())
    }
}

async fn answer(mut wire: Wire, topic: &str, payloads: Payloads) {
    let (received, result) = (vec![b'r'; payloads.received], vec![b'R'; payloads.result]);
    while let Ok(packet) = wire.next().await {
        if let Packet::Publish { pkid, .. } = packet {
            wire.ack(pkid);
            wire.publish(topic, &received, false);
            wire.publish(topic, &result, false);
            if wire.flush().await.is_err() {
                return;
            }
        }
    }
}

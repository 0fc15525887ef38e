//! A device that publishes numbered messages with QoS 1 and knows which of them were acknowledged.
//!
//! It never gives up: after each loss of its connection it begins again with the first message that has no PUBACK, in
//! order. So what is PUBACKed was promised, and what arrives first must ascend.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::mqtt::{Conn, Login, Packet, publish};
use crate::wait::until;

/// Messages without a PUBACK at one time.
const WINDOW: usize = 20;
/// Pause between two attempts to connect.
const RETRY: Duration = Duration::from_millis(20);
/// How long it listens before it looks whether there is something to send.
const TICK: Duration = Duration::from_millis(2);
/// Silence after which it asks whether the broker is there.
const PING_EVERY: Duration = Duration::from_secs(20);

#[derive(Default)]
struct State {
    wanted: u64,
    acked: BTreeSet<u64>,
    connections: u64,
    end: bool,
}

/// A device. Dropping it disconnects it.
pub struct Device {
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Worker {
    address: SocketAddr,
    login: Login,
    topic: Box<dyn Fn(u64) -> String + Send>,
    pace: Duration,
    state: Arc<Mutex<State>>,
}

impl Device {
    /// Starts a device that publishes at most one message per `pace`; message `n` has the payload `n` and the topic
    /// `topic(n)`. Nothing is published before [`Device::publish_up_to`].
    #[must_use]
    pub fn start(
        address: SocketAddr,
        client_id: &str,
        pace: Duration,
        topic: impl Fn(u64) -> String + Send + 'static,
    ) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let login = Login::anonymous(client_id);
        let worker = Worker { address, login, topic: Box::new(topic), pace, state: Arc::clone(&state) };
        Self { state, thread: Some(std::thread::spawn(move || worker.run())) }
    }

    /// Lets it publish the messages up to this number.
    pub fn publish_up_to(&self, last: u64) {
        lock(&self.state).wanted = last;
    }

    /// Lets it publish without an end.
    pub fn publish_on(&self) {
        self.publish_up_to(u64::MAX);
    }

    /// No new messages; those without a PUBACK are tried on until they have one. Returns all that were acknowledged.
    ///
    /// # Panics
    /// When the last acknowledgement does not come.
    pub fn finish(&self) -> Vec<u64> {
        let last = {
            let mut state = lock(&self.state);
            // What it sent without an answer lies within a window behind the last answer.
            let last = state.acked.last().map_or(0, |n| n + WINDOW as u64).min(state.wanted);
            state.wanted = last;
            last
        };
        self.wait_acked(last)
    }

    /// Waits until all messages up to this number have their PUBACK, and returns them.
    ///
    /// # Panics
    /// When one has none in time.
    pub fn wait_acked(&self, last: u64) -> Vec<u64> {
        until(&format!("the device has a PUBACK for its first {last} messages"), || {
            let state = lock(&self.state);
            let count = usize::try_from(last).unwrap_or(usize::MAX);
            (state.acked.range(..=last).count() >= count).then(|| state.acked.iter().copied().collect())
        })
    }

    /// Messages that have a PUBACK.
    #[must_use]
    pub fn acked(&self) -> Vec<u64> {
        lock(&self.state).acked.iter().copied().collect()
    }

    /// How many have a PUBACK.
    #[must_use]
    pub fn acked_count(&self) -> usize {
        lock(&self.state).acked.len()
    }

    /// Waits until `more` further messages have their PUBACK: the flow goes on.
    ///
    /// # Panics
    /// When they have none in time.
    pub fn wait_flow(&self, more: usize) {
        let before = self.acked_count();
        until("the device goes on getting PUBACKs", || (self.acked_count() >= before + more).then_some(()));
    }

    /// How often it connected.
    #[must_use]
    pub fn connections(&self) -> u64 {
        lock(&self.state).connections
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        lock(&self.state).end = true;
        if let Some(thread) = self.thread.take() {
            // A panic of the device's thread was printed already.
            let _ = thread.join();
        }
    }
}

impl Worker {
    fn run(self) {
        while !lock(&self.state).end {
            // A refusal or a broken connection: try again, as devices do.
            let _ = self.connection();
            std::thread::sleep(RETRY);
        }
    }

    fn connection(&self) -> io::Result<()> {
        let opened = Conn::open(self.address, &self.login)?;
        let mut conn = opened.map_err(|code| io::Error::other(format!("CONNACK {code}")))?;
        lock(&self.state).connections += 1;
        let mut waiting: VecDeque<u64> = VecDeque::new();
        let mut next = first_gap(&lock(&self.state).acked);
        let (mut due, mut sent) = (Instant::now(), Instant::now());
        loop {
            let (wanted, end) = {
                let state = lock(&self.state);
                (state.wanted, state.end)
            };
            if end {
                conn.bye();
                return Ok(());
            }
            let mut batch = Vec::new();
            while waiting.len() < WINDOW && next <= wanted && Instant::now() >= due {
                let topic = (self.topic)(next);
                batch.extend(publish(&topic, next.to_string().as_bytes(), Some(pkid(next)), false));
                waiting.push_back(next);
                next += 1;
                due += self.pace;
            }
            due = due.max(Instant::now() - self.pace.min(Duration::from_millis(100)));
            if sent.elapsed() > PING_EVERY {
                conn.ping()?;
                sent = Instant::now();
            }
            if !batch.is_empty() {
                conn.send(&batch)?;
                sent = Instant::now();
            }
            if let Some(Packet::PubAck(acked)) = conn.next(TICK)?
                && let Some(at) = waiting.iter().position(|n| pkid(*n) == acked)
                && let Some(number) = waiting.remove(at)
            {
                lock(&self.state).acked.insert(number);
            }
        }
    }
}

/// The packet id of a message; unique within any window.
fn pkid(number: u64) -> u16 {
    u16::try_from(number % 60_000).unwrap_or(0) + 1
}

/// The first number from 1 on that is not there.
fn first_gap(acked: &BTreeSet<u64>) -> u64 {
    let mut next = 1;
    for number in acked {
        if *number != next {
            break;
        }
        next += 1;
    }
    next
}

//! Records everything that arrives under a filter, in the order of arrival, and judges it.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::mqtt::{Conn, Login, Packet};
use crate::wait::{PATIENCE, until};

const RETRY: Duration = Duration::from_millis(20);
const TICK: Duration = Duration::from_millis(100);
const PING_EVERY: Duration = Duration::from_secs(20);

/// A message that arrived.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// When.
    pub at: Instant,
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// The retain flag.
    pub retain: bool,
}

impl Arrived {
    /// The number that a device wrote; 0 where it is none.
    #[must_use]
    pub fn number(&self) -> u64 {
        std::str::from_utf8(&self.payload).ok().and_then(|t| t.parse().ok()).unwrap_or(0)
    }
}

/// A subscriber with a session that its broker keeps. Dropping it disconnects it.
pub struct Sink {
    arrived: Arc<Mutex<Vec<Arrived>>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

fn lock(arrived: &Mutex<Vec<Arrived>>) -> MutexGuard<'_, Vec<Arrived>> {
    arrived.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sink {
    /// Subscribes with QoS 1, and comes back when the broker granted it.
    ///
    /// # Panics
    /// When the broker does not.
    #[must_use]
    pub fn start(address: SocketAddr, login: Login, filter: &str) -> Self {
        let (arrived, end) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (granted, is_granted) = channel();
        let worker = Worker {
            address,
            login: login.keeping_session(),
            filter: filter.to_owned(),
            arrived: Arc::clone(&arrived),
            end: Arc::clone(&end),
            granted,
        };
        let thread = Some(std::thread::spawn(move || worker.run()));
        let code = is_granted.recv_timeout(PATIENCE).expect("the sink's subscription is answered");
        assert!(code <= 1, "the sink's subscription is refused");
        Self { arrived, end, thread }
    }

    /// All that arrived.
    #[must_use]
    pub fn arrived(&self) -> Vec<Arrived> {
        lock(&self.arrived).clone()
    }

    /// The numbers that arrived, each where it came first.
    #[must_use]
    pub fn first_arrivals(&self) -> Vec<u64> {
        let mut seen = BTreeSet::new();
        lock(&self.arrived).iter().map(Arrived::number).filter(|n| seen.insert(*n)).collect()
    }

    /// How many messages came, copies included.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.arrived).len()
    }

    /// Waits until all these numbers are there, and judges the order: first arrivals ascend, whatever came twice.
    /// Returns how many copies there were.
    ///
    /// # Panics
    /// When one is missing, or came too late.
    pub fn expect_all_in_order(&self, acked: &[u64]) -> usize {
        let last = acked.last().copied().unwrap_or(0);
        let mut missing = acked.to_vec();
        let deadline = Instant::now() + PATIENCE;
        while !missing.is_empty() {
            let here: BTreeSet<u64> = self.first_arrivals().into_iter().collect();
            missing.retain(|n| !here.contains(n));
            if Instant::now() > deadline {
                let shown = &missing[..missing.len().min(20)];
                panic!(
                    "{} of {} acknowledged messages are lost: {shown:?} … (the last is {last})",
                    missing.len(),
                    acked.len()
                );
            }
            std::thread::sleep(TICK);
        }
        let order = self.first_arrivals();
        if let Some(pair) = order.windows(2).find(|pair| pair[0] >= pair[1]) {
            panic!("the order is lost: {} came before {}", pair[0], pair[1]);
        }
        self.count() - order.len()
    }

    /// Waits for at least one message with this number.
    ///
    /// # Panics
    /// When none comes.
    pub fn wait_number(&self, number: u64) -> Arrived {
        until(&format!("message {number} arrives"), || {
            lock(&self.arrived).iter().find(|a| a.number() == number).cloned()
        })
    }

    /// Waits until `more` further messages came.
    ///
    /// # Panics
    /// When they do not.
    pub fn wait_flow(&self, more: usize) {
        let before = self.count();
        until("messages go on arriving", || (self.count() >= before + more).then_some(()));
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the sink's thread was printed already.
            let _ = thread.join();
        }
    }
}

struct Worker {
    address: SocketAddr,
    login: Login,
    filter: String,
    arrived: Arc<Mutex<Vec<Arrived>>>,
    end: Arc<AtomicBool>,
    granted: Sender<u8>,
}

impl Worker {
    fn run(self) {
        while !self.end.load(Ordering::Relaxed) {
            // The broker is away: try again.
            let _ = self.connection();
            std::thread::sleep(RETRY);
        }
    }

    fn connection(&self) -> io::Result<()> {
        let opened = Conn::open(self.address, &self.login)?;
        let mut conn = opened.map_err(|code| io::Error::other(format!("CONNACK {code}")))?;
        let code = self.subscribe(&mut conn)?;
        // Nobody listens from the second connection on.
        let _ = self.granted.send(code);
        let mut pinged = Instant::now();
        while !self.end.load(Ordering::Relaxed) {
            if pinged.elapsed() > PING_EVERY {
                conn.ping()?;
                pinged = Instant::now();
            }
            if let Some(packet) = conn.next(TICK)? {
                self.take(&mut conn, packet)?;
            }
        }
        conn.bye();
        Ok(())
    }

    /// With a kept session messages may come before the SUBACK.
    fn subscribe(&self, conn: &mut Conn) -> io::Result<u8> {
        conn.ask(&self.filter, 1)?;
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            match conn.next(TICK)? {
                Some(Packet::SubAck(codes)) => return Ok(codes.first().copied().unwrap_or(0x80)),
                Some(packet) => self.take(conn, packet)?,
                None => {}
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    fn take(&self, conn: &mut Conn, packet: Packet) -> io::Result<()> {
        if let Packet::Publish { topic, payload, pkid, retain, dup: _ } = packet {
            lock(&self.arrived).push(Arrived { at: Instant::now(), topic, payload, retain });
            if pkid != 0 {
                conn.ack(pkid)?;
            }
        }
        Ok(())
    }
}

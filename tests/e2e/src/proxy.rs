//! A cable between two processes that can be cut, turned into a black hole, and mended.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often a pump looks at the cable.
const TICK: Duration = Duration::from_millis(10);

/// The state of a cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cable {
    /// Bytes pass.
    Whole,
    /// Connections are closed, and new ones at once.
    Cut,
    /// Connections stand and no byte passes; what was under way passes when the cable is whole again.
    BlackHole,
}

struct Shared {
    cable: Mutex<Cable>,
    streams: Mutex<Vec<TcpStream>>,
    accepted: AtomicUsize,
    end: AtomicBool,
}

/// A proxy in front of one address. Dropping it cuts everything.
pub struct Proxy {
    /// Where clients connect.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// A whole cable to `target`.
    ///
    /// # Panics
    /// When no port can be bound.
    #[must_use]
    pub fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port can be bound");
        let address = listener.local_addr().expect("a bound listener has an address");
        listener.set_nonblocking(true).expect("a listener can be non-blocking");
        let shared = Arc::new(Shared {
            cable: Mutex::new(Cable::Whole),
            streams: Mutex::default(),
            accepted: AtomicUsize::new(0),
            end: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        let thread = Some(std::thread::spawn(move || accepting.accept(&listener, target)));
        Self { address, shared, thread }
    }

    /// Changes the cable.
    pub fn set(&self, cable: Cable) {
        *lock(&self.shared.cable) = cable;
        if cable == Cable::Cut {
            self.shared.cut();
        }
    }

    /// Connections that clients opened so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::Relaxed);
        self.shared.cut();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn cut(&self) {
        for stream in lock(&self.streams).drain(..) {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener, target: SocketAddr) {
        while !self.end.load(Ordering::Relaxed) {
            let Ok((client, _)) = listener.accept() else {
                std::thread::sleep(TICK);
                continue;
            };
            self.accepted.fetch_add(1, Ordering::Relaxed);
            // A client that is gone already, or a target that is not there: the client sees a closed connection.
            let _ = self.connect(client, target);
        }
    }

    fn connect(self: &Arc<Self>, client: TcpStream, target: SocketAddr) -> std::io::Result<()> {
        let cable = lock(&self.cable);
        if *cable == Cable::Cut {
            return Ok(());
        }
        client.set_nonblocking(false)?;
        let server = TcpStream::connect(target)?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(TICK))?;
            lock(&self.streams).push(stream.try_clone()?);
        }
        for (from, to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
            let shared = Arc::clone(self);
            std::thread::spawn(move || shared.pump(from, to));
        }
        Ok(())
    }

    fn wait_whole(&self) {
        while *lock(&self.cable) == Cable::BlackHole && !self.end.load(Ordering::Relaxed) {
            std::thread::sleep(TICK);
        }
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut chunk = [0; 16 * 1024];
        while !self.end.load(Ordering::Relaxed) {
            self.wait_whole();
            let read = match from.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            self.wait_whole();
            if to.write_all(&chunk[..read]).is_err() {
                break;
            }
        }
        for stream in [from, to] {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

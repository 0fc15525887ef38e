//! The API's listener: so many connections and no more, and none that is silent for ever.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// Connections at the same time at the most; further ones wait in the system's backlog.
const MAX_CONNECTIONS: usize = 1_024;
/// How long a connection may be silent in both directions. A stream of events pings more often.
const MAX_SILENCE: Duration = Duration::from_secs(90);

/// A listener with bounds.
pub(crate) struct Bounded {
    listener: TcpListener,
    seats: Arc<Semaphore>,
    max_silence: Duration,
}

impl Bounded {
    pub(crate) fn new(listener: TcpListener) -> Self {
        Self { listener, seats: Arc::new(Semaphore::new(MAX_CONNECTIONS)), max_silence: MAX_SILENCE }
    }
}

impl Listener for Bounded {
    type Io = Seated;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Seated, SocketAddr) {
        // The semaphore lives as long as the listener and is never closed.
        let seat = Arc::clone(&self.seats).acquire_owned().await.expect("nobody closes the semaphore");
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        let silence = Box::pin(tokio::time::sleep(self.max_silence));
        (Seated { stream, silence, max_silence: self.max_silence, _seat: seat }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that has a seat.
pub(crate) struct Seated {
    stream: TcpStream,
    silence: Pin<Box<Sleep>>,
    max_silence: Duration,
    _seat: OwnedSemaphorePermit,
}

impl Seated {
    fn heard(&mut self) {
        let until = Instant::now() + self.max_silence;
        self.silence.as_mut().reset(until);
    }
}

impl AsyncRead for Seated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buf) {
            self.heard();
            return Poll::Ready(read);
        }
        ready!(self.silence.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Seated {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        self.heard();
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn bounded(seats: usize, max_silence: Duration) -> Bounded {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Bounded { listener, seats: Arc::new(Semaphore::new(seats)), max_silence }
    }

    #[tokio::test]
    async fn a_seat_is_free_again_when_its_connection_is_gone() {
        let mut listener = bounded(1, MAX_SILENCE).await;
        let at = listener.local_addr().unwrap();
        let (_one, _two) = (TcpStream::connect(at).await.unwrap(), TcpStream::connect(at).await.unwrap());
        let (first, _) = listener.accept().await;
        let mut second = Box::pin(listener.accept());
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        drop(first);
        tokio::time::timeout(Duration::from_secs(10), second).await.unwrap();
    }

    #[tokio::test]
    async fn silence_ends_a_connection_and_a_word_prolongs_it() {
        let mut listener = bounded(1, Duration::from_millis(200)).await;
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut served, _) = listener.accept().await;
        client.write_all(b"x").await.unwrap();
        assert_eq!(served.read_u8().await.unwrap(), b'x');
        let began = Instant::now();
        let ended = tokio::time::timeout(Duration::from_secs(10), served.read_u8()).await.unwrap();
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= Duration::from_millis(150), "{:?}", began.elapsed());
    }
}

//! The way to a broker: from an address to a stream that MQTT can be spoken over. Names are looked up, an HTTP proxy is asked
//! for a tunnel, TLS is spoken.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tidegate_model::rule::BrokerAddress;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use super::{fault::LinkError, tls::TlsSetup};

/// Largest answer of a proxy to CONNECT, in bytes.
const MAX_PROXY_ANSWER: usize = 8 << 10;

/// Where a broker is, and what is on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Way {
    pub address: BrokerAddress,
    pub proxy: Option<BrokerAddress>,
    pub tls: Option<TlsSetup>,
}

impl Way {
    /// In clear, without a proxy.
    pub fn plain(host: String, port: u16) -> Self {
        Self { address: BrokerAddress { host, port }, proxy: None, tls: None }
    }

    /// Goes it, each part within `limit`.
    pub async fn go(&self, limit: Duration) -> Result<Stream, LinkError> {
        let tcp = match &self.proxy {
            None => connect(&self.address, limit).await?,
            Some(proxy) => self.tunnel(proxy, limit).await?,
        };
        match &self.tls {
            None => Ok(Stream::Plain(tcp)),
            Some(tls) => Ok(Stream::Tls(Box::new(tls.secure(tcp, &self.address.host, limit).await?))),
        }
    }

    /// Why reading failed, in words that know of TLS.
    pub fn explained(&self, error: io::Error) -> LinkError {
        let of_tls = self.tls.as_ref().and_then(|tls| tls.explained(&error, &self.address.host));
        of_tls.unwrap_or(LinkError::Broken(error))
    }

    /// Asks an HTTP proxy for a connection (RFC 9110, section 9.3.6).
    async fn tunnel(&self, proxy: &BrokerAddress, limit: Duration) -> Result<TcpStream, LinkError> {
        let mut stream = connect(proxy, limit).await.map_err(|error| LinkError::Proxy {
            proxy: proxy.to_string(),
            what: error.to_string(),
            refused: false,
        })?;
        let to = &self.address;
        let asked = async {
            stream.write_all(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes()).await?;
            answer(&mut stream).await
        };
        let failed = |what: String, refused| LinkError::Proxy { proxy: proxy.to_string(), what, refused };
        let silent = |_| failed(format!("it did not answer within {} ms", limit.as_millis()), false);
        let answer = timeout(limit, asked).await.map_err(silent)?;
        match status(&answer.map_err(|error| failed(error.to_string(), false))?) {
            Some(200..=299) => Ok(stream),
            Some(407) => Err(failed("it wants a login, which is not supported".to_owned(), true)),
            Some(code @ (401 | 403 | 405)) => {
                Err(failed(format!("it does not permit a connection to {to} ({code})"), true))
            }
            Some(code) => Err(failed(format!("it cannot connect to {to} (HTTP status {code})"), false)),
            None => Err(failed("its answer is not HTTP".to_owned(), false)),
        }
    }
}

/// Reads up to the empty line and nothing behind it, which would belong to the broker.
async fn answer(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= MAX_PROXY_ANSWER {
            return Err(io::Error::other("its answer is too long"));
        }
        answer.push(stream.read_u8().await?);
    }
    Ok(answer)
}

fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    words.next()?.starts_with("HTTP/1.").then_some(())?;
    words.next()?.parse().ok()
}

/// Tries each address of a name for its share of the time: one that swallows packets must not hide the next.
async fn connect(to: &BrokerAddress, limit: Duration) -> Result<TcpStream, LinkError> {
    let started = tokio::time::Instant::now();
    let name = || to.to_string();
    let found = timeout(limit, lookup_host((to.host.as_str(), to.port))).await;
    let found = found.map_err(|_| LinkError::ConnectTimeout { address: name(), after: limit })?;
    let addresses: Vec<_> =
        found.map_err(|source| LinkError::Resolve { host: to.host.clone(), source })?.collect();
    let left = limit.saturating_sub(started.elapsed());
    let share = left / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut last = LinkError::NoAddress { host: to.host.clone() };
    for address in addresses {
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(source)) => last = LinkError::Connect { address: address.to_string(), source },
            Err(_) => last = LinkError::ConnectTimeout { address: address.to_string(), after: share },
        }
    }
    Err(last)
}

/// What MQTT is spoken over.
pub(super) enum Stream {
    /// In clear.
    Plain(TcpStream),
    /// Over TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

/// The two directions of a stream.
pub(super) struct Split {
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// What is written may stay in it until it is flushed.
    pub holds_back: bool,
}

impl Stream {
    /// Parts it, so that it can be read while it is written.
    pub fn split(self) -> Split {
        match self {
            Self::Plain(stream) => {
                let (reader, writer) = stream.into_split();
                Split { reader: Box::new(reader), writer: Box::new(writer), holds_back: false }
            }
            Self::Tls(stream) => {
                let (reader, writer) = tokio::io::split(*stream);
                Split { reader: Box::new(reader), writer: Box::new(writer), holds_back: true }
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

//! As much of an HTTP/1.1 client as a load needs: kept connections, many requests at a time.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Where the API is, and who asks.
#[derive(Debug, Clone)]
pub struct Api {
    /// Its address.
    pub address: SocketAddr,
    /// The administrator's token.
    pub token: String,
}

/// A kept connection.
pub struct Client {
    api: Api,
    stream: TcpStream,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens.
    pub async fn open(api: &Api) -> io::Result<Self> {
        let stream = TcpStream::connect(api.address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { api: api.clone(), stream })
    }

    /// One request; gives status and body.
    ///
    /// # Errors
    /// The connection is gone, or the answer is not of the kind that our controller gives.
    pub async fn call(
        &mut self,
        method: &str,
        path: &str,
        more: &str,
        body: &str,
    ) -> io::Result<(u16, String)> {
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let request = format!(
            "{method} /api/v1{path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {}\r\n{more}{kind}Content-Length: {}\r\n\r\n{body}",
            self.api.token,
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::with_capacity(2_048);
        let (head, length) = loop {
            if self.stream.read_buf(&mut answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
                let length = length.and_then(|value| value.trim().parse::<usize>().ok()).unwrap_or(0);
                answer.drain(..end + 4);
                break (head, length);
            }
        };
        while answer.len() < length {
            if self.stream.read_buf(&mut answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok((status.ok_or(io::ErrorKind::InvalidData)?, String::from_utf8_lossy(&answer).into_owned()))
    }

    /// One request that has to succeed; gives its body.
    ///
    /// # Panics
    /// When it does not.
    pub async fn ok(&mut self, method: &str, path: &str, more: &str, body: &str) -> String {
        let (status, answer) = self.call(method, path, more, body).await.expect("the controller answers");
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }
}

/// Does `work` for each number below `count`, `at_a_time` of them at a time, each on its own kept connection.
///
/// # Panics
/// When the work does.
pub async fn for_each<F, W>(api: &Api, count: usize, at_a_time: usize, work: W)
where
    W: Fn(Client, usize) -> F + Send + Sync + 'static,
    F: Future<Output = Client> + Send,
{
    let (next, work) = (Arc::new(AtomicUsize::new(0)), Arc::new(work));
    let mut tasks = JoinSet::new();
    for _ in 0..at_a_time.min(count) {
        let (next, work) = (Arc::clone(&next), Arc::clone(&work));
        let mut client = Client::open(api).await.expect("the controller listens");
        tasks.spawn(async move {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return;
                }
                client = work(client, index).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("the work does not panic");
    }
}

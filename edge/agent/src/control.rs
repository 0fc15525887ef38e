//! The control socket: somebody on this machine asks the running agent. One JSON object per line each way.
//!
//! The socket lies in the data directory, which only its owner may enter. Decides nothing: the loop answers.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_edge_core::{Drops, FileTrouble, LinkView, LocalAction, LocalAnswer, RuleView, SiteRule};
use tidegate_edge_queue::Queue;
use tidegate_model::code::Code;
use tidegate_model::ids::{EdgeId, RuleName, SessionId};
use tidegate_model::limits::MAX_RULE_TEXT_BYTES;
use tidegate_model::rule::Secret;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::queues::{self, Direction, Dropped, Page, Picture, Selection};
use crate::{clock, rules_dir};

/// Longest line of a request, in bytes: a rule's text as a JSON string, in which a line break takes two bytes.
const MAX_REQUEST_BYTES: u64 = 2 * MAX_RULE_TEXT_BYTES as u64 + 8 * 1024;
/// Longest line of an answer, in bytes: every rule with its counters.
const MAX_ANSWER_BYTES: u64 = 4 << 20;
/// Clients at the same time.
const MAX_CLIENTS: usize = 16;
/// How long a client may take for a request, and the loop for its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the control socket of an agent is.
#[must_use]
pub fn socket_path(data_dir: &Path) -> PathBuf {
    data_dir.join("control.sock")
}

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How the agent is.
    Status,
    /// Its rules.
    Rules,
    /// Run a rule, by name or id.
    Start {
        /// Which.
        rule: String,
    },
    /// Pause a rule, by name or id.
    Stop {
        /// Which.
        rule: String,
    },
    /// Keep and run a rule of this site.
    Apply {
        /// The rule as TOML, without its password.
        rule: Hidden,
        /// Its password.
        password: Option<Hidden>,
        /// The private key of its client certificate.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<Hidden>,
    },
    /// Remove a rule of this site, by name or id.
    Remove {
        /// Which.
        rule: String,
        /// Also if messages wait in its queue.
        discard: bool,
    },
    /// What is in the queues of a rule, by name or id.
    QueueShow {
        /// Which.
        rule: String,
        /// Most messages of each.
        count: usize,
        /// With the beginning of their payloads.
        payload: bool,
    },
    /// A page of the messages of a rule, by name or id.
    QueueRead {
        /// Which.
        rule: String,
        /// Which way they go.
        direction: Direction,
        /// Those that lie aside.
        aside: bool,
        /// From this offset on.
        from: u64,
    },
    /// Give up messages of a rule, by name or id.
    QueueDrop {
        /// Which.
        rule: String,
        /// Which messages.
        selection: Selection,
    },
}

/// The queues of a rule.
#[derive(Debug)]
pub(crate) struct Queues {
    /// The rule's name.
    pub name: String,
    /// Each direction's, where there is one.
    pub queues: Vec<(Direction, Queue)>,
}

/// A text that may be secret: `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hidden(pub String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("******")
    }
}

impl Request {
    /// The request to apply this rule.
    #[must_use]
    pub fn apply(rule: &SiteRule) -> Self {
        let hidden =
            |secret: &Option<Secret>| secret.as_ref().map(|secret| Hidden(secret.reveal().to_owned()));
        let (password, key) = (hidden(&rule.secrets.password), hidden(&rule.secrets.key));
        Self::Apply { rule: Hidden(rule.rule.canonical_toml()), password, key }
    }
}

/// How the agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its name.
    pub edge: EdgeId,
    /// Version of its software.
    pub version: String,
    /// The connection to the controller.
    pub link: LinkView,
    /// The last session that was tried.
    pub session: SessionId,
    /// Address of the controller's broker; `None`: this agent runs alone.
    pub controller: Option<String>,
    /// Why there is no connection to the controller's broker, as it was found last.
    #[serde(default)]
    pub controller_trouble: Option<String>,
    /// Highest controller epoch that was accepted.
    pub controller_epoch: u64,
    /// How far the clock was ahead of the controller's when it answered last, in milliseconds.
    #[serde(default)]
    pub clock_skew_ms: Option<i64>,
    /// Where devices connect: an address of the agent, or the URL of an external broker.
    pub local: String,
    /// How many rules it holds.
    pub rules: usize,
    /// Those whose queue is full and blocks, by name; [`Rules`] tells who waits.
    #[serde(default)]
    pub full_queues: Vec<RuleName>,
    /// Messages of the controller that had no effect.
    pub drops: Drops,
    /// Where the site's own rules stand.
    pub rules_dir: Option<PathBuf>,
    /// Why that directory cannot be read now.
    pub rules_dir_trouble: Option<String>,
    /// How many of its files are in trouble; [`Rules`] tells which.
    pub file_troubles: usize,
}

/// What the agent holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Every rule, by name.
    pub items: Vec<RuleView>,
    /// Files of the rules directory without effect, or not all of it.
    pub file_troubles: Vec<FileTrouble>,
}

/// An answer, one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Rules`].
    Rules(Rules),
    /// A start or stop is on disk; `false`: it was so already.
    Done {
        /// Whether anything changed.
        changed: bool,
    },
    /// To [`Request::QueueShow`].
    Queue(Picture),
    /// To [`Request::QueueRead`].
    Messages(Page),
    /// To [`Request::QueueDrop`].
    Dropped(Dropped),
    /// It is not possible.
    Error {
        /// For programs.
        code: Code,
        /// For people.
        detail: String,
    },
}

/// A question to the loop.
#[derive(Debug)]
pub(crate) enum Ask {
    Status(oneshot::Sender<Reply>),
    Rules(oneshot::Sender<Reply>),
    Queues { rule: String, reply: oneshot::Sender<Option<Queues>> },
    Act { rule: String, action: LocalAction, reply: oneshot::Sender<Reply> },
    Apply { rule: Box<SiteRule>, reply: oneshot::Sender<Reply> },
    Remove { rule: String, discard: bool, reply: oneshot::Sender<Reply> },
}

/// The loop's answer.
#[derive(Debug)]
pub(crate) enum Reply {
    Status(Box<Status>),
    Rules(Rules),
    Acted(LocalAnswer),
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        match reply {
            Reply::Status(status) => Self::Status(status),
            Reply::Rules(rules) => Self::Rules(rules),
            Reply::Acted(LocalAnswer::Done) => Self::Done { changed: true },
            Reply::Acted(LocalAnswer::Already) => Self::Done { changed: false },
            Reply::Acted(LocalAnswer::Refused(why)) => {
                Self::Error { code: why.code(), detail: why.to_string() }
            }
        }
    }
}

/// Serves the socket until it is dropped, and removes it then.
#[derive(Debug)]
pub(crate) struct Server {
    path: PathBuf,
    _stop: DropGuard,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been removed by hand.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Server {
    /// Opens the socket. What an agent that was killed left there is removed: the caller holds the directory's lock.
    pub fn start(path: &Path, asks: mpsc::Sender<Ask>) -> std::io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(accept(listener, asks)));
        Ok(Self { path: path.to_owned(), _stop: stop.drop_guard() })
    }
}

async fn accept(listener: UnixListener, asks: mpsc::Sender<Ask>) {
    let clients = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let Ok(permit) = Arc::clone(&clients).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let asks = asks.clone();
                tokio::spawn(async move {
                    let _permit = permit;
                    if let Err(error) = serve(stream, &asks).await {
                        tracing::debug!(%error, "a client of the control socket went away");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(line.kind = "control-socket", %error, "the control socket does not accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: UnixStream, asks: &mpsc::Sender<Ask>) -> std::io::Result<()> {
    let (reading, mut writing) = stream.into_split();
    let mut lines = tokio::io::BufReader::new(reading);
    loop {
        let mut line = String::new();
        let mut bounded = (&mut lines).take(MAX_REQUEST_BYTES);
        let Ok(Ok(1..)) = tokio::time::timeout(PATIENCE, bounded.read_line(&mut line)).await else {
            return Ok(());
        };
        let answer = match serde_json::from_str(&line) {
            Ok(request) => ask(request, asks).await,
            Err(error) => Answer::Error {
                code: Code::BadMessage,
                detail: format!("the request cannot be read: {error}"),
            },
        };
        let mut bytes = serde_json::to_vec(&answer)?;
        bytes.push(b'\n');
        writing.write_all(&bytes).await?;
        if !line.ends_with('\n') {
            return Ok(());
        }
    }
}

/// Hands the loop a question and waits for the answer; `None`: it came too late.
async fn put<T>(asks: &mpsc::Sender<Ask>, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    tokio::time::timeout(PATIENCE, asks.send(ask(reply))).await.ok()?.ok()?;
    tokio::time::timeout(PATIENCE, answer).await.ok()?.ok()
}

fn busy() -> Answer {
    Answer::Error { code: Code::Busy, detail: "the agent did not answer in time; try again".to_owned() }
}

/// Asks for the queues of a rule, and does something with them that may take its time.
async fn with_queues(
    rule: String,
    asks: &mpsc::Sender<Ask>,
    work: impl FnOnce(Queues) -> Result<Answer, String> + Send + 'static,
) -> Answer {
    let named = rule.clone();
    match put(asks, |reply| Ask::Queues { rule, reply }).await {
        None => busy(),
        Some(None) => {
            let detail = format!("there is no rule '{named}' here; 'tidegate-edge rules' lists them");
            Answer::Error { code: Code::UnknownRule, detail }
        }
        Some(Some(found)) => {
            let done = tokio::task::spawn_blocking(move || work(found)).await;
            done.unwrap_or_else(|error| Err(error.to_string())).unwrap_or_else(|detail| Answer::Error {
                code: Code::NoSpace,
                detail: format!("the disk does not let it: {detail}"),
            })
        }
    }
}

fn show(found: &Queues, count: usize, payload: bool) -> Result<Answer, String> {
    let now_ms = clock::wall().0;
    let all = found.queues.iter().map(|(direction, queue)| {
        queues::picture(*direction, &queue.view(), count, payload, now_ms).map_err(|error| words(&error))
    });
    Ok(Answer::Queue(Picture { rule: found.name.clone(), directions: all.collect::<Result<_, _>>()? }))
}

fn read(found: &Queues, direction: Direction, aside: bool, from: u64) -> Result<Answer, String> {
    let queue = found.queues.iter().find(|(one, _)| *one == direction);
    let page = queue.map(|(_, queue)| queues::page(direction, &queue.view(), aside, from));
    let page = page.transpose().map_err(|error| words(&error))?;
    Ok(Answer::Messages(page.unwrap_or(Page { lines: Vec::new(), next: None })))
}

fn drop_messages(found: &Queues, selection: &Selection) -> Result<Answer, String> {
    let mut all = Dropped::default();
    for (direction, queue) in &found.queues {
        if selection.direction.is_none_or(|wanted| wanted == *direction) {
            all = all + queues::drop_from(queue, selection).map_err(|error| words(&error))?;
        }
    }
    tracing::warn!(rule.name = found.name, messages = all.dropped, "messages are dropped by hand");
    Ok(Answer::Dropped(all))
}

fn words(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

async fn ask(request: Request, asks: &mpsc::Sender<Ask>) -> Answer {
    let (reply, answer) = oneshot::channel();
    let ask = match request {
        Request::Status => Ask::Status(reply),
        Request::Rules => Ask::Rules(reply),
        Request::Start { rule } => Ask::Act { rule, action: LocalAction::Start, reply },
        Request::Stop { rule } => Ask::Act { rule, action: LocalAction::Stop, reply },
        Request::Apply { rule, password, key } => match rules_dir::rule_of(&rule.0, password, key) {
            Ok(rule) => Ask::Apply { rule: Box::new(rule), reply },
            Err(detail) => return Answer::Error { code: Code::InvalidConfig, detail },
        },
        Request::Remove { rule, discard } => Ask::Remove { rule, discard, reply },
        Request::QueueShow { rule, count, payload } => {
            return with_queues(rule, asks, move |found| show(&found, count, payload)).await;
        }
        Request::QueueRead { rule, direction, aside, from } => {
            return with_queues(rule, asks, move |found| read(&found, direction, aside, from)).await;
        }
        Request::QueueDrop { rule, selection } => {
            return with_queues(rule, asks, move |found| drop_messages(&found, &selection)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, asks.send(ask)).await.is_err() {
        return busy();
    }
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(reply)) => reply.into(),
        Ok(Err(_)) | Err(_) => busy(),
    }
}

/// Why an agent could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No agent listens there.
    #[error("no agent answers at {}: {source}; is it running with this data directory?", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The socket belongs to somebody else.
    #[error("not allowed to use {}; run this as the agent's user", path.display())]
    NotAllowed {
        /// The socket.
        path: PathBuf,
    },
    /// It answered too late, or not in our words.
    #[error("the agent gave no answer that could be read: {0}")]
    Answer(std::io::Error),
}

/// Asks the agent that runs on this data directory. Blocks, for 12 s at the most.
///
/// # Errors
/// [`CallError`]: nobody is there, not allowed, or no answer.
pub fn call(data_dir: &Path, request: &Request) -> Result<Answer, CallError> {
    let path = socket_path(data_dir);
    let mut stream = BlockingStream::connect(&path).map_err(|source| {
        if source.kind() == std::io::ErrorKind::PermissionDenied {
            CallError::NotAllowed { path: path.clone() }
        } else {
            CallError::Unreachable { path: path.clone(), source }
        }
    })?;
    let patience = Some(PATIENCE + Duration::from_secs(2));
    let mut exchange = || -> std::io::Result<Answer> {
        stream.set_read_timeout(patience)?;
        stream.set_write_timeout(patience)?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = String::new();
        BufReader::new(&stream).take(MAX_ANSWER_BYTES).read_line(&mut answer)?;
        Ok(serde_json::from_str(&answer)?)
    };
    exchange().map_err(CallError::Answer)
}

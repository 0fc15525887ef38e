//! How both programs write their log: on standard error, as text or as one JSON object per line, and only so much of what
//! a peer can cause.
//!
//! A line that a peer can cause (a device, an edge, a broker of somebody else, an HTTP client) bears the field `line.kind`
//! with a literal that names its kind: `tracing::info!(line.kind = "connection-refused", …)`. Of each kind, [`LINES`] lines are
//! written in a minute; the rest is counted and told in one line at the end of that minute. Where a line also has an
//! `edge.id` or a `rule.id`, each of these has a budget of its own, so that a noisy one does not silence the others. What a
//! line without the field says is written always; lines below `info` always are, where somebody asked for them.
//!
//! The libraries only set the field; which lines are written is decided here: by `budget`, which knows no clock, and
//! `limit`, which asks it.

mod budget;
mod limit;

use std::io::{BufWriter, IsTerminal as _};

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

pub use budget::{LINES, MAX_BUDGETS, WINDOW_MS};
pub use limit::KIND;

/// Lines that wait for standard error at the most; then whoever logs waits, so that none is lost.
const MAX_WAITING_LINES: usize = 16_384;
/// What is written in one piece at the most, in bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// Writes the lines that still wait when it is dropped.
#[must_use = "dropped, it writes what waits, and nothing that comes after it"]
#[derive(Debug)]
pub struct Writing {
    _thread: WorkerGuard,
}

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One flat JSON object per line, so that `edge.id` is found as `."edge.id"`.
    Json,
}

/// Whether a text is a filter that [`start`] can read.
///
/// # Errors
/// What is wrong with it, as words.
pub fn check_filter(filter: &str) -> Result<(), String> {
    EnvFilter::try_new(filter).map(drop).map_err(|error| error.to_string())
}

/// Starts the log of this process; `filter` has the syntax of `RUST_LOG` (`info`, `tidegate=debug`), and one that cannot be
/// read counts as `info`. Only tests start a second one, and the first does.
///
/// Whoever logs does not wait for standard error: a thread of its own writes what has gathered, in one piece. A process that
/// is killed may lose the lines of its last milliseconds.
pub fn start(filter: &str, format: Format) -> Writing {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let (limit, teller) = limit::pair(limit::process_clock());
    let log = tracing_subscriber::registry().with(filter).with(limit);
    let (writer, thread) = NonBlockingBuilder::default()
        .buffered_lines_limit(MAX_WAITING_LINES)
        .lossy(false)
        .thread_name("tidegate-log")
        .finish(BufWriter::with_capacity(PIECE_BYTES, std::io::stderr()));
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let started = match format {
        Format::Text => log.with(lines.with_ansi(std::io::stderr().is_terminal())).try_init(),
        Format::Json => log.with(lines.json().flatten_event(true).with_span_list(false)).try_init(),
    };
    if started.is_ok() {
        teller.start();
    }
    Writing { _thread: thread }
}

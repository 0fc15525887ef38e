//! The log of `serve` and `dev`, on standard error.

use std::io::IsTerminal as _;

use tidegate_cloud::LogFormat;
use tracing_subscriber::EnvFilter;

/// Starts it; `filter` has the syntax of `RUST_LOG` (`info`, `tidegate=debug`). One that cannot be read counts as `info`.
pub fn start(filter: &str, format: LogFormat) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Only tests start a second one, and the first does.
    let _ = match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).try_init(),
        // One flat object per line, so that `edge.id` is found as `."edge.id"`.
        LogFormat::Json => log.json().flatten_event(true).with_span_list(false).try_init(),
    };
}

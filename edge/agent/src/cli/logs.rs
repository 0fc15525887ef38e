//! The log, on standard error: the one place that says how a line is written.

use std::io::IsTerminal as _;

use tidegate_edge::settings::LogFormat;
use tracing_subscriber::EnvFilter;

/// Starts it. The settings have checked the filter.
pub fn start(filter: &str, format: LogFormat) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        // One flat object per line, so that `rule.id` is found as `."rule.id"`.
        LogFormat::Json => log.json().flatten_event(true).with_span_list(false).init(),
    }
}

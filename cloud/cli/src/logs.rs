//! The log of `serve` and `dev`.

use tidegate_cloud::LogFormat;
use tidegate_logs::{Format, Writing};

/// Starts it; `filter` has the syntax of `RUST_LOG` (`info`, `tidegate=debug`).
pub fn start(filter: &str, format: LogFormat) -> Writing {
    let format = match format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    tidegate_logs::start(filter, format)
}

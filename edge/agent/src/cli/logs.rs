//! The agent's log.

use tidegate_edge::settings::LogFormat;
use tidegate_logs::{Format, Writing};

/// Starts it. The settings have checked the filter.
pub fn start(filter: &str, format: LogFormat) -> Writing {
    let format = match format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    tidegate_logs::start(filter, format)
}

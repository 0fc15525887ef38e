//! `tidegate store`: export and import of a controller that does not run.

use tidegate_cloud::{Flags, Settings, backup};

use crate::args::{StoreCommand, TransferArgs};
use crate::failure::{Exit, Failure};
use crate::output::Out;
use crate::output::words::count;

/// Exports or imports.
pub async fn run(out: &Out, command: StoreCommand) -> Result<Exit, Failure> {
    let (args, imports) = match command {
        StoreCommand::Export(args) => (args, false),
        StoreCommand::Import(args) => (args, true),
    };
    let TransferArgs { file, config, data_dir } = args;
    let flags = Flags { data_dir, ..Flags::default() };
    let settings =
        Settings::load(config.as_deref(), &flags).map_err(|error| Failure::Usage(error.to_string()))?;
    let shown = file.display().to_string();
    let done =
        if imports { backup::import(&settings, file).await } else { backup::export(&settings, file).await };
    let summary = done.map_err(|error| Failure::Failed(error.to_string()))?;
    let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    out.note(format_args!(
        "{} {shown}: {}, {}, {}, {} (SHA-256 {})",
        if imports { "imported" } else { "exported to" },
        count(number(summary.counts.rules), "rule", "rules"),
        count(number(summary.counts.versions), "version", "versions"),
        count(number(summary.counts.edges), "edge", "edges"),
        count(number(summary.counts.placements), "placement", "placements"),
        summary.sha256
    ));
    Ok(Exit::Done)
}

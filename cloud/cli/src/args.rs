//! The command line: every command, every flag, and the help that operators read.

mod edge;
mod place;
mod rule;
mod server;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum as _};

pub use edge::{ContextCommand, EdgeCommand};
pub use place::{ActArgs, EventsArgs, Goal, IssueArgs, RunArgs, SyncArgs, WaitArgs, WhenOffline};
pub use rule::{
    ApplyArgs, DiffArgs, ExportFormat, ImportCommand, ListArgs, MosquittoArgs, PlaceArgs, RuleCommand,
    RuleExportArgs,
};
pub use server::{DevArgs, ExportArgs, ImportArgs, LogFormatArg, ServeArgs, StoreArg};

use crate::output::Format;

const EXIT_CODES: &str = "\
Exit codes:
  0  done; diff: no difference        5  conflict: the state forbids it, or someone changed it
  1  failed; diff: differences        6  partly failed (some of several targets)
  2  wrong usage; diff: an error      7  timed out waiting
  3  not found                        8  the server cannot be reached
  4  not signed in, or not allowed    130  interrupted

Try it:
  tidegate dev                        everything on this machine, with a sample rule";

/// Write MQTT sync rules once, issue them to gateways, see what they do.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, about, max_term_width = 100, after_help = EXIT_CODES)]
#[command(disable_help_subcommand = true, arg_required_else_help = true)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command. Flags go before the environment, which goes before the context file.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// URL of the server, such as http://127.0.0.1:7180
    #[arg(long, global = true, env = "TIDEGATE_SERVER", hide_env_values = true, value_name = "URL")]
    pub server: Option<String>,
    /// Token to sign in with; others on this machine see it here, in TIDEGATE_TOKEN or a context they do not
    #[arg(long, global = true, env = "TIDEGATE_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Context to use instead of the current one
    #[arg(long, global = true, env = "TIDEGATE_CONTEXT", hide_env_values = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Form of the output; json and yaml show the API's objects
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
    /// Answer yes to questions; where a name or a number has to be typed, --confirm gives it
    #[arg(short, long, global = true)]
    pub yes: bool,
    /// Never ask; what needs a yes fails without --yes
    #[arg(long, global = true)]
    pub no_input: bool,
    /// Data and errors only
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Tell each call of the server on standard error; twice: with sizes
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// How long to wait at the most: for an answer [default: 30s], with --wait for the end [default: 5m]
    #[arg(long, global = true, value_name = "TIME", value_parser = place::parse_duration)]
    pub timeout: Option<Duration>,
    /// Id of the calls in the server's log, 1 to 64 of a-z, A-Z, 0-9, '-', '_' and '.'
    #[arg(long, global = true, value_name = "ID", value_parser = parse_request_id)]
    pub request_id: Option<String>,
    /// No colours; NO_COLOR does the same
    #[arg(long, global = true)]
    pub no_color: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show totals, what is pending and what is wrong
    #[command(after_help = "Example:\n  tidegate status --watch")]
    Status(WatchArgs),
    /// Write, look at and place rules
    #[command(subcommand, arg_required_else_help = true)]
    Rule(RuleCommand),
    /// Make gateways known, look at them, remove them
    #[command(subcommand, arg_required_else_help = true)]
    Edge(EdgeCommand),
    /// Send a rule to its edges for the first time; it starts straight away
    #[command(after_help = "Examples:
  tidegate issue camera-up --edge gateway-1 --wait
  tidegate issue camera-up --edge gateway-1 --again --yes   overwrite and restart")]
    Issue(IssueArgs),
    /// Send the newer version to edges that have an older one
    #[command(
        after_help = "Of one rule on one edge, sync replaces the older version. For a whole rule (without --edge), an
edge (--edge without a rule) or everything (--all) it brings all that is pending up to date, and
issues what was never issued.

Examples:
  tidegate sync camera-up --edge gateway-1 --wait
  tidegate sync --all --yes --wait"
    )]
    Sync(SyncArgs),
    /// Run what the edge has
    #[command(after_help = "Example:\n  tidegate start camera-up --edge gateway-1")]
    Start(RunArgs),
    /// Pause what the edge has; its queue is kept, also over a restart of the gateway
    #[command(after_help = "Example:\n  tidegate stop camera-up --edge gateway-1 --yes")]
    Stop(RunArgs),
    /// Wait until a rule is issued, running, aligned or stopped
    #[command(
        after_help = "The state is read first, so what is so already ends at once. What cannot come by itself fails at
once, with the reason. aligned: issued everywhere and nothing is pending.

Example:
  tidegate wait camera-up --for running --timeout 2m"
    )]
    Wait(WaitArgs),
    /// Follow what happens, one event per line, until Ctrl-C
    #[command(after_help = "Examples:
  tidegate events -f
  tidegate events -f --topic rule/camera-up -o json")]
    Events(EventsArgs),
    /// Choose which server commands talk to
    #[command(subcommand, arg_required_else_help = true)]
    Context(ContextCommand),
    /// Run the controller
    #[command(
        after_help = "Settings come from the file, then TIDEGATE_* variables, then flags; the later wins.

Example:
  tidegate serve --data-dir /var/lib/tidegate"
    )]
    Serve(ServeArgs),
    /// Try everything on this machine: controller, gateway, remote broker and a sample rule
    #[command(
        after_help = "Everything listens on loopback and stops with Ctrl-C. A second start goes on with the same data.

Example:
  tidegate dev
  tidegate status                     in another terminal"
    )]
    Dev(DevArgs),
    /// Back up everything that a controller holds, while it runs or from its data directory
    #[command(
        after_help = "The file is one moment of the controller, as lines of JSON, with counts and a SHA-256 at its end. It
holds the rules' passwords: it is made with mode 0600, and only once it is whole.

Examples:
  tidegate export --out backup.jsonl                                   of the chosen server
  tidegate export --out backup.jsonl --data-dir /var/lib/tidegate      of a controller that does not run
  tidegate export | age -r KEY > backup.age"
    )]
    Export(ExportArgs),
    /// Fill an empty data directory from such a file
    #[command(
        after_help = "The file is checked as a whole before anything is written; a directory that is in use, or not empty, is
refused. Edges that went on since the export are held until you confirm each one (CLOUD_BEHIND).

Example:
  tidegate import backup.jsonl --data-dir /var/lib/tidegate"
    )]
    Import(ImportArgs),
    /// Check what can be wrong, from here to the gateways; nothing is changed
    #[command(
        after_help = "Exit codes: 0 nothing is bad, 1 something is. A warning is worth a look, and no failure.

Example:
  tidegate doctor -o json"
    )]
    Doctor(DoctorArgs),
    /// Print the completion script of a shell
    #[command(after_help = "Example:\n  tidegate completion bash > /etc/bash_completion.d/tidegate")]
    Completion {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write a manual page for every command
    #[command(after_help = "Example:\n  tidegate man --out /usr/local/share/man/man1")]
    Man {
        /// The directory; it is made if it is missing
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Show the version of this program, and of the server if there is one
    Version,
}

/// What can be shown again and again.
#[derive(Debug, Clone, Copy, Args)]
pub struct WatchArgs {
    /// Show it again with each change, until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
}

/// `doctor`
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Data directory of a controller on this machine, whose disk is checked [default: that of `serve`]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// The format that a command line asks for which cannot be read as a whole: as far as the flag stands in it.
pub fn wanted_format(words: impl IntoIterator<Item = String>) -> Format {
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let value = match word.as_str() {
            "-o" | "--output" => words.next(),
            word => word.strip_prefix("--output=").or_else(|| word.strip_prefix("-o")).map(str::to_owned),
        };
        if let Some(value) = value {
            return Format::from_str(value.trim_start_matches('='), false).unwrap_or_default();
        }
    }
    Format::default()
}

/// An id as the server takes it.
fn parse_request_id(text: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if fits { Ok(text.to_owned()) } else { Err("an id has 1 to 64 letters, digits, '-', '_' and '.'".into()) }
}

#[cfg(test)]
mod tests;

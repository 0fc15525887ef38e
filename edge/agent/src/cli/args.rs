//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tidegate_edge::queues::Direction;
use tidegate_edge::settings::{DATA_DIR_ENV, DEFAULT_DATA_DIR, Flags};
use tidegate_model::rule::Seconds;
use tidegate_model::topic::TopicFilter;

/// The Tidegate agent: runs the sync rules of this gateway.
#[derive(Parser)]
#[command(name = "tidegate-edge", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Run the agent until it is told to stop
    Run(Run),
    /// How the running agent is
    Status(Asking),
    /// The rules of the running agent, and the rule files in trouble
    Rules(Asking),
    /// Run a rule, by name or id
    Start(OneRule),
    /// Pause a rule, by name or id; the cloud shows it as paused (manual)
    Stop(OneRule),
    /// Look for what can be wrong, from the settings to the controller: each line says how it is, why, and what to do
    #[command(after_help = "Give it the settings that the service uses:
  tidegate-edge doctor --config /etc/tidegate/edge.toml

It changes nothing and does not disturb a running agent. It ends with 1 if something is bad.")]
    Doctor(Doctor),
    /// What waits in the queues of a rule, and what was set aside; also while no agent runs
    #[command(subcommand)]
    Queue(Queue),
    /// Rules of this site, beside those of the cloud
    #[command(subcommand)]
    Rule(Rule),
    /// A script that completes commands, for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// The manual page
    Man,
}

#[derive(Subcommand)]
pub enum Queue {
    /// How much waits and for how long, the next messages, and those that were set aside
    Show(ShowQueue),
    /// Write every message as a line of JSON (payload as base64) and remove nothing
    Export(ExportQueue),
    /// Give messages up for ever; what is on its way to the broker stays
    Drop(DropQueue),
}

#[derive(Args)]
pub struct ShowQueue {
    /// Show the beginning of payloads as well
    #[arg(long)]
    pub payload: bool,
    /// Most messages to show of each queue, up to 100
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub count: usize,
    #[command(flatten)]
    pub one: OneRule,
}

#[derive(Args)]
pub struct ExportQueue {
    /// The file (made with mode 0600, replaced if it is there) instead of standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Only this way
    #[arg(long, value_enum)]
    pub direction: Option<Direction>,
    #[command(flatten)]
    pub one: OneRule,
}

#[derive(Args)]
pub struct DropQueue {
    /// Only this way
    #[arg(long, value_enum)]
    pub direction: Option<Direction>,
    /// Only messages that have waited for longer, as in 90s, 1h, 7d
    #[arg(long, value_name = "AGE")]
    pub older_than: Option<Seconds>,
    /// Only messages whose topic at the target matches this filter
    #[arg(long, value_name = "FILTER")]
    pub topic: Option<TopicFilter>,
    /// Those that were set aside, in place of those that wait
    #[arg(long)]
    pub aside: bool,
    /// It is meant
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub one: OneRule,
}

#[derive(Subcommand)]
pub enum Rule {
    /// Keep and run the rule of this file; the agent keeps it, the file is not needed any more
    Apply {
        /// TOML, YAML or JSON, as for `tidegate rule apply`
        file: PathBuf,
        #[command(flatten)]
        asking: Asking,
    },
    /// Remove a rule that was applied here, by name or id
    Remove {
        /// Also if messages wait in its queue: they are lost
        #[arg(long)]
        discard: bool,
        #[command(flatten)]
        one: OneRule,
    },
}

/// What settings come from, in the order in which a later one wins: file, environment, these.
#[derive(Args)]
pub struct Given {
    /// Settings file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Name of this gateway in the cloud
    #[arg(long)]
    name: Option<String>,
    /// The controller's broker, as in mqtt://host:port
    #[arg(long, value_name = "URL")]
    controller_url: Option<String>,
    /// Directory of rule files that run here; with no controller these are all
    #[arg(long = "rules", value_name = "DIR")]
    rules_dir: Option<String>,
    /// Where everything is kept
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Where devices connect, as in 127.0.0.1:1883
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Use this broker for the local side instead of opening one, as in mqtt://user:password@127.0.0.1:1883; better
    /// keep the password out of the command line, in local.password_file
    #[arg(long, value_name = "URL")]
    local_broker: Option<String>,
    /// Where counters are served for Prometheus, as in 127.0.0.1:9790
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<String>,
    /// How log lines are written: text or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

impl Given {
    /// The settings among them.
    pub fn flags(&self) -> Flags {
        Flags {
            name: self.name.clone(),
            controller_url: self.controller_url.clone(),
            data_dir: self.data_dir.clone(),
            listen: self.listen.clone(),
            local_broker: self.local_broker.clone(),
            rules_dir: self.rules_dir.clone(),
            log_format: self.log_format.clone(),
            metrics: self.metrics.clone(),
        }
    }
}

#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    pub given: Given,
    /// Only check the settings and the rule files
    #[arg(long)]
    pub check: bool,
    /// Only print the settings in force, passwords hidden
    #[arg(long)]
    pub print: bool,
}

#[derive(Args)]
pub struct Doctor {
    #[command(flatten)]
    pub given: Given,
    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

#[derive(Args)]
pub struct Asking {
    /// Data directory of the running agent
    #[arg(long, value_name = "DIR", env = DATA_DIR_ENV, default_value = DEFAULT_DATA_DIR)]
    pub data_dir: PathBuf,
    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

#[derive(Args)]
pub struct OneRule {
    /// Name or id of the rule
    pub rule: String,
    #[command(flatten)]
    pub asking: Asking,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
}

//! The commands below `tidegate rule`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::WatchArgs;
use super::place::parse_var;

/// What can be done with rules.
#[derive(Debug, Subcommand)]
pub enum RuleCommand {
    /// Create or change rules from files; what is the same already stays unchanged
    #[command(
        after_help = "A rule is a file in TOML, YAML or JSON; a directory stands for all such files in it, - for
standard input. A change makes a new version and sends nothing: tidegate issue and tidegate sync
do that.

Examples:
  tidegate rule apply -f camera-up.toml -m 'raise QoS'
  tidegate rule apply -f camera-up.toml --place gateway-1"
    )]
    Apply(ApplyArgs),
    /// List rules
    #[command(after_help = "Example:\n  tidegate rule list --issue-state failed")]
    List(ListArgs),
    /// Show a rule and where it stands
    #[command(after_help = "Examples:
  tidegate rule get camera-up
  tidegate rule get camera-up -o json | jq '.placements[].run_state'
  tidegate rule get camera-up --version 5 -o yaml")]
    Get {
        /// The rule
        #[arg(value_name = "RULE")]
        name: String,
        /// Show the content of this version
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "watch")]
        version: Option<u64>,
        /// Again.
        #[command(flatten)]
        watch: WatchArgs,
    },
    /// Check rule files; nothing is saved
    #[command(after_help = "Example:\n  tidegate rule check -f rules/")]
    Check {
        /// File, directory or -
        #[arg(short, long = "file", value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
    /// Say what becomes of a topic on an edge, and which entries overlap or never decide anything
    #[command(after_help = "Examples:
  tidegate rule explain camera-up --edge gateway-1 --topic sensors/door
  tidegate rule explain camera-up --edge gateway-1")]
    Explain {
        /// The rule
        #[arg(value_name = "RULE")]
        name: String,
        /// The edge, whose values of variables count
        #[arg(long, value_name = "EDGE")]
        edge: String,
        /// The topic, as the broker that the message comes from calls it
        #[arg(long, value_name = "TOPIC")]
        topic: Option<String>,
    },
    /// Compare two versions, or a file with what the server has
    #[command(after_help = "Exit codes: 0 no difference, 1 differences, 2 an error.

Examples:
  tidegate rule diff camera-up --from 5 --to 7
  tidegate rule diff -f camera-up.toml")]
    Diff(DiffArgs),
    /// List the versions of a rule
    #[command(after_help = "Example:\n  tidegate rule versions camera-up")]
    Versions {
        /// The rule
        #[arg(value_name = "RULE")]
        name: String,
    },
    /// Make a new version with the content of an old one
    #[command(
        after_help = "Example:\n  tidegate rule restore camera-up --to 5 -m 'the broker refused the topic'"
    )]
    Restore {
        /// The rule
        #[arg(value_name = "RULE")]
        name: String,
        /// The version whose content comes back
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        to: u64,
        /// Why
        #[arg(short = 'm', long, value_name = "TEXT")]
        note: String,
    },
    /// Delete a rule and take it off its edges
    #[command(after_help = "Example:\n  tidegate rule delete camera-up --confirm camera-up")]
    Delete {
        /// The rule
        #[arg(value_name = "RULE")]
        name: String,
        /// Repeat the rule's name, where nobody can be asked
        #[arg(long, value_name = "RULE")]
        confirm: Option<String>,
    },
    /// Write rules to files, or as bridges of mosquitto
    #[command(
        after_help = "Passwords are not exported. For mosquitto, --edge fills in the variables with the values of that edge; what
mosquitto cannot say stands in comments.

Examples:
  tidegate rule export camera-up > camera-up.toml
  tidegate rule export --all --out rules/
  tidegate rule export camera-up --format mosquitto --edge gateway-1"
    )]
    Export(RuleExportArgs),
    /// Make rules of another broker's configuration
    #[command(subcommand, arg_required_else_help = true)]
    Import(ImportCommand),
    /// Put a rule on edges, or change its variables there; nothing is sent before it is issued
    #[command(after_help = "Example:\n  tidegate rule place camera-up --edge gateway-1 --var site=lyon")]
    Place(PlaceArgs),
    /// Take a rule off edges; it stops there
    #[command(after_help = "Example:\n  tidegate rule unplace camera-up --edge gateway-1 --yes")]
    Unplace {
        /// The rule
        #[arg(value_name = "RULE")]
        name: String,
        /// The edge; may be repeated
        #[arg(long = "edge", value_name = "EDGE", required = true)]
        edges: Vec<String>,
    },
}

/// `rule apply`
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// File, directory or -; may be repeated
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// What the change is about; kept with the version
    #[arg(short = 'm', long, value_name = "TEXT")]
    pub note: Option<String>,
    /// Tell what would happen; nothing is saved
    #[arg(long)]
    pub dry_run: bool,
    /// Put the rules on this edge as well; may be repeated
    #[arg(long = "place", value_name = "EDGE")]
    pub place: Vec<String>,
    /// Value of a variable on those edges; may be repeated; NAME= takes it away
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = parse_var, requires = "place")]
    pub vars: Vec<(String, String)>,
}

/// What a rule can be written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// TOML
    Toml,
    /// YAML
    Yaml,
    /// JSON
    Json,
    /// A bridge in mosquitto.conf
    Mosquitto,
}

/// `rule export`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true).args(["names", "all"]))]
pub struct RuleExportArgs {
    /// The rules
    #[arg(value_name = "RULE")]
    pub names: Vec<String>,
    /// All rules
    #[arg(long, conflicts_with = "names")]
    pub all: bool,
    /// As what [default: toml; json or yaml with -o]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<ExportFormat>,
    /// For mosquitto: with the values of this edge
    #[arg(long, value_name = "EDGE")]
    pub edge: Option<String>,
    /// Write one file for each rule into this directory
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// What rules can be made of.
#[derive(Debug, Subcommand)]
pub enum ImportCommand {
    /// Make a rule of each bridge in a mosquitto.conf
    #[command(
        after_help = "Every line of the file is told as mapped, ignored or refused, with the reason. A connection with a refused
line is not imported; the others are.

Examples:
  tidegate rule import mosquitto /etc/mosquitto/mosquitto.conf --dry-run
  tidegate rule import mosquitto bridge.conf --connection cloud"
    )]
    Mosquitto(MosquittoArgs),
}

/// `rule import mosquitto`
#[derive(Debug, Args)]
pub struct MosquittoArgs {
    /// The file, or - for standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Only this connection
    #[arg(long, value_name = "NAME")]
    pub connection: Option<String>,
    /// Show the rules; no server is asked, nothing is saved
    #[arg(long)]
    pub dry_run: bool,
    /// What the change is about; kept with the version
    #[arg(short = 'm', long, value_name = "TEXT")]
    pub note: Option<String>,
}

/// `rule list`
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Rules whose name contains this
    #[arg(value_name = "TEXT")]
    pub q: Option<String>,
    /// Rules with a placement in this issue state
    #[arg(long, value_name = "STATE", value_parser = ["not_issued", "issued", "updates_not_issued", "failed"])]
    pub issue_state: Option<String>,
    /// Rules with a placement in this run state
    #[arg(long, value_name = "STATE", value_parser = ["not_running", "running", "paused_manual", "paused_fault"])]
    pub run_state: Option<String>,
    /// Rules on this edge
    #[arg(long, value_name = "EDGE")]
    pub edge: Option<String>,
    /// Again.
    #[command(flatten)]
    pub watch: WatchArgs,
}

/// `rule diff`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["name", "file"]))]
pub struct DiffArgs {
    /// The rule
    #[arg(value_name = "RULE", requires = "from")]
    pub name: Option<String>,
    /// The older version
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), requires = "name")]
    pub from: Option<u64>,
    /// The newer version; the current one if left out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), requires = "from")]
    pub to: Option<u64>,
    /// Compare this file (or -) with the rule of its name
    #[arg(short, long, value_name = "FILE", conflicts_with = "name")]
    pub file: Option<PathBuf>,
}

/// `rule place`
#[derive(Debug, Args)]
pub struct PlaceArgs {
    /// The rule
    #[arg(value_name = "RULE")]
    pub name: String,
    /// The edge; may be repeated
    #[arg(long = "edge", value_name = "EDGE", required = true)]
    pub edges: Vec<String>,
    /// Value of a variable on these edges; may be repeated; NAME= takes it away, others stay as they are
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = parse_var)]
    pub vars: Vec<(String, String)>,
}

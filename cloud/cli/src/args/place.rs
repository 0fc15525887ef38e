//! The actions, `wait` and `events`.

use std::time::Duration;

use clap::{Args, ValueEnum};

/// What to do with an action for an edge that is offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum WhenOffline {
    /// Refuse it; nothing changes
    #[default]
    Refuse,
    /// Keep it until the edge returns, for 7 days
    Queue,
}

/// What `wait` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Goal {
    /// The edge said that it holds the cloud's version
    Issued,
    /// The rule moves data
    Running,
    /// Issued everywhere, and nothing is pending
    Aligned,
    /// The rule does not run, as was wanted
    Stopped,
}

impl Goal {
    /// The word on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Running => "running",
            Self::Aligned => "aligned",
            Self::Stopped => "stopped",
        }
    }
}

/// What all five actions have in common.
#[derive(Debug, Clone, Args)]
pub struct ActArgs {
    /// For an edge that is offline: refuse, or queue until it returns
    #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
    pub when_offline: WhenOffline,
    /// Wait until the gateway has carried it out, also while the remote broker is away
    #[arg(long)]
    pub wait: bool,
    /// Tell what would happen; nothing is sent
    #[arg(long, conflicts_with = "wait")]
    pub dry_run: bool,
    /// Repeat the number of placements, where more than 50 are meant and nobody can be asked
    #[arg(long, value_name = "NUMBER")]
    pub confirm: Option<String>,
}

/// `issue`
#[derive(Debug, Args)]
pub struct IssueArgs {
    /// The rule
    #[arg(value_name = "RULE")]
    pub rule: String,
    /// The edge; may be repeated; all edges of the rule if left out
    #[arg(long = "edge", value_name = "EDGE")]
    pub edges: Vec<String>,
    /// Create or overwrite on the edge and restart; data flow stops for a moment
    #[arg(long)]
    pub again: bool,
    /// How.
    #[command(flatten)]
    pub act: ActArgs,
}

/// `sync`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("scope").required(true).multiple(true).args(["rule", "edges", "all"]))]
pub struct SyncArgs {
    /// The rule
    #[arg(value_name = "RULE")]
    pub rule: Option<String>,
    /// The edge; may be repeated
    #[arg(long = "edge", value_name = "EDGE")]
    pub edges: Vec<String>,
    /// Everything that is pending
    #[arg(long, conflicts_with_all = ["rule", "edges"])]
    pub all: bool,
    /// How.
    #[command(flatten)]
    pub act: ActArgs,
}

/// `start`, `stop`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The rule
    #[arg(value_name = "RULE")]
    pub rule: String,
    /// The edge; may be repeated; all edges of the rule if left out
    #[arg(long = "edge", value_name = "EDGE")]
    pub edges: Vec<String>,
    /// How.
    #[command(flatten)]
    pub act: ActArgs,
}

/// `wait`
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// The rule
    #[arg(value_name = "RULE")]
    pub rule: String,
    /// The edge; may be repeated; all edges of the rule if left out
    #[arg(long = "edge", value_name = "EDGE")]
    pub edges: Vec<String>,
    /// What to wait for
    #[arg(long = "for", value_enum, value_name = "STATE")]
    pub goal: Goal,
}

/// `events`
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Follow; this is what the command does anyway
    #[arg(short, long)]
    pub follow: bool,
    /// Only these, such as rule/camera-up or edge/gateway-1; may be repeated
    #[arg(long = "topic", value_name = "TOPIC")]
    pub topics: Vec<String>,
}

/// Longest time that can be waited: 31 days.
const MAX_WAIT: Duration = Duration::from_secs(31 * 86_400);

/// `90s`, `5m`, `1h30m`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const HELP: &str = "a time is a number and a unit, such as 90s, 5m or 1h30m";
    let (mut total, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or(HELP)?;
        let number: u64 = rest[..digits].parse().map_err(|_| HELP)?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |i| digits + i);
        let unit = match &rest[digits..unit_end] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3_600),
            "d" => Duration::from_secs(86_400),
            _ => return Err(HELP.into()),
        };
        let part = u32::try_from(number).ok().and_then(|n| unit.checked_mul(n)).ok_or("that is too long")?;
        total = total.checked_add(part).ok_or("that is too long")?;
        rest = &rest[unit_end..];
    }
    if text.is_empty() {
        Err(HELP.into())
    } else if total > MAX_WAIT {
        Err("at most 31d".into())
    } else {
        Ok(total)
    }
}

/// `site=lyon`
pub fn parse_var(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a variable is NAME=VALUE, such as site=lyon".into()),
    }
}

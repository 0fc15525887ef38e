//! The commands below `tidegate edge` and `tidegate context`.

use std::path::PathBuf;

use clap::Subcommand;

use super::WatchArgs;

/// What can be done with edges.
#[derive(Debug, Subcommand)]
pub enum EdgeCommand {
    /// Make a gateway known; its credential is shown once
    #[command(
        after_help = "With --out the agent's settings are written to a file (mode 0600) instead of being shown.

Examples:
  tidegate edge create gateway-1 --mqtt 10.0.0.5:7183
  tidegate edge create gateway-1 --mqtt 10.0.0.5:7183 --out gateway-1.toml"
    )]
    Create {
        /// Its name
        #[arg(value_name = "EDGE")]
        name: String,
        /// Where the gateway reaches the controller's broker; the server's host with the controller's own port if left out
        #[arg(long, value_name = "HOST:PORT")]
        mqtt: Option<String>,
        /// Write the agent's settings to this file
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// List gateways
    #[command(after_help = "Example:\n  tidegate edge list")]
    List(WatchArgs),
    /// Show a gateway and the rules on it
    #[command(after_help = "Example:\n  tidegate edge get gateway-1")]
    Get {
        /// The edge
        #[arg(value_name = "EDGE")]
        name: String,
        /// Again.
        #[command(flatten)]
        watch: WatchArgs,
    },
    /// Go on above what a gateway holds that is ahead of the cloud (CLOUD_BEHIND), once you have looked at what it runs
    #[command(after_help = "Example:\n  tidegate edge get gateway-1\n  tidegate edge confirm gateway-1")]
    Confirm {
        /// The edge
        #[arg(value_name = "EDGE")]
        name: String,
    },
    /// Take a rule off a gateway that a cloud issued and this one has no record of
    #[command(
        after_help = "Such a rule is left by a controller that was restored from an older backup, and by edge remove
--leave-running; edge get shows it. Rules that the site wrote are removed on the gateway.

Example:
  tidegate edge remove-rule gateway-1 camera-up"
    )]
    RemoveRule {
        /// The edge
        #[arg(value_name = "EDGE")]
        name: String,
        /// Name or id of the rule there
        #[arg(value_name = "RULE")]
        rule: String,
    },
    /// Forget a gateway and revoke its credential
    #[command(after_help = "Example:\n  tidegate edge remove gateway-1 --confirm gateway-1")]
    Remove {
        /// The edge
        #[arg(value_name = "EDGE")]
        name: String,
        /// Although rules are on it; they go on running there
        #[arg(long)]
        leave_running: bool,
        /// Repeat the edge's name, where nobody can be asked
        #[arg(long, value_name = "EDGE")]
        confirm: Option<String>,
    },
}

/// What can be done with contexts.
#[derive(Debug, Subcommand)]
pub enum ContextCommand {
    /// List contexts
    List,
    /// Make a context the current one
    #[command(after_help = "Example:\n  tidegate context use dev")]
    Use {
        /// The context
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Show a context; the current one unless named. Tokens are not shown
    Show {
        /// The context
        #[arg(value_name = "NAME")]
        name: Option<String>,
    },
    /// Add or change a context, and make it the current one
    #[command(after_help = "Example:
  tidegate context set lab --server http://10.0.0.5:7180 --token-file ~/lab.token")]
    Set {
        /// The context
        #[arg(value_name = "NAME")]
        name: String,
        /// File that holds the token; it is read at each use
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
    },
}

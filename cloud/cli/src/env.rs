//! The one place of the command line that reads the environment and looks at the terminal.
//!
//! `TIDEGATE_SERVER`, `TIDEGATE_TOKEN` and `TIDEGATE_CONTEXT` are flags' defaults and are read by clap (`args`).

use std::io::IsTerminal;
use std::path::PathBuf;

/// The words of the command line, as far as they are text.
pub fn words() -> impl Iterator<Item = String> {
    std::env::args_os().filter_map(|word| word.into_string().ok())
}

/// What the world around the process says.
#[derive(Debug, Clone, Default)]
pub struct Env {
    /// Where the contexts are kept; `None`: neither XDG_CONFIG_HOME nor HOME is set.
    pub config_file: Option<PathBuf>,
    /// Where `dev` keeps its data unless told otherwise; `None`: neither XDG_DATA_HOME nor HOME is set.
    pub dev_dir: Option<PathBuf>,
    /// Standard input is a terminal.
    pub stdin_tty: bool,
    /// Standard output is a terminal.
    pub stdout_tty: bool,
    /// Standard error is a terminal.
    pub stderr_tty: bool,
    /// NO_COLOR is set.
    pub no_color: bool,
    /// CLICOLOR_FORCE is set.
    pub force_color: bool,
    /// TIDEGATE_LOG: what `serve` and `dev` log.
    pub log: Option<String>,
}

impl Env {
    /// Reads it.
    pub fn read() -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty() && v != "0");
        // The XDG rules: a relative path is ignored.
        let dir = |xdg: &str, below_home: &str| {
            let named = std::env::var_os(xdg).map(PathBuf::from).filter(|p| p.is_absolute());
            let home = std::env::var_os("HOME").filter(|h| !h.is_empty()).map(PathBuf::from);
            named.or_else(|| home.map(|home| home.join(below_home)))
        };
        Self {
            config_file: dir("XDG_CONFIG_HOME", ".config").map(|d| d.join("tidegate/config.toml")),
            dev_dir: dir("XDG_DATA_HOME", ".local/share").map(|d| d.join("tidegate/dev")),
            stdin_tty: std::io::stdin().is_terminal(),
            stdout_tty: std::io::stdout().is_terminal(),
            stderr_tty: std::io::stderr().is_terminal(),
            no_color: set("NO_COLOR"),
            force_color: set("CLICOLOR_FORCE"),
            log: std::env::var("TIDEGATE_LOG").ok().filter(|l| !l.is_empty()),
        }
    }
}

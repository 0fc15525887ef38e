//! `tidegate-edge`: run an agent, or ask the one that runs.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use tidegate_edge::control::{Answer, CallError, Request, Status, call};
use tidegate_edge::settings::{AgentConfig, DATA_DIR_ENV, DEFAULT_DATA_DIR, Flags};
use tidegate_model::code::Code;
use tokio_util::sync::CancellationToken;

/// Exit codes, as the README lists them.
mod exit {
    pub const FAILED: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const NOT_FOUND: u8 = 3;
    pub const NOT_ALLOWED: u8 = 4;
    pub const TIMED_OUT: u8 = 7;
    pub const UNREACHABLE: u8 = 8;
}

/// The Tidegate agent: runs the sync rules of this gateway.
#[derive(Parser)]
#[command(name = "tidegate-edge", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent until it is told to stop
    Run(Run),
    /// How the running agent is
    Status(Asking),
    /// The rules of the running agent
    Rules(Asking),
    /// Run a rule, by name or id
    Start(OneRule),
    /// Pause a rule, by name or id; the cloud shows it as paused (manual)
    Stop(OneRule),
}

#[derive(Args)]
struct Run {
    /// Settings file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Name of this gateway in the cloud
    #[arg(long)]
    name: Option<String>,
    /// The controller's broker, as in mqtt://host:port
    #[arg(long, value_name = "URL")]
    controller_url: Option<String>,
    /// Where everything is kept
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Where devices connect, as in 127.0.0.1:1883
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Only check the settings
    #[arg(long)]
    check: bool,
    /// Only print the settings in force, passwords hidden
    #[arg(long)]
    print: bool,
}

#[derive(Args)]
struct Asking {
    /// Data directory of the running agent
    #[arg(long, value_name = "DIR", env = DATA_DIR_ENV, default_value = DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Args)]
struct OneRule {
    /// Name or id of the rule
    rule: String,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => run(args),
        Command::Status(asking) => ask(&asking, &Request::Status),
        Command::Rules(asking) => ask(&asking, &Request::Rules),
        Command::Start(OneRule { rule, asking }) => ask(&asking, &Request::Start { rule }),
        Command::Stop(OneRule { rule, asking }) => ask(&asking, &Request::Stop { rule }),
    }
}

fn fail(code: u8, why: &dyn std::fmt::Display) -> ExitCode {
    // Nothing can be done about a closed stderr.
    let _ = writeln!(std::io::stderr(), "tidegate-edge: {why}");
    ExitCode::from(code)
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(exit::FAILED),
    }
}

fn run(args: Run) -> ExitCode {
    let Run { config, name, controller_url, data_dir, listen, check, print: only_print } = args;
    let flags = Flags { name, controller_url, data_dir, listen };
    let settings = match AgentConfig::from_process(config.as_deref(), &flags) {
        Ok(settings) => settings,
        Err(error) => return fail(exit::USAGE, &error),
    };
    if only_print {
        return print(&settings.describe());
    }
    if check {
        return print("the settings can be used\n");
    }
    let filter = tracing_subscriber::EnvFilter::try_from_env("TIDEGATE_EDGE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    tidegate_broker::raise_open_files();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(exit::FAILED, &format!("starting the runtime: {error}")),
    };
    let ended = runtime.block_on(async {
        let stop = CancellationToken::new();
        stop_on_signal(&stop)?;
        Box::pin(tidegate_edge::run(settings, stop)).await.map_err(anyhow::Error::from)
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(exit::FAILED, &error),
    }
}

/// SIGINT and SIGTERM stop the agent.
fn stop_on_signal(stop: &CancellationToken) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("told to stop");
        stop.cancel();
    });
    Ok(())
}

fn ask(asking: &Asking, request: &Request) -> ExitCode {
    let answer = match call(&asking.data_dir, request) {
        Ok(answer) => answer,
        Err(error) => {
            let code = match &error {
                CallError::Unreachable { .. } => exit::UNREACHABLE,
                CallError::NotAllowed { .. } => exit::NOT_ALLOWED,
                CallError::Answer(_) => exit::TIMED_OUT,
            };
            return fail(code, &error);
        }
    };
    if let Answer::Error { code, detail } = &answer {
        let exit = if *code == Code::UnknownRule { exit::NOT_FOUND } else { exit::FAILED };
        return fail(exit, detail);
    }
    match asking.output {
        Format::Json => print(&json(&answer)),
        Format::Table => print(&words(&answer)),
    }
}

/// The object itself; a list as `{"items": […]}`.
fn json(answer: &Answer) -> String {
    let value = match answer {
        Answer::Status(status) => serde_json::to_value(status),
        Answer::Rules(rules) => {
            serde_json::to_value(rules).map(|items| serde_json::json!({ "items": items }))
        }
        Answer::Done { changed } => Ok(serde_json::json!({ "changed": changed })),
        Answer::Error { code, detail } => Ok(serde_json::json!({ "code": code, "detail": detail })),
    };
    let value = value.expect("answers have string keys and no failing serializer");
    format!("{value:#}\n")
}

fn words(answer: &Answer) -> String {
    match answer {
        Answer::Status(status) => status_words(status),
        Answer::Rules(rules) if rules.is_empty() => {
            "no rules on this gateway; they are issued from the cloud\n".to_owned()
        }
        Answer::Rules(rules) => {
            let mut table = Table::new();
            table.load_style(presets::NOTHING);
            table.set_header(["RULE", "VERSION", "RUN STATE", "QUEUED", "FORWARDED", "RECEIVED", "REASON"]);
            for rule in rules {
                let version =
                    rule.running.map_or_else(|| "-".to_owned(), |running| running.version.to_string());
                let fault = rule.run.fault.as_ref();
                table.add_row([
                    rule.name.to_string(),
                    version,
                    rule.run.state.to_string(),
                    rule.counters.queued.to_string(),
                    rule.counters.forwarded.to_string(),
                    rule.counters.received.to_string(),
                    fault.map(|fault| format!("{}: {}", fault.code, fault.detail)).unwrap_or_default(),
                ]);
            }
            for column in table.column_iter_mut() {
                column.set_padding((0, 2));
            }
            format!("{}\n", table.trim_fmt())
        }
        Answer::Done { changed: true } => "done\n".to_owned(),
        Answer::Done { changed: false } => "it was so already\n".to_owned(),
        Answer::Error { detail, .. } => format!("{detail}\n"),
    }
}

fn status_words(status: &Status) -> String {
    let link = serde_json::to_value(status.link).ok();
    let link = link.as_ref().and_then(|value| value.as_str()).unwrap_or("unknown").to_owned();
    format!(
        "edge        {} (agent {})\ncontroller  {} ({link})\nsession     {}\nlocal       {}\nrules       {}\n",
        status.edge, status.version, status.controller, status.session, status.local, status.rules
    )
}

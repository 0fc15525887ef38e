//! The `tidegate` command: reads the command line, does what it says, and ends with an exit code.

mod api;
mod args;
mod client;
mod commands;
mod context;
mod dev;
mod env;
mod failure;
mod logs;
mod output;
mod prompt;
mod service;
mod signals;

use std::process::ExitCode;

use clap::Parser;

use crate::failure::Failure;
use crate::output::Format;

/// A controller makes and drops small pieces all the time, on several threads; measured in docs/adr/0016.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return misread(&error),
    };
    let format = cli.global.output;
    let env = env::Env::read();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let failure = Failure::Failed(format!("the program cannot start its threads: {error}"));
            output::complain(format, &failure);
            return failure.exit().into();
        }
    };
    let ended = runtime.block_on(Box::pin(commands::run(cli, &env)));
    // Whatever still runs after a command ended has nothing left to say.
    runtime.shutdown_background();
    match ended {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output::complain(format, &failure);
            failure.exit().into()
        }
    }
}

/// Wrong flags, and --help: clap says what is wrong and ends with 2, or with 0. Programs get it in their form.
fn misread(error: &clap::Error) -> ExitCode {
    let format = args::wanted_format(env::words());
    if !error.use_stderr() || !matches!(format, Format::Json | Format::Yaml) {
        error.exit();
    }
    let said = error.to_string();
    let said = said.trim().strip_prefix("error: ").unwrap_or(&said).to_owned();
    let failure = Failure::Usage(said);
    output::complain(format, &failure);
    failure.exit().into()
}

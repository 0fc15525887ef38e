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

/// A controller makes and drops small pieces all the time, on several threads; measured in docs/adr/0016.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Wrong flags and --help end here: clap says what is wrong and exits with 2, or with 0.
    let cli = args::Cli::parse();
    let env = env::Env::read();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::complain(&format!("the program cannot start its threads: {error}"));
            return failure::Exit::Failed.into();
        }
    };
    let ended = runtime.block_on(Box::pin(commands::run(cli, &env)));
    // Whatever still runs after a command ended has nothing left to say.
    runtime.shutdown_background();
    match ended {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if let Some(text) = failure.text() {
                output::complain(&text);
            }
            failure.exit().into()
        }
    }
}

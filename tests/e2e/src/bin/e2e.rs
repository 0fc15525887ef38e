//! `cargo e2e [--full] [FILTER] [OPTIONS OF THE TEST HARNESS]`: builds the binaries, then runs the end-to-end tests on them.
//!
//! `--full` tries every point of every enumeration and 50 rounds of what is random, where CI takes a sample.

#![allow(clippy::print_stderr, reason = "a command for developers")]

use std::process::{Command, ExitCode};

use tidegate_e2e::full::FULL_ENV;

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let before = args.len();
    args.retain(|arg| arg != "--full");
    let is_full = args.len() < before;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(&cargo);
    build.args(["build", "--workspace", "--bins"]);
    let mut tests = Command::new(&cargo);
    tests.args(["test", "-p", "tidegate-e2e", "--features", "e2e", "--"]).args(&args);
    if is_full {
        tests.env(FULL_ENV, "1");
    }
    for mut command in [build, tests] {
        match command.status() {
            Ok(status) if status.success() => {}
            Ok(status) => {
                return ExitCode::from(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1));
            }
            Err(error) => {
                eprintln!("{command:?}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

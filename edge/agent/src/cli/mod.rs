//! The program around the library: arguments, words, signals, log, service manager.

mod args;
mod ask;
mod doctor;
mod logs;
mod queue;
mod run;
mod service;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use tidegate_edge::control::Request;

use args::{Cli, Command, OneRule, Rule};

/// Exit codes, as docs/operations.md lists them.
mod exit {
    pub const FAILED: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const NOT_FOUND: u8 = 3;
    pub const NOT_ALLOWED: u8 = 4;
    pub const CONFLICT: u8 = 5;
    pub const TIMED_OUT: u8 = 7;
    pub const UNREACHABLE: u8 = 8;
}

/// Does what was typed.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Status(asking) => ask::ask(&asking, &Request::Status),
        Command::Rules(asking) => ask::ask(&asking, &Request::Rules),
        Command::Start(OneRule { rule, asking }) => ask::ask(&asking, &Request::Start { rule }),
        Command::Stop(OneRule { rule, asking }) => ask::ask(&asking, &Request::Stop { rule }),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Queue(command) => queue::queue(&command),
        Command::Rule(Rule::Apply { file, asking }) => match tidegate_edge::read_rule(&file) {
            Ok(rule) => ask::ask(&asking, &Request::apply(&rule)),
            Err(why) => fail(exit::USAGE, &why),
        },
        Command::Rule(Rule::Remove { discard, one: OneRule { rule, asking } }) => {
            ask::ask(&asking, &Request::Remove { rule, discard })
        }
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "tidegate-edge", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
        Command::Man => {
            let mut page = Vec::new();
            match clap_mangen::Man::new(Cli::command()).render(&mut page) {
                Ok(()) => print(&String::from_utf8_lossy(&page)),
                Err(error) => fail(exit::FAILED, &error),
            }
        }
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

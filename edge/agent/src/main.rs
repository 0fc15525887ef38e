//! `tidegate-edge`: run an agent, or ask the one that runs.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}

//! `tidegate completion` and `tidegate man`: what a package installs beside the program, made from the command line itself.

use std::io::Write as _;
use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;
use tidegate_cloud::os;

use crate::args::Cli;
use crate::failure::{Exit, Failure};
use crate::output::Out;

/// Prints the completion script of a shell.
pub fn completion(shell: Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tidegate", &mut script);
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&script)?;
    stdout.flush()?;
    Ok(Exit::Done)
}

/// Writes a page for every command.
pub fn man(out: &Out, dir: &Path) -> Result<Exit, Failure> {
    let made = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Cli::command(), dir));
    made.map_err(|error| {
        Failure::Failed(format!("the pages cannot be written to {}: {}", dir.display(), os::plain(&error)))
    })?;
    let shown = dir.display();
    let text = format_args!("the pages are in {shown}; man -l {shown}/tidegate.1 shows the first");
    out.done(&serde_json::json!({ "dir": dir }), &shown.to_string(), text)?;
    Ok(Exit::Done)
}

//! The help of every command, as it is printed: a change of it is seen in review.

use clap::{CommandFactory as _, Parser as _};

use super::{Cli, Format, wanted_format};

/// The help of a command and of all below it.
fn help(command: &mut clap::Command, path: &str, into: &mut String) {
    into.push_str(&format!("$ {path} --help\n{}\n\n", command.render_long_help()));
    let names: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    for name in names {
        if let Some(below) = command.find_subcommand_mut(&name) {
            help(below, &format!("{path} {name}"), into);
        }
    }
}

#[test]
fn the_help_of_every_command() {
    let mut command = Cli::command().term_width(100);
    command.build();
    let mut text = String::new();
    help(&mut command, "tidegate", &mut text);
    insta::assert_snapshot!("help", text);
}

#[test]
fn the_definitions_are_sound() {
    Cli::command().debug_assert();
}

#[test]
fn wrong_flags_end_with_2_and_say_which() {
    for wrong in [
        &["tidegate", "dev", "--prot", "1"][..],
        &["tidegate", "wait", "r"],
        &["tidegate", "wait", "r", "--for", "happy"],
        &["tidegate", "sync"],
        &["tidegate", "rule", "diff", "r"],
        &["tidegate", "issue", "r", "--timeout", "soon"],
    ] {
        let error = Cli::try_parse_from(wrong).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{wrong:?}");
    }
    let error = Cli::try_parse_from(["tidegate", "dev", "--prot", "1"]).unwrap_err().to_string();
    assert!(error.contains("--prot"), "{error}");
}

#[test]
fn the_form_of_an_error_is_known_where_the_command_line_is_wrong() {
    let wanted = |line: &str| wanted_format(line.split(' ').map(str::to_owned));
    for line in ["x -o json", "x -ojson frob", "-o=json x", "x --output json", "x --output=json"] {
        assert_eq!(wanted(line), Format::Json, "{line}");
    }
    for line in ["x", "x -o", "x -o xml", "x --out json"] {
        assert_eq!(wanted(line), Format::Table, "{line}");
    }
}

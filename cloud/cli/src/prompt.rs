//! Asks before something is done that hurts: tier 1 a yes, tier 2 the name. Where nobody can be asked, a flag answers.

use std::io::{BufRead, Write};

use crate::failure::Failure;
use crate::output::Out;

/// Tier 1: `question` is a whole sentence that ends with a question mark. Goes on only after a yes.
///
/// # Errors
/// [`Failure::Usage`] where nobody can be asked and `yes` is not given; [`Failure::Failed`] after a no.
pub fn confirm(out: &Out, question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !out.can_ask() {
        return Err(Failure::Usage(format!("{question} Nobody can be asked here: pass --yes to do it")));
    }
    let answer = ask(&format!("{question} [y/N] "))?;
    match answer.to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::Failed("nothing was changed".into())),
    }
}

/// Tier 2: goes on only when `expected` was typed or given with `--confirm`. `effect` says what would happen.
///
/// # Errors
/// [`Failure::Usage`] when another text was given or nobody can be asked; [`Failure::Failed`] after a wrong answer.
pub fn confirm_by_name(out: &Out, effect: &str, expected: &str, given: Option<&str>) -> Result<(), Failure> {
    match given {
        Some(given) if given == expected => return Ok(()),
        Some(given) => {
            return Err(Failure::Usage(format!(
                "--confirm says '{given}', but it has to repeat '{expected}'; nothing was changed"
            )));
        }
        None => {}
    }
    if !out.can_ask() {
        return Err(Failure::Usage(format!(
            "{effect} Nobody can be asked here: pass --confirm {expected} to do it"
        )));
    }
    let answer = ask(&format!("{effect}\nType {expected} to go on: "))?;
    if answer == expected { Ok(()) } else { Err(Failure::Failed("nothing was changed".into())) }
}

fn ask(question: &str) -> Result<String, Failure> {
    let mut stderr = std::io::stderr().lock();
    write!(stderr, "{question}")?;
    stderr.flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    #[test]
    fn where_nobody_can_be_asked_a_flag_is_needed() {
        let out = Out::plain(Format::Table);
        assert!(confirm(&out, "Stop it?", true).is_ok());
        let refused = confirm(&out, "Stop it?", false).unwrap_err();
        assert_eq!(refused.exit().number(), 2);
        assert!(refused.to_string().contains("--yes"), "{refused}");

        assert!(confirm_by_name(&out, "It goes.", "gw", Some("gw")).is_ok());
        let wrong = confirm_by_name(&out, "It goes.", "gw", Some("other")).unwrap_err();
        assert!(wrong.to_string().contains("'other'") && wrong.to_string().contains("'gw'"), "{wrong}");
        let none = confirm_by_name(&out, "It goes.", "gw", None).unwrap_err();
        assert!(none.to_string().contains("--confirm gw"), "{none}");
    }
}

//! `tidegate doctor`: what a user can get wrong, checked from here to the gateways. Each line says how it is, why, and what to
//! do. Nothing is changed.

mod fleet;
mod here;
mod server;

use comfy_table::{Cell, Color};
use serde_json::json;

use crate::args::{DoctorArgs, Global};
use crate::env::Env;
use crate::failure::{Exit, Failure};
use crate::output::{Out, finish, table};

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Ok,
    /// It works, but somebody should know.
    Warn,
    /// It does not work.
    Bad,
    /// What it needs did not work.
    Skipped,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Skipped => "skipped",
        }
    }
}

/// One line.
#[derive(Debug, Clone)]
struct Check {
    name: &'static str,
    result: Outcome,
    why: String,
    fix: String,
}

impl Check {
    fn ok(name: &'static str, why: impl Into<String>) -> Self {
        Self { name, result: Outcome::Ok, why: why.into(), fix: String::new() }
    }

    fn warn(name: &'static str, why: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, result: Outcome::Warn, why: why.into(), fix: fix.into() }
    }

    fn bad(name: &'static str, why: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, result: Outcome::Bad, why: why.into(), fix: fix.into() }
    }

    fn skipped(name: &'static str, why: impl Into<String>) -> Self {
        Self { name, result: Outcome::Skipped, why: why.into(), fix: String::new() }
    }
}

/// Checks everything; ends with 1 if something does not work.
pub async fn doctor(global: &Global, env: &Env, args: &DoctorArgs) -> Result<Exit, Failure> {
    let out = super::out(global, env);
    let mut checks = Vec::new();
    let client = here::client(global, env, &mut checks);
    match &client {
        Some(client) => {
            if server::reachable(client, &mut checks).await && server::signed_in(client, &mut checks).await {
                fleet::all(client, &mut checks).await;
            } else {
                checks.push(Check::skipped("edges", "the server does not let us in"));
            }
        }
        None => checks.push(Check::skipped("server", "there is no server to ask")),
    }
    here::disk(client.as_ref(), args.data_dir.as_deref(), &mut checks);
    show(&out, &checks)?;
    let bad = checks.iter().filter(|check| check.result == Outcome::Bad).count();
    Ok(if bad == 0 { Exit::Done } else { Exit::Failed })
}

fn show(out: &Out, checks: &[Check]) -> Result<(), Failure> {
    let items: Vec<_> = checks
        .iter()
        .map(|c| json!({ "check": c.name, "result": c.result.as_str(), "why": c.why, "fix": c.fix }))
        .collect();
    let rows = |_| {
        let mut rows = table(out, &["CHECK", "RESULT", "WHY", "WHAT TO DO"]);
        for check in checks {
            rows.add_row(vec![
                Cell::new(check.name),
                cell(out, check.result),
                Cell::new(&check.why),
                Cell::new(&check.fix),
            ]);
        }
        Ok(finish(rows))
    };
    let not_ok = || {
        let troubled = checks.iter().filter(|c| matches!(c.result, Outcome::Warn | Outcome::Bad));
        troubled.map(|check| check.name.to_owned()).collect()
    };
    out.show(&json!({ "items": items }), rows, not_ok)
}

fn cell(out: &Out, result: Outcome) -> Cell {
    let cell = Cell::new(result.as_str());
    if !out.colour() {
        return cell;
    }
    cell.fg(match result {
        Outcome::Ok => Color::Green,
        Outcome::Warn => Color::Yellow,
        Outcome::Bad => Color::Red,
        Outcome::Skipped => Color::DarkGrey,
    })
}

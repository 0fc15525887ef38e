//! `tidegate doctor`: what a user can get wrong, checked from here to the gateways. Each line says how it is, why, and what to
//! do. Nothing is changed.

mod fleet;
mod here;
mod server;
#[cfg(test)]
mod tests;

use comfy_table::{Cell, Color};
use serde_json::json;
use tidegate_model::doctor::{Check, Outcome, any_bad};

use crate::args::{DoctorArgs, Global};
use crate::env::Env;
use crate::failure::{Exit, Failure};
use crate::output::{Out, finish, table};

/// Checks everything; ends with 1 if something does not work.
pub async fn doctor(global: &Global, env: &Env, args: &DoctorArgs) -> Result<Exit, Failure> {
    let out = super::out(global, env);
    let mut checks = Vec::new();
    let client = here::client(global, env, &mut checks);
    match &client {
        Some(client) => {
            if !server::reachable(client, &mut checks).await {
                checks.push(Check::skipped("edges", "the server cannot be asked"));
            } else if !server::signed_in(client, &mut checks).await {
                checks.push(Check::skipped("edges", "the server does not let us in"));
            } else {
                fleet::all(client, &mut checks).await;
            }
        }
        None => checks.push(Check::skipped("server", "there is no server to ask")),
    }
    here::disk(client.as_ref(), args.data_dir.as_deref(), &mut checks);
    show(&out, &checks)?;
    Ok(if any_bad(&checks) { Exit::Failed } else { Exit::Done })
}

fn show(out: &Out, checks: &[Check]) -> Result<(), Failure> {
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
    let not_ok =
        || checks.iter().filter(|check| check.is_trouble()).map(|check| check.name.to_owned()).collect();
    out.show(&json!({ "items": checks }), rows, not_ok)
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

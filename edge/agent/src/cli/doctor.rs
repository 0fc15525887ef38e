//! `tidegate-edge doctor`: looks, and prints what was found.

use std::process::ExitCode;

use comfy_table::{Table, presets};
use tidegate_model::doctor::{Check, any_bad};

use super::args::{Doctor, Format};
use super::{ask, exit, fail, print};

pub fn doctor(Doctor { given, output }: &Doctor) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(exit::FAILED, &format!("starting the runtime: {error}")),
    };
    let flags = given.flags();
    let looking = tidegate_edge::doctor::examine(given.config.as_deref(), &flags);
    let checks = runtime.block_on(Box::pin(looking));
    let printed = match output {
        Format::Json => print(&format!("{:#}\n", serde_json::json!({ "items": checks }))),
        Format::Table => print(&table(&checks)),
    };
    if any_bad(&checks) { ExitCode::from(exit::FAILED) } else { printed }
}

fn table(checks: &[Check]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["CHECK", "RESULT", "WHY", "WHAT TO DO"]);
    for Check { name, result, why, fix } in checks {
        table.add_row([*name, result.as_str(), why, fix]);
    }
    ask::finish(table)
}

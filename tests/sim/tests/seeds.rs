//! Thousands of worlds, each from its seed, and what really happened in them.
//!
//! `TIDEGATE_SIM_SEEDS` says how many, `TIDEGATE_SIM_FIRST` from which on. `cargo sim` runs more of them, faster.

use tidegate_sim::many::{ENOUGH_FAILURES, run_many};
use tidegate_sim::step::{At, Step};
use tidegate_sim::table::Row;
use tidegate_sim::{Coverage, Script};

const SEEDS: u64 = 2_000;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// What must have happened in the standard seeds, beside every kind of step and every row of the table.
const HAPPENED: [&str; 24] = [
    "CLOUD_BEHIND is raised",
    "DUPLICATE_EDGE is raised",
    "a backup of an edge comes back",
    "a backup of the controller comes back",
    "a birth comes late",
    "a commit of an agent fails: its disk is full",
    "a commit of the controller fails: its disk is full",
    "a message is copied",
    "a message is lost",
    "a queued action expires",
    "a remote broker changes during a probe",
    "a request is rehearsed",
    "a request is sent again and was done",
    "a rule that needs more than the agent can is refused",
    "a will is published",
    "a will or bye comes late",
    "an agent crashes after a commit",
    "an agent crashes before a commit",
    "an operator confirms an edge that is ahead",
    "one of two gateways with one identity goes",
    "the broker ends with the controller",
    "the controller crashes after a commit",
    "the controller crashes before a commit",
    "two gateways have one identity",
];

#[test]
fn every_seed_keeps_the_invariants_and_everything_really_happens() {
    let first = setting("TIDEGATE_SIM_FIRST").unwrap_or(1);
    let count = setting("TIDEGATE_SIM_SEEDS").unwrap_or(SEEDS);
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let (total, failures) = run_many(first, count, threads, ENOUGH_FAILURES, &|_, _| {});
    let text: Vec<String> = failures.iter().map(ToString::to_string).collect();
    assert!(text.is_empty(), "{} seeds failed\n{}", text.len(), text.join("\n\n"));
    if count >= SEEDS {
        everything_happened(first, &total.coverage);
    }
    eprintln!("settled at most {} s after the last fault", total.settled_after_ms / 1_000);
}

/// Every kind of step that a script can draw, every row of the table of protocol.md section 6, and what they bring about.
fn everything_happened(first: u64, coverage: &Coverage) {
    let drawn: std::collections::BTreeSet<&str> = (first..first + SEEDS)
        .flat_map(|seed| Script::of(seed).steps.into_iter().map(|At(_, step)| Step::kind(&step)))
        .collect();
    assert!(drawn.len() > 50, "{drawn:?}");
    let wanted = drawn.into_iter().chain(Row::NAMES).chain(HAPPENED);
    let missing: Vec<&str> = wanted.filter(|what| coverage.of(what) == 0).collect();
    assert!(missing.is_empty(), "never happened: {missing:?}\n{coverage}");
}

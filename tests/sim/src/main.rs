//! `cargo sim`: many seeds of the simulated world, optimised.
//!
//! `TIDEGATE_SIM_FIRST` (1) is the first seed, `TIDEGATE_SIM_SEEDS` (100,000) how many, `TIDEGATE_SIM_THREADS` (2) on how
//! many threads; `TIDEGATE_SIM_SEED` runs one alone. `TIDEGATE_SIM_FAILURES` (3) is after how many failing seeds it stops.
//! Ends with 1 if a seed failed.

#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::process::ExitCode;
use std::time::Instant;

use tidegate_sim::Failure;
use tidegate_sim::many::{ENOUGH_FAILURES, run_many};

/// Seeds between two lines of progress.
const PROGRESS_EVERY: u64 = 10_000;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

fn main() -> ExitCode {
    let (first, count) = match setting("TIDEGATE_SIM_SEED") {
        Some(seed) => (seed, 1),
        None => {
            (setting("TIDEGATE_SIM_FIRST").unwrap_or(1), setting("TIDEGATE_SIM_SEEDS").unwrap_or(100_000))
        }
    };
    let number = |name| setting(name).and_then(|n| usize::try_from(n).ok());
    let threads = number("TIDEGATE_SIM_THREADS").unwrap_or(2);
    let enough = number("TIDEGATE_SIM_FAILURES").unwrap_or(ENOUGH_FAILURES);
    let began = Instant::now();
    let progress = |done: u64, failed: Option<&Failure>| {
        if let Some(failure) = failed {
            println!("{failure}\n");
        }
        if done.is_multiple_of(PROGRESS_EVERY) {
            let seconds = began.elapsed().as_secs_f64();
            println!("{done} of {count} seeds in {seconds:.0} s, {:.0} per s", done as f64 / seconds);
        }
    };
    let (total, failures) = run_many(first, count, threads, enough, &progress);
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "seeds {first} to {}: {} kept every invariant, {} failed, {seconds:.1} s\n{} inputs, {} sets, {} inventories; everything was settled at most {} s after the last fault\nwhat happened how often:\n{}",
        first + count.saturating_sub(1),
        total.runs,
        failures.len(),
        total.steps,
        total.sets,
        total.inventories,
        total.settled_after_ms / 1_000,
        total.coverage,
    );
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

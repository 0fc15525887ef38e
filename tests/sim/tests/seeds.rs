//! Thousands of worlds, each from its seed.
//!
//! `TIDEGATE_SIM_SEEDS` says how many, `TIDEGATE_SIM_FIRST` from which on, `TIDEGATE_SIM_SEED` runs one alone.

use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_sim::{Failure, Stats, run};

const SEEDS: u64 = 2_000;
/// Failing seeds after which no more are tried.
const ENOUGH_FAILURES: usize = 3;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn every_seed_keeps_the_invariants() {
    let (first, count) = match setting("TIDEGATE_SIM_SEED") {
        Some(seed) => (seed, 1),
        None => (setting("TIDEGATE_SIM_FIRST").unwrap_or(1), setting("TIDEGATE_SIM_SEEDS").unwrap_or(SEEDS)),
    };
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let (mut total, mut failures) = (Stats::default(), Vec::<Failure>::new());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let (mut total, mut failures) = (Stats::default(), Vec::new());
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= first + count || failures.len() >= ENOUGH_FAILURES {
                            return (total, failures);
                        }
                        match run(seed) {
                            Ok(stats) => add(&mut total, &stats),
                            Err(failure) => failures.push(*failure),
                        }
                    }
                })
            })
            .collect();
        for worker in workers {
            let (stats, failed) = worker.join().expect("a core panicked: see above");
            add(&mut total, &stats);
            failures.extend(failed);
        }
    });
    let text: Vec<String> = failures.iter().map(ToString::to_string).collect();
    assert!(text.is_empty(), "{} seeds failed\n{}", text.len(), text.join("\n\n"));
    assert!(total.sets > 0 && total.inventories > 0, "nothing happened: {total:?}");
    eprintln!("{count} seeds: {total:?}");
}

fn add(total: &mut Stats, stats: &Stats) {
    total.steps += stats.steps;
    total.sets += stats.sets;
    total.inventories += stats.inventories;
    total.crashes += stats.crashes;
}

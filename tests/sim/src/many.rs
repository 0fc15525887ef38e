//! Many seeds on several threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::run::{Failure, Stats, run};

/// Failing seeds after which no more are tried, if nothing else is asked for: each is cut down to what it needs, which
/// takes its time.
pub const ENOUGH_FAILURES: usize = 3;

/// Runs `count` seeds from `first` on, on so many threads, until `enough` of them failed; tells `progress` after each seed
/// how many are done, and how it failed.
pub fn run_many(
    first: u64,
    count: u64,
    threads: usize,
    enough: usize,
    progress: &(dyn Fn(u64, Option<&Failure>) + Sync),
) -> (Stats, Vec<Failure>) {
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let failures = Mutex::new(Vec::new());
    let worker = || {
        let mut total = Stats::default();
        loop {
            let nth = next.fetch_add(1, Ordering::Relaxed);
            let failed = failures.lock().expect("no thread panics while it holds it").len();
            if nth >= count || failed >= enough {
                return total;
            }
            let ended = run(first + nth);
            progress(
                done.fetch_add(1, Ordering::Relaxed) + 1,
                ended.as_ref().err().map(|failure| &**failure),
            );
            match ended {
                Ok(stats) => total.add(&stats),
                Err(failure) => failures.lock().expect("no thread panics while it holds it").push(*failure),
            }
        }
    };
    let mut total = Stats::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            total.add(&worker.join().expect("a run catches its panics"));
        }
    });
    (total, failures.into_inner().expect("no thread panics while it holds it"))
}

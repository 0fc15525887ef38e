//! Stands before the lines and asks the budgets; a thread of its own tells what was kept back.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::budget::{Budgets, Key, Rest, Verdict};

/// The field that marks a line as one that a peer can cause; its value, a literal, is the kind.
pub const KIND: &str = "line.kind";
/// Fields that name whom such a line is about: each has a budget of its own.
const ABOUT: [&str; 2] = ["edge.id", "rule.id"];

/// Milliseconds since some moment; never goes back.
pub(crate) type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Milliseconds since this call.
pub(crate) fn process_clock() -> Clock {
    let began = Instant::now();
    Arc::new(move || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX))
}

struct Shared {
    clock: Clock,
    budgets: Mutex<Budgets>,
    /// Something was kept back.
    kept: Condvar,
}

impl Shared {
    fn budgets(&self) -> MutexGuard<'_, Budgets> {
        self.budgets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps back the lines that are beyond their budget.
pub(crate) struct Limit(Arc<Shared>);

/// Tells how many were kept back.
pub(crate) struct Teller(Arc<Shared>);

/// Both, over one set of budgets.
pub(crate) fn pair(clock: Clock) -> (Limit, Teller) {
    let shared = Arc::new(Shared { clock, budgets: Mutex::default(), kept: Condvar::new() });
    (Limit(Arc::clone(&shared)), Teller(shared))
}

impl<S: Subscriber> Layer<S> for Limit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let about = event.metadata();
        // Lines below info are written because somebody asked for them.
        if *about.level() > Level::INFO || about.fields().field(KIND).is_none() {
            return true;
        }
        let mut mark = Mark::default();
        event.record(&mut mark);
        let Mark { kind, about: of } = mark;
        let key = Key { kind, about: of };
        let verdict = self.0.budgets().ask(key, *about.level() <= Level::WARN, (self.0.clock)());
        if verdict == Verdict::KeepFirst {
            self.0.kept.notify_one();
        }
        verdict == Verdict::Write
    }
}

/// What a line says of its kind.
#[derive(Default)]
struct Mark {
    kind: String,
    about: Option<String>,
}

impl Visit for Mark {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == KIND {
            value.clone_into(&mut self.kind);
        } else if ABOUT.contains(&field.name()) {
            self.about.get_or_insert_with(|| value.to_owned());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A number or a flag is no name, and the line itself is none of our business.
        if ABOUT.contains(&field.name()) {
            self.about.get_or_insert_with(|| format!("{value:?}"));
        }
    }
}

impl Teller {
    /// Tells it for as long as the process lives, from a thread of its own.
    pub(crate) fn start(self) {
        let thread = std::thread::Builder::new().name("log".to_owned());
        if let Err(error) = thread.spawn(move || self.run()) {
            tracing::warn!(%error, "no thread for the log: how many lines were kept back is not told");
        }
    }

    fn run(&self) {
        loop {
            self.wait();
            self.tell();
        }
    }

    /// Returns when a minute is over of which something was kept back.
    fn wait(&self) {
        let mut budgets = self.0.budgets();
        loop {
            let now = (self.0.clock)();
            budgets = match budgets.next() {
                Some(at) if at <= now => return,
                Some(at) => {
                    let waited = self.0.kept.wait_timeout(budgets, Duration::from_millis(at - now));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.0.kept.wait(budgets).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Tells what is over.
    fn tell(&self) {
        // Not under the lock: what is told goes through the same layer.
        let over = self.0.budgets().over((self.0.clock)());
        for Rest { key: Key { kind, about }, lines, is_warning } in over {
            let of = if kind.is_empty() { "several kinds".to_owned() } else { kind };
            let about = about.as_deref();
            if is_warning {
                tracing::warn!(line.of = of, line.about = about, "{lines} more like this in the last minute");
            } else {
                tracing::info!(line.of = of, line.about = about, "{lines} more like this in the last minute");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicU64, Ordering};

    use tracing_subscriber::EnvFilter;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::budget::{LINES, WINDOW_MS};

    /// Lines in memory.
    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Paper {
        fn lines(&self) -> Vec<String> {
            let text = String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap();
            text.lines().map(|line| line.trim().to_owned()).collect()
        }
    }

    /// Runs `log` with the limit over a clock that it moves, at this filter.
    fn with_log(filter: &str, log: impl FnOnce(&AtomicU64, &Teller, &Paper)) {
        let time = Arc::new(AtomicU64::new(0));
        let clock = Arc::clone(&time);
        let (limit, teller) = pair(Arc::new(move || clock.load(Ordering::Relaxed)));
        let paper = Paper::default();
        let writer = paper.clone();
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).without_time().with_target(false);
        let lines = lines.with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(EnvFilter::new(filter)).with(limit).with(lines);
        tracing::subscriber::with_default(subscriber, || log(&time, &teller, &paper));
    }

    #[test]
    fn a_flood_of_one_kind_is_ten_lines_and_one_that_counts_the_rest() {
        with_log("info", |time, teller, paper| {
            for n in 0..LINES + 37 {
                tracing::info!(line.kind = "flood", n, "somebody knocks");
            }
            let lines = paper.lines();
            assert_eq!(lines.len(), LINES as usize, "{lines:?}");
            assert_eq!(lines[0], "INFO somebody knocks line.kind=\"flood\" n=0");
            teller.tell();
            assert_eq!(paper.lines(), Vec::<String>::new(), "the minute is not over");
            time.store(WINDOW_MS, Ordering::Relaxed);
            teller.tell();
            assert_eq!(paper.lines(), ["INFO 37 more like this in the last minute line.of=\"flood\""]);
            tracing::info!(line.kind = "flood", "again");
            assert_eq!(paper.lines().len(), 1);
        });
    }

    #[test]
    fn each_edge_and_each_rule_has_its_own_budget_and_warnings_are_told_as_such() {
        with_log("info", |time, teller, paper| {
            for _ in 0..=LINES {
                tracing::warn!(line.kind = "state", edge.id = %"gw-1", "it changed");
                tracing::info!(line.kind = "state", rule.id = Some("r1"), "it changed");
                tracing::info!(line.kind = "state", edge.id = None::<&str>, "it changed");
            }
            assert_eq!(paper.lines().len(), 3 * LINES as usize);
            time.store(WINDOW_MS, Ordering::Relaxed);
            teller.tell();
            let lines = paper.lines();
            assert_eq!(lines.len(), 3, "{lines:?}");
            assert!(lines.contains(
                &"WARN 1 more like this in the last minute line.of=\"state\" line.about=\"gw-1\"".to_owned()
            ));
        });
    }

    #[test]
    fn what_no_peer_causes_is_written_always_and_so_is_debug_where_it_was_asked_for() {
        with_log("debug", |_, _, paper| {
            for _ in 0..5 * LINES {
                tracing::info!("the operator did something");
                tracing::debug!(line.kind = "flood", "a message");
            }
            assert_eq!(paper.lines().len(), 10 * LINES as usize);
        });
        with_log("warn", |time, teller, paper| {
            for _ in 0..5 * LINES {
                tracing::info!(line.kind = "flood", "not even asked for");
            }
            time.store(WINDOW_MS, Ordering::Relaxed);
            teller.tell();
            assert_eq!(paper.lines(), Vec::<String>::new(), "what is filtered out is not kept back");
        });
    }

    #[test]
    fn the_thread_wakes_for_what_was_kept_back() {
        let time = Arc::new(AtomicU64::new(0));
        let clock = Arc::clone(&time);
        let (limit, teller) = pair(Arc::new(move || clock.load(Ordering::Relaxed)));
        let key = Key { kind: "flood".to_owned(), about: None };
        let waiting = std::thread::spawn(move || teller.wait());
        for _ in 0..=LINES {
            if limit.0.budgets().ask(key.clone(), false, 0) == Verdict::KeepFirst {
                time.store(WINDOW_MS, Ordering::Relaxed);
                limit.0.kept.notify_one();
            }
        }
        waiting.join().expect("it returns");
    }
}

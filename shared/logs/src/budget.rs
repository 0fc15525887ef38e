//! How many lines of a kind may be written: a pure count over the time that the caller gives.
//!
//! A budget is a minute that begins with its first line. What comes beyond [`LINES`] is kept back and counted. When the
//! minute is over, the count is given out once ([`Budgets::over`]), and the next line begins a new minute. As long as nobody
//! fetched the count, what comes is added to it: nothing is written twice or lost from the count.

use std::collections::BTreeMap;

/// Lines of one budget that are written in one [`WINDOW_MS`].
pub const LINES: u32 = 10;
/// How long a budget lasts, in milliseconds.
pub const WINDOW_MS: u64 = 60_000;
/// Budgets at a time. A kind whose edge or rule finds none shares that of the kind, and a kind that finds none the last one.
pub const MAX_BUDGETS: usize = 256;

/// Of which kind a line is, and about whom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// The kind; empty: all those for which there is no budget left.
    pub(crate) kind: String,
    /// The edge or the rule; `None`: of nobody in particular.
    pub(crate) about: Option<String>,
}

/// What was kept back of a budget that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rest {
    pub(crate) key: Key,
    /// How many lines; at least 1.
    pub(crate) lines: u64,
    /// Whether one of them was a warning or an error.
    pub(crate) is_warning: bool,
}

#[derive(Debug, Clone)]
struct Budget {
    began: u64,
    written: u32,
    kept_back: u64,
    is_warning: bool,
}

impl Budget {
    fn is_over(&self, now: u64) -> bool {
        now.saturating_sub(self.began) >= WINDOW_MS
    }
}

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is written.
    Write,
    /// It is counted, as the first of its budget: there is something to tell from now on.
    KeepFirst,
    /// It is counted.
    Keep,
}

/// All budgets that last, at most [`MAX_BUDGETS`] and the one of the kinds for which there is none.
#[derive(Debug, Default)]
pub(crate) struct Budgets {
    open: BTreeMap<Key, Budget>,
}

impl Budgets {
    /// A line of this kind is about to be written, at `now` milliseconds.
    pub(crate) fn ask(&mut self, key: Key, is_warning: bool, now: u64) -> Verdict {
        let key = self.budget_for(key, now);
        let fresh = Budget { began: now, written: 0, kept_back: 0, is_warning: false };
        let budget = self.open.entry(key).or_insert_with(|| fresh.clone());
        if budget.is_over(now) && budget.kept_back == 0 {
            *budget = fresh;
        }
        if budget.written < LINES && budget.kept_back == 0 {
            budget.written += 1;
            return Verdict::Write;
        }
        budget.kept_back = budget.kept_back.saturating_add(1);
        budget.is_warning |= is_warning;
        if budget.kept_back == 1 { Verdict::KeepFirst } else { Verdict::Keep }
    }

    /// The key whose budget a line uses: its own where there is room for one.
    fn budget_for(&mut self, key: Key, now: u64) -> Key {
        if self.open.contains_key(&key) {
            return key;
        }
        if self.open.len() >= MAX_BUDGETS {
            // Nothing is lost with one that is over and kept nothing back.
            self.open.retain(|_, budget| !budget.is_over(now) || budget.kept_back > 0);
        }
        // The last places are for the kinds: there are fewer of them than of edges and rules.
        let room = if key.about.is_some() { MAX_BUDGETS / 2 } else { MAX_BUDGETS };
        if self.open.len() < room {
            return key;
        }
        match key.about {
            Some(_) => self.budget_for(Key { about: None, ..key }, now),
            None => Key { kind: String::new(), about: None },
        }
    }

    /// The budgets that are over and kept something back, with what they kept. They end with it.
    pub(crate) fn over(&mut self, now: u64) -> Vec<Rest> {
        let over = self.open.extract_if(.., |_, budget| budget.is_over(now));
        over.filter(|(_, budget)| budget.kept_back > 0)
            .map(|(key, budget)| Rest { key, lines: budget.kept_back, is_warning: budget.is_warning })
            .collect()
    }

    /// When the first of the budgets that kept something back is over, in milliseconds; `None`: there is none.
    pub(crate) fn next(&self) -> Option<u64> {
        let waiting = self.open.values().filter(|budget| budget.kept_back > 0);
        waiting.map(|budget| budget.began.saturating_add(WINDOW_MS)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: &str) -> Key {
        Key { kind: kind.to_owned(), about: None }
    }

    fn about(kind: &str, about: &str) -> Key {
        Key { kind: kind.to_owned(), about: Some(about.to_owned()) }
    }

    fn written(budgets: &mut Budgets, key: &Key, lines: u32, now: u64) -> u32 {
        (0..lines).map(|_| u32::from(budgets.ask(key.clone(), false, now) == Verdict::Write)).sum()
    }

    #[test]
    fn the_budget_is_written_and_one_more_is_kept_back() {
        let mut budgets = Budgets::default();
        assert_eq!(written(&mut budgets, &key("a"), LINES, 5), LINES);
        assert_eq!(budgets.next(), None, "nothing was kept back");
        assert_eq!(budgets.ask(key("a"), false, 6), Verdict::KeepFirst);
        assert_eq!(budgets.ask(key("a"), false, 7), Verdict::Keep);
        assert_eq!(budgets.next(), Some(5 + WINDOW_MS));
    }

    #[test]
    fn a_minute_lasts_until_its_last_millisecond_and_no_longer() {
        let mut budgets = Budgets::default();
        written(&mut budgets, &key("a"), LINES, 1_000);
        // Nothing was kept back: the next minute begins by itself.
        assert_eq!(written(&mut budgets, &key("a"), 1, 999 + WINDOW_MS), 0);
        let mut budgets = Budgets::default();
        written(&mut budgets, &key("a"), LINES, 1_000);
        assert_eq!(written(&mut budgets, &key("a"), LINES + 1, 1_000 + WINDOW_MS), LINES);
    }

    #[test]
    fn what_was_kept_back_is_told_once_when_the_minute_is_over() {
        let mut budgets = Budgets::default();
        written(&mut budgets, &key("a"), LINES + 37, 0);
        assert_eq!(budgets.over(WINDOW_MS - 1), []);
        let rest = Rest { key: key("a"), lines: 37, is_warning: false };
        assert_eq!(budgets.over(WINDOW_MS), [rest]);
        assert_eq!(budgets.over(WINDOW_MS), []);
        assert_eq!(budgets.next(), None);
        assert_eq!(written(&mut budgets, &key("a"), LINES + 1, WINDOW_MS), LINES, "a new minute");
    }

    #[test]
    fn what_comes_before_the_count_was_fetched_is_added_to_it() {
        let mut budgets = Budgets::default();
        written(&mut budgets, &key("a"), LINES + 1, 0);
        assert_eq!(budgets.ask(key("a"), true, 3 * WINDOW_MS), Verdict::Keep);
        let rest = Rest { key: key("a"), lines: 2, is_warning: true };
        assert_eq!(budgets.over(3 * WINDOW_MS), [rest]);
    }

    #[test]
    fn kinds_and_those_whom_they_are_about_do_not_silence_each_other() {
        let mut budgets = Budgets::default();
        for of in [about("a", "gw-1"), about("a", "gw-2"), about("b", "gw-1"), key("a")] {
            assert_eq!(written(&mut budgets, &of, LINES + 1, 0), LINES, "{of:?}");
        }
    }

    #[test]
    fn there_are_never_more_budgets_than_the_bound_and_nothing_is_lost_from_the_count() {
        let mut budgets = Budgets::default();
        let mut shown = 0;
        let crowd = u32::try_from(4 * MAX_BUDGETS).unwrap();
        for n in 0..crowd {
            shown += written(&mut budgets, &about("edge", &format!("gw-{n}")), 2, 7);
            shown += written(&mut budgets, &key(&format!("kind-{n}")), 2, 7);
            assert!(budgets.open.len() <= MAX_BUDGETS + 1, "{}", budgets.open.len());
        }
        let rests = budgets.over(7 + WINDOW_MS);
        let kept: u64 = rests.iter().map(|rest| rest.lines).sum();
        assert_eq!(u64::from(shown) + kept, u64::from(crowd) * 4);
        assert!(rests.iter().any(|rest| rest.key == key("edge")), "the kind's own budget");
        assert!(rests.iter().any(|rest| rest.key == key("")), "the last one");
        assert_eq!(budgets.open.len(), 0);
    }

    #[test]
    fn budgets_that_are_over_make_room() {
        let mut budgets = Budgets::default();
        for n in 0..MAX_BUDGETS {
            written(&mut budgets, &key(&format!("kind-{n}")), 1, 0);
        }
        assert_eq!(written(&mut budgets, &key("new"), LINES + 1, WINDOW_MS), LINES);
        assert!(budgets.open.contains_key(&key("new")));
    }

    #[test]
    fn a_clock_that_stands_or_goes_back_ends_no_minute() {
        let mut budgets = Budgets::default();
        written(&mut budgets, &key("a"), LINES + 1, 1_000_000);
        assert_eq!(budgets.over(0), []);
        assert_eq!(written(&mut budgets, &key("a"), 5, 0), 0);
        assert_eq!(budgets.over(1_000_000 + WINDOW_MS)[0].lines, 6);
    }
}

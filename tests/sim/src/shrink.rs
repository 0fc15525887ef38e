//! Cuts a failing run down: first to the shortest prefix of its steps that still fails in the same way, then step by
//! step, then in its weather, so that a person can read what is left.

use crate::network::Weather;
use crate::run::play;
use crate::script::Script;
use crate::step::At;

/// Most runs that are spent on one failure.
const MAX_TRIES: u32 = 4_000;

/// The shortest script that was found to fail in the same way.
#[must_use]
pub fn shrink(script: &Script, what: &str) -> Script {
    let kind = kind_of(what);
    let mut tries = 0;
    shrink_by(script, &mut |script| {
        tries += 1;
        tries <= MAX_TRIES && play(script, false).is_err_and(|failure| kind_of(&failure.what) == kind)
    })
}

/// A failure without its names and numbers: the same sentence about another rule is the same failure.
fn kind_of(what: &str) -> String {
    let word = |word: &str| !word.contains(|c: char| c.is_ascii_digit());
    what.split_whitespace().filter(|w| word(w)).collect::<Vec<_>>().join(" ")
}

/// The shortest script that was found to fail, where `fails` tells which do.
pub fn shrink_by(script: &Script, fails: &mut dyn FnMut(&Script) -> bool) -> Script {
    let mut found = Shortest { script: script.clone(), fails };
    for length in 0..script.steps.len() {
        if found.changed(|candidate| candidate.steps.truncate(length)) {
            break;
        }
    }
    found.drop_single_steps();
    // Then in everything else that makes it hard to read; the storm may end with its last step.
    found.changed(|s| s.calm_at = s.steps.last().map_or(s.calm_at, |At(at, _)| at + 1));
    found.changed(|s| s.weather = Weather::CALM);
    found.changed(|s| s.weather.loss = 0);
    found.changed(|s| s.weather.copies = 0);
    found.changed(|s| s.weather.delay_ms = 0);
    found.changed(|s| s.embedded = false);
    found.changed(|s| s.newer_cloud = false);
    found.changed(|s| s.gone = None);
    found.drop_single_steps();
    found.script
}

/// The shortest script that fails, as far as is known.
struct Shortest<'a> {
    script: Script,
    fails: &'a mut dyn FnMut(&Script) -> bool,
}

impl Shortest<'_> {
    /// Keeps the change if the script still fails with it.
    fn changed(&mut self, change: impl FnOnce(&mut Script)) -> bool {
        let mut candidate = self.script.clone();
        change(&mut candidate);
        let kept = candidate != self.script && (self.fails)(&candidate);
        if kept {
            self.script = candidate;
        }
        kept
    }

    /// Without each single step, the last ones first, until none can be missed.
    fn drop_single_steps(&mut self) {
        loop {
            let before = self.script.steps.len();
            for nth in (0..before).rev() {
                self.changed(|candidate| {
                    candidate.steps.remove(nth);
                });
            }
            if self.script.steps.len() == before {
                return;
            }
        }
    }
}

//! The gateway's clock: queues give up messages by their age, and people read its times.

use std::path::Path;
use std::time::UNIX_EPOCH;

use tidegate_model::doctor::Check;

use super::span;
use crate::clock;
use crate::control::Status;

/// 2025-01-01: no gateway ran this software before.
const FLOOR_MS: i64 = 1_735_689_600_000;
/// How far behind what it wrote itself a clock may be, in milliseconds.
const BEHIND_MS: i64 = 60_000;
/// How far from the controller's it may be, in milliseconds.
const SKEW_MS: u64 = 30_000;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    /// What the clock says.
    now_ms: i64,
    /// When the agent's store was last written.
    written_ms: Option<i64>,
    /// How far the clock was from the controller's at the last welcome.
    skew_ms: Option<i64>,
}

/// Looks at the clock and at what was written by it.
pub(super) fn look(data_dir: &Path, status: Option<&Status>) -> Times {
    let written = std::fs::metadata(data_dir.join("store/db")).and_then(|found| found.modified()).ok();
    let written = written.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    Times {
        now_ms: clock::wall().0,
        written_ms: written.and_then(|at| i64::try_from(at.as_millis()).ok()),
        skew_ms: status.and_then(|status| status.clock_skew_ms),
    }
}

/// Judges it.
pub(super) fn judge(Times { now_ms, written_ms, skew_ms }: &Times) -> Check {
    const NAME: &str = "clock";
    let fix = "let NTP set the clock (timedatectl set-ntp true, or chrony)";
    if *now_ms < FLOOR_MS {
        let why = "it was not set: it stands before 2025, so messages are given up too late or too early";
        return Check::bad(NAME, why, fix);
    }
    if let Some(written) = written_ms.filter(|written| now_ms.saturating_add(BEHIND_MS) < *written) {
        let behind = span(written.abs_diff(*now_ms));
        return Check::warn(
            NAME,
            format!("it is {behind} behind what the agent wrote last: it was set back"),
            fix,
        );
    }
    match skew_ms {
        Some(skew) if skew.unsigned_abs() > SKEW_MS => {
            let (off, where_to) = (span(skew.unsigned_abs()), if *skew < 0 { "behind" } else { "ahead of" });
            Check::warn(NAME, format!("it is {off} {where_to} the controller's"), fix)
        }
        Some(_) => Check::ok(NAME, "in step with the controller's"),
        None => Check::ok(NAME, "it was set; how far it is from the controller's is not known"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::told::result;
    use super::*;
    use tidegate_model::doctor::Outcome;

    #[test]
    fn a_clock_is_judged_at_its_bounds() {
        let at = FLOOR_MS + 1_000_000;
        let skew = i64::try_from(SKEW_MS).unwrap();
        for (now_ms, written_ms, skew_ms, expected) in [
            (FLOOR_MS - 1, None, None, Outcome::Bad),
            (FLOOR_MS, None, None, Outcome::Ok),
            (at, Some(at + BEHIND_MS), None, Outcome::Ok),
            (at, Some(at + BEHIND_MS + 1), None, Outcome::Warn),
            (at, Some(0), Some(skew), Outcome::Ok),
            (at, Some(0), Some(skew + 1), Outcome::Warn),
            (at, Some(0), Some(-skew - 1), Outcome::Warn),
        ] {
            let times = Times { now_ms, written_ms, skew_ms };
            assert_eq!(result(&judge(&times)), expected, "{times:?}");
        }
        let behind = judge(&Times { now_ms: at, written_ms: None, skew_ms: Some(-120_000) });
        assert_eq!(behind.why, "it is 2 min behind the controller's");
    }
}

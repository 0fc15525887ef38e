//! What a `doctor` command tells: one line per check, the same shape in both programs. Looks at nothing itself.

use serde::Serialize;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It works.
    Ok,
    /// It works, but somebody should know.
    Warn,
    /// It does not work.
    Bad,
    /// It was not looked at: what it needs did not work, or is not there.
    Skipped,
}

impl Outcome {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Skipped => "skipped",
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    #[serde(rename = "check")]
    pub name: &'static str,
    /// How it is.
    pub result: Outcome,
    /// Why that is so, for people; without secrets.
    pub why: String,
    /// What to do; empty where nothing is to be done.
    pub fix: String,
}

impl Check {
    /// It works.
    pub fn ok(name: &'static str, why: impl Into<String>) -> Self {
        Self { name, result: Outcome::Ok, why: why.into(), fix: String::new() }
    }

    /// It works, but somebody should know.
    pub fn warn(name: &'static str, why: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, result: Outcome::Warn, why: why.into(), fix: fix.into() }
    }

    /// It does not work.
    pub fn bad(name: &'static str, why: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, result: Outcome::Bad, why: why.into(), fix: fix.into() }
    }

    /// It was not looked at.
    pub fn skipped(name: &'static str, why: impl Into<String>) -> Self {
        Self { name, result: Outcome::Skipped, why: why.into(), fix: String::new() }
    }

    /// Whether somebody should know of it.
    #[must_use]
    pub fn is_trouble(&self) -> bool {
        match self.result {
            Outcome::Warn | Outcome::Bad => true,
            Outcome::Ok | Outcome::Skipped => false,
        }
    }
}

/// Whether something does not work: the command then ends with 1.
#[must_use]
pub fn any_bad(checks: &[Check]) -> bool {
    checks.iter().any(|check| check.result == Outcome::Bad)
}

/// How much room a disk needs, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Below it writes are about to fail.
    pub little: u64,
    /// Below it somebody should look soon.
    pub some: u64,
}

impl Room {
    /// Whether `free` bytes are enough at `place`; `fix` is what to do where they are not.
    #[must_use]
    pub fn judge(self, free: u64, place: &str, fix: &str) -> Check {
        let why = format!("{} MiB are free for {place}", free >> 20);
        if free < self.little {
            Check::bad("disk", why, fix)
        } else if free < self.some {
            Check::warn("disk", why, fix)
        } else {
            Check::ok("disk", why)
        }
    }
}

/// At most `limit` of these names, and whether there are more.
#[must_use]
pub fn named(names: &[&str], limit: usize) -> String {
    let more = if names.len() > limit { ", …" } else { "" };
    format!("{}{more}", names.iter().take(limit).copied().collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_judged_at_its_bounds() {
        let room = Room { little: 100, some: 200 };
        for (free, result) in
            [(99, Outcome::Bad), (100, Outcome::Warn), (199, Outcome::Warn), (200, Outcome::Ok)]
        {
            let check = room.judge(free, "/data", "free space");
            assert_eq!(check.result, result, "{free}");
            assert_eq!(check.fix.is_empty(), result == Outcome::Ok, "who warns says what to do");
        }
        assert_eq!(room.judge(5 << 20, "/data", "").why, "5 MiB are free for /data");
    }

    #[test]
    fn a_line_is_one_flat_object() {
        let line = serde_json::to_value(Check::warn("disk", "little", "free some")).unwrap();
        let shape =
            serde_json::json!({ "check": "disk", "result": "warn", "why": "little", "fix": "free some" });
        assert_eq!(line, shape);
        for outcome in [Outcome::Ok, Outcome::Warn, Outcome::Bad, Outcome::Skipped] {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.as_str());
        }
    }

    #[test]
    fn only_what_does_not_work_is_bad() {
        let fine = [Check::ok("a", "x"), Check::warn("b", "x", "y"), Check::skipped("c", "x")];
        assert!(!any_bad(&fine));
        assert!(any_bad(&[Check::ok("a", "x"), Check::bad("b", "x", "y")]));
        assert_eq!(fine.iter().filter(|check| check.is_trouble()).count(), 1);
    }

    #[test]
    fn names_are_cut_at_their_bound() {
        assert_eq!(named(&["a", "b"], 2), "a, b");
        assert_eq!(named(&["a", "b", "c"], 2), "a, b, …");
        assert_eq!(named(&[], 2), "");
    }
}

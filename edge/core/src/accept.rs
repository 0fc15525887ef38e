//! Which sets are attempted, and whether their target can be taken at all. Pure functions; they change nothing.

use tidegate_model::code::Code;
use tidegate_model::digest::Digest;
use tidegate_model::limits::{MAX_RENDERED_BYTES, MAX_SECRETS_PER_RULE};
use tidegate_model::rule::{EdgeRule, is_unsupported};
use tidegate_model::version::Generation;
use tidegate_model::wire::{Config, SecretValue, Set};

use crate::policy::Policy;
use crate::record::{Held, RuleRecord};

/// What is known of a rule, a removed one included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub generation: Generation,
    pub want: Digest,
    /// How that generation ended; `None`: under way.
    pub ended: Option<Code>,
}

/// What to do with a set, by its generation and `want` alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reception {
    /// A newer one was accepted.
    Stale,
    /// The same number with another content.
    Conflict,
    /// It ended already: the same answer again.
    AnswerAgain,
    /// It is being carried out.
    UnderWay,
    /// It is new, or worth another try.
    Attempt,
}

/// Decides by generation and `want` (protocol.md section 4).
pub(crate) fn receive(known: Option<Known>, set: &Set) -> Reception {
    let Some(known) = known else { return Reception::Attempt };
    if set.generation < known.generation {
        return Reception::Stale;
    }
    if set.generation > known.generation {
        return Reception::Attempt;
    }
    if set.want != known.want {
        return Reception::Conflict;
    }
    match known.ended {
        None => Reception::UnderWay,
        // What was missing may be in this set: the controller sends the bytes at the same generation.
        Some(code) if code.is_transient() || code == Code::MissingDependency => Reception::Attempt,
        Some(_) => Reception::AnswerAgain,
    }
}

/// Why a target cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub code: Code,
    pub detail: String,
}

fn refuse<T>(code: Code, detail: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, detail: detail.into() })
}

/// Checks a target up to the point where only running it can tell more: what is to be held, and what its bytes say.
pub(crate) fn check_target(
    set: &Set,
    record: Option<&RuleRecord>,
    policy: &Policy,
) -> Result<(Held, EdgeRule), Refusal> {
    if set.secrets.len() > MAX_SECRETS_PER_RULE {
        return refuse(Code::BadMessage, format!("more than {MAX_SECRETS_PER_RULE} secrets"));
    }
    let held_here = || held(record);
    let bytes = match &set.config {
        Config::Bytes(bytes) => {
            if bytes.len() > MAX_RENDERED_BYTES {
                let size = bytes.len();
                return refuse(
                    Code::TooLarge,
                    format!("the rendered rule has {size} bytes; at most {MAX_RENDERED_BYTES} are allowed"),
                );
            }
            if Digest::of(bytes.as_bytes()) != set.target.digest {
                return refuse(
                    Code::BadMessage,
                    "the digest of the rendered rule is not the one that the set names",
                );
            }
            bytes.clone()
        }
        Config::Keep => match held_here().find(|held| held.target.digest == set.target.digest) {
            Some(held) => held.bytes.clone(),
            None => {
                let digest = set.target.digest.short();
                return refuse(
                    Code::MissingDependency,
                    format!("this edge holds no rendered rule with digest {digest}"),
                );
            }
        },
    };
    let rule = EdgeRule::from_rendered(&bytes).or_else(|problems| {
        let code =
            if problems.iter().any(is_unsupported) { Code::UnsupportedField } else { Code::InvalidConfig };
        let listed: Vec<String> = problems.iter().take(5).map(ToString::to_string).collect();
        refuse(code, listed.join("; "))
    })?;
    if let Some(why) = policy.refusal(&rule) {
        return refuse(Code::PolicyDenied, why);
    }
    let mut secrets = Vec::new();
    for wanted in rule.remote.secrets() {
        let is_it = |s: &&SecretValue| s.id == wanted.id && s.version == wanted.version;
        let found =
            set.secrets.iter().find(is_it).or_else(|| held_here().flat_map(|h| &h.secrets).find(is_it));
        match found {
            Some(secret) => secrets.push(secret.clone()),
            None => {
                let what =
                    format!("the secret '{}' in version {} is not on this edge", wanted.id, wanted.version);
                return refuse(Code::MissingDependency, what);
            }
        }
    }
    Ok((Held { target: set.target, bytes, secrets }, rule))
}

/// What is held of a rule: the candidate first, then what is committed.
fn held(record: Option<&RuleRecord>) -> impl Iterator<Item = &Held> {
    let candidate = record.and_then(|r| r.candidate.as_ref()).map(|c| &c.held);
    let committed = record.and_then(|r| r.committed.as_ref());
    candidate.into_iter().chain(committed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_model::ids::{RuleId, RuleName};
    use tidegate_model::placement::VersionDigest;
    use tidegate_model::version::RuleVersion;
    use tidegate_model::wire::DesiredRun;

    fn set(generation: u64, want: &[u8]) -> Set {
        Set {
            rule: RuleId(uuid::Uuid::nil()),
            name: RuleName::new("r").unwrap(),
            generation: Generation(generation),
            want: Digest::of(want),
            target: VersionDigest { version: RuleVersion(1), digest: Digest::of(b"x") },
            present: true,
            run: DesiredRun::Running,
            restart: 0,
            config: Config::Keep,
            secrets: Vec::new(),
        }
    }

    #[test]
    fn generation_and_want_decide() {
        let known = |ended| Some(Known { generation: Generation(5), want: Digest::of(b"five"), ended });
        for (known, set, expected) in [
            (None, set(1, b"one"), Reception::Attempt),
            (known(Some(Code::Ok)), set(4, b"five"), Reception::Stale),
            (known(None), set(4, b"four"), Reception::Stale),
            (known(None), set(5, b"five"), Reception::UnderWay),
            (known(Some(Code::Ok)), set(5, b"five"), Reception::AnswerAgain),
            (known(Some(Code::RemoteAuth)), set(5, b"five"), Reception::AnswerAgain),
            (known(Some(Code::NoSpace)), set(5, b"five"), Reception::Attempt),
            (known(Some(Code::MissingDependency)), set(5, b"five"), Reception::Attempt),
            (known(Some(Code::Ok)), set(5, b"other"), Reception::Conflict),
            (known(None), set(5, b"other"), Reception::Conflict),
            (known(None), set(6, b"six"), Reception::Attempt),
        ] {
            assert_eq!(receive(known, &set), expected, "{known:?} {}", set.generation);
        }
    }

    #[test]
    fn a_target_is_checked_before_anything_is_stored() {
        let policy = Policy::default();
        let mut large = set(1, b"");
        large.config = Config::Bytes("x".repeat(MAX_RENDERED_BYTES + 1));
        assert_eq!(check_target(&large, None, &policy).unwrap_err().code, Code::TooLarge);
        let mut other = set(1, b"");
        other.config = Config::Bytes("y".to_owned());
        assert_eq!(check_target(&other, None, &policy).unwrap_err().code, Code::BadMessage);
        let mut wrong = set(1, b"");
        wrong.config = Config::Bytes("x".to_owned());
        assert_eq!(check_target(&wrong, None, &policy).unwrap_err().code, Code::InvalidConfig);
        assert_eq!(check_target(&set(1, b""), None, &policy).unwrap_err().code, Code::MissingDependency);
    }
}

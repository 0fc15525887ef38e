//! What a first sign of a bridge means for a set that is under way.
//!
//! ```text
//!            running      fault of the rule   fault of the world   silence until verify_s
//! nobody     note         note                note                 note
//! start      answer       answer              answer               answer
//! probe      commit       revert              commit               commit
//! ```

use tidegate_model::code::{Code, FaultCode};

/// Who waits for the bridge's first sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trial {
    /// Nobody: it only changes the run state.
    Nobody,
    /// A set that changed nothing but run or restart: it is answered with the state reached.
    Start,
    /// A candidate on probation.
    Probe,
}

/// The first sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    /// Connected, every subscription acknowledged.
    Running,
    /// It cannot run, for this reason.
    Fault(FaultCode),
    /// Neither within `verify_s`.
    Silence,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Only the run state changes.
    Note,
    /// The set is answered with the state reached.
    Answer,
    /// The candidate becomes the last known good, and the set is answered.
    Commit,
    /// The last known good comes back, and the set failed with this code.
    Revert(Code),
}

impl Trial {
    /// What the sign means for who waits.
    pub fn judge(self, sign: Sign) -> Verdict {
        match (self, sign) {
            (Self::Nobody, Sign::Running | Sign::Fault(_) | Sign::Silence) => Verdict::Note,
            (Self::Start, Sign::Running | Sign::Fault(_) | Sign::Silence) => Verdict::Answer,
            (Self::Probe, Sign::Running | Sign::Silence) => Verdict::Commit,
            (Self::Probe, Sign::Fault(fault)) => {
                fault.as_parameter_error().map_or(Verdict::Commit, Verdict::Revert)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sign_has_its_verdict() {
        let dns = Sign::Fault(FaultCode::Dns);
        let auth = Sign::Fault(FaultCode::Auth);
        for sign in [Sign::Running, dns, auth, Sign::Silence] {
            assert_eq!(Trial::Nobody.judge(sign), Verdict::Note);
            assert_eq!(Trial::Start.judge(sign), Verdict::Answer);
        }
        assert_eq!(Trial::Probe.judge(Sign::Running), Verdict::Commit);
        assert_eq!(Trial::Probe.judge(dns), Verdict::Commit);
        assert_eq!(Trial::Probe.judge(Sign::Silence), Verdict::Commit);
        assert_eq!(Trial::Probe.judge(auth), Verdict::Revert(Code::RemoteAuth));
    }

    #[test]
    fn a_probe_reverts_exactly_on_faults_of_the_rule() {
        for fault in FaultCode::ALL {
            let reverted = matches!(Trial::Probe.judge(Sign::Fault(fault)), Verdict::Revert(_));
            assert_eq!(reverted, fault.as_parameter_error().is_some(), "{fault}");
        }
    }
}

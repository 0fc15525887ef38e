//! The two counters of a placement: the version of a rule and the generation of a desired state.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Version of a rule: 1 for the first, and exactly 1 more for each committed change.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(value_type = u64))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuleVersion(pub u64);

impl RuleVersion {
    /// The version of a rule that was just created.
    pub const FIRST: Self = Self(1);

    /// The version of the next change.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for RuleVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

/// Counter of desired states of one placement; what orders commands. 0 means that there was none yet.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(value_type = u64))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The generation of the next action.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

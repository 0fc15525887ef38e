//! Which abilities of an agent a rule needs, so that the cloud refuses a rule before it sends it to an agent that is too
//! old.

use std::collections::BTreeSet;

use super::problem::Problems;
use super::valid::ValidRule;

/// An ability of agents. Each new field of a rule comes with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// Bridges over plain MQTT 3.1.1 with a durable queue: everything in this version.
    BridgeV1,
}

impl Feature {
    /// Every feature that this software speaks.
    pub const ALL: [Self; 1] = [Self::BridgeV1];

    /// The word on the wire, in the agent's hello.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BridgeV1 => "bridge.v1",
        }
    }

    /// The first agent version that has it.
    pub fn since(self) -> semver::Version {
        match self {
            Self::BridgeV1 => semver::Version::new(0, 1, 0),
        }
    }

    /// The field of a rule that needs it, as a JSON pointer.
    pub fn pointer(self) -> &'static str {
        match self {
            Self::BridgeV1 => "/remote",
        }
    }
}

impl std::fmt::Display for Feature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a rule needs.
pub fn requires(_rule: &ValidRule) -> BTreeSet<Feature> {
    // Every rule of this version needs the one feature of this version.
    BTreeSet::from([Feature::BridgeV1])
}

/// What a rule needs and an agent lacks: one problem per feature, naming the field and the agent version that brought it.
///
/// # Errors
///
/// `unsupported-field` for each feature that is not among those that the agent told.
pub fn missing_features<'a>(
    rule: &ValidRule,
    agent: impl IntoIterator<Item = &'a str>,
) -> Result<(), Problems> {
    let agent: BTreeSet<&str> = agent.into_iter().collect();
    let mut problems = Problems::default();
    for feature in requires(rule).into_iter().filter(|feature| !agent.contains(feature.as_str())) {
        problems.add(
            feature.pointer(),
            "unsupported-field",
            format!("the agent on the edge does not know '{feature}'"),
            format!("update it to version {} or later", feature.since()),
        );
    }
    problems.into_result()
}

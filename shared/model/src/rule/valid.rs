//! A rule that makes sense: what the cloud stores, shows and compares.

use serde::{Deserialize, Serialize};

use super::secret::{Secret, SecretInput};
use super::spec::RuleSpec;
use crate::digest::Digest;
use crate::ids::RuleName;

/// A rule that [`super::Draft::validate`] accepted.
///
/// Its serde form is the store's: it holds no password, and is read without judging it again, so that a rule which was
/// accepted once stays readable when a later version gets stricter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ValidRule {
    spec: RuleSpec,
}

impl ValidRule {
    /// Wraps what was checked.
    pub(super) fn trusted(spec: RuleSpec) -> Self {
        Self { spec }
    }

    /// Every field.
    pub fn spec(&self) -> &RuleSpec {
        &self.spec
    }

    /// The rule's name.
    pub fn name(&self) -> &RuleName {
        &self.spec.name
    }

    /// The rule as a file, for people and for line-wise comparison: every default written out, no password. Reading it gives
    /// the same rule.
    pub fn canonical_toml(&self) -> String {
        toml::to_string(&self.spec).expect("texts, numbers, flags and tables of them are always TOML")
    }

    /// The rule for the API: the password is replaced by `remote.password_set`. Sent back as it is, it changes nothing.
    pub fn to_json(&self, password_set: bool) -> serde_json::Value {
        let mut json = serde_json::to_value(&self.spec)
            .expect("texts, numbers and flags under text keys are always JSON");
        json["remote"]["password_set"] = password_set.into();
        json
    }

    /// Digest of the content without the password, for entity tags.
    pub fn content_digest(&self) -> Digest {
        let bytes =
            serde_json::to_vec(&self.spec).expect("texts, numbers and flags under text keys are always JSON");
        Digest::of(&bytes)
    }

    /// Whether saving this rule over `previous` changes nothing, so that the version stays. `stored` is the password kept
    /// beside `previous`.
    pub fn is_unchanged(&self, previous: &Self, input: &SecretInput, stored: Option<&Secret>) -> bool {
        self == previous && !input.changes(stored)
    }
}

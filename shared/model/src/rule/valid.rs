//! A rule that makes sense: what the cloud stores, shows and compares.

use serde::{Deserialize, Serialize};

use super::problem::Problems;
use super::secret::{SecretInputs, Secrets};
use super::spec::RuleSpec;
use super::tls;
use crate::digest::Digest;
use crate::ids::RuleName;

/// A rule that [`super::Draft::validate`] accepted.
///
/// Its serde form is the store's: it holds no secret, and is read without judging it again, so that a rule which was
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

    /// The rule as JSON, without a word about secrets. Sent to the API as it is, it changes nothing else.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(&self.spec).expect("texts, numbers and flags under text keys are always JSON")
    }

    /// The rule for the API: secrets are replaced by `remote.password_set` and `remote.tls.key_set`. Sent back as it is, it
    /// changes nothing.
    pub fn to_json_telling(&self, secrets: &Secrets) -> serde_json::Value {
        let mut json = self.to_json();
        json["remote"]["password_set"] = secrets.password.is_some().into();
        if self.spec.remote.tls.is_some() {
            json["remote"]["tls"]["key_set"] = secrets.key.is_some().into();
        }
        json
    }

    /// Digest of the content without the password, for entity tags.
    pub fn content_digest(&self) -> Digest {
        let bytes =
            serde_json::to_vec(&self.spec).expect("texts, numbers and flags under text keys are always JSON");
        Digest::of(&bytes)
    }

    /// Whether the secrets that the rule cannot do without are there.
    ///
    /// # Errors
    ///
    /// `missing-key`: it has a client certificate, and its key is not stored.
    pub fn has_what_it_needs(&self, secrets: &Secrets) -> Result<(), Problems> {
        let mut problems = Problems::default();
        if tls::needs_key(self.spec.remote.tls.as_ref()) && secrets.key.is_none() {
            tls::missing_key(&mut problems);
        }
        problems.into_result()
    }

    /// Whether saving this rule over `previous` changes nothing, so that the version stays. `stored` are the secrets kept
    /// beside `previous`.
    pub fn is_unchanged(&self, previous: &Self, input: &SecretInputs, stored: &Secrets) -> bool {
        self == previous && !input.changes(stored)
    }
}

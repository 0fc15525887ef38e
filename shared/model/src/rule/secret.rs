//! The password of a rule, kept apart from the rule: never printed, never rendered, known by its id and version.

use std::fmt;

/// A password. Its text is seen only by who asks for it by name; `Debug` prints `Secret(***)`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the text as it is.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the store and for the connection to the remote broker. Never log it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// What a save says about the password.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SecretInput {
    /// The field was left out: the stored password stays as it is.
    #[default]
    Keep,
    /// A new password.
    Set(Secret),
    /// The field was an empty string: the stored password is removed.
    Clear,
}

impl SecretInput {
    /// What is stored after this save.
    pub fn apply(self, stored: Option<Secret>) -> Option<Secret> {
        match self {
            Self::Keep => stored,
            Self::Set(secret) => Some(secret),
            Self::Clear => None,
        }
    }

    /// Whether this save changes what is stored; then the secret's version grows by one.
    pub fn changes(&self, stored: Option<&Secret>) -> bool {
        match self {
            Self::Keep => false,
            Self::Set(secret) => stored != Some(secret),
            Self::Clear => stored.is_some(),
        }
    }
}

/// What stands in a rendered rule in place of the password: a change of the password changes the version, so the
/// digest, so the rule can be synced.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
pub struct SecretRef {
    /// Which secret, as [`crate::wire::SecretValue`] names it: 1 to 64 bytes, never reused.
    pub id: String,
    /// Grows by one with each change of the secret.
    pub version: u64,
}

//! The secrets of a rule, kept apart from the rule: never printed, never rendered, known by id and version.

use std::fmt;

/// A password or a private key. Its text is seen only by who asks for it by name; `Debug` prints `Secret(***)`.
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

/// What a save says about one secret.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SecretInput {
    /// The field was left out: the stored secret stays as it is.
    #[default]
    Keep,
    /// A new secret.
    Set(Secret),
    /// The field was an empty string: the stored secret is removed.
    Clear,
}

impl SecretInput {
    /// What is stored after this save.
    fn apply(self, stored: Option<Secret>) -> Option<Secret> {
        match self {
            Self::Keep => stored,
            Self::Set(secret) => Some(secret),
            Self::Clear => None,
        }
    }

    /// Whether this save changes what is stored.
    fn changes(&self, stored: Option<&Secret>) -> bool {
        match self {
            Self::Keep => false,
            Self::Set(secret) => stored != Some(secret),
            Self::Clear => stored.is_some(),
        }
    }
}

/// The secrets of a rule. They share one version, which grows by one with each change of any of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Secrets {
    /// The password at the remote broker.
    pub password: Option<Secret>,
    /// The private key of the client certificate, as PEM.
    pub key: Option<Secret>,
}

impl Secrets {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.password.is_none() && self.key.is_none()
    }

    /// How a rendered rule names those that are there, with their values. `id` is the rule's.
    pub fn named(&self, id: &str, version: u64) -> impl Iterator<Item = (SecretRef, &Secret)> {
        let password = self.password.iter().map(move |secret| (SecretRef::password(id, version), secret));
        password.chain(self.key.iter().map(move |secret| (SecretRef::key(id, version), secret)))
    }

    /// The names alone.
    pub fn refs(&self, id: &str, version: u64) -> SecretRefs {
        SecretRefs {
            password: self.password.as_ref().map(|_| SecretRef::password(id, version)),
            key: self.key.as_ref().map(|_| SecretRef::key(id, version)),
        }
    }
}

/// What a save says about the secrets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SecretInputs {
    /// About the password.
    pub password: SecretInput,
    /// About the private key.
    pub key: SecretInput,
}

impl SecretInputs {
    /// What is stored after this save.
    pub fn apply(self, stored: Secrets) -> Secrets {
        Secrets { password: self.password.apply(stored.password), key: self.key.apply(stored.key) }
    }

    /// Whether this save changes what is stored; then the version grows by one.
    pub fn changes(&self, stored: &Secrets) -> bool {
        self.password.changes(stored.password.as_ref()) || self.key.changes(stored.key.as_ref())
    }
}

/// What stands in a rendered rule in place of a secret: a change of the secret changes the version, so the
/// digest, so the rule can be synced.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
pub struct SecretRef {
    /// Which secret, as [`crate::wire::SecretValue`] names it: 1 to 64 bytes, never reused.
    pub id: String,
    /// Grows by one with each change of the secret.
    pub version: u64,
}

impl SecretRef {
    /// The password of the rule with this id.
    pub fn password(id: &str, version: u64) -> Self {
        Self { id: id.to_owned(), version }
    }

    /// The private key of the rule with this id.
    pub fn key(id: &str, version: u64) -> Self {
        Self { id: format!("{id}/key"), version }
    }
}

/// The names of the secrets that are there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SecretRefs {
    /// Of the password.
    pub password: Option<SecretRef>,
    /// Of the private key.
    pub key: Option<SecretRef>,
}

//! Credentials of edges: random, shown once, kept as argon2id hashes.
//!
//! Verifying costs tens of milliseconds and 19 MiB each, so no more than [`MAX_PARALLEL`] run at a time, off the
//! runtime's own threads, and what was verified is remembered: a fleet that reconnects at once costs a SHA-256 each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use tidegate_model::ids::EdgeId;
use tokio::sync::Semaphore;

use super::token::{SecretHash, Token, TokenKind, same, sha256};

/// Hashes that are computed at the same time at the most.
const MAX_PARALLEL: usize = 2;
/// Verified credentials that are remembered at the most.
const MAX_REMEMBERED: usize = 16_384;
/// Longest credential that is looked at, in bytes; a longer one is refused unseen.
const MAX_PRESENTED_BYTES: usize = 256;

/// Why a credential could not be made.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// No randomness.
    #[error("the operating system gave no randomness: {0}")]
    Randomness(String),
    /// Hashing failed.
    #[error("hashing a credential failed: {0}")]
    Hash(String),
}

/// Makes and verifies credentials of edges.
#[derive(Debug)]
pub struct Credentials {
    slots: Arc<Semaphore>,
    verified: Mutex<BTreeMap<EdgeId, Verified>>,
}

/// A credential that was found right, and the stored hash for which that holds: with another one it counts for nothing.
struct Verified {
    presented: SecretHash,
    stored: String,
}

impl std::fmt::Debug for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verified(***)")
    }
}

impl Default for Credentials {
    fn default() -> Self {
        Self { slots: Arc::new(Semaphore::new(MAX_PARALLEL)), verified: Mutex::default() }
    }
}

impl Credentials {
    /// Makes a credential; gives it in clear, and its hash (PHC string) to store.
    ///
    /// # Errors
    /// [`HashError`]: no randomness, or no memory to hash.
    pub async fn make(&self) -> Result<(Token, String), HashError> {
        let token = Token::make(TokenKind::Edge).map_err(|e| HashError::Randomness(e.to_string()))?;
        let secret = token.reveal().to_owned();
        let hashed = self.run(move || {
            let hash: Result<PasswordHash, _> = Argon2::default().hash_password(secret.as_bytes());
            hash.map(|hash| hash.to_string()).map_err(|e| HashError::Hash(e.to_string()))
        });
        let hashed = hashed.await.map_err(HashError::Hash)??;
        Ok((token, hashed))
    }

    /// Whether an edge presented the credential whose hash is stored. What cannot be verified is wrong.
    pub async fn verify(&self, edge: &EdgeId, presented: &[u8], stored: &str) -> bool {
        if presented.len() > MAX_PRESENTED_BYTES {
            return false;
        }
        let digest = sha256(presented);
        if let Some(known) = self.lock().get(edge)
            && known.stored == stored
            && same(&known.presented, &digest)
        {
            return true;
        }
        let (secret, hash) = (presented.to_owned(), stored.to_owned());
        let verified = self.run(move || {
            PasswordHash::new(&hash)
                .is_ok_and(|parsed| Argon2::default().verify_password(&secret, &parsed).is_ok())
        });
        let right = verified.await.unwrap_or(false);
        if right {
            let mut remembered = self.lock();
            if remembered.len() >= MAX_REMEMBERED && !remembered.contains_key(edge) {
                remembered.pop_first();
            }
            remembered.insert(edge.clone(), Verified { presented: digest, stored: stored.to_owned() });
        }
        right
    }

    /// Forgets what was verified of an edge that is removed.
    pub fn forget(&self, edge: &EdgeId) {
        self.lock().remove(edge);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<EdgeId, Verified>> {
        // Nothing that holds the lock can leave the map half changed.
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|e| e.to_string())?;
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(slot);
            result
        });
        done.await.map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_credential_is_verified_remembered_and_forgotten() {
        let credentials = Credentials::default();
        let edge = EdgeId::new("gw-1").unwrap();
        let (token, hash) = credentials.make().await.unwrap();
        assert!(hash.starts_with("$argon2id$") && !hash.contains(token.reveal()));
        let secret = token.reveal().as_bytes();
        assert!(!credentials.verify(&edge, b"tge_wrong", &hash).await);
        assert!(credentials.lock().is_empty());
        assert!(credentials.verify(&edge, secret, &hash).await);
        assert!(credentials.lock().contains_key(&edge));
        assert!(credentials.verify(&edge, secret, &hash).await);
        assert!(!credentials.verify(&edge, b"tge_wrong", &hash).await);
        // The edge was made anew: what was verified of the old credential counts for nothing.
        let (_, other) = credentials.make().await.unwrap();
        assert!(!credentials.verify(&edge, secret, &other).await);
        assert!(!credentials.verify(&edge, secret, "not a hash").await);
        credentials.forget(&edge);
        assert!(credentials.lock().is_empty());
    }
}

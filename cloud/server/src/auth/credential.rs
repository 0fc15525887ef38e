//! Credentials of edges: 256 random bits, shown once, kept as SHA-256.
//!
//! A slow hash protects what people choose, since that can be guessed. 256 random bits cannot, and a fleet that comes back
//! after a restart of the controller would wait for it (docs/adr/0015): a thousand gateways took 20 s of processor time.
//! Stores of older versions hold argon2id hashes; these still count. Verifying one costs tens of milliseconds and 19 MiB, so
//! no more than [`MAX_PARALLEL`] run at a time, off the runtime's own threads, and what was verified is remembered.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier as _;
use argon2::password_hash::phc::PasswordHash;
use tidegate_model::ids::EdgeId;
use tokio::sync::Semaphore;

use super::token::{SecretHash, Token, TokenKind, hex, read_hex, same, sha256};

/// What a stored hash begins with; 64 hexadecimal digits follow.
const SHA256_PREFIX: &str = "$sha256$";
/// Argon2id hashes that are computed at the same time at the most.
const MAX_PARALLEL: usize = 2;
/// Verified credentials that are remembered at the most.
const MAX_REMEMBERED: usize = 16_384;
/// Longest credential that is looked at, in bytes; a longer one is refused unseen.
const MAX_PRESENTED_BYTES: usize = 256;

/// Why a credential could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gave no randomness: {0}")]
pub struct NoRandomness(String);

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
    /// Makes a credential; gives it in clear, and its hash to store.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn make() -> Result<(Token, String), NoRandomness> {
        let token = Token::make(TokenKind::Edge).map_err(|error| NoRandomness(error.to_string()))?;
        let hash = format!("{SHA256_PREFIX}{}", hex(&sha256(token.reveal().as_bytes())));
        Ok((token, hash))
    }

    /// Whether an edge presented the credential whose hash is stored. What cannot be verified is wrong.
    pub async fn verify(&self, edge: &EdgeId, presented: &[u8], stored: &str) -> bool {
        if presented.len() > MAX_PRESENTED_BYTES {
            return false;
        }
        let digest = sha256(presented);
        if let Some(stored) = stored.strip_prefix(SHA256_PREFIX) {
            return read_hex(stored).is_some_and(|stored| same(&stored, &digest));
        }
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
    use argon2::password_hash::PasswordHasher as _;

    use super::*;

    #[tokio::test]
    async fn a_credential_is_kept_as_a_hash_and_known_again() {
        let credentials = Credentials::default();
        let edge = EdgeId::new("gw-1").unwrap();
        let (token, hash) = Credentials::make().unwrap();
        assert!(hash.starts_with("$sha256$") && !hash.contains(token.reveal()));
        assert!(credentials.verify(&edge, token.reveal().as_bytes(), &hash).await);
        let (other, other_hash) = Credentials::make().unwrap();
        for (secret, hash) in [
            (b"tge_wrong".as_slice(), hash.as_str()),
            (other.reveal().as_bytes(), &hash),
            (token.reveal().as_bytes(), &other_hash),
            (b"", "$sha256$"),
            (token.reveal().as_bytes(), &hash[..hash.len() - 1]),
        ] {
            assert!(!credentials.verify(&edge, secret, hash).await, "{hash}");
        }
    }

    #[tokio::test]
    async fn an_argon2id_hash_of_an_older_version_is_verified_remembered_and_forgotten() {
        let credentials = Credentials::default();
        let edge = EdgeId::new("gw-1").unwrap();
        let token = Token::make(TokenKind::Edge).unwrap();
        let secret = token.reveal().as_bytes();
        let hash: PasswordHash = Argon2::default().hash_password(secret).unwrap();
        let hash = hash.to_string();
        assert!(!credentials.verify(&edge, b"tge_wrong", &hash).await);
        assert!(credentials.lock().is_empty());
        assert!(credentials.verify(&edge, secret, &hash).await);
        assert!(credentials.lock().contains_key(&edge));
        assert!(credentials.verify(&edge, secret, &hash).await);
        assert!(!credentials.verify(&edge, b"tge_wrong", &hash).await);
        // The edge was made anew: what was verified of the old credential counts for nothing.
        let (_, other) = Credentials::make().unwrap();
        assert!(!credentials.verify(&edge, secret, &other).await);
        assert!(!credentials.verify(&edge, secret, "not a hash").await);
        credentials.forget(&edge);
        assert!(credentials.lock().is_empty());
    }
}

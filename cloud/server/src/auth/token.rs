//! Secrets that machines make: a prefix that tells the kind, 32 random bytes, and a checksum by which scanners of leaked
//! secrets, and people who copied only half, know a whole one.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

/// Random bytes of a token.
const RANDOM_BYTES: usize = 32;
/// Characters of the checksum: a CRC-32 in hexadecimal digits.
const CHECKSUM_CHARS: usize = 8;
/// Characters of every token: prefix, 32 bytes in base64url, checksum.
const TOKEN_CHARS: usize = 4 + 43 + CHECKSUM_CHARS;

/// A secret in clear. Its `Debug` shows no value.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// Bearer token of the administrator.
    Admin,
    /// Credential of an edge.
    Edge,
}

impl TokenKind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Admin => "tga_",
            Self::Edge => "tge_",
        }
    }
}

impl Token {
    /// Makes one of the operating system's randomness.
    ///
    /// # Errors
    /// The operating system gave no randomness.
    pub(crate) fn make(kind: TokenKind) -> Result<Self, getrandom::Error> {
        let mut random = [0; RANDOM_BYTES];
        getrandom::fill(&mut random)?;
        let body = format!("{}{}", kind.prefix(), URL_SAFE_NO_PAD.encode(random));
        let checksum = crc32fast::hash(body.as_bytes());
        Ok(Self(format!("{body}{checksum:08x}")))
    }

    /// Reads one; `None`: it is not whole, or of another kind.
    pub(crate) fn read(kind: TokenKind, text: &str) -> Option<Self> {
        if text.len() != TOKEN_CHARS || !text.is_ascii() || !text.starts_with(kind.prefix()) {
            return None;
        }
        let (body, checksum) = text.split_at(TOKEN_CHARS - CHECKSUM_CHARS);
        (format!("{:08x}", crc32fast::hash(body.as_bytes())) == checksum).then(|| Self(text.to_owned()))
    }

    /// The text, to show it once or to send it. Never log it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// SHA-256 of a secret. Fit for secrets of 256 random bits only: it is fast.
pub(crate) type SecretHash = [u8; 32];

pub(crate) fn sha256(secret: &[u8]) -> SecretHash {
    Sha256::digest(secret).into()
}

/// A hash as 64 hexadecimal digits.
pub(crate) fn hex(hash: &SecretHash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads what [`hex`] wrote; `None`: it is something else.
pub(crate) fn read_hex(text: &str) -> Option<SecretHash> {
    let digest: tidegate_model::digest::Digest = text.parse().ok()?;
    let text = digest.to_string();
    let mut hash = [0; 32];
    for (index, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    Some(hash)
}

/// Whether two hashes are equal, in a time that tells nothing about where they differ.
pub(crate) fn same(a: &SecretHash, b: &SecretHash) -> bool {
    let differ = a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y));
    std::hint::black_box(differ) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_and_half_of_one_does_not() {
        let token = Token::make(TokenKind::Admin).unwrap();
        assert_eq!(Token::read(TokenKind::Admin, token.reveal()), Some(token.clone()));
        assert_eq!(Token::read(TokenKind::Edge, token.reveal()), None);
        assert_eq!(Token::read(TokenKind::Admin, &token.reveal()[..50]), None);
        let wrong = token.reveal().replacen("tga_", "tga_x", 1);
        assert_eq!(Token::read(TokenKind::Admin, &wrong[..TOKEN_CHARS]), None);
        assert_ne!(Token::make(TokenKind::Admin).unwrap(), token);
        assert_eq!(format!("{token:?}"), "Token(***)");
    }

    #[test]
    fn hashes_are_compared_whole() {
        let a = sha256(b"a");
        let mut b = a;
        assert!(same(&a, &b));
        b[31] ^= 1;
        assert!(!same(&a, &b));
        assert_eq!(read_hex(&hex(&a)), Some(a));
        assert_eq!(read_hex("zz"), None);
    }
}

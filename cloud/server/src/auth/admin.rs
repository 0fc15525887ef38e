//! The administrator's bearer token: made at the first start, kept as a hash, and in clear in a file for its owner.

use crate::data_dir::{DataDir, DataDirError, read_text, write_private};

use super::token::{SecretHash, Token, TokenKind, hex, read_hex, same, sha256};

/// File with the token in clear. Its owner may delete it; the token stays valid.
const CLEAR_FILE: &str = "admin.token";
/// File with the token's SHA-256 in hexadecimal digits. Deleting both files makes a new token at the next start.
const HASH_FILE: &str = "admin.token.sha256";

/// Knows the administrator's token when it sees it.
#[derive(Clone)]
pub struct AdminAuth {
    hash: SecretHash,
}

impl std::fmt::Debug for AdminAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdminAuth(***)")
    }
}

impl AdminAuth {
    /// Reads the token's hash, or makes a token at the first start. The token itself is given where it is known in
    /// clear.
    ///
    /// # Errors
    /// [`DataDirError`]: a file cannot be read or written.
    pub fn open(dir: &DataDir) -> Result<(Self, Option<Token>), DataDirError> {
        let (clear_path, hash_path) = (dir.join(CLEAR_FILE), dir.join(HASH_FILE));
        let clear = read_text(&clear_path)?.and_then(|text| Token::read(TokenKind::Admin, text.trim()));
        if let Some(text) = read_text(&hash_path)? {
            let hash = read_hex(text.trim()).ok_or_else(|| DataDirError::Io {
                doing: "reading",
                path: hash_path,
                source: std::io::Error::other(
                    "it is not a SHA-256; delete it and admin.token to have a new token made at the next start",
                ),
            })?;
            let clear = clear.filter(|token| same(&sha256(token.reveal().as_bytes()), &hash));
            return Ok((Self { hash }, clear));
        }
        // A crash between the two files leaves the clear one only: it goes on being the token.
        let token = match clear {
            Some(token) => token,
            None => {
                let token = Token::make(TokenKind::Admin).map_err(|error| DataDirError::Io {
                    doing: "making a token for",
                    path: clear_path.clone(),
                    source: std::io::Error::other(error.to_string()),
                })?;
                write_private(&clear_path, &format!("{}\n", token.reveal()))?;
                token
            }
        };
        let hash = sha256(token.reveal().as_bytes());
        write_private(&hash_path, &format!("{}\n", hex(&hash)))?;
        Ok((Self { hash }, Some(token)))
    }

    /// Whether this is the administrator's token; the time it takes tells nothing about the token.
    #[must_use]
    pub fn accepts(&self, presented: &[u8]) -> bool {
        same(&sha256(presented), &self.hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_made_once_and_known_again() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(tmp.path()).unwrap();
        let (auth, token) = AdminAuth::open(&dir).unwrap();
        let token = token.unwrap();
        assert!(auth.accepts(token.reveal().as_bytes()));
        assert!(!auth.accepts(b"") && !auth.accepts(b"tga_x"));
        let (auth, again) = AdminAuth::open(&dir).unwrap();
        assert_eq!(again.unwrap(), token);
        std::fs::remove_file(dir.join(CLEAR_FILE)).unwrap();
        let (still, none) = AdminAuth::open(&dir).unwrap();
        assert!(
            none.is_none()
                && still.accepts(token.reveal().as_bytes())
                && auth.accepts(token.reveal().as_bytes())
        );
    }

    #[test]
    fn a_crash_between_the_two_files_keeps_the_token_and_a_spoilt_hash_is_told() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(tmp.path()).unwrap();
        let token = AdminAuth::open(&dir).unwrap().1.unwrap();
        std::fs::remove_file(dir.join(HASH_FILE)).unwrap();
        assert_eq!(AdminAuth::open(&dir).unwrap().1.unwrap(), token);
        std::fs::write(dir.join(HASH_FILE), "zz").unwrap();
        assert!(AdminAuth::open(&dir).unwrap_err().to_string().contains("delete it"));
    }
}

//! Which server a command talks to, and as whom: flag, then environment, then the context file.
//!
//! The file is `$XDG_CONFIG_HOME/tidegate/config.toml`, mode 0600:
//!
//! ```toml
//! current = "dev"
//!
//! [contexts.dev]
//! server = "http://127.0.0.1:7180"
//! token_file = "/home/me/.local/share/tidegate/dev/controller/admin.token"
//! ```

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use tidegate_cloud::os;

use crate::client::Client;
use crate::failure::Failure;

/// Largest token that is read from a file, in bytes.
const MAX_TOKEN_BYTES: u64 = 4096;

/// The contexts that are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// The one that is used unless told otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// All of them.
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

/// One server, and who we are to it. `Debug` does not show the token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// URL of the server.
    pub server: String,
    /// The token itself …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// … or the file that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let token = self.token.as_ref().map(|_| "***");
        f.debug_struct("Context")
            .field("server", &self.server)
            .field("token", &token)
            .field("token_file", &self.token_file)
            .finish()
    }
}

/// What flags and environment say; flags went before the environment already.
#[derive(Clone, Default)]
pub struct Chosen {
    /// `--server`, `TIDEGATE_SERVER`.
    pub server: Option<String>,
    /// `--token`, `TIDEGATE_TOKEN`.
    pub token: Option<String>,
    /// `--context`, `TIDEGATE_CONTEXT`.
    pub context: Option<String>,
}

impl Contexts {
    /// Reads the file; without a file there are no contexts.
    ///
    /// # Errors
    /// [`Failure::Usage`]: it cannot be read, or is not as it should be.
    pub fn load(file: Option<&Path>) -> Result<Self, Failure> {
        let Some(file) = file else { return Ok(Self::default()) };
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => {
                return Err(Failure::Usage(format!(
                    "{} cannot be read: {}",
                    file.display(),
                    os::plain(&error)
                )));
            }
        };
        toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |s| text[..s.start.min(text.len())].matches('\n').count() + 1);
            Failure::Usage(format!(
                "{}:{line}: {}. Correct the file, or remove it and choose the server with --server",
                file.display(),
                error.message().replace('\n', ", ")
            ))
        })
    }

    /// Writes the file in one step, mode 0600.
    ///
    /// # Errors
    /// [`Failure::Failed`]: it cannot be written.
    pub fn save(&self, file: Option<&Path>) -> Result<(), Failure> {
        let Some(file) = file else {
            return Err(Failure::Failed(
                "contexts cannot be kept: neither XDG_CONFIG_HOME nor HOME is set".into(),
            ));
        };
        let text = toml::to_string(self)
            .map_err(|e| Failure::Failed(format!("the contexts cannot be written: {e}")))?;
        write_private(file, text.as_bytes()).map_err(|error| {
            Failure::Failed(format!("{} cannot be written: {}", file.display(), os::plain(&error)))
        })
    }

    /// The context that counts: the named one, else the current one.
    ///
    /// # Errors
    /// [`Failure::NotFound`]: there is none of that name.
    pub fn pick(&self, name: Option<&str>) -> Result<Option<(&str, &Context)>, Failure> {
        let Some(name) = name.or(self.current.as_deref()) else { return Ok(None) };
        match self.contexts.get_key_value(name) {
            Some((name, context)) => Ok(Some((name, context))),
            None => Err(Failure::NotFound(format!("no context is named '{name}'; {}", self.known()))),
        }
    }

    /// The names there are, as a sentence.
    pub fn known(&self) -> String {
        if self.contexts.is_empty() {
            return "there is none yet; tidegate dev makes one, tidegate context set NAME --server URL another".into();
        }
        let names: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
        format!("there is {}", names.join(", "))
    }
}

/// The client for what was chosen.
///
/// # Errors
/// [`Failure::Usage`] when no server is chosen or the token's file cannot be read; see also [`Client::new`].
pub fn connect(chosen: &Chosen, file: Option<&Path>) -> Result<Client, Failure> {
    // With server and token given, a damaged file does not matter.
    let contexts = match (&chosen.server, &chosen.token, &chosen.context) {
        (Some(_), Some(_), None) => Contexts::default(),
        _ => Contexts::load(file)?,
    };
    let context = contexts.pick(chosen.context.as_deref())?.map(|(_, context)| context);
    let server = chosen.server.as_deref().or(context.map(|c| c.server.as_str())).ok_or_else(|| {
        Failure::Usage(
            "no server is chosen: start one here (tidegate dev), pass --server URL, set TIDEGATE_SERVER, or choose a context (tidegate context use NAME)"
                .into(),
        )
    })?;
    // The token of a context is for the server of that context: it is not sent to another one.
    let same_server = context.is_some_and(|c| c.server.trim_end_matches('/') == server.trim_end_matches('/'));
    let token = match (&chosen.token, context) {
        (Some(token), _) => Some(token.trim().to_owned()),
        (None, Some(context)) if same_server => context.read_token()?,
        (None, _) => None,
    };
    Ok(Client::new(server, token)?)
}

impl Context {
    fn read_token(&self) -> Result<Option<String>, Failure> {
        if let Some(token) = &self.token {
            return Ok(Some(token.trim().to_owned()));
        }
        self.token_file.as_deref().map(read_token_file).transpose()
    }
}

/// Reads a token from its file.
///
/// # Errors
/// [`Failure::Usage`]: it cannot be read, or is no token.
pub fn read_token_file(file: &Path) -> Result<String, Failure> {
    let cannot =
        |why: String| Failure::Usage(format!("the token file {} cannot be used: {why}", file.display()));
    let size = std::fs::metadata(file).map_err(|e| cannot(os::plain(&e)))?.len();
    if size > MAX_TOKEN_BYTES {
        return Err(cannot(format!("it is longer than {MAX_TOKEN_BYTES} bytes")));
    }
    let token = std::fs::read_to_string(file).map_err(|e| cannot(os::plain(&e)))?.trim().to_owned();
    if token.is_empty() { Err(cannot("it is empty".into())) } else { Ok(token) }
}

/// Writes a file that only its owner may read, in one step: others see the old or the new one, never a part.
///
/// # Errors
/// What the file system says.
pub fn write_private(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    if let Some(dir) = file.parent().filter(|d| !d.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let mut temporary = file.as_os_str().to_owned();
    temporary.push(format!(".{}.new", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let written = (|| {
        let mut options = std::fs::OpenOptions::new();
        let mut out = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        out.write_all(bytes)?;
        out.sync_all()?;
        std::fs::rename(&temporary, file)
    })();
    if written.is_err() {
        // Best effort: the error that is told is the one that matters.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn file(current: Option<&str>) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tidegate/config.toml");
        let token_file = dir.path().join("t");
        std::fs::write(&token_file, "from-file\n").unwrap();
        let context = |server: &str, token: Option<&str>, token_file: Option<PathBuf>| Context {
            server: server.into(),
            token: token.map(Into::into),
            token_file,
        };
        let contexts = Contexts {
            current: current.map(Into::into),
            contexts: [
                ("dev".to_owned(), context("http://127.0.0.1:1", Some("secret-1"), None)),
                ("lab".to_owned(), context("http://127.0.0.1:2/", None, Some(token_file))),
            ]
            .into(),
        };
        contexts.save(Some(&path)).unwrap();
        assert_eq!(Contexts::load(Some(&path)).unwrap(), contexts);
        (dir, path)
    }

    #[test]
    fn the_file_is_for_its_owner_only_and_debug_hides_the_token() {
        let (_dir, path) = file(Some("dev"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let shown = format!("{:?}", Contexts::load(Some(&path)).unwrap());
        assert!(!shown.contains("secret-1"), "{shown}");
    }

    #[test]
    fn a_flag_goes_before_the_context_and_a_token_stays_with_its_server() {
        let (_dir, path) = file(Some("dev"));
        let with = |server: Option<&str>, token: Option<&str>, context: Option<&str>| {
            let own = |text: Option<&str>| text.map(str::to_owned);
            let chosen = Chosen { server: own(server), token: own(token), context: own(context) };
            connect(&chosen, Some(&path)).map(|c| (c.base().to_owned(), c.token))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(with(None, None, None).unwrap(), ("http://127.0.0.1:1".into(), some("secret-1")));
        assert_eq!(with(None, None, Some("lab")).unwrap(), ("http://127.0.0.1:2".into(), some("from-file")));
        assert_eq!(with(None, Some("x"), None).unwrap(), ("http://127.0.0.1:1".into(), some("x")));
        assert_eq!(with(Some("http://h:9"), None, None).unwrap(), ("http://h:9".into(), None));
        assert_eq!(with(Some("http://127.0.0.1:1/"), None, None).unwrap().1, some("secret-1"));
        assert_eq!(with(None, None, Some("gone")).unwrap_err().exit().number(), 3);
    }

    #[test]
    fn without_a_server_the_ways_to_choose_one_are_told() {
        let error = connect(&Chosen::default(), None).unwrap_err();
        assert_eq!(error.exit().number(), 2);
        assert!(
            error.to_string().contains("--server") && error.to_string().contains("tidegate dev"),
            "{error}"
        );
    }

    #[test]
    fn a_damaged_file_is_told_with_its_line_and_does_not_matter_when_it_is_not_needed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, "current = \"dev\"\nwrong = 1\n").unwrap();
        let error = Contexts::load(Some(&path)).unwrap_err().to_string();
        assert!(error.contains("config.toml:2:") && error.contains("wrong"), "{error}");
        let chosen =
            Chosen { server: Some("http://127.0.0.1:1".into()), token: Some("t".into()), context: None };
        assert!(connect(&chosen, Some(&path)).is_ok());
    }
}

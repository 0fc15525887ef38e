//! Rule files: found, read and told apart. Their content is the server's business: it gets them as they are written.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tidegate_cloud::os;
use tidegate_model::limits::MAX_RULE_TEXT_BYTES;

use crate::failure::Failure;

/// Files that one command reads at the most.
const MAX_FILES: usize = 1_000;

/// The language of a rule file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// TOML
    Toml,
    /// YAML
    Yaml,
    /// JSON
    Json,
}

impl Language {
    /// What the server is told.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Toml => "application/toml",
            Self::Yaml => "application/yaml",
            Self::Json => "application/json",
        }
    }

    fn of_file(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "toml" => Some(Self::Toml),
            "yaml" | "yml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    /// A guess from the first line that says something, for texts without a file name.
    fn of_text(text: &str) -> Self {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        match lines.next() {
            Some(first) if first.starts_with('{') => Self::Json,
            Some(first) if first.starts_with('[') => Self::Toml,
            Some(first) => match (first.find('='), first.find(':')) {
                (Some(equals), Some(colon)) if equals < colon => Self::Toml,
                (Some(_), None) => Self::Toml,
                (Some(_) | None, Some(_)) | (None, None) => Self::Yaml,
            },
            None => Self::Toml,
        }
    }
}

/// A rule file as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFile {
    /// Its name as given; `-` for standard input.
    pub shown: String,
    /// Its language.
    pub language: Language,
    /// Its text.
    pub text: String,
}

impl RuleFile {
    /// The rule's name, where the text can be read that far.
    pub fn rule_name(&self) -> Option<String> {
        let value: Value = match self.language {
            Language::Toml => toml::from_str(&self.text).ok()?,
            Language::Yaml => serde_saphyr::from_str(&self.text).ok()?,
            Language::Json => serde_json::from_str(&self.text).ok()?,
        };
        value.get("name")?.as_str().map(str::to_owned)
    }
}

/// Reads all files that were named; a directory stands for the rule files in it, by name. A file of a directory that
/// cannot be used is told in its place, so that it does not keep the others from being used.
///
/// # Errors
/// [`Failure::Usage`]: one that was named cannot be read, or there is none.
pub fn read_all(paths: &[PathBuf]) -> Result<Vec<Result<RuleFile, Failure>>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            files.push(Ok(read_stdin()?));
        } else if path.is_dir() {
            let found = in_directory(path)?;
            if found.is_empty() {
                let shown = path.display();
                return Err(Failure::Usage(format!(
                    "{shown} holds no rule files (*.toml, *.yaml, *.yml, *.json)"
                )));
            }
            files.extend(found.iter().map(|file| read(file)));
        } else {
            files.push(Ok(read(path)?));
        }
        if files.len() > MAX_FILES {
            return Err(Failure::Usage(format!(
                "more than {MAX_FILES} rule files at once; apply them in parts"
            )));
        }
    }
    Ok(files)
}

fn in_directory(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let cannot = |error: std::io::Error| {
        Failure::Usage(format!("{} cannot be read: {}", dir.display(), os::plain(&error)))
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        if Language::of_file(&path).is_some() && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Result<RuleFile, Failure> {
    let shown = path.display().to_string();
    let file = std::fs::File::open(path)
        .map_err(|error| Failure::Usage(format!("{shown} cannot be read: {}", os::plain(&error))))?;
    let text = read_text(file, &shown)?;
    let language = Language::of_file(path).unwrap_or_else(|| Language::of_text(&text));
    Ok(RuleFile { shown, language, text })
}

/// Reads a text that is no rule; gives its name too. `-` is standard input.
///
/// # Errors
/// [`Failure::Usage`]: it cannot be read, or is too long, empty or no text.
pub fn read_any(path: &Path) -> Result<(String, String), Failure> {
    if path.as_os_str() == "-" {
        let text = read_text(std::io::stdin().lock(), "standard input")?;
        return Ok(("-".to_owned(), text));
    }
    let RuleFile { shown, text, .. } = read(path)?;
    Ok((shown, text))
}

fn read_stdin() -> Result<RuleFile, Failure> {
    let text = read_text(std::io::stdin().lock(), "standard input")?;
    Ok(RuleFile { shown: "-".into(), language: Language::of_text(&text), text })
}

fn read_text(reader: impl Read, shown: &str) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let limit = MAX_RULE_TEXT_BYTES as u64 + 1;
    reader
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::Usage(format!("{shown} cannot be read: {}", os::plain(&error))))?;
    if bytes.len() > MAX_RULE_TEXT_BYTES {
        return Err(Failure::Usage(format!(
            "{shown} is longer than {} KiB, which is the most that is read",
            MAX_RULE_TEXT_BYTES / 1024
        )));
    }
    let text = String::from_utf8(bytes).map_err(|_| Failure::Usage(format!("{shown} is not UTF-8 text")))?;
    if text.trim().is_empty() {
        return Err(Failure::Usage(format!("{shown} is empty")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guessed(text: &str) -> RuleFile {
        RuleFile { shown: "-".into(), language: Language::of_text(text), text: text.into() }
    }

    #[test]
    fn the_language_of_standard_input_is_guessed_and_the_name_found() {
        let table = [
            ("# a rule\nname = \"a\"\n[remote]\nurl = \"mqtt://x:1\"\n", Language::Toml, Some("a")),
            ("# a rule\nname: a\nremote:\n  url: mqtt://x:1\n", Language::Yaml, Some("a")),
            ("{\"name\": \"a\"}", Language::Json, Some("a")),
            ("[remote]\nurl = \"x\"", Language::Toml, None),
            ("name = \"a\nbroken", Language::Toml, None),
            ("name: \"x=y\"", Language::Yaml, Some("x=y")),
        ];
        for (text, language, name) in table {
            let file = guessed(text);
            assert_eq!(file.language, language, "{text}");
            assert_eq!(file.rule_name().as_deref(), name, "{text}");
        }
    }

    #[test]
    fn a_directory_stands_for_its_rule_files_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.toml", "a.yaml", "README.md", "c.json"] {
            std::fs::write(dir.path().join(name), "name = 'x'").unwrap();
        }
        let files = read_all(&[dir.path().to_owned()]).unwrap();
        let names: Vec<_> =
            files.iter().map(|f| f.as_ref().unwrap().shown.rsplit('/').next().unwrap()).collect();
        assert_eq!(names, ["a.yaml", "b.toml", "c.json"]);
    }

    #[test]
    fn a_bad_file_of_a_directory_leaves_the_others() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.toml"), "").unwrap();
        std::fs::write(dir.path().join("b.toml"), "name = 'x'").unwrap();
        let files = read_all(&[dir.path().to_owned()]).unwrap();
        let [empty, good] = files.as_slice() else { panic!("two files: {files:?}") };
        assert!(empty.as_ref().unwrap_err().to_string().contains("a.toml is empty"));
        assert!(good.is_ok());
    }

    #[test]
    fn what_cannot_be_a_rule_is_told_before_the_server_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.toml");
        let error = |path: &Path| read_all(&[path.to_owned()]).unwrap_err().to_string();
        assert!(error(&path).contains("cannot be read"));
        assert!(error(dir.path()).contains("no rule files"));
        std::fs::write(&path, " \n").unwrap();
        assert!(error(&path).contains("is empty"));
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(error(&path).contains("UTF-8"));
        std::fs::write(&path, vec![b'#'; MAX_RULE_TEXT_BYTES + 1]).unwrap();
        assert!(error(&path).contains("longer"));
    }
}

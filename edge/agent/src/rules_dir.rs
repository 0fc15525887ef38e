//! The rules directory: reads its files, and notices that one changed. What a change means is the core's decision.
//!
//! A file that is being written is not read: a change is taken up when nothing changed for one more look. A directory that
//! cannot be read is no empty directory: the rules stay as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidegate_edge_core::{Agent, Input, RuleFile, Setup, SiteRule, Snapshot};
use tidegate_model::ids::StoreId;
use tidegate_model::limits::{MAX_RULE_TEXT_BYTES, MAX_RULES_PER_EDGE};
use tidegate_model::rule::{
    Draft, FileField, Format, Limits, Problems, Secret, Secrets, parse, parse_on_site,
};
use tidegate_model::time::{Monotonic, Now, Wall};
use tokio::sync::{Notify, mpsc};

use crate::control::Hidden;
use crate::settings::{AgentConfig, first_line, whole};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Entries of the directory that are looked at, files that hold no rules included.
const MAX_ENTRIES: usize = 10 * MAX_RULES_PER_EDGE;

/// The directory as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    /// Every file that may hold a rule, by name.
    pub files: Vec<RuleFile>,
    /// Files that hold fields of theirs: a change of one of these is a change of the rules.
    named: BTreeSet<PathBuf>,
}

/// What the watcher found.
#[derive(Debug)]
pub(crate) enum Change {
    /// The directory as it is now; `again`: somebody asked to take it up, changed or not.
    Read { contents: Contents, again: bool },
    /// It cannot be read, and why.
    Unreadable(String),
}

/// Reading the directory at once, changed or not: asked for by one task, done by the loop.
#[derive(Debug, Default)]
pub struct Reload {
    wanted: Notify,
    done: Notify,
}

impl Reload {
    /// Asks for it, and waits until what was read is taken up.
    pub async fn now(&self) {
        self.wanted.notify_one();
        self.done.notified().await;
    }

    /// What was read is taken up, or could not be read.
    pub(crate) fn done(&self) {
        // Nobody may wait: then there is nothing to remember for a later one.
        self.done.notify_waiters();
    }
}

/// Modification time, size and inode of what makes up the rules.
type Look = Result<BTreeMap<PathBuf, (i64, i64, u64, u64)>, String>;

/// Looks at the directory until nobody listens; `reload` makes it read at once.
pub(crate) async fn watch(
    dir: PathBuf,
    first: Option<Contents>,
    reload: Arc<Reload>,
    changes: mpsc::Sender<Change>,
) {
    let mut named = first.map(|contents| contents.named).unwrap_or_default();
    // Between the first reading and this look nothing was settled, so the first look is a change to be confirmed.
    let mut taken: Option<Look> = None;
    let mut before: Option<Look> = None;
    loop {
        let again = tokio::select! {
            () = changes.closed() => return,
            () = reload.wanted.notified() => true,
            () = tokio::time::sleep(LOOK_EVERY) => false,
        };
        let (place, known) = (dir.clone(), named.clone());
        let Ok(now) = tokio::task::spawn_blocking(move || look(&place, &known)).await else { return };
        let is_settled = before.as_ref() == Some(&now);
        let is_new = taken.as_ref() != Some(&now);
        before = Some(now.clone());
        if !(again || is_new && is_settled) {
            continue;
        }
        let place = dir.clone();
        let Ok(read) = tokio::task::spawn_blocking(move || read(&place)).await else { return };
        taken = Some(now);
        let change = match read {
            Ok(contents) => {
                // Another set of files is looked at from now on, which makes one more change.
                named.clone_from(&contents.named);
                Change::Read { contents, again }
            }
            Err(why) => Change::Unreadable(why),
        };
        if changes.send(change).await.is_err() {
            return;
        }
    }
}

fn look(dir: &Path, named: &BTreeSet<PathBuf>) -> Look {
    let files = names(dir)?.into_iter().map(|name| dir.join(name)).chain(named.iter().cloned());
    let seen = files.map(|path| {
        let told = std::fs::metadata(&path)
            .map_or((0, 0, 0, 0), |meta| (meta.mtime(), meta.mtime_nsec(), meta.len(), meta.ino()));
        (path, told)
    });
    Ok(seen.collect())
}

/// Names of the files that may hold rules, sorted: `.toml`, `.yaml`, `.yml` and `.json`, not hidden.
fn names(dir: &Path) -> Result<Vec<String>, String> {
    let failed =
        |error: std::io::Error| format!("the rules directory {} cannot be read: {error}", dir.display());
    let mut names = Vec::new();
    for (number, entry) in std::fs::read_dir(dir).map_err(failed)?.enumerate() {
        let Ok(name) = entry.map_err(failed)?.file_name().into_string() else { continue };
        if number >= MAX_ENTRIES {
            return Err(format!(
                "the rules directory {} has more than {MAX_ENTRIES} entries; keep only rules in it",
                dir.display()
            ));
        }
        if !name.starts_with('.') && Format::from_path(&name).is_some() {
            names.push(name);
        }
    }
    names.sort_unstable();
    if names.len() > MAX_RULES_PER_EDGE {
        let (dir, count) = (dir.display(), names.len());
        return Err(format!(
            "the rules directory {dir} has {count} rule files; at most {MAX_RULES_PER_EDGE} are kept"
        ));
    }
    Ok(names)
}

/// Reads every file.
///
/// # Errors
/// Why the directory as a whole cannot be read; what is wrong with one file stands at that file.
pub(crate) fn read(dir: &Path) -> Result<Contents, String> {
    let mut contents = Contents { files: Vec::new(), named: BTreeSet::new() };
    for name in names(dir)? {
        let path = dir.join(&name);
        let content = match draft(&path) {
            Ok(draft) => {
                contents.named.extend(draft.files().values().map(|file| dir.join(file)));
                site_rule(draft, &name, dir)
            }
            Err(why) => Err(why),
        };
        contents.files.push(RuleFile { name, content });
    }
    Ok(contents)
}

/// Reads one rule that is to be applied by hand.
///
/// # Errors
/// Everything that is wrong with the file, for people.
pub fn read_rule(path: &Path) -> Result<SiteRule, String> {
    let name = path.display().to_string();
    let dir = path.parent().unwrap_or(Path::new(""));
    site_rule(draft(path)?, &name, dir)
}

/// Everything that would keep a rule of this directory from being run as it stands: files that cannot be read, names that are
/// taken twice, rules that the policy of the site forbids. One line each, by file.
///
/// # Errors
/// Why the directory cannot be read.
pub fn check(config: &AgentConfig, dir: &Path) -> Result<Vec<String>, String> {
    let contents = read(dir)?;
    let setup = Setup {
        subscribes_locally: false,
        edge: config.name.clone(),
        account: config.account.clone(),
        has_controller: false,
        agent: crate::startup::software(),
        features: crate::startup::features(),
        policy: config.policy.clone(),
        boot: 0,
        seed: 0,
    };
    // The same decisions as in a running agent that never ran a rule before; nothing is performed.
    let mut agent = Agent::restore(setup, Snapshot::fresh(StoreId(0)));
    let now = Now { monotonic: Monotonic(0), wall: Wall(0) };
    let _ = agent.handle(now, Input::RuleFiles { files: contents.files, again: false });
    let troubles = agent.file_troubles().iter().map(|t| (t.file.clone(), t.detail.clone()));
    let refused = agent.rules().filter(|rule| rule.last_code.is_some_and(|code| !code.is_success()));
    let refused = refused.map(|rule| (rule.file.unwrap_or_default(), rule.last_detail));
    let mut all: Vec<(String, String)> = troubles.chain(refused).collect();
    all.sort();
    Ok(all.into_iter().map(|(file, detail)| located(&file, &detail)).collect())
}

/// The file before what is wrong with it, unless each line of that begins with the file already.
#[must_use]
pub fn located(file: &str, detail: &str) -> String {
    if detail.starts_with(file) { detail.to_owned() } else { format!("{file}: {detail}") }
}

/// The rule of this TOML text, with these secrets.
///
/// # Errors
/// Everything that is wrong with it, for people.
pub(crate) fn rule_of(text: &str, password: Option<Hidden>, key: Option<Hidden>) -> Result<SiteRule, String> {
    let mut draft = parse(text, Format::Toml).map_err(|problems| problems.to_string())?;
    for (field, secret) in [(FileField::Password, password), (FileField::Key, key)] {
        if let Some(Hidden(secret)) = secret {
            draft = draft.with(field, Secret::new(secret));
        }
    }
    checked(draft, "the rule")
}

fn draft(path: &Path) -> Result<Draft, String> {
    let name = path.display().to_string();
    let format = Format::from_path(&name)
        .ok_or_else(|| format!("{name}: the name must end in .toml, .yaml, .yml or .json"))?;
    let failed = |error: std::io::Error| format!("{name} cannot be read: {error}");
    // Looked at first: to open a pipe would wait for whoever writes into it.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(format!("{name} is no file"));
    }
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    // One byte more than is allowed, so that the parser sees that it is too large.
    file.take(MAX_RULE_TEXT_BYTES as u64 + 1).read_to_string(&mut text).map_err(failed)?;
    parse_on_site(&text, format).map_err(|problems| problems.in_file(short(path)).to_string())
}

fn site_rule(draft: Draft, name: &str, dir: &Path) -> Result<SiteRule, String> {
    let mut filled = draft.clone();
    for (field, file) in draft.files() {
        let file = dir.join(file);
        let text = match field {
            FileField::Password => first_line(&file),
            FileField::Ca | FileField::Certificate | FileField::Key => whole(&file),
        };
        filled = filled.with(*field, text.map_err(|why| format!("{name}: {}: {why}", field.name()))?);
    }
    checked(filled, &short(Path::new(name)))
}

fn checked(draft: Draft, name: &str) -> Result<SiteRule, String> {
    let told = |problems: Problems| problems.in_file(name).to_string();
    let (rule, secrets) = draft.validate(&Limits::default()).map_err(told)?;
    let secrets = secrets.apply(Secrets::default());
    rule.has_what_it_needs(&secrets).map_err(told)?;
    Ok(SiteRule { rule, secrets })
}

fn short(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests;

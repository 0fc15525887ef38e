//! The data directory: is it there, whose is it, may we write there, is there room. And the files that hold secrets.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};
use tidegate_model::doctor::{Check, Room};

/// Below the first the store's own reserve is all that is left; below the second queues soon cannot grow.
const ROOM: Room = Room { little: 32 << 20, some: 256 << 20 };
/// Below so many free inodes no queue can begin a new segment soon.
const FEW_INODES: u64 = 100;
/// Entries of the data directory that are looked at.
const MAX_ENTRIES: usize = 1_000;
/// Rights of others; nobody else needs any.
const OTHERS: u32 = 0o077;

/// What was found of the data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub path: PathBuf,
    /// As whom we look.
    pub me: u32,
    pub state: State,
}

/// Whether it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// It is not there; whether we could make it.
    Missing { may_make: bool },
    /// It cannot be looked at, and why.
    Hidden(String),
    /// Something else has its name.
    NoDirectory,
    /// It is there.
    There {
        owner: u32,
        mode: u32,
        may_write: bool,
        /// Entries that belong to somebody else than the directory, with their owner.
        strangers: Vec<(String, u32)>,
        /// Entries that others may use although only their owner should.
        open: Vec<(String, u32)>,
    },
}

/// Looks at it.
pub(super) fn look(path: &Path) -> Place {
    let me = rustix::process::geteuid().as_raw();
    let state = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            State::Missing { may_make: existing(path).is_some_and(|parent| may_write(&parent)) }
        }
        Err(error) => State::Hidden(error.to_string()),
        Ok(found) if !found.is_dir() => State::NoDirectory,
        Ok(found) => {
            let owner = found.uid();
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten().take(MAX_ENTRIES);
            let entries: Vec<(String, std::fs::Metadata)> = entries
                .filter_map(|entry| {
                    Some((entry.file_name().to_string_lossy().into_owned(), entry.metadata().ok()?))
                })
                .collect();
            let strangers = entries.iter().filter(|(_, entry)| entry.uid() != owner);
            let control = entries.iter().filter(|(name, entry)| name == "control.sock" && is_open(entry));
            State::There {
                owner,
                mode: found.permissions().mode() & 0o7777,
                may_write: may_write(path),
                strangers: strangers.map(|(name, entry)| (name.clone(), entry.uid())).collect(),
                open: control.map(|(name, entry)| (name.clone(), entry.mode() & 0o777)).collect(),
            }
        }
    };
    Place { path: path.to_owned(), me, state }
}

fn is_open(entry: &std::fs::Metadata) -> bool {
    entry.permissions().mode() & OTHERS != 0
}

/// The nearest directory above that is there.
fn existing(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    path.ancestors().find(|above| above.is_dir()).map(Path::to_owned)
}

/// Whether this process may make files there; nothing is made.
fn may_write(dir: &Path) -> bool {
    rustix::fs::accessat(CWD, dir, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).is_ok()
}

/// Judges what was found.
pub(super) fn directory(Place { path, me, state }: &Place) -> Vec<Check> {
    const NAME: &str = "data directory";
    let shown = path.display();
    let (owner, mode, may_write, strangers, open) = match state {
        State::Missing { may_make: true } => {
            let why = format!("{shown} is not there; the first start of the agent makes it");
            return vec![Check::warn(NAME, why, "start the agent; or is another data_dir meant?")];
        }
        State::Missing { may_make: false } => {
            let why = format!("{shown} is not there, and user {me} may not make it");
            let fix = format!(
                "install -d -m 700 -o USER {shown}, USER being the agent's; or name another data_dir"
            );
            return vec![Check::bad(NAME, why, fix)];
        }
        State::Hidden(error) => {
            let why = format!("{shown} cannot be looked at: {error}");
            return vec![Check::bad(NAME, why, "run this as root or as the agent's user")];
        }
        State::NoDirectory => {
            return vec![Check::bad(NAME, format!("{shown} is no directory"), "name another data_dir")];
        }
        State::There { owner, mode, may_write, strangers, open } => {
            (*owner, *mode, *may_write, strangers, open)
        }
    };
    let mut checks = Vec::new();
    if !may_write {
        let why =
            format!("user {me} may not write to {shown}, which belongs to user {owner} (mode {mode:o})");
        let fix = "run this as the agent's user or as root; if that is so, the disk is mounted read-only: \
                   look at mount and dmesg";
        checks.push(Check::bad(NAME, why, fix));
    }
    if mode & OTHERS != 0 {
        let why = format!("{shown} holds passwords, and others may look into it (mode {mode:o})");
        checks.push(Check::warn(
            NAME,
            why,
            format!("chmod 700 {shown}; each start of the agent does it too"),
        ));
    }
    if let Some((entry, theirs)) = strangers.first() {
        let (count, them) = (strangers.len(), if strangers.len() == 1 { "belongs" } else { "belong" });
        let why = format!(
            "{shown} belongs to user {owner}, and {count} of its entries {them} to somebody else: {entry} to user {theirs}"
        );
        let fix = format!(
            "stop the agent, then chown -R --reference={shown} {shown}; it was run as another user once"
        );
        checks.push(Check::bad(NAME, why, fix));
    }
    if let Some((entry, mode)) = open.first() {
        let why = format!("others may use {shown}/{entry} (mode {mode:o}), and with it the agent");
        checks.push(Check::warn(NAME, why, format!("chmod 600 {shown}/{entry}")));
    }
    if checks.is_empty() {
        checks.push(Check::ok(NAME, format!("{shown}, for user {owner} only (mode {mode:o})")));
    }
    checks
}

/// Room for the data directory: bytes and inodes.
pub(super) fn room(dir: &Path) -> Vec<Check> {
    let Some(there) = existing(dir) else { return Vec::new() };
    match rustix::fs::statvfs(&there) {
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            judge_room(&dir.display().to_string(), free, (found.f_files, found.f_favail))
        }
        Err(error) => {
            let why = format!("{}: {error}", there.display());
            vec![Check::bad("disk", why, "look at mount and dmesg; the disk may be broken")]
        }
    }
}

fn judge_room(shown: &str, free: u64, (inodes, free_inodes): (u64, u64)) -> Vec<Check> {
    let fix = "free space there: without it rules pause with the fault DISK, or drop their oldest messages";
    let mut checks = vec![ROOM.judge(free, shown, fix)];
    // A file system without a fixed number of inodes tells none.
    if inodes > 0 && free_inodes < FEW_INODES {
        let why = format!("only {free_inodes} files can still be made for {shown}");
        checks.push(Check::bad("disk", why, "remove files there: df -i shows what is used"));
    }
    checks
}

/// A file that holds a secret, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SecretFile {
    path: PathBuf,
    /// Its mode, or why it cannot be looked at.
    mode: Result<u32, String>,
}

/// Looks at it.
pub(super) fn look_at_file(path: &Path) -> SecretFile {
    let mode = std::fs::metadata(path).map(|found| found.permissions().mode() & 0o777);
    SecretFile { path: path.to_owned(), mode: mode.map_err(|error| error.to_string()) }
}

/// Files that hold secrets are for their owner, or its group, only.
pub(super) fn secrets(files: &[SecretFile]) -> Vec<Check> {
    // A group may be the one of the service.
    const STRANGERS: u32 = 0o007;
    let judge = |SecretFile { path, mode }: &SecretFile| {
        let shown = path.display();
        match mode {
            Ok(mode) if mode & STRANGERS != 0 => {
                let why = format!("{shown} holds a password, and everybody may read it (mode {mode:o})");
                Check::warn("secrets", why, format!("chmod 600 {shown}, and make it the agent's own (chown)"))
            }
            Ok(mode) => Check::ok("secrets", format!("{shown} is not for everybody (mode {mode:o})")),
            Err(error) => {
                let why = format!("{shown} cannot be looked at: {error}");
                Check::bad("secrets", why, "run this as root or as the agent's user")
            }
        }
    };
    files.iter().map(judge).collect()
}

#[cfg(test)]
mod tests {
    use super::super::told::result;
    use super::*;
    use tidegate_model::doctor::Outcome;

    fn there(mode: u32) -> State {
        State::There { owner: 998, mode, may_write: true, strangers: Vec::new(), open: Vec::new() }
    }

    fn judged(state: State) -> Vec<(Outcome, String)> {
        let place = Place { path: "/data".into(), me: 998, state };
        directory(&place).iter().map(|check| (result(check), check.why.clone())).collect()
    }

    #[test]
    fn a_directory_is_there_for_its_owner_only() {
        assert_eq!(judged(there(0o700)), [(Outcome::Ok, "/data, for user 998 only (mode 700)".to_owned())]);
        for mode in [0o750, 0o701, 0o777] {
            let told = judged(there(mode));
            assert_eq!((told.len(), told[0].0), (1, Outcome::Warn), "{mode:o}");
            assert!(told[0].1.contains(&format!("(mode {mode:o})")), "{told:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_directory_is_told_with_what_to_do() {
        assert_eq!(judged(State::Missing { may_make: true })[0].0, Outcome::Warn);
        for (state, words) in [
            (State::Missing { may_make: false }, "may not make it"),
            (State::Hidden("no".into()), "cannot be looked at: no"),
            (State::NoDirectory, "no directory"),
            (
                State::There {
                    owner: 0,
                    mode: 0o700,
                    may_write: false,
                    strangers: Vec::new(),
                    open: Vec::new(),
                },
                "user 998 may not write",
            ),
            (
                State::There {
                    owner: 998,
                    mode: 0o700,
                    may_write: true,
                    strangers: vec![("store".into(), 0)],
                    open: Vec::new(),
                },
                "1 of its entries belongs to somebody else: store to user 0",
            ),
        ] {
            let told = judged(state);
            assert_eq!((told.len(), told[0].0), (1, Outcome::Bad), "{told:?}");
            assert!(told[0].1.contains(words), "{told:?}");
        }
        let open = State::There {
            owner: 998,
            mode: 0o700,
            may_write: true,
            strangers: Vec::new(),
            open: vec![("control.sock".into(), 0o666)],
        };
        assert!(judged(open)[0].1.contains("/data/control.sock (mode 666)"));
    }

    #[test]
    fn what_is_there_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| look(&dir.path().join(name)).state;
        assert_eq!(place("new/deep"), State::Missing { may_make: true });
        std::fs::write(dir.path().join("file"), "x").unwrap();
        assert_eq!(place("file"), State::NoDirectory);
        assert!(matches!(place("file/below"), State::Hidden(_)));
        std::fs::create_dir(dir.path().join("data")).unwrap();
        let closed = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(dir.path().join("data"), closed).unwrap();
        let socket = dir.path().join("data/control.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o622)).unwrap();
        let me = rustix::process::geteuid().as_raw();
        let expected = State::There {
            owner: me,
            mode: 0o700,
            may_write: true,
            strangers: Vec::new(),
            open: vec![("control.sock".to_owned(), 0o622)],
        };
        assert_eq!(place("data"), expected);
        assert_eq!(room(&dir.path().join("not/there/yet")).len(), 1);
    }

    #[test]
    fn room_counts_bytes_and_inodes() {
        let results =
            |free, inodes| -> Vec<Outcome> { judge_room("/data", free, inodes).iter().map(result).collect() };
        assert_eq!(results(1 << 30, (1_000, 500)), [Outcome::Ok]);
        assert_eq!(results(100 << 20, (0, 0)), [Outcome::Warn], "without a fixed number of inodes");
        assert_eq!(results(1 << 20, (1_000, FEW_INODES)), [Outcome::Bad]);
        assert_eq!(results(1 << 30, (1_000, FEW_INODES - 1)), [Outcome::Ok, Outcome::Bad]);
    }

    #[test]
    fn files_with_secrets_are_not_for_everybody() {
        let file = |mode| SecretFile { path: "/etc/edge.key".into(), mode };
        for (mode, expected) in [
            (Ok(0o600), Outcome::Ok),
            (Ok(0o640), Outcome::Ok),
            (Ok(0o644), Outcome::Warn),
            (Err("gone".to_owned()), Outcome::Bad),
        ] {
            assert_eq!(result(&secrets(&[file(mode.clone())])[0]), expected, "{mode:?}");
        }
        assert!(look_at_file(Path::new("/nowhere/at/all")).mode.is_err());
    }
}

//! How many files the process may open: each connection is one, and stores and queues need theirs.

use crate::config::Limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that the process needs besides connections: stores, queues, logs, its own connections.
const RESERVED_FILES: usize = 192;

/// Raises the soft limit on open files of this process (`ulimit -n`) to its hard limit, and returns what is in force.
/// To be called once, at the start of a program that serves many clients.
pub fn raise_open_files() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let wanted = Rlimit { current: maximum, maximum };
        if let Err(error) = setrlimit(Resource::Nofile, wanted) {
            tracing::warn!(?current, ?maximum, %error, "the limit on open files could not be raised");
        }
    }
    open_files()
}

/// How many files this process may open.
fn open_files() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Lowers the bounds on connections to what the process may open, and says so: a client that is told to come back is better
/// than a store that cannot open its file.
pub(crate) fn fit_to_open_files(limits: &mut Limits) {
    let files = open_files();
    let (max_connections, max_connecting) = fitting(limits.max_connections, limits.max_connecting, files);
    if max_connections < limits.max_connections {
        tracing::warn!(
            open_files = files,
            wanted = limits.max_connections,
            max_connections,
            "this process may open too few files for as many connections as it should take: raise the limit on open files (systemd: LimitNOFILE, shell: ulimit -n)"
        );
    }
    limits.max_connections = max_connections;
    limits.max_connecting = max_connecting;
}

/// Connections let in, and connections not let in yet, that fit in so many files.
fn fitting(connections: usize, connecting: usize, files: u64) -> (usize, usize) {
    let free = usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(RESERVED_FILES);
    if connections.saturating_add(connecting) <= free {
        return (connections, connecting);
    }
    let connecting = connecting.min(free / 8).max(1);
    (connections.min(free.saturating_sub(connecting)).max(1), connecting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_stores_and_queues() {
        assert_eq!(fitting(8_192, 1_024, 1 << 20), (8_192, 1_024));
        assert_eq!(fitting(8_192, 1_024, 1_024), (728, 104));
        assert_eq!(fitting(100, 10, 1_024), (100, 10));
        assert_eq!(fitting(8_192, 1_024, 64), (1, 1));
        for files in [0, 192, 200, 500, 1_024, 4_096, 9_000, 9_407, 9_408] {
            let (connections, connecting) = fitting(8_192, 1_024, files);
            assert!(connections >= 1 && connecting >= 1);
            assert!(files < 194 || connections + connecting + RESERVED_FILES <= files as usize, "{files}");
        }
    }

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        let hard = getrlimit(Resource::Nofile).maximum;
        // Half of it is enough for the tests that run beside this one.
        let low = Rlimit { current: hard.map(|hard| hard / 2), maximum: hard };
        setrlimit(Resource::Nofile, low).unwrap();
        assert_eq!(open_files(), hard.map_or(u64::MAX, |hard| hard / 2));
        assert_eq!(raise_open_files(), hard.unwrap_or(u64::MAX));
    }
}

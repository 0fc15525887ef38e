//! How a command ends: the exit codes, and the failures that lead to them. One place maps one to the other.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::client::{ClientError, Problem};

/// The exit codes of every command. Scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done; `diff`: no difference.
    Done,
    /// Failed; `diff`: differences were found.
    Failed,
    /// The command line is wrong; `diff`: an error.
    Usage,
    /// What was named is not there.
    NotFound,
    /// Not signed in, or not allowed.
    Denied,
    /// The state does not allow it, or somebody changed it in between.
    Conflict,
    /// Some of several targets failed.
    PartlyFailed,
    /// What was waited for did not happen in time.
    TimedOut,
    /// The server cannot be reached.
    Unreachable,
    /// Ctrl-C.
    Interrupted,
}

impl Exit {
    /// The number.
    pub fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Denied => 4,
            Self::Conflict => 5,
            Self::PartlyFailed => 6,
            Self::TimedOut => 7,
            Self::Unreachable => 8,
            Self::Interrupted => 130,
        }
    }

    /// For programs, where the server gave no code of its own.
    pub fn code(self) -> &'static str {
        match self {
            Self::Done => "OK",
            Self::Failed => "FAILED",
            Self::Usage => "USAGE",
            Self::NotFound => "NOT_FOUND",
            Self::Denied => "DENIED",
            Self::Conflict => "CONFLICT",
            Self::PartlyFailed => "PARTLY_FAILED",
            Self::TimedOut => "TIMED_OUT",
            Self::Unreachable => "UNREACHABLE",
            Self::Interrupted => "INTERRUPTED",
        }
    }

    /// In words.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Usage => "the command line, a file or a setting is wrong",
            Self::NotFound => "not found",
            Self::Denied => "not signed in, or not allowed",
            Self::Conflict => "the state forbids it, or someone changed it",
            Self::PartlyFailed => "some of several targets failed",
            Self::TimedOut => "timed out waiting",
            Self::Unreachable => "the server cannot be reached",
            Self::Interrupted => "interrupted",
        }
    }

    /// The code for an HTTP status that is no success.
    pub fn of_status(status: u16) -> Self {
        match status {
            404 => Self::NotFound,
            401 | 403 => Self::Denied,
            409 | 410 | 412 | 423 | 428 | 429 => Self::Conflict,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.number())
    }
}

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line, a file or a setting is wrong.
    #[error("{0}")]
    Usage(String),
    /// It was tried and failed.
    #[error("{0}")]
    Failed(String),
    /// What was named is not there.
    #[error("{0}")]
    NotFound(String),
    /// The state does not allow it.
    #[error("{0}")]
    Conflict(String),
    /// Some of several targets failed.
    #[error("{0}")]
    PartlyFailed(String),
    /// All of several targets failed.
    #[error("{text}")]
    AllFailed {
        /// How it ends: as each of them would alone, where they are of one kind.
        exit: Exit,
        /// What failed.
        text: String,
    },
    /// What was waited for did not happen in time.
    #[error("{0}")]
    TimedOut(String),
    /// Ctrl-C; the text says what goes on without us.
    #[error("{0}")]
    Interrupted(String),
    /// The server refused what a file says.
    #[error("{text}")]
    InFile {
        /// The file.
        file: String,
        /// Every problem, with its place in it.
        text: String,
        /// What the server said.
        problem: Box<Problem>,
    },
    /// The server refused, or did not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Standard output cannot be written.
    #[error("the output cannot be written: {0}")]
    Output(#[from] std::io::Error),
}

impl Failure {
    /// What to tell of several targets, of which those with these ends failed: `text` says each.
    pub fn of_several(failed: &[Exit], all: usize, text: String) -> Self {
        if failed.len() < all {
            return Self::PartlyFailed(text);
        }
        let exit = match failed {
            [first, rest @ ..] if rest.iter().all(|exit| exit == first) => *first,
            _ => Exit::Failed,
        };
        Self::AllFailed { exit, text }
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::AllFailed { exit, .. } => *exit,
            Self::Usage(_) => Exit::Usage,
            Self::Failed(_) => Exit::Failed,
            Self::NotFound(_) => Exit::NotFound,
            Self::Conflict(_) => Exit::Conflict,
            Self::PartlyFailed(_) => Exit::PartlyFailed,
            Self::TimedOut(_) => Exit::TimedOut,
            Self::Interrupted(_) => Exit::Interrupted,
            Self::InFile { problem, .. } => Exit::of_status(problem.status),
            Self::Client(error) => error.exit(),
            // `tidegate … | head` is no error.
            Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Output(_) => Exit::Failed,
        }
    }

    /// What to tell; `None`: nothing, it is no error or all is said already.
    pub fn text(&self) -> Option<String> {
        let text = self.to_string();
        (self.exit() != Exit::Done && !text.is_empty()).then_some(text)
    }

    /// The same for programs: the server's problem, or one in its form.
    pub fn document(&self) -> Option<Value> {
        let detail = self.text()?;
        Some(match self {
            Self::Client(ClientError::Refused(problem)) => problem.document(),
            Self::InFile { file, problem, .. } => {
                let mut document = problem.document();
                document["file"] = json!(file);
                document
            }
            Self::Usage(_)
            | Self::Failed(_)
            | Self::NotFound(_)
            | Self::Conflict(_)
            | Self::PartlyFailed(_)
            | Self::AllFailed { .. }
            | Self::TimedOut(_)
            | Self::Interrupted(_)
            | Self::Client(_)
            | Self::Output(_) => {
                json!({ "title": self.exit().meaning(), "code": self.exit().code(), "detail": detail })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_their_exit_codes() {
        let table = [
            (404, 3),
            (401, 4),
            (403, 4),
            (409, 5),
            (412, 5),
            (428, 5),
            (429, 5),
            (422, 1),
            (500, 1),
            (503, 1),
        ];
        for (status, exit) in table {
            assert_eq!(Exit::of_status(status).number(), exit, "{status}");
        }
    }

    #[test]
    fn failures_have_their_exit_codes_and_a_closed_pipe_is_silent() {
        let text = String::from("x");
        let table = [
            (Failure::Usage(text.clone()), 2),
            (Failure::Failed(text.clone()), 1),
            (Failure::NotFound(text.clone()), 3),
            (Failure::Conflict(text.clone()), 5),
            (Failure::PartlyFailed(text.clone()), 6),
            (Failure::TimedOut(text.clone()), 7),
            (Failure::Interrupted(text), 130),
        ];
        for (failure, exit) in table {
            assert_eq!(failure.exit().number(), exit, "{failure:?}");
            assert_eq!(failure.text().as_deref(), Some("x"));
        }
        let closed = Failure::Output(std::io::ErrorKind::BrokenPipe.into());
        assert_eq!((closed.exit(), closed.text(), closed.document()), (Exit::Done, None, None));
    }

    #[test]
    fn several_that_failed_alike_end_as_one_would() {
        let end = |failed: &[Exit], all| Failure::of_several(failed, all, "x".into()).exit();
        assert_eq!(end(&[Exit::Conflict, Exit::Conflict], 2), Exit::Conflict);
        assert_eq!(end(&[Exit::NotFound], 1), Exit::NotFound);
        assert_eq!(end(&[Exit::Conflict, Exit::NotFound], 2), Exit::Failed);
        assert_eq!(end(&[Exit::Conflict, Exit::Conflict], 3), Exit::PartlyFailed);
    }

    #[test]
    fn for_programs_a_failure_is_a_problem() {
        let local = Failure::TimedOut("not running within 1s".into()).document().unwrap();
        let told =
            json!({ "title": "timed out waiting", "code": "TIMED_OUT", "detail": "not running within 1s" });
        assert_eq!(local, told);
    }
}

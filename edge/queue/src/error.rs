//! What can go wrong, one enum per operation.

use std::{io, path::PathBuf, sync::Arc};

/// Opening or destroying a queue failed.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Another handle, in this process or in another one, has the queue open.
    #[error("queue {} is in use by another process; stop it or use another data directory", dir.display())]
    Locked {
        /// Directory of the queue.
        dir: PathBuf,
    },
    /// The operating system refused something.
    #[error("cannot {doing} of queue {}", dir.display())]
    Io {
        /// Directory of the queue.
        dir: PathBuf,
        /// What was being done, as in "cannot … of queue".
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// A record was not accepted. It is not in the queue; its sender must not be told that it is.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// Too many bytes are waiting already. [`crate::Queue::on_space`] tells when to try again.
    #[error("queue is full and too many messages wait to enter it")]
    Full,
    /// The record can never fit under the bounds of this queue.
    #[error("message of {bytes} bytes is larger than the {limit} bytes this queue takes")]
    TooLarge {
        /// Bytes the record would take on disk.
        bytes: u64,
        /// Most bytes one record may take.
        limit: u64,
    },
    /// Writing or syncing failed; nothing of the batch was acknowledged. The next append tries a new segment.
    #[error("cannot write queue to disk")]
    Disk(#[source] Arc<io::Error>),
    /// The queue was closed before the record was on disk.
    #[error("queue is closed")]
    Closed,
}

/// A record could not be set aside; it stands in the line as before.
#[derive(Debug, thiserror::Error)]
pub enum AsideError {
    /// Reading it failed.
    #[error("cannot read the message that is to be set aside")]
    Read(#[source] ReadError),
    /// Writing failed.
    #[error("cannot write the message that is to be set aside")]
    Disk(#[source] io::Error),
    /// The queue was closed before.
    #[error("queue is closed")]
    Closed,
}

/// Records could not be dropped by hand.
#[derive(Debug, thiserror::Error)]
pub enum DropError {
    /// A file could not be read or deleted.
    #[error("cannot look for the messages to drop: {0}")]
    Read(#[source] ReadError),
    /// That they are dropped could not be written.
    #[error("cannot write down what is dropped: {0}; after a restart the messages may be there again")]
    Disk(#[source] io::Error),
    /// The queue was closed before.
    #[error("queue is closed")]
    Closed,
}

/// Reading from a segment failed. Nothing was lost by it; read again.
#[derive(Debug, thiserror::Error)]
#[error("cannot read queue segment {segment}")]
pub struct ReadError {
    /// File name of the segment.
    pub segment: String,
    /// Why.
    #[source]
    pub source: io::Error,
}

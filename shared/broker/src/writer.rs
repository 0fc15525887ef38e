//! The writing half of a connection: replies first, then what the session has for the client, in batches.

use crate::broker::Context;
use crate::codec::{self, Reply};
use crate::slot::{Slot, lock};
use crate::watcher::DisconnectReason;
use bytes::BytesMut;
use std::io;
use std::sync::{Mutex, MutexGuard};
use tokio::io::{AsyncWrite, AsyncWriteExt, WriteHalf};
use tokio::sync::Notify;

/// Bytes that one write gathers before it goes to the socket; also when replies make the client wait.
const WRITE_BATCH_BYTES: usize = 64 * 1024;
/// Answers on their way to the writer.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    replies: Mutex<BytesMut>,
    /// Rung by the writer when it took the replies.
    pub taken: Notify,
}

impl Outbox {
    fn replies(&self) -> MutexGuard<'_, BytesMut> {
        lock(&self.replies)
    }

    /// Adds a reply and wakes the writer.
    pub fn reply(&self, slot: &Slot, reply: Reply) {
        codec::encode_reply(reply, &mut self.replies());
        slot.wake.notify_one();
    }

    /// True when the client does not take its replies: it is not to be read.
    pub fn is_full(&self) -> bool {
        self.replies().len() >= WRITE_BATCH_BYTES
    }
}

/// Writes replies first, then what the session has, in batches; flushed when there is no more.
pub(crate) async fn run<S: AsyncWrite>(
    mut socket: WriteHalf<S>,
    context: &Context,
    slot: &Slot,
    outbox: &Outbox,
) -> DisconnectReason {
    let mut batch = BytesMut::new();
    loop {
        batch.unsplit(outbox.replies().split());
        outbox.taken.notify_one();
        let more = context.hub.fill(slot, &mut batch, WRITE_BATCH_BYTES);
        if batch.is_empty() {
            if more {
                tokio::task::yield_now().await
            } else {
                // A client for whom nothing waits holds no buffer.
                batch = BytesMut::new();
                slot.wake.notified().await
            }
            continue;
        }
        while !batch.is_empty() {
            match tokio::time::timeout(context.limits.write_timeout, socket.write_buf(&mut batch)).await {
                Ok(Ok(1..)) => {}
                Ok(Ok(0)) => return DisconnectReason::Lost("it takes no more bytes".to_owned()),
                Ok(Err(error)) => return lost(&error),
                Err(_) => return DisconnectReason::WriteTimeout,
            }
        }
        if batch.capacity() > 2 * WRITE_BATCH_BYTES {
            batch = BytesMut::new();
        }
    }
}

/// The end of a connection that an error of its socket brings.
pub(crate) fn lost(error: &io::Error) -> DisconnectReason {
    DisconnectReason::Lost(error.to_string())
}

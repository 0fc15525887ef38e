//! From the incoming queue to the local broker, whether or not there is a connection to the remote one.

use std::{sync::Arc, time::Duration};

use tidegate_edge_core::Order;
use tidegate_edge_queue::{Queue, Stored};
use tidegate_model::code::FaultCode;
use tokio::sync::{Notify, watch};

use super::{
    counters::Tally,
    fault::fault,
    remote::LocalState,
    sink::{LocalMessage, LocalSink, SinkError},
};

/// Bounds of one look into the queue.
const FETCH_RECORDS: usize = 500;
const FETCH_BYTES: usize = 128 << 10;
/// The pauses after a refusal of the local broker: from, to.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// The local broker is our own: nothing has to be asked of it before it works.
pub(super) const UP: LocalState = LocalState::Up(Order(u64::MAX));

/// Empties the queue for ever, and says how the last attempt went.
pub(super) async fn drain(
    queue: Queue,
    sink: Arc<dyn LocalSink>,
    tally: Arc<Tally>,
    state: watch::Sender<LocalState>,
) {
    let durable = Arc::new(Notify::new());
    let wake = Arc::clone(&durable);
    queue.on_durable(move || wake.notify_one());
    let mut pause = PAUSE.0;
    let mut next = 1;
    loop {
        let failed = match read(&queue, next).await {
            Ok(records) if records.is_empty() => {
                durable.notified().await;
                continue;
            }
            Ok(records) => deliver(&queue, &*sink, &tally, records, &mut next).await,
            Err(reason) => Err(reason),
        };
        match failed {
            Ok(()) => {
                pause = PAUSE.0;
                state.send_if_modified(|state| std::mem::replace(state, UP) != UP);
            }
            Err(reason) => {
                tally.error(&reason);
                let trouble = LocalState::Trouble(fault(FaultCode::LocalBroker, &reason));
                state.send_if_modified(|state| std::mem::replace(state, trouble) == UP);
                queue.rewind(next);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }
}

async fn deliver(
    queue: &Queue,
    sink: &dyn LocalSink,
    tally: &Tally,
    records: Vec<Stored>,
    next: &mut u64,
) -> Result<(), String> {
    for Stored { offset, record } in records {
        let message = LocalMessage {
            topic: record.topic,
            payload: record.payload,
            qos: record.qos,
            retain: record.retain,
        };
        match sink.publish(message).await {
            Ok(()) => {}
            Err(error @ SinkError::Refused(_)) => {
                Tally::add(&tally.refused, 1);
                tally.error(&error.to_string());
            }
            Err(error @ SinkError::Unavailable(_)) => return Err(error.to_string()),
        }
        *next = offset + 1;
        queue.release(offset);
    }
    Ok(())
}

async fn read(queue: &Queue, from: u64) -> Result<Vec<Stored>, String> {
    if let Some(records) = queue.read_cached(from, FETCH_RECORDS, FETCH_BYTES) {
        return Ok(records);
    }
    let queue = queue.clone();
    let reading = tokio::task::spawn_blocking(move || queue.read_from(from, FETCH_RECORDS, FETCH_BYTES));
    reading.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

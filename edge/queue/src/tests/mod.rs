//! Tests of the queue. `disk` plays a disk that forgets and fails; `model` crashes at every write; `damage` flips
//! bytes; `behaviour` uses the real disk and the writer thread.

mod aside;
mod behaviour;
mod by_hand;
mod damage;
mod disk;
mod model;
#[cfg(target_os = "linux")]
mod power;

use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::{
    AppendError, QueueConfig, Record, Source, WhenFull,
    core::{Core, Step},
    writer::Writer,
};

/// What each append was told, in the order of telling.
type Told = Arc<Mutex<Vec<(u64, Result<u64, AppendError>)>>>;

fn small(when_full: WhenFull, max_bytes: u64) -> QueueConfig {
    QueueConfig { max_bytes, max_age: None, when_full, segment_bytes: 1024, max_waiting_bytes: 1 << 20 }
}

/// A record that carries `id`, padded to `size` bytes of payload.
fn record(id: u64, size: usize) -> Record {
    let mut payload = format!("{id}:").into_bytes();
    payload.resize(size.max(payload.len()), b'.');
    Record {
        topic: format!("t/{}", id % 7),
        payload: Bytes::from(payload),
        qos: 1,
        retain: id.is_multiple_of(2),
        at_ms: i64::try_from(id).unwrap(),
        source: id.is_multiple_of(3).then(|| source_of(id)),
    }
}

/// The source of every third record.
fn source_of(id: u64) -> Source {
    Source { id: u16::try_from(id % 65_535).unwrap() + 1, print: id.wrapping_mul(0x9e37_79b9_7f4a_7c15) }
}

/// The id a record carries.
fn id_of(record: &Record) -> u64 {
    let text = std::str::from_utf8(&record.payload).unwrap();
    text.split(':').next().unwrap().parse().unwrap()
}

fn append(core: &Core, told: &Told, id: u64, record: Record) {
    let told = Arc::clone(told);
    core.append(record, Box::new(move |result| told.lock().unwrap().push((id, result))));
}

/// Steps until nothing can be done; a failed step counts as done.
fn run(core: &Core, writer: &mut Writer) {
    for _ in 0..10_000 {
        if core.step(writer) == Step::Idle {
            return;
        }
    }
    panic!("the writer never came to rest");
}

/// Everything readable, in small bites.
fn read_all(core: &Core) -> Vec<crate::Stored> {
    let mut all: Vec<crate::Stored> = Vec::new();
    loop {
        let from = all.last().map_or(1, |last| last.offset + 1);
        let found = core.read_from(from, 3, 500).unwrap();
        if found.is_empty() {
            return all;
        }
        all.extend(found);
    }
}

//! How much group commit is worth on this disk, as a ratio within one run: the same records one by one (each waits for
//! its own sync) and 1,000 at a time, then read back from the files.
//!
//! `cargo run --release -p tidegate-edge-queue --example group_commit -- [directory]`
#![allow(clippy::print_stdout, reason = "a measurement is printed")]

use std::{
    error::Error,
    path::{Path, PathBuf},
    sync::mpsc,
    time::Instant,
};

use bytes::Bytes;
use tidegate_edge_queue::{Queue, QueueConfig, Record};

const PAYLOAD_BYTES: usize = 256;
const ONE_BY_ONE: u64 = 2_000;
const IN_GROUPS: u64 = 200_000;
const IN_FLIGHT: u64 = 1_000;

fn main() -> Result<(), Box<dyn Error>> {
    let parent = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = parent.join(format!("tidegate-group-commit-{}", std::process::id()));
    let single = append(&dir, ONE_BY_ONE, 1)?;
    Queue::destroy(&dir)?;
    let grouped = append(&dir, IN_GROUPS, IN_FLIGHT)?;
    let read = read_back(&dir)?;
    Queue::destroy(&dir)?;
    println!("one by one           {single:>12.0} records/s");
    println!("{IN_FLIGHT} in flight       {grouped:>12.0} records/s   {:.0} times", grouped / single);
    println!("read from files      {read:>12.0} records/s");
    Ok(())
}

fn config() -> QueueConfig {
    QueueConfig { max_bytes: 256 << 20, max_age: None, ..QueueConfig::default() }
}

fn append(dir: &Path, count: u64, in_flight: u64) -> Result<f64, Box<dyn Error>> {
    let (queue, _) = Queue::open(dir, config(), 0)?;
    let (tx, rx) = mpsc::channel();
    let started = Instant::now();
    let mut answered = 0;
    for sent in 0..count {
        if sent - answered >= in_flight {
            rx.recv()??;
            answered += 1;
        }
        let tx = tx.clone();
        let record = Record {
            topic: "plant/gateway-1/sensors/temperature".to_owned(),
            payload: Bytes::from_static(&[7; PAYLOAD_BYTES]),
            qos: 1,
            retain: false,
            at_ms: 0,
            source: None,
        };
        queue.append(record, move |result| {
            // The receiver lives until every answer is there.
            let _ = tx.send(result);
        });
    }
    for _ in answered..count {
        rx.recv()??;
    }
    let rate = count as f64 / started.elapsed().as_secs_f64();
    let commits = queue.stats().commits_total;
    println!("{count} records in {commits} commits, {:.1} per commit", count as f64 / commits as f64);
    Ok(rate)
}

fn read_back(dir: &Path) -> Result<f64, Box<dyn Error>> {
    let (queue, recovery) = Queue::open(dir, config(), 0)?;
    let started = Instant::now();
    let (mut next, mut count) = (1, 0);
    loop {
        let found = queue.read_from(next, 500, 128 << 10)?;
        let Some(last) = found.last() else { break };
        next = last.offset + 1;
        count += found.len() as u64;
    }
    assert_eq!(count, recovery.records);
    Ok(count as f64 / started.elapsed().as_secs_f64())
}

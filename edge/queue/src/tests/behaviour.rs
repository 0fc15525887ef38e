//! The queue as callers see it, with its writer thread.

use std::{
    io,
    path::Path,
    sync::{Arc, mpsc},
    time::Duration,
};

use super::{disk::FakeDisk, id_of, record, small, source_of};
use crate::{AppendError, MAX_SOURCES, Queue, QueueConfig, QueueError, Record, Source, WhenFull};

const DEADLINE: Duration = Duration::from_secs(20);

fn open(dir: &Path, config: QueueConfig) -> Queue {
    Queue::open(dir, config, 0).unwrap().0
}

/// Hands over a record; the answer comes through the channel.
fn send(queue: &Queue, record: Record) -> mpsc::Receiver<Result<u64, AppendError>> {
    let (tx, rx) = mpsc::channel();
    queue.append(record, move |result| {
        let _ = tx.send(result);
    });
    rx
}

fn put(queue: &Queue, id: u64) -> u64 {
    send(queue, record(id, 100)).recv_timeout(DEADLINE).unwrap().unwrap()
}

/// After a failed write: refused until everybody who waited was told, taken then.
fn put_again(queue: &Queue, id: u64) -> u64 {
    let began = std::time::Instant::now();
    loop {
        match send(queue, record(id, 100)).recv_timeout(DEADLINE).unwrap() {
            Ok(offset) => return offset,
            Err(AppendError::Disk(_)) if began.elapsed() < DEADLINE => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

fn ids(queue: &Queue, from: u64) -> Vec<u64> {
    let mut found = Vec::new();
    let mut from = from;
    loop {
        let some = queue.read_from(from, 16, 4096).unwrap();
        let Some(last) = some.last() else { return found };
        from = last.offset + 1;
        found.extend(some.iter().map(|stored| id_of(&stored.record)));
    }
}

#[test]
fn records_come_back_in_order_after_a_restart_and_offsets_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path(), small(WhenFull::Block, 64 << 10));
    assert_eq!((1..=30).map(|id| put(&queue, id)).collect::<Vec<_>>(), (1..=30).collect::<Vec<_>>());
    queue.release(25);
    queue.close();
    let (queue, recovery) = Queue::open(dir.path(), small(WhenFull::Block, 64 << 10), 0).unwrap();
    assert_eq!(recovery.records, 5);
    assert_eq!(ids(&queue, 1), (26..=30).collect::<Vec<_>>());
    queue.release(30);
    assert_eq!(queue.stats().queued, 0);
    assert_eq!(queue.stats().bytes, 0);
    drop(queue);
    let queue = open(dir.path(), small(WhenFull::Block, 64 << 10));
    assert_eq!(put(&queue, 31), 31);
    assert_eq!(ids(&queue, 1), [31]);
}

#[test]
fn a_record_keeps_every_field_and_empty_payloads() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path(), QueueConfig::default());
    let sent = Record { payload: bytes::Bytes::new(), qos: 2, retain: true, at_ms: -5, ..record(8, 0) };
    send(&queue, sent.clone()).recv_timeout(DEADLINE).unwrap().unwrap();
    drop(queue);
    let queue =
        Queue::open(dir.path(), QueueConfig { max_age: None, ..QueueConfig::default() }, 0).unwrap().0;
    assert_eq!(queue.read_cached(1, 1, 1), None);
    assert_eq!(queue.read_from(1, 1, 1).unwrap()[0].record, sent);
}

#[test]
fn sources_outlive_a_release_and_a_restart_as_long_as_their_segment_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let config = small(WhenFull::Block, 64 << 10);
    let queue = open(dir.path(), config.clone());
    for id in 1..=30 {
        put(&queue, id);
    }
    queue.release(30);
    drop(queue);
    let (queue, recovery) = Queue::open(dir.path(), config.clone(), 0).unwrap();
    assert_eq!(recovery.records, 0);
    // Released segments are deleted, the newest one never.
    let told: Vec<Source> = recovery.sources.into();
    let all: Vec<Source> = (1..=10).map(|third| source_of(3 * third)).collect();
    assert!(!told.is_empty() && all.ends_with(&told), "{told:?}");

    // All of them may wait for a slow disk.
    let config =
        QueueConfig { max_bytes: 8 << 20, segment_bytes: 1 << 20, max_waiting_bytes: 8 << 20, ..config };
    queue.reconfigure(config.clone());
    let answers: Vec<_> = (1..=3 * MAX_SOURCES as u64 + 30).map(|id| send(&queue, record(id, 10))).collect();
    for answer in answers {
        answer.recv_timeout(DEADLINE).unwrap().unwrap();
    }
    drop(queue);
    let recovery = Queue::open(dir.path(), config, 0).unwrap().1;
    assert_eq!(recovery.sources.len(), MAX_SOURCES);
    assert_eq!(recovery.sources.back(), Some(&source_of(3 * MAX_SOURCES as u64 + 30)));
}

#[test]
fn many_appends_share_a_commit() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path(), QueueConfig::default());
    let answers: Vec<_> = (0..2000).map(|id| send(&queue, record(id, 100))).collect();
    for (offset, answer) in (1..).zip(answers) {
        assert_eq!(answer.recv_timeout(DEADLINE).unwrap().unwrap(), offset);
    }
    assert!(queue.stats().commits_total < 2000, "{} commits", queue.stats().commits_total);
}

/// Waits until the writer has looked.
fn until(holds: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !holds() {
        assert!(began.elapsed() < DEADLINE, "it never is so");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_blocking_queue_holds_records_back_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let config = QueueConfig { max_waiting_bytes: 400, ..small(WhenFull::Block, 4096) };
    let queue = open(dir.path(), config);
    let (space, spaces) = mpsc::channel();
    queue.on_space(move || {
        let _ = space.send(());
    });
    // Four segments of six records of 143 bytes; a fifth would be too much.
    let taken = 24;
    for id in 1..=taken {
        put(&queue, id);
        assert!(!queue.is_full(), "nobody waits");
    }
    let parked = send(&queue, record(taken + 1, 100));
    let second = send(&queue, record(taken + 2, 100));
    let refused = send(&queue, record(taken + 3, 100));
    assert!(matches!(refused.recv_timeout(DEADLINE).unwrap(), Err(AppendError::Full)));
    assert!(!queue.has_room(100));
    assert_eq!(queue.stats().dropped.total(), 0, "QoS 1 stays with its sender");
    until(|| queue.is_full());
    queue.release(taken);
    assert_eq!(parked.recv_timeout(DEADLINE).unwrap().unwrap(), taken + 1);
    assert_eq!(second.recv_timeout(DEADLINE).unwrap().unwrap(), taken + 2);
    spaces.recv_timeout(DEADLINE).unwrap();
    assert!(queue.has_room(100));
    until(|| !queue.is_full());
}

#[test]
fn closing_refuses_what_has_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path(), small(WhenFull::Block, 4096));
    let answers: Vec<_> = (1..=60).map(|id| send(&queue, record(id, 100))).collect();
    queue.close();
    let results: Vec<_> = answers.iter().map(|answer| answer.recv_timeout(DEADLINE).unwrap()).collect();
    let accepted = results.iter().filter(|result| result.is_ok()).count();
    assert!(results[accepted..].iter().all(|result| matches!(result, Err(AppendError::Closed))));
    let late = send(&queue, record(61, 1));
    assert!(matches!(late.recv_timeout(DEADLINE).unwrap(), Err(AppendError::Closed)));
    let queue = open(dir.path(), small(WhenFull::Block, 4096));
    assert_eq!(ids(&queue, 1).len(), accepted);
}

#[test]
fn dropping_the_oldest_is_counted_and_the_reader_jumps() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path(), small(WhenFull::DropOldest, 4096));
    for id in 1..=100 {
        put(&queue, id);
        assert!(!queue.is_full(), "who drops makes nobody wait");
    }
    let left = ids(&queue, 1);
    assert_eq!(left.last(), Some(&100));
    assert!(left.len() >= 12, "{} left", left.len());
    let stats = queue.stats();
    assert_eq!(stats.queued, left.len() as u64);
    assert_eq!(stats.dropped.full, 100 - left.len() as u64);
    assert_eq!(stats.oldest_at_ms, Some(i64::try_from(left[0]).unwrap()));
    queue.release(3); // dropped long ago
    assert_eq!(ids(&queue, 1), left);
    assert_eq!(ids(&queue, 50), left, "a reader behind jumps forward");
    queue.close();
    let disk: u64 =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(disk <= 4096 + 1024 + 24, "{disk} bytes on disk");
}

#[test]
fn old_records_go_by_segment_and_by_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let config = QueueConfig { max_age: Some(Duration::from_millis(10)), ..small(WhenFull::Block, 64 << 10) };
    let queue = open(dir.path(), config.clone());
    for id in 1..=40 {
        put(&queue, id); // accepted at id ms
    }
    queue.expire(40); // older than 30 ms: 1 to 29
    put(&queue, 41); // the writer has seen the order before
    assert_eq!(ids(&queue, 1), (30..=41).collect::<Vec<_>>());
    assert_eq!(queue.stats().dropped.age, 29);
    queue.close();
    let queue = Queue::open(dir.path(), config, 1000).unwrap().0;
    put(&queue, 2000);
    assert_eq!(ids(&queue, 1), [2000]);
}

#[test]
fn what_was_accepted_before_the_clock_was_set_is_never_too_old() {
    let dir = tempfile::tempdir().unwrap();
    let config = QueueConfig { max_age: Some(Duration::from_millis(10)), ..small(WhenFull::Block, 64 << 10) };
    let queue = open(dir.path(), config.clone());
    let unset = Record { at_ms: crate::UNKNOWN_AGE, ..record(1, 10) };
    assert!(send(&queue, unset).recv_timeout(DEADLINE).unwrap().is_ok());
    queue.close();
    let queue = Queue::open(dir.path(), config, 1_800_000_000_000).unwrap().0;
    queue.expire(1_900_000_000_000);
    put(&queue, 2);
    assert_eq!(queue.stats().dropped.age, 0);
    assert_eq!(queue.stats().queued, 2);
}

#[test]
fn a_record_that_never_fits_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path(), small(WhenFull::DropOldest, 8192));
    let answer = send(&queue, record(1, 4096)).recv_timeout(DEADLINE).unwrap();
    assert!(matches!(answer, Err(AppendError::TooLarge { limit: 4096, .. })));
    assert_eq!(queue.stats().dropped.too_large, 1);
    // Larger than a segment, but permitted: it gets one of its own.
    send(&queue, record(2, 4000)).recv_timeout(DEADLINE).unwrap().unwrap();
    put(&queue, 3);
    drop(queue);
    assert_eq!(ids(&open(dir.path(), small(WhenFull::DropOldest, 8192)), 1), [2, 3]);
}

#[test]
fn a_queue_opens_once_and_is_destroyed_only_when_closed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("queue");
    let queue = open(&dir, QueueConfig::default());
    put(&queue, 1);
    assert!(matches!(Queue::open(&dir, QueueConfig::default(), 0), Err(QueueError::Locked { .. })));
    assert!(matches!(Queue::destroy(&dir), Err(QueueError::Locked { .. })));
    queue.close();
    Queue::destroy(&dir).unwrap();
    assert!(!dir.exists());
    Queue::destroy(&dir).unwrap();
}

#[test]
fn the_reader_is_woken_and_a_panic_of_its_callback_is_survived() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path(), QueueConfig::default());
    queue.on_durable(|| panic!("on purpose"));
    put(&queue, 1);
    let (woken, wakes) = mpsc::channel();
    queue.on_durable(move || {
        let _ = woken.send(());
    });
    put(&queue, 2);
    wakes.recv_timeout(DEADLINE).unwrap();
    assert_eq!(queue.read_cached(2, 10, 1000).unwrap().len(), 1);
}

#[test]
fn a_failed_sync_acknowledges_nothing_and_the_next_segment_goes_on() {
    let disk = FakeDisk::default();
    let config = small(WhenFull::Block, 64 << 10);
    let queue = Queue::start(Arc::new(disk.clone()), Path::new("q"), config, 0).unwrap().0;
    assert_eq!(put(&queue, 1), 1);
    disk.fail(2, io::ErrorKind::Other); // the write works, the sync does not
    let answer = send(&queue, record(2, 100)).recv_timeout(DEADLINE).unwrap();
    assert!(matches!(answer, Err(AppendError::Disk(_))));
    assert!(queue.stats().faulted);
    assert_eq!(put_again(&queue, 3), 2, "the failed record's offset was never given out");
    assert!(!queue.stats().faulted);
    assert_eq!(ids(&queue, 1), [1, 3]);
    assert_eq!(disk.segments().len(), 2);
}

#[test]
fn what_waits_behind_a_failed_write_fails_with_it() {
    let disk = FakeDisk::default();
    // Two records fill a segment: the third one waits for the next.
    let queue =
        Queue::start(Arc::new(disk.clone()), Path::new("q"), small(WhenFull::Block, 64 << 10), 0).unwrap().0;
    put(&queue, 1);
    disk.fail(2, io::ErrorKind::Other); // the first operation shortens the full segment
    let (tx, told) = mpsc::channel();
    let again = queue.clone();
    queue.append(record(2, 900), move |result| {
        // Whoever is told first tries again at once: he would come before those who are told after him.
        again.append(record(4, 10), move |result| tx.send((4, result.is_ok())).unwrap());
        assert!(result.is_err());
    });
    let behind = send(&queue, record(3, 900));
    assert_eq!(told.recv_timeout(DEADLINE).unwrap(), (4, false));
    let third = behind.recv_timeout(DEADLINE).unwrap();
    // The third came in time to fail too, or after everybody was told.
    assert_eq!(third.is_ok(), ids(&queue, 1).contains(&3));
    assert!(!ids(&queue, 1).contains(&4));
    put_again(&queue, 5);
    assert!(ids(&queue, 1).ends_with(&[5]));
}

#[test]
fn a_full_disk_costs_the_oldest_segment_or_is_told() {
    let full = |when_full| {
        let disk = FakeDisk::default();
        let queue =
            Queue::start(Arc::new(disk.clone()), Path::new("q"), small(when_full, 64 << 10), 0).unwrap().0;
        for id in 1..=18 {
            put(&queue, id); // six to a segment: the next one needs a fourth
        }
        disk.fail(2, io::ErrorKind::StorageFull); // the first operation shortens the full segment
        let answer = send(&queue, record(19, 100)).recv_timeout(DEADLINE).unwrap();
        (answer, queue.stats(), ids(&queue, 1))
    };
    let (answer, stats, left) = full(WhenFull::DropOldest);
    assert_eq!(answer.unwrap(), 19);
    assert_eq!((stats.dropped.full, left), (6, (7..=19).collect::<Vec<_>>()));
    let (answer, stats, left) = full(WhenFull::Block);
    assert!(matches!(answer, Err(AppendError::Disk(_))));
    assert_eq!((stats.dropped.full, left), (0, (1..=18).collect::<Vec<_>>()));
}

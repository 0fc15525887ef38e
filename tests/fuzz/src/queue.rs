//! A queue on a disk that changed what was written.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{OnceLock, mpsc};

use bytes::Bytes;
use tempfile::TempDir;
use tidegate_edge_queue::{Queue, QueueConfig, Record, Stored, WhenFull};

/// Records of the log that is damaged.
const RECORDS: u32 = 60;

/// Damage, four bytes each: which file, where (two bytes), and how. The queue opens; each record that it gives is one that was put
/// in, at its own place and in order; it takes a further record; and opened once more it gives the same.
///
/// # Panics
/// When that does not hold.
pub fn queue_recovery(input: &[u8]) {
    let original = original();
    let dir = directory();
    for (name, contents) in &original.files {
        fs::write(dir.path().join(name), contents).expect("a test's directory can be written");
    }
    for damage in input.chunks_exact(4).take(32) {
        let (name, _) = &original.files[usize::from(damage[0]) % original.files.len()];
        spoil(&dir.path().join(name), u16::from_le_bytes([damage[1], damage[2]]), damage[3]);
    }
    let queue = open(dir.path());
    let found = read(&queue);
    for (at, stored) in found.iter().enumerate() {
        assert_eq!(stored.record, record(u32::try_from(stored.offset).expect("a small log") - 1));
        assert!(at == 0 || found[at - 1].offset < stored.offset);
    }
    append(&queue, record(RECORDS));
    let expected = read(&queue);
    assert_eq!(expected[..found.len()], found);
    assert_eq!(expected.len(), found.len() + 1);
    assert_eq!(expected[found.len()].record, record(RECORDS));
    queue.close();
    assert_eq!(read(&open(dir.path())), expected);
}

struct Original {
    files: Vec<(PathBuf, Vec<u8>)>,
}

/// The files of a queue in good order; made once per process.
fn original() -> &'static Original {
    static ORIGINAL: OnceLock<Original> = OnceLock::new();
    ORIGINAL.get_or_init(|| {
        let dir = directory();
        let queue = open(dir.path());
        for number in 0..RECORDS {
            append(&queue, record(number));
            if number == RECORDS / 10 {
                queue.release(3);
            }
        }
        queue.close();
        let mut files: Vec<_> = fs::read_dir(dir.path())
            .expect("the queue made its directory")
            .map(|entry| entry.expect("a directory can be read").path())
            .filter(|path| path.metadata().is_ok_and(|data| data.len() > 0))
            .map(|path| {
                let contents = fs::read(&path).expect("a file of the queue can be read");
                (PathBuf::from(path.file_name().expect("a file has a name")), contents)
            })
            .collect();
        files.sort();
        assert!(files.len() > 2, "several segments and a cursor");
        Original { files }
    })
}

/// In memory where that is possible: the point is not the disk.
fn directory() -> TempDir {
    let shared_memory = Path::new("/dev/shm");
    let made = if shared_memory.is_dir() { tempfile::tempdir_in(shared_memory) } else { tempfile::tempdir() };
    made.expect("a temporary directory can be made")
}

fn open(dir: &Path) -> Queue {
    let config = QueueConfig {
        max_bytes: 1 << 20,
        max_age: None,
        when_full: WhenFull::Block,
        segment_bytes: 1 << 10,
        max_waiting_bytes: 1 << 20,
    };
    Queue::open(dir, config, 0).expect("a damaged queue opens").0
}

fn record(number: u32) -> Record {
    let size = usize::try_from(number * 37 % 300).expect("a small number");
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(4 + size, b'x');
    let qos = u8::try_from(number % 3).expect("0 to 2");
    Record {
        topic: format!("t/{number}"),
        payload: Bytes::from(payload),
        qos,
        retain: number.is_multiple_of(2),
        at_ms: 0,
        source: None,
    }
}

fn append(queue: &Queue, record: Record) {
    let (sender, done) = mpsc::channel();
    queue.append(record, move |result| {
        // The other end waits for it.
        let _ = sender.send(result);
    });
    done.recv().expect("the queue answers").expect("there is room");
}

fn read(queue: &Queue) -> Vec<Stored> {
    let mut all: Vec<Stored> = Vec::new();
    loop {
        let from = all.last().map_or(1, |last| last.offset + 1);
        let found = queue.read_from(from, RECORDS as usize, 1 << 20).expect("what is left can be read");
        if found.is_empty() {
            return all;
        }
        all.extend(found);
    }
}

fn spoil(file: &Path, at: u16, how: u8) {
    let mut contents = fs::read(file).expect("a file of the queue can be read");
    let length = contents.len().max(1);
    let at = usize::from(at) % length;
    match how {
        0 => contents.truncate(at),
        1 => contents.extend_from_slice(&contents.clone()[at.min(contents.len())..]),
        2 => contents[at..].fill(0),
        _ if contents.is_empty() => {}
        _ => contents[at] ^= how,
    }
    fs::write(file, contents).expect("a test's directory can be written");
}

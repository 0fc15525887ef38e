//! Ports that a process can be given, and given again after it was killed.
//!
//! A port is below the range from which the system takes ports of outgoing connections, and reserved by a locked file
//! for as long as this test process lives: neither another test nor a connection can take it in between.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Mutex;

const FIRST: u16 = 15_000;
const COUNT: u16 = 15_000;

static RESERVED: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A loopback address that nobody listens on, and that only this process will be given.
///
/// # Panics
/// When none is free or the lock files cannot be written.
#[must_use]
pub fn free() -> SocketAddr {
    // Lock files of another user could not be opened.
    let user = std::fs::metadata("/proc/self").map_or(0, |process| process.uid());
    let dir = std::env::temp_dir().join(format!("tidegate-e2e-ports-{user}"));
    std::fs::create_dir_all(&dir).expect("the directory of lock files can be made");
    let start = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap_or(0);
    for step in 0..COUNT {
        let port = FIRST + (start + step) % COUNT;
        let Ok(file) = OpenOptions::new().create(true).append(true).open(dir.join(port.to_string())) else {
            continue;
        };
        if file.try_lock().is_err() {
            continue;
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            let mut reserved = RESERVED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            reserved.push(file);
            return address;
        }
    }
    panic!("no port from {FIRST} on is free");
}

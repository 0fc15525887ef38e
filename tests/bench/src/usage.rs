//! What a process uses, as Linux tells it.

use std::time::Duration;

/// Memory and processor time of a process.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Resident memory, in bytes.
    pub resident: u64,
    /// Processor time of all its threads since it began.
    pub cpu: Duration,
}

/// Ticks per second of `/proc/PID/stat`; Linux gives user space 100 on every platform that we build for.
const TICKS_PER_S: u64 = 100;
const KIB: u64 = 1_024;

/// Looks at a process.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn of(pid: u32) -> Usage {
    let read = |file: &str| {
        std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("the measured process runs")
    };
    let status = read("status");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
    let stat = read("stat");
    // Fields are counted after the name, which is in brackets and may hold spaces.
    let after = stat.rsplit_once(')').map(|(_, rest)| rest).expect("the kernel puts the name in brackets");
    let ticks: u64 =
        after.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Usage {
        resident: resident.expect("the kernel tells resident memory") * KIB,
        cpu: Duration::from_millis(ticks * 1_000 / TICKS_PER_S),
    }
}

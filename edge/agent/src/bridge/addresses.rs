//! Which address of the remote broker is tried, and the way back to the first one.
//!
//! All are tried in turn, without a pause between them; only when none works is there one, and the fault is told. A connection
//! that broke after it was steady begins with the first address again. While another one is used, a task looks whether the first
//! one answers, without logging in: with our client id that would end the session that works.

use std::time::{Duration, Instant};

use tidegate_model::wire::Fault;
use tokio_util::task::AbortOnDropHandle;

use super::{fault::fault, route::Way};

/// A connection that ended sooner was no success of its address.
const STEADY: Duration = Duration::from_secs(10);
/// Longest pause between two looks for the first address.
const MAX_LOOK_EVERY: Duration = Duration::from_secs(30 * 60);
/// After a return that lasted so long, the next look is early again.
const GOOD_RETURN: Duration = Duration::from_secs(10 * 60);

/// The state of one bridge.
#[derive(Default)]
pub(super) struct Addresses {
    /// The one that is tried, or used.
    at: usize,
    connected: Option<Instant>,
    /// Why the others of this round failed, at most one for each address.
    failed: Vec<Fault>,
    /// When the first address was gone back to.
    returned: Option<Instant>,
    /// How often the last return did not last.
    in_vain: u32,
    looking: Option<AbortOnDropHandle<()>>,
}

impl Addresses {
    /// Number of the address that is to be tried.
    pub fn at(&self) -> usize {
        self.at
    }

    /// There is a connection. `preferred` is the way to the first address, `every` the pause between two looks for it.
    pub fn connected(&mut self, preferred: Way, every: Duration, limit: Duration) {
        let now = Instant::now();
        self.connected = Some(now);
        self.failed.clear();
        if self.at == 0 {
            self.looking = None;
            return;
        }
        let lasted = self.returned.is_none_or(|at| now - at > GOOD_RETURN);
        self.in_vain = if lasted { 0 } else { (self.in_vain + 1).min(16) };
        let pause = every.saturating_mul(1 << self.in_vain).min(MAX_LOOK_EVERY.max(every));
        self.looking = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                tokio::time::sleep(pause).await;
                if preferred.go(limit).await.is_ok() {
                    return;
                }
            }
        })));
    }

    /// An attempt failed, or a connection ended. Whether another address of these is to be tried at once.
    pub fn another(&mut self, why: Fault, count: usize) -> bool {
        self.looking = None;
        let was_steady = self.connected.take().is_some_and(|since| since.elapsed() >= STEADY);
        if was_steady || self.at + 1 >= count {
            self.at = 0;
            return false;
        }
        self.at += 1;
        self.failed.push(why);
        true
    }

    /// The fault of a round in which no address worked: that of the first one, with what the others said.
    pub fn fault(&mut self, last: Fault) -> Fault {
        let mut all = std::mem::take(&mut self.failed).into_iter();
        let Some(first) = all.next() else { return last };
        let others: Vec<String> = all.chain([last]).map(|other| other.detail).collect();
        fault(first.code, &format!("{}; the other addresses: {}", first.detail, others.join("; ")))
    }

    /// Waits until the first address answers again; for ever while it is used. The next attempt is at it.
    pub async fn back(&mut self) {
        match &mut self.looking {
            Some(looking) => {
                // However it ended: the next attempt shows.
                let _ = looking.await;
            }
            None => return std::future::pending().await,
        }
        self.looking = None;
        self.at = 0;
        self.returned = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use tidegate_model::code::FaultCode;

    use super::*;

    fn down(what: &str) -> Fault {
        fault(FaultCode::Tcp, what)
    }

    #[test]
    fn all_are_tried_before_the_fault_is_told_and_it_names_all() {
        let mut addresses = Addresses::default();
        assert!(addresses.another(fault(FaultCode::Auth, "a"), 3));
        assert!(addresses.another(down("b"), 3));
        assert_eq!(addresses.at(), 2);
        assert!(!addresses.another(down("c"), 3));
        assert_eq!(addresses.at(), 0);
        let told = addresses.fault(down("c"));
        assert_eq!((told.code, told.detail.as_str()), (FaultCode::Auth, "a; the other addresses: b; c"));
        assert!(!addresses.another(down("alone"), 1));
        assert_eq!(addresses.fault(down("alone")), down("alone"));
    }

    #[tokio::test]
    async fn a_return_that_does_not_last_makes_the_next_look_later() {
        let way = Way::plain("localhost".to_owned(), 1);
        let mut addresses = Addresses { at: 1, ..Addresses::default() };
        addresses.connected(way.clone(), Duration::from_secs(60), Duration::from_secs(1));
        assert_eq!(addresses.in_vain, 0);
        addresses.returned = Some(Instant::now());
        addresses.connected(way.clone(), Duration::from_secs(60), Duration::from_secs(1));
        addresses.connected(way, Duration::from_secs(60), Duration::from_secs(1));
        assert_eq!(addresses.in_vain, 2);
        assert!(addresses.looking.is_some());
    }
}

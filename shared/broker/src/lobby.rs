//! Connections that are not let in yet: how many there may be in all and of one address, and who goes when there is one more.
//! Knows addresses and ages, no sockets.
//!
//! A client that speaks at once is never given up for one that does not: only who was silent for [`PATIENCE`] goes.

use crate::config::Limits;
use crate::slot::lock;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Time in which no connection is given up for a newer one.
const PATIENCE: Duration = Duration::from_secs(1);

/// The connections that are not let in yet.
#[derive(Debug)]
pub(crate) struct Lobby {
    guests: Mutex<Guests>,
    max: usize,
    max_per_address: usize,
    exempt_loopback: bool,
}

#[derive(Debug, Default)]
struct Guests {
    last: u64,
    /// Those whose CONNECT is not complete, in the order in which they came.
    silent: BTreeMap<u64, Guest>,
    /// All of an address that is not exempt, silent or not.
    per_address: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Guest {
    address: Option<IpAddr>,
    since: Instant,
    leave: CancellationToken,
}

impl Lobby {
    pub fn new(limits: &Limits) -> Self {
        Self {
            guests: Mutex::default(),
            max: limits.max_connecting.max(1),
            max_per_address: limits.max_connecting_per_address.max(1),
            exempt_loopback: limits.exempt_loopback,
        }
    }

    /// Lets a connection wait here; `None` when there are too many and none of them had its time yet.
    pub fn enter(self: &Arc<Self>, peer: SocketAddr, now: Instant) -> Option<Pass> {
        let address = self.counted_address(peer.ip());
        let mut guests = lock(&self.guests);
        let of_address = address.and_then(|address| guests.per_address.get(&address)).copied().unwrap_or(0);
        if of_address >= self.max_per_address {
            guests.give_up(now, |guest| guest.address == address)?;
        }
        if guests.silent.len() >= self.max {
            guests.give_up(now, |_| true)?;
        }
        guests.last += 1;
        let number = guests.last;
        let leave = CancellationToken::new();
        guests.silent.insert(number, Guest { address, since: now, leave: leave.clone() });
        if let Some(address) = address {
            *guests.per_address.entry(address).or_insert(0) += 1;
        }
        Some(Pass { lobby: Arc::clone(self), number, address, leave })
    }

    /// How many wait here whose CONNECT is not complete.
    pub fn len(&self) -> usize {
        lock(&self.guests).silent.len()
    }

    /// The address that a connection counts for: who has one IPv6 address has 2^64 of them.
    fn counted_address(&self, address: IpAddr) -> Option<IpAddr> {
        let address = address.to_canonical();
        if self.exempt_loopback && address.is_loopback() {
            return None;
        }
        Some(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        })
    }
}

impl Guests {
    /// Gives up the oldest silent guest that `fits`, if it had its time. It may need a moment to go, but counts no more.
    fn give_up(&mut self, now: Instant, fits: impl Fn(&Guest) -> bool) -> Option<()> {
        let (number, oldest) = self.silent.iter().find(|(_, guest)| fits(guest))?;
        if now.saturating_duration_since(oldest.since) < PATIENCE {
            return None;
        }
        let number = *number;
        let guest = self.silent.remove(&number)?;
        self.forget(guest.address);
        guest.leave.cancel();
        Some(())
    }

    fn forget(&mut self, address: Option<IpAddr>) {
        let Some(address) = address else { return };
        if let Some(count) = self.per_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.per_address.remove(&address);
            }
        }
    }
}

/// A connection's place in the lobby; dropping it leaves.
#[derive(Debug)]
pub(crate) struct Pass {
    lobby: Arc<Lobby>,
    number: u64,
    address: Option<IpAddr>,
    leave: CancellationToken,
}

impl Pass {
    /// Waits until this connection is given up for a newer one.
    pub async fn given_up(&self) {
        self.leave.cancelled().await;
    }

    /// Its CONNECT is complete: it is not given up any more. False when it just was.
    pub fn spoke(&self) -> bool {
        lock(&self.lobby.guests).silent.remove(&self.number).is_some()
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut guests = lock(&self.lobby.guests);
        guests.silent.remove(&self.number);
        // Who was given up was taken off the count then.
        if !self.leave.is_cancelled() {
            guests.forget(self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lobby(max: usize, max_per_address: usize) -> Arc<Lobby> {
        let limits =
            Limits { max_connecting: max, max_connecting_per_address: max_per_address, ..Limits::default() };
        Arc::new(Lobby::new(&limits))
    }

    fn peer(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().unwrap(), 1)
    }

    #[test]
    fn one_address_cannot_keep_others_out() {
        let (lobby, now) = (lobby(10, 3), Instant::now());
        let crowd: Vec<_> = (0..5).filter_map(|_| lobby.enter(peer("192.0.2.1"), now)).collect();
        assert_eq!((crowd.len(), lobby.len()), (3, 3));
        assert!(lobby.enter(peer("192.0.2.2"), now).is_some());
        // IPv4 in IPv6 is the same address; one /64 is one address.
        assert!(lobby.enter(peer("::ffff:192.0.2.1"), now).is_none());
        let network: Vec<_> =
            (1..9).filter_map(|n| lobby.enter(peer(&format!("2001:db8::{n}")), now)).collect();
        assert_eq!(network.len(), 3);
        assert!(lobby.enter(peer("2001:db8:0:1::1"), now).is_some());
    }

    #[test]
    fn the_oldest_silent_one_goes_when_it_had_its_second() {
        let (lobby, start) = (lobby(2, 9), Instant::now());
        let first = lobby.enter(peer("192.0.2.1"), start).unwrap();
        let second = lobby.enter(peer("192.0.2.2"), start + PATIENCE / 2).unwrap();
        assert!(lobby.enter(peer("192.0.2.3"), start + PATIENCE / 2).is_none(), "everybody has a second");
        let third = lobby.enter(peer("192.0.2.3"), start + PATIENCE).unwrap();
        assert!(first.leave.is_cancelled() && !second.leave.is_cancelled());
        assert!(!first.spoke() && second.spoke(), "who spoke is not given up");
        let fourth = lobby.enter(peer("192.0.2.4"), start + PATIENCE * 2).unwrap();
        assert!(lobby.enter(peer("192.0.2.5"), start + PATIENCE * 2).is_some());
        assert!(third.leave.is_cancelled() && !second.leave.is_cancelled());
        drop((first, second, third, fourth));
        assert_eq!(lobby.len(), 0);
        assert!(lock(&lobby.guests).per_address.is_empty());
    }

    #[test]
    fn the_bound_per_address_holds_until_the_gate_has_decided_and_leaves_loopback_out() {
        let (lobby, now) = (lobby(10, 1), Instant::now());
        let verifying = lobby.enter(peer("192.0.2.1"), now).unwrap();
        assert!(verifying.spoke());
        assert!(lobby.enter(peer("192.0.2.1"), now + PATIENCE * 9).is_none());
        drop(verifying);
        assert!(lobby.enter(peer("192.0.2.1"), now).is_some());
        let near: Vec<_> = (0..5).filter_map(|_| lobby.enter(peer("127.0.0.1"), now)).collect();
        assert_eq!(near.len(), 5);
    }
}

//! How often one address may ask: a token bucket each, in a bounded table. Pure: the moment is an argument.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Addresses that are remembered at the most. Beyond it the one that was idle longest is forgotten, and starts anew.
const MAX_ADDRESSES: usize = 4_096;

/// A bound on how often.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate {
    /// Requests per second that may go on for ever.
    pub(crate) per_second: u32,
    /// Requests at once after a pause.
    pub(crate) burst: u32,
}

/// The buckets of all addresses.
#[derive(Debug)]
pub(super) struct Rates {
    rate: Rate,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Rates {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, buckets: Mutex::default() }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// How long to wait until there is one.
    pub(super) fn take(&self, who: IpAddr, now: Instant) -> Result<(), Duration> {
        let (per_second, burst) = (f64::from(self.rate.per_second), f64::from(self.rate.burst));
        // Nothing that holds the lock can leave a bucket half changed.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let who = network(who);
        if buckets.len() >= MAX_ADDRESSES && !buckets.contains_key(&who) {
            let idle_longest = buckets.iter().min_by_key(|(_, bucket)| bucket.at).map(|(who, _)| *who);
            idle_longest.map(|who| buckets.remove(&who));
        }
        let bucket = buckets.entry(who).or_insert(Bucket { tokens: burst, at: now });
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.tokens = (bucket.tokens + passed * per_second).min(burst);
        bucket.at = bucket.at.max(now);
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - bucket.tokens) / per_second))
    }
}

/// What counts as one address: an IPv4 address, or the /64 network of an IPv6 one, which one household has.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates() -> (Rates, Instant) {
        (Rates::new(Rate { per_second: 2, burst: 3 }), Instant::now())
    }

    #[test]
    fn a_burst_passes_then_so_many_per_second() {
        let (rates, start) = rates();
        let who: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!([0, 0, 0].map(|_| rates.take(who, start)), [Ok(()); 3]);
        assert_eq!(rates.take(who, start), Err(Duration::from_millis(500)));
        assert!(rates.take(who, start + Duration::from_millis(499)).is_err());
        assert!(rates.take(who, start + Duration::from_millis(500)).is_ok());
        assert!(rates.take(who, start + Duration::from_millis(501)).is_err());
        // Another address has a bucket of its own; so has another network, but not another host of one.
        assert!(rates.take("192.0.2.2".parse().unwrap(), start).is_ok());
        let later = start + Duration::from_secs(3_600);
        for host in 1..=3 {
            assert!(rates.take(format!("2001:db8::{host}").parse().unwrap(), later).is_ok());
        }
        assert!(rates.take("2001:db8::4".parse().unwrap(), later).is_err());
        assert!(rates.take("2001:db8:0:1::4".parse().unwrap(), later).is_ok());
        assert_eq!(
            [0, 0, 0].map(|_| rates.take(who, later)),
            [Ok(()); 3],
            "no more than the burst is saved up"
        );
        assert!(
            rates.take("::ffff:192.0.2.1".parse().unwrap(), later).is_err(),
            "the same address, written otherwise"
        );
    }

    #[test]
    fn the_table_is_bounded_and_forgets_who_was_idle_longest() {
        let (rates, start) = rates();
        let who = |n: usize| IpAddr::from(u32::try_from(n).unwrap().to_be_bytes());
        for n in 0..=MAX_ADDRESSES {
            let at = start + Duration::from_micros(u64::try_from(n).unwrap());
            assert!(rates.take(who(n), at).is_ok());
        }
        let buckets = rates.buckets.lock().unwrap();
        assert_eq!(buckets.len(), MAX_ADDRESSES);
        assert!(!buckets.contains_key(&who(0)) && buckets.contains_key(&who(1)));
    }
}

//! How often a peer may do what costs the hub something: a generic cell rate algorithm per kind and peer.
//!
//! A cell remembers one instant: when everything that was let through would have been done at the long-run rate. It is
//! forgotten once that instant is past, so only who is active costs memory.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use weir_protocol::id::AccountId;
use weir_protocol::reject::Reject;

use super::limits::{Rate, RateLimits};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Attach,
    Grant,
    Register,
    Act,
    Proof,
    JournalRead,
}

/// For whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Who {
    /// An account whose key, or one of its channels' or lanes', is proven.
    Account(AccountId),
    /// An address, before that. See [`network`].
    Address(IpAddr),
}

/// What one peer can have more of only by paying for it: an IPv4 address, or the first half of an IPv6 address.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// The cells.
#[derive(Debug)]
pub(super) struct Rates {
    limits: RateLimits,
    cells: Mutex<HashMap<(Kind, Who), Instant>>,
}

impl Rates {
    pub(super) fn new(limits: RateLimits) -> Self {
        Self { limits, cells: Mutex::new(HashMap::new()) }
    }

    /// Counts one, or says `busy`.
    pub(super) fn take(&self, kind: Kind, who: Who) -> Result<(), Reject> {
        self.take_at(kind, who, Instant::now())
    }

    fn take_at(&self, kind: Kind, who: Who, now: Instant) -> Result<(), Reject> {
        let rate = self.rate(kind);
        let interval = Duration::from_secs(1) / rate.per_second.max(1);
        let tolerance = interval * rate.burst.saturating_sub(1);
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        if cells.len() >= self.limits.remembered && !cells.contains_key(&(kind, who)) {
            cells.retain(|_, done| *done > now);
            if cells.len() >= self.limits.remembered {
                return Err(Reject::Busy);
            }
        }
        let done = cells.entry((kind, who)).or_insert(now);
        if *done > now + tolerance {
            return Err(Reject::Busy);
        }
        *done = (*done).max(now) + interval;
        Ok(())
    }

    const fn rate(&self, kind: Kind) -> Rate {
        match kind {
            Kind::Attach => self.limits.attaches,
            Kind::Grant => self.limits.grants,
            Kind::Register => self.limits.registrations,
            Kind::Act => self.limits.acts,
            Kind::Proof => self.limits.proofs,
            Kind::JournalRead => self.limits.journal_reads,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;

    fn rates(per_second: u32, burst: u32, remembered: usize) -> Rates {
        Rates::new(RateLimits { attaches: Rate { per_second, burst }, remembered, ..RateLimits::default() })
    }

    fn address(last: u8) -> Who {
        Who::Address(IpAddr::from([192, 0, 2, last]))
    }

    #[test]
    fn burst_passes_and_one_more_is_busy_until_time_has_gone_by() {
        let rates = rates(10, 3, 16);
        let now = Instant::now();
        for _ in 0..3 {
            assert_eq!(rates.take_at(Kind::Attach, address(1), now), Ok(()));
        }
        assert_eq!(rates.take_at(Kind::Attach, address(1), now), Err(Reject::Busy));
        assert_eq!(rates.take_at(Kind::Attach, address(2), now), Ok(()));
        let later = now + Duration::from_millis(100);
        assert_eq!(rates.take_at(Kind::Attach, address(1), later), Ok(()));
        assert_eq!(rates.take_at(Kind::Attach, address(1), later), Err(Reject::Busy));
    }

    #[test]
    fn full_memory_forgets_the_idle_and_is_busy_for_strangers_otherwise() {
        let rates = rates(10, 1, 2);
        let now = Instant::now();
        rates.take_at(Kind::Attach, address(1), now).unwrap();
        rates.take_at(Kind::Attach, address(2), now).unwrap();
        assert_eq!(rates.take_at(Kind::Attach, address(3), now), Err(Reject::Busy));
        assert_eq!(rates.take_at(Kind::Attach, address(3), now + Duration::from_secs(1)), Ok(()));
    }

    #[test]
    fn network_of_ipv6_is_its_first_half_and_mapped_addresses_are_ipv4() {
        let one: IpAddr = "2001:db8:1:2:3:4:5:6".parse().unwrap();
        let other: IpAddr = "2001:db8:1:2:ffff::1".parse().unwrap();
        assert_eq!(network(one), network(other));
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()), network("192.0.2.1".parse().unwrap()));
        assert_ne!(network("192.0.2.1".parse().unwrap()), network("192.0.2.2".parse().unwrap()));
    }
}

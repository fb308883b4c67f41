//! Free quotas: so many requests of a route for nothing, per visitor and period. Pure, in memory, bounded.
//!
//! Periods are aligned to 1970-01-01 UTC (a quota per day starts anew at midnight UTC). Counts are not kept over a restart
//! of the gate: visitors then have their quota again.
//!
//! When [`Quotas`] holds as many visitors as it may, those whose period is over are dropped; when none is, further
//! visitors get nothing for free until a period ends. So memory is bounded, and flooding the gate with addresses costs its
//! owner nothing: it only takes the free requests from visitors that come later.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;

use foldhash::fast::RandomState;
use weir_protocol::amount::Time;

/// How many visitors are remembered unless the configuration says otherwise; about 100 bytes each.
pub const DEFAULT_VISITORS: usize = 100_000;

/// By what visitors are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The peer's address. An IPv6 address counts by its first 64 bits, which one household has for itself.
    Ip,
    /// The gate's cookie. Who drops it is a new visitor.
    Cookie,
}

/// What is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreeQuota {
    /// So many requests, in each period.
    pub requests: u32,
    /// The period, in milliseconds.
    pub per_ms: NonZeroU64,
    /// For each of these.
    pub by: By,
}

/// One visitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Visitor([u8; 17]);

impl Visitor {
    /// Known by an address.
    #[must_use]
    pub fn ip(ip: IpAddr) -> Self {
        let mut name = [0; 17];
        let octets: &[u8] = match ip.to_canonical() {
            IpAddr::V4(ip) => &ip.octets(),
            IpAddr::V6(ip) => {
                name[0] = 1;
                &ip.octets()[..8]
            }
        };
        for (place, octet) in name.iter_mut().skip(1).zip(octets) {
            *place = *octet;
        }
        Self(name)
    }

    /// Known by the random bytes of the gate's cookie.
    #[must_use]
    pub fn cookie(random: [u8; 16]) -> Self {
        let mut name = [2; 17];
        name[1..].copy_from_slice(&random);
        Self(name)
    }
}

#[derive(Debug, Clone, Copy)]
struct Count {
    /// The period's number since 1970.
    period: u64,
    /// When it ends.
    ends: Time,
    used: u32,
}

/// What visitors have used of their quotas.
#[derive(Debug)]
pub struct Quotas {
    counts: HashMap<(Arc<str>, Visitor), Count, RandomState>,
    max_visitors: usize,
    /// No period that is remembered ends before; sweeping earlier would find nothing.
    next_end: Time,
}

impl Quotas {
    /// Room for so many visitors, counted once for each route that they use.
    #[must_use]
    pub fn new(max_visitors: usize) -> Self {
        Self { counts: HashMap::default(), max_visitors, next_end: Time::MAX }
    }

    /// Takes one request of a route's quota. `false`: nothing is left, or there is no room to count.
    pub fn take(&mut self, route: &Arc<str>, visitor: Visitor, quota: &FreeQuota, now: Time) -> bool {
        let period = now.0 / quota.per_ms;
        let ends = Time(period.saturating_add(1).saturating_mul(quota.per_ms.get()));
        let key = (Arc::clone(route), visitor);
        if let Some(count) = self.counts.get_mut(&key) {
            // A clock that went back does not give the quota again.
            if period > count.period {
                *count = Count { period, ends, used: 0 };
            }
            if count.used >= quota.requests {
                return false;
            }
            count.used += 1;
            return true;
        }
        if quota.requests == 0 || (self.counts.len() >= self.max_visitors && !self.sweep(now)) {
            return false;
        }
        self.next_end = self.next_end.min(ends);
        self.counts.insert(key, Count { period, ends, used: 1 });
        true
    }

    /// Gives one back: the request was not served.
    pub fn give_back(&mut self, route: &Arc<str>, visitor: Visitor) {
        if let Some(count) = self.counts.get_mut(&(Arc::clone(route), visitor)) {
            count.used = count.used.saturating_sub(1);
        }
    }

    /// How many visitors are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Whether nobody is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Drops those whose period is over; whether there is room now.
    fn sweep(&mut self, now: Time) -> bool {
        // Each sweep costs a walk through all: not for every request while it is full.
        if now < self.next_end {
            return false;
        }
        self.counts.retain(|_, count| count.ends > now);
        self.next_end = self.counts.values().map(|count| count.ends).min().unwrap_or(Time::MAX);
        self.counts.len() < self.max_visitors
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;

    fn quota(requests: u32) -> FreeQuota {
        FreeQuota { requests, per_ms: NonZeroU64::new(DAY_MS).unwrap(), by: By::Ip }
    }

    fn visitor(last: u8) -> Visitor {
        Visitor::ip([192, 0, 2, last].into())
    }

    #[test]
    fn quota_is_counted_per_visitor_route_and_period() {
        let mut quotas = Quotas::new(10);
        let (one, two): (Arc<str>, Arc<str>) = ("one".into(), "two".into());
        for left in [true, true, false, false] {
            assert_eq!(quotas.take(&one, visitor(1), &quota(2), Time(DAY_MS - 1)), left);
        }
        assert!(quotas.take(&one, visitor(2), &quota(2), Time(DAY_MS - 1)));
        assert!(quotas.take(&two, visitor(1), &quota(2), Time(DAY_MS - 1)));
        assert!(quotas.take(&one, visitor(1), &quota(2), Time(DAY_MS)));
        assert_eq!(quotas.len(), 3);
    }

    #[test]
    fn clock_that_goes_back_gives_no_quota_again() {
        let mut quotas = Quotas::new(10);
        let route: Arc<str> = "one".into();
        assert!(quotas.take(&route, visitor(1), &quota(1), Time(DAY_MS)));
        assert!(!quotas.take(&route, visitor(1), &quota(1), Time(DAY_MS - 1)));
        assert!(!quotas.take(&route, visitor(1), &quota(1), Time(DAY_MS)));
    }

    #[test]
    fn request_given_back_can_be_taken_again() {
        let mut quotas = Quotas::new(10);
        let route: Arc<str> = "one".into();
        quotas.give_back(&route, visitor(1));
        assert!(quotas.take(&route, visitor(1), &quota(1), Time(0)));
        quotas.give_back(&route, visitor(1));
        assert!(quotas.take(&route, visitor(1), &quota(1), Time(0)));
        assert!(!quotas.take(&route, visitor(1), &quota(1), Time(0)));
    }

    #[test]
    fn quotas_when_full_serve_those_they_know_and_nobody_else_until_a_period_ends() {
        let mut quotas = Quotas::new(2);
        let route: Arc<str> = "one".into();
        assert!(quotas.take(&route, visitor(1), &quota(2), Time(5)));
        assert!(quotas.take(&route, visitor(2), &quota(2), Time(5)));
        assert!(!quotas.take(&route, visitor(3), &quota(2), Time(5)));
        assert!(quotas.take(&route, visitor(1), &quota(2), Time(DAY_MS - 1)));
        assert!(!quotas.take(&route, visitor(3), &quota(2), Time(DAY_MS - 1)));
        assert_eq!(quotas.len(), 2);
        assert!(quotas.take(&route, visitor(3), &quota(2), Time(DAY_MS)));
        assert_eq!(quotas.len(), 1);
    }

    #[test]
    fn visitor_by_ipv6_is_a_network_of_64_bits_and_a_mapped_address_is_ipv4() {
        let visitor = |text: &str| Visitor::ip(text.parse().unwrap());
        assert_eq!(visitor("2001:db8:1:2::1"), visitor("2001:db8:1:2:ffff::"));
        assert_ne!(visitor("2001:db8:1:2::1"), visitor("2001:db8:1:3::1"));
        assert_eq!(visitor("::ffff:192.0.2.1"), visitor("192.0.2.1"));
        assert_ne!(visitor("192.0.2.1"), visitor("192.0.2.2"));
        assert_ne!(Visitor::cookie([0; 16]), visitor("0.0.0.0"));
    }
}

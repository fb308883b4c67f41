//! The hub's clock: wall time in milliseconds, watched against the monotonic clock.
//!
//! When the two part by more than [`DEPARTURE_MAX_MS`], somebody has set the wall clock, and nothing is accepted until
//! the operator confirms the new time (DESIGN §4.5). Nor is anything once the signing key's certificate has ended.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use weir_protocol::amount::Time;

/// How far the wall clock may depart from the monotonic one.
pub const DEPARTURE_MAX_MS: u64 = 60_000;

/// The wall clock as it is, in milliseconds since 1970.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Why the time cannot be used: nothing is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClockFault {
    /// The wall clock departed from the monotonic one by so many milliseconds.
    #[error("the wall clock was set by {0} ms")]
    Set(u64),
    /// What would be signed now is outside of the signing key's certificate: nobody could check it.
    #[error("the signing key's certificate has ended")]
    Ended,
}

/// The clock of one process.
#[derive(Debug)]
pub struct Clock {
    base: Mutex<(Instant, u64)>,
    end: Time,
}

impl Clock {
    /// A clock whose time counts until the signing key's certificate ends.
    pub fn until(end: Time) -> Self {
        Self { base: Mutex::new((Instant::now(), wall_ms())), end }
    }

    /// The time, or why it does not count. It is before the end of the certificate.
    pub fn now(&self) -> Result<Time, ClockFault> {
        let wall = wall_ms();
        let departure = self.departure_ms(wall);
        if departure > DEPARTURE_MAX_MS {
            return Err(ClockFault::Set(departure));
        }
        if Time(wall) < self.end { Ok(Time(wall)) } else { Err(ClockFault::Ended) }
    }

    fn departure_ms(&self, wall: u64) -> u64 {
        let (start, base) = *self.base.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = base.saturating_add(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX));
        wall.abs_diff(expected)
    }

    /// The operator confirms that the wall clock is right.
    pub fn confirm(&self) {
        *self.base.lock().unwrap_or_else(PoisonError::into_inner) = (Instant::now(), wall_ms());
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;

    #[test]
    fn clock_that_was_set_stops_until_it_is_confirmed() {
        let clock = Clock::until(Time::MAX);
        assert!(clock.now().is_ok());
        clock.base.lock().unwrap().1 -= DEPARTURE_MAX_MS + 1_000;
        assert!(matches!(clock.now(), Err(ClockFault::Set(departure)) if departure > DEPARTURE_MAX_MS));
        clock.confirm();
        assert!(clock.now().is_ok());
    }

    #[test]
    fn clock_counts_no_longer_than_the_certificate_whatever_is_confirmed() {
        assert!(Clock::until(Time(wall_ms() + DEPARTURE_MAX_MS)).now().is_ok());
        let clock = Clock::until(Time(wall_ms()));
        assert_eq!(clock.now(), Err(ClockFault::Ended));
        clock.confirm();
        assert_eq!(clock.now(), Err(ClockFault::Ended));
    }
}

//! The hub's clock: wall time in milliseconds, watched against the monotonic clock.
//!
//! When the two part by more than [`DEPARTURE_MAX_MS`], somebody has set the wall clock, and nothing is accepted until
//! the operator confirms the new time (DESIGN §4.5).

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

/// The clock of one process.
#[derive(Debug)]
pub struct Clock {
    base: Mutex<(Instant, u64)>,
}

impl Default for Clock {
    fn default() -> Self {
        Self { base: Mutex::new((Instant::now(), wall_ms())) }
    }
}

impl Clock {
    /// The time, or how far the wall clock has departed, in ms.
    pub fn now(&self) -> Result<Time, u64> {
        let wall = wall_ms();
        let (start, base) = *self.base.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = base.saturating_add(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX));
        let departure = wall.abs_diff(expected);
        if departure > DEPARTURE_MAX_MS { Err(departure) } else { Ok(Time(wall)) }
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
        let clock = Clock::default();
        assert!(clock.now().is_ok());
        clock.base.lock().unwrap().1 -= DEPARTURE_MAX_MS + 1_000;
        assert!(clock.now().unwrap_err() > DEPARTURE_MAX_MS);
        clock.confirm();
        assert!(clock.now().is_ok());
    }
}

//! When windows are cut off: a cron expression in a time zone.
//!
//! It keeps no state of its own: a cut-off is due when the first time after the open window's beginning has passed. So one
//! that was missed while the hub was down is made once at the start, and one made on demand moves nothing.

use cronexpr::{Crontab, MakeTimestamp, parse_crontab};
use weir_protocol::amount::Time;

/// Fields of an expression: minute, hour, day of the month, month, day of the week.
const FIELDS: usize = 5;

/// Not a schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The wrong number of fields.
    #[error("expected five fields, such as `0 2 * * *`: minute, hour, day of the month, month, day of the week")]
    Fields,
    /// What the reader says; or an unknown time zone.
    #[error("{0}")]
    Expression(String),
}

/// Times of cut-offs.
#[derive(Debug, Clone)]
pub struct Schedule {
    text: String,
    times: Crontab,
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Schedule {}

impl Schedule {
    /// `expression`: five cron fields. `time_zone`: an IANA name such as `Europe/Berlin`, from the system's database, or
    /// `UTC`.
    pub fn new(expression: &str, time_zone: &str) -> Result<Self, ScheduleError> {
        if expression.split_whitespace().count() != FIELDS || time_zone.split_whitespace().count() != 1 {
            return Err(ScheduleError::Fields);
        }
        let text = format!("{expression} {time_zone}");
        let times = parse_crontab(&text).map_err(|error| ScheduleError::Expression(error.to_string()))?;
        Ok(Self { text, times })
    }

    /// The first time after another; none in the calendar's range.
    pub fn next_after(&self, time: Time) -> Option<Time> {
        let from = MakeTimestamp::from_millisecond(i64::try_from(time.0).ok()?).ok()?;
        let next = self.times.find_next(from).ok()?.timestamp().as_millisecond();
        u64::try_from(next).ok().map(Time)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;

    /// 2026-11-22 10:00:00 UTC.
    const NOON: u64 = 1_795_341_600_000;
    const HOUR: u64 = 3_600_000;

    #[test]
    fn times_are_in_the_zone_and_strictly_after() {
        let utc = Schedule::new("0 11 * * *", "UTC").unwrap();
        assert_eq!(utc.next_after(Time(NOON)), Some(Time(NOON + HOUR)));
        assert_eq!(utc.next_after(Time(NOON + HOUR)), Some(Time(NOON + 25 * HOUR)));
        assert_eq!(utc.next_after(Time(NOON + HOUR - 1)), Some(Time(NOON + HOUR)));
        let minutes = Schedule::new("*/15 * * * MON-FRI", "UTC").unwrap();
        // The 22nd of November 2026 is a Sunday.
        assert_eq!(minutes.next_after(Time(NOON)), Some(Time(NOON + 14 * HOUR)));
    }

    #[test]
    fn summer_time_is_the_zones_where_the_system_knows_it() {
        let Ok(berlin) = Schedule::new("30 2 * * *", "Europe/Berlin") else {
            assert!(!std::path::Path::new("/usr/share/zoneinfo/Europe/Berlin").exists());
            return;
        };
        // 02:30 in winter is 01:30 UTC.
        assert_eq!(berlin.next_after(Time(NOON)), Some(Time(NOON + 15 * HOUR + HOUR / 2)));
        // 2026-03-28 12:00 UTC: the night in which 02:30 does not exist. It is made good at 03:30, once.
        let before = 1_774_699_200_000;
        let first = berlin.next_after(Time(before)).unwrap();
        assert!(first.0 > before && first.0 < before + 48 * HOUR);
    }

    #[test]
    fn nonsense_is_refused() {
        for (expression, zone) in [
            ("", "UTC"),
            ("* * * *", "UTC"),
            ("* * * * * UTC", "UTC"),
            ("61 * * * *", "UTC"),
            ("0 2 * * *", "Nowhere/Land"),
            ("0 2 * * *", ""),
        ] {
            assert!(Schedule::new(expression, zone).is_err(), "{expression} {zone}");
        }
    }
}

//! Calendar dates of bank files. It has no clock and no time zones: times come in as milliseconds since 1970 and are
//! written in UTC.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

const MS_PER_DAY: u64 = 86_400_000;
/// First millisecond of the year 10000: dates have four digits of year.
const END_MS: u64 = 253_402_300_800_000;

/// Not a date between 1970 and 9999. Decode family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a date between 1970-01-01 and 9999-12-31")]
pub struct DateError;

/// A day, 1970-01-01 to 9999-12-31; written `YYYY-MM-DD`.
/// For programs: the same text; in binary forms year, month and day.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

impl Date {
    /// A day that exists in the Gregorian calendar.
    pub fn new(year: u16, month: u8, day: u8) -> Result<Self, DateError> {
        let fits = (1970..=9999).contains(&year)
            && (1..=12).contains(&month)
            && (1..=days_in_month(year, month)).contains(&day);
        if fits { Ok(Self { year, month, day }) } else { Err(DateError) }
    }

    /// The first millisecond of the day after this one, in UTC, since 1970.
    pub fn end_ms(self) -> u64 {
        // The inverse of what `from_unix_ms` does: years begin in March.
        let (month, day) = (u64::from(self.month), u64::from(self.day));
        let year = u64::from(self.year) - u64::from(month <= 2);
        let (era, year_of_era) = (year / 400, year % 400);
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        (era * 146_097 + day_of_era + 1 - 719_468) * MS_PER_DAY
    }

    /// The UTC day of `ms` milliseconds since 1970.
    pub fn from_unix_ms(ms: u64) -> Result<Self, DateError> {
        if ms >= END_MS {
            return Err(DateError);
        }
        // Days to a civil date, counted from 0000-03-01 so that the leap day ends its year (Howard Hinnant, "chrono-
        // Compatible Low-Level Date Algorithms", `civil_from_days`, for days that are never negative).
        let days = ms / MS_PER_DAY + 719_468;
        let era = days / 146_097;
        let day_of_era = days % 146_097;
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        Self::new(year as u16, month as u8, day as u8)
    }

    /// The day `days` after this one.
    pub fn plus_days(self, days: u32) -> Result<Self, DateError> {
        Self::from_unix_ms((self.days_since_1970() + u64::from(days)) * MS_PER_DAY)
    }

    /// Days from 1970-01-01 to this one: the inverse of [`from_unix_ms`](Self::from_unix_ms), by the same source.
    pub(super) fn days_since_1970(self) -> u64 {
        let (year, month) = if self.month > 2 {
            (u64::from(self.year), u64::from(self.month) - 3)
        } else {
            (u64::from(self.year) - 1, u64::from(self.month) + 9)
        };
        let (era, year_of_era) = (year / 400, year % 400);
        let day_of_year = (153 * month + 2) / 5 + u64::from(self.day) - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        era * 146_097 + day_of_era - 719_468
    }

    pub(super) const fn year(self) -> u16 {
        self.year
    }

    pub(super) const fn month(self) -> u8 {
        self.month
    }

    pub(super) const fn day(self) -> u8 {
        self.day
    }

    /// The date at the start of an ISO 8601 date or date and time, as banks write either: `2026-11-22`, `2026-11-22+01:00`,
    /// `2026-11-22T10:00:00Z`. What follows the date must start with `T`, `Z`, `+` or `-`.
    pub fn from_iso(text: &str) -> Result<Self, DateError> {
        let (date, rest) = text.split_at_checked(10).ok_or(DateError)?;
        if rest.is_empty() || rest.starts_with(['T', 'Z', '+', '-']) { date.parse() } else { Err(DateError) }
    }
}

/// `ms` milliseconds since 1970 as an ISO 20022 `ISODateTime` in UTC, whole seconds: `2026-11-22T10:00:00Z`.
pub fn timestamp(ms: u64) -> Result<String, DateError> {
    let date = Date::from_unix_ms(ms)?;
    let seconds = ms % MS_PER_DAY / 1000;
    Ok(format!("{date}T{:02}:{:02}:{:02}Z", seconds / 3600, seconds / 60 % 60, seconds % 60))
}

fn days_in_month(year: u16, month: u8) -> u8 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => 31,
    }
}

impl FromStr for Date {
    type Err = DateError;

    /// `YYYY-MM-DD`, nothing else.
    fn from_str(text: &str) -> Result<Self, DateError> {
        let bytes: &[u8; 10] = text.as_bytes().try_into().map_err(|_| DateError)?;
        let number = |range: std::ops::Range<usize>| {
            bytes
                .get(range)
                .unwrap_or_default()
                .iter()
                .try_fold(0_u16, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u16::from(byte - b'0')))
        };
        match (number(0..4), bytes[4], number(5..7), bytes[7], number(8..10)) {
            (Some(year), b'-', Some(month), b'-', Some(day)) => Self::new(year, month as u8, day as u8),
            _ => Err(DateError),
        }
    }
}

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            (self.year, self.month, self.day).serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
        } else {
            let (year, month, day) = <(u16, u8, u8)>::deserialize(deserializer)?;
            Self::new(year, month, day).map_err(de::Error::custom)
        }
    }
}

impl TryFrom<String> for Date {
    type Error = DateError;

    fn try_from(text: String) -> Result<Self, DateError> {
        text.parse()
    }
}

impl From<Date> for String {
    fn from(date: Date) -> Self {
        date.to_string()
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

impl fmt::Debug for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test should say where")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_day_follows_the_one_before() {
        let mut expected = Date::new(1970, 1, 1).unwrap();
        for day in 0..END_MS / MS_PER_DAY {
            let date = Date::from_unix_ms(day * MS_PER_DAY).unwrap();
            assert_eq!(date, expected);
            assert_eq!(date.end_ms(), (day + 1) * MS_PER_DAY);
            assert_eq!(date.days_since_1970(), day);
            let Date { year, month, day } = date;
            expected = Date::new(year, month, day + 1)
                .or_else(|_| Date::new(year, month + 1, 1))
                .or_else(|_| Date::new(year + 1, 1, 1))
                .unwrap_or(date);
        }
        assert_eq!(expected.to_string(), "9999-12-31");
    }

    #[test]
    fn timestamp_bounds_hold_on_both_sides() {
        assert_eq!(timestamp(0).unwrap(), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(1_795_387_653_999).unwrap(), "2026-11-22T22:47:33Z");
        assert_eq!(timestamp(END_MS - 1).unwrap(), "9999-12-31T23:59:59Z");
        assert_eq!(timestamp(END_MS), Err(DateError));
        assert_eq!(timestamp(u64::MAX), Err(DateError));
    }

    #[test]
    fn date_that_does_not_exist_is_refused() {
        for bad in ["2026-02-29", "2100-02-29", "2026-13-01", "2026-00-01", "1969-12-31", "2026-1-01", "2026-01-0a"] {
            assert_eq!(bad.parse::<Date>(), Err(DateError), "{bad}");
        }
        assert!("2024-02-29".parse::<Date>().is_ok());
        assert_eq!(Date::from_iso("2026-11-22T10:00:00+01:00").unwrap().to_string(), "2026-11-22");
        assert!(Date::from_iso("2026-11-22x").is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".{0,30}") {
            let _ = Date::from_iso(&text);
        }

        #[test]
        fn written_date_reads_back(ms in 0..END_MS) {
            let date = Date::from_unix_ms(ms).unwrap();
            prop_assert_eq!(date.to_string().parse::<Date>().unwrap(), date);
        }
    }
}

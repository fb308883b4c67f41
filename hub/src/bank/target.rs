//! Days on which SEPA moves money: the calendar of TARGET (T2). Not on Saturdays, Sundays, 1 January, Good Friday, Easter
//! Monday, 1 May, 25 and 26 December (European Central Bank, long-term calendar, in force since 2002).
//!
//! It knows no bank holidays of a country, and no cut-off hours of a bank.

use super::calendar::{Date, DateError};

impl Date {
    /// Whether TARGET is open.
    pub fn is_target_day(self) -> bool {
        // 1970-01-01 was a Thursday: 0 is Monday.
        let weekday = (self.days_since_1970() + 3) % 7;
        let fixed = matches!((self.month(), self.day()), (1 | 5, 1) | (12, 25 | 26));
        let easter = easter_sunday(self.year()).map(Self::days_since_1970);
        let of_easter = easter.is_ok_and(|easter| {
            let today = self.days_since_1970();
            today + 2 == easter || today == easter + 1
        });
        weekday < 5 && !fixed && !of_easter
    }

    /// This day if TARGET is open, else the next one on which it is.
    pub fn target_day_from(self) -> Result<Self, DateError> {
        let mut day = self;
        while !day.is_target_day() {
            day = day.plus_days(1)?;
        }
        Ok(day)
    }

    /// The day that is `count` TARGET days after this one; 0: as [`target_day_from`](Self::target_day_from).
    pub fn plus_target_days(self, count: u32) -> Result<Self, DateError> {
        let mut day = self.target_day_from()?;
        for _ in 0..count {
            day = day.plus_days(1)?.target_day_from()?;
        }
        Ok(day)
    }
}

/// Easter Sunday of the Gregorian calendar (Meeus, Jones and Butcher).
fn easter_sunday(year: u16) -> Result<Date, DateError> {
    let year = u32::from(year);
    let (golden, century, of_century) = (year % 19, year / 100, year % 100);
    let corrected = (century - (century + 8) / 25 + 1) / 3;
    let epact = (19 * golden + century - century / 4 - corrected + 15) % 30;
    let weekday = (32 + 2 * (century % 4) + 2 * (of_century / 4) - epact - of_century % 4) % 7;
    let late = (golden + 11 * epact + 22 * weekday) / 451;
    let sum = epact + weekday + 114 - 7 * late;
    Date::new(year as u16, (sum / 31) as u8, (sum % 31 + 1) as u8)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test should say where")]

    use super::*;

    fn date(text: &str) -> Date {
        text.parse().unwrap()
    }

    #[test]
    fn easter_is_on_its_known_days() {
        for known in ["1999-04-04", "2000-04-23", "2008-03-23", "2024-03-31", "2026-04-05", "2027-03-28", "2038-04-25"]
        {
            assert_eq!(easter_sunday(known.get(..4).unwrap().parse().unwrap()), Ok(date(known)));
        }
    }

    #[test]
    fn target_is_closed_on_its_holidays_and_weekends_only() {
        for closed in [
            "2026-01-01",
            "2026-04-03",
            "2026-04-06",
            "2026-05-01",
            "2026-12-25",
            "2026-12-26",
            "2026-11-21",
            "2026-11-22",
            "2027-03-26",
            "2027-03-29",
        ] {
            assert!(!date(closed).is_target_day(), "{closed}");
        }
        for open in ["2026-01-02", "2026-04-02", "2026-04-07", "2026-11-23", "2026-12-24", "2026-12-28", "2026-05-14"] {
            assert!(date(open).is_target_day(), "{open}");
        }
        let open = (0..365).filter(|day| date("2026-01-01").plus_days(*day).unwrap().is_target_day()).count();
        assert_eq!(open, 256);
    }

    #[test]
    fn next_target_day_skips_what_is_closed() {
        assert_eq!(date("2026-04-02").target_day_from(), Ok(date("2026-04-02")));
        assert_eq!(date("2026-04-03").target_day_from(), Ok(date("2026-04-07")));
        assert_eq!(date("2026-12-24").plus_target_days(1), Ok(date("2026-12-28")));
        assert_eq!(date("2026-11-22").plus_target_days(5), Ok(date("2026-11-30")));
        assert!(date("9999-12-31").plus_days(1).is_err());
    }
}

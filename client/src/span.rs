//! Spans of time as people write them, on the command line and in files.

use core::fmt;
use core::str::FromStr;

use weir_protocol::amount::Time;

/// A span of time, such as `1500ms`, `30s`, `90m`, `12h`, `30d`; `never` is without end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// So many milliseconds, above zero.
    Ms(u64),
    /// Without end.
    Never,
}

impl Span {
    /// The time so far after `now`.
    #[must_use]
    pub const fn after(self, now: Time) -> Time {
        match self {
            Self::Ms(ms) => now.plus_ms(ms),
            Self::Never => Time::MAX,
        }
    }
}

/// Not a span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a span of time: write a number and a unit, such as `1500ms`, `30s`, `90m`, `12h`, `30d`, or `never`")]
pub struct SpanError;

/// The units, the greatest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        if text == "never" {
            return Ok(Self::Never);
        }
        let unit_at = text.find(|letter: char| !letter.is_ascii_digit()).ok_or(SpanError)?;
        let (number, unit) = text.split_at(unit_at);
        let (_, unit_ms) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(SpanError)?;
        let number: u64 = number.parse().map_err(|_| SpanError)?;
        match number.checked_mul(*unit_ms) {
            Some(ms) if ms > 0 => Ok(Self::Ms(ms)),
            _ => Err(SpanError),
        }
    }
}

/// In the greatest unit that it is a whole number of.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Ms(ms) = self else { return f.pad("never") };
        let (unit, unit_ms) = UNITS.iter().find(|(_, unit_ms)| ms % unit_ms == 0).copied().unwrap_or(("ms", 1));
        f.pad(&format!("{}{unit}", ms / unit_ms))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;

    #[test]
    fn span_needs_a_number_and_a_unit() {
        assert_eq!("1500ms".parse(), Ok(Span::Ms(1_500)));
        assert_eq!("30s".parse(), Ok(Span::Ms(30_000)));
        assert_eq!("90m".parse(), Ok(Span::Ms(5_400_000)));
        assert_eq!("12h".parse(), Ok(Span::Ms(43_200_000)));
        assert_eq!("30d".parse(), Ok(Span::Ms(2_592_000_000)));
        assert_eq!("never".parse(), Ok(Span::Never));
        for bad in
            ["", "30", "d", "0s", "0ms", "-1d", "1.5h", "1w", "1 d", "99999999999999999999s", "300000000000000d", "+1d"]
        {
            assert_eq!(bad.parse::<Span>(), Err(SpanError), "{bad}");
        }
        assert_eq!(Span::Never.after(Time(5)), Time::MAX);
        assert_eq!(Span::Ms(u64::MAX).after(Time(5)), Time::MAX);
    }

    #[test]
    fn span_is_shown_in_its_greatest_whole_unit() {
        for text in ["1ms", "1500ms", "45s", "90m", "25h", "30d", "never"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        assert_eq!(Span::Ms(120_000).to_string(), "2m");
    }
}

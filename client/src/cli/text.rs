//! What people write on the command line and read on the terminal: dates, notes, places in the journal.

use std::fmt;
use std::str::FromStr;

use weir_client::protocol::amount::Time;
use weir_client::protocol::id::Reference;
use weir_client::protocol::wire::Cursor;

/// A time in UTC, to the second, as people read it.
pub(super) fn time(at: Time) -> String {
    let seconds = at.0 / 1_000;
    let days = seconds / 86_400;
    // Past the year 9999 it is a bound that nobody will reach.
    if days >= 2_932_897 {
        return "never".to_owned();
    }
    let (year, month, day) = date(days);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a day since 1970-01-01, in the Gregorian calendar counted from March (so that a leap day comes
/// last): 146,097 days are 400 years, and five months from March always have 153 days.
const fn date(days: u64) -> (u64, u64, u64) {
    let from_march = days + 719_468;
    let (era, day_of_era) = (from_march / 146_097, from_march % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let (month, next) = if month_from_march < 10 { (month_from_march + 3, 0) } else { (month_from_march - 9, 1) };
    (era * 400 + year_of_era + next, month, day)
}

/// In JSON a bound that never comes is null.
pub(super) const fn bound_ms(at: Time) -> Option<u64> {
    if at.0 == Time::MAX.0 { None } else { Some(at.0) }
}

/// A text of up to 32 bytes that takes a reference's place: padded with zeros, so that the payee can read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Note(pub(super) Reference);

/// Not a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoteError {
    /// Nothing, or more than fits.
    #[error("a note is 1 to 32 bytes of text; `--reference` takes 32 bytes of hex, such as a hash of a longer one")]
    Length,
    /// What a terminal should not print.
    #[error("a note holds no control characters")]
    Control,
}

impl FromStr for Note {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        if text.chars().any(char::is_control) {
            return Err(NoteError::Control);
        }
        let mut bytes = [0; 32];
        match bytes.get_mut(..text.len()) {
            Some(place) if !text.is_empty() => place.copy_from_slice(text.as_bytes()),
            _ => return Err(NoteError::Length),
        }
        Ok(Self(Reference(bytes)))
    }
}

/// The note that a reference is, if it is one.
pub(super) fn note(reference: &Reference) -> Option<String> {
    let end = reference.0.iter().rposition(|byte| *byte != 0)?;
    let text = core::str::from_utf8(reference.0.get(..=end)?).ok()?;
    (!text.chars().any(char::is_control)).then(|| text.to_owned())
}

/// A place in the hub's journal, as `CHAIN:NUMBER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(pub(super) Cursor);

/// Not a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a place in the journal: expected `CHAIN:NUMBER`, as in `through` of an earlier answer")]
pub(super) struct PlaceError;

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let (chain, number) = text.split_once(':').ok_or(PlaceError)?;
        let chain = chain.parse().map_err(|_| PlaceError)?;
        let number = number.parse().map_err(|_| PlaceError)?;
        Ok(Self(Cursor { chain, number }))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0.chain, self.0.number)
    }
}

/// What a stranger wrote, for a terminal: no control characters, and not endless.
pub(super) fn plain(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(300).collect()
}

/// The first characters of an id, for tables. [`Prefix`] reads them back.
pub(super) fn short(id: &impl ToString) -> String {
    let id = id.to_string();
    match id.get(..12) {
        Some(first) if id.len() > 12 => format!("{first}…"),
        _ => id,
    }
}

/// An id in hex, or enough of its beginning to tell it from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prefix(String);

/// Not the beginning of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id: expected 64 hex digits, or at least the first 6")]
pub(super) struct PrefixError;

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let text = text.trim_end_matches('…');
        let is_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if is_hex && (6..=64).contains(&text.len()) { Ok(Self(text.to_owned())) } else { Err(PrefixError) }
    }
}

impl Prefix {
    /// Whether an id begins so.
    pub(super) fn fits(&self, id: &impl ToString) -> bool {
        id.to_string().starts_with(&self.0)
    }

    /// The one of these that begins so.
    pub(super) fn find<T>(
        &self,
        kind: &'static str,
        all: impl IntoIterator<Item = T>,
        id: impl Fn(&T) -> String,
    ) -> Result<T, FindError> {
        let mut fitting = all.into_iter().filter(|one| id(one).starts_with(&self.0));
        let found = fitting.next().ok_or_else(|| FindError::Unknown { kind, prefix: self.0.clone() })?;
        if fitting.next().is_some() {
            return Err(FindError::Several { kind, prefix: self.0.clone() });
        }
        Ok(found)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why no one thing is meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FindError {
    /// None begins so.
    #[error("no {kind} begins with `{prefix}`")]
    Unknown {
        /// What was looked for.
        kind: &'static str,
        /// The beginning.
        prefix: String,
    },
    /// More than one does.
    #[error("more than one {kind} begins with `{prefix}`")]
    Several {
        /// What was looked for.
        kind: &'static str,
        /// The beginning.
        prefix: String,
    },
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;

    #[test]
    fn time_is_a_date_of_the_gregorian_calendar() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399_999, "2000-02-28T23:59:59Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (951_868_800_000, "2000-03-01T00:00:00Z"),
            (1_735_689_599_000, "2024-12-31T23:59:59Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59Z"),
            (253_402_300_800_000, "never"),
            (u64::MAX, "never"),
        ] {
            assert_eq!(time(Time(ms)), text, "{ms}");
        }
    }

    #[test]
    fn note_is_read_back_from_its_reference_and_a_hash_is_no_note() {
        for text in ["a", "coffee, no. 17", "ünïcödé", "12345678901234567890123456789012"] {
            assert_eq!(note(&text.parse::<Note>().unwrap().0).as_deref(), Some(text));
        }
        assert_eq!("".parse::<Note>(), Err(NoteError::Length));
        assert_eq!("123456789012345678901234567890123".parse::<Note>(), Err(NoteError::Length));
        assert_eq!("a\nb".parse::<Note>(), Err(NoteError::Control));
        assert_eq!(note(&Reference([0; 32])), None);
        assert_eq!(note(&Reference([0xff; 32])), None);
        assert_eq!(note(&Reference([7; 32])), None);
    }

    #[test]
    fn place_round_trips() {
        let place = Place(Cursor { chain: 3, number: 9 });
        assert_eq!(place.to_string().parse(), Ok(place));
        for bad in ["", "3", "3:", ":9", "3:9:1", "x:1"] {
            assert_eq!(bad.parse::<Place>(), Err(PlaceError), "{bad}");
        }
    }

    #[test]
    fn prefix_finds_the_one_id_that_begins_so() {
        let ids = ["0123456789abcdef".to_owned(), "0123457789abcdef".to_owned()];
        let find = |text: &str| text.parse::<Prefix>().unwrap().find("channel", ids.clone(), String::clone);
        assert_eq!(find("0123456").as_ref(), Ok(&ids[0]));
        assert_eq!(find(&short(&ids[1])).as_ref(), Ok(&ids[1]));
        assert!(matches!(find("012345"), Err(FindError::Several { .. })));
        assert!(matches!(find("ffffff"), Err(FindError::Unknown { .. })));
        for bad in ["", "01234", "xyzxyz", "ABCDEF"] {
            assert_eq!(bad.parse::<Prefix>(), Err(PrefixError), "{bad}");
        }
        assert_eq!("a".repeat(65).parse::<Prefix>(), Err(PrefixError));
        assert_eq!(short(&"weir1"), "weir1");
    }
}

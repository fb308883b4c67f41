//! A scanner that finds numbers at a few places of a JSON text while it passes by, in constant memory.
//!
//! Libraries that read JSON piece by piece hold each string as a whole, and an answer may hold a picture in one; this one
//! holds the place where it is, a key, and a number. It checks the structure strictly enough that text inside strings is
//! never taken for structure, and no more: escapes and numbers that nobody asks for are not looked into.
//!
//! Several documents may follow each other. What a document says counts when the document has ended.

/// How deep arrays and objects may be nested.
pub(super) const MAX_DEPTH: usize = 128;
/// The longest key, as it stands in the text, that can be asked for.
pub(super) const MAX_KEY_BYTES: usize = 512;
/// The longest number that is read: a longer one is no count.
const MAX_NUMBER_BYTES: usize = 24;

/// What stands at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// A whole number, zero or above.
    Count(u64),
    /// A number below zero.
    Negative,
    /// A number with a fraction or an exponent.
    Fraction,
    /// A whole number that is too large.
    TooLarge,
    /// Something that is no number.
    Other,
}

/// Why a text cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// It is no JSON.
    Syntax,
    /// Deeper than [`MAX_DEPTH`].
    Depth,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a document, or after one.
    Between,
    /// A value must follow.
    Value,
    /// A value or the end of the array.
    FirstItem,
    /// A key or the end of the object.
    FirstKey,
    /// A key must follow.
    Key,
    Colon,
    /// A comma or the end of what is open.
    After,
    /// Inside a string; whether it is a key; whether the byte before was a backslash.
    Text {
        key: bool,
        escaped: bool,
    },
    /// Inside `true`, `false`, `null` or a number.
    Bare,
}

#[derive(Debug, Clone, Copy)]
struct Level {
    object: bool,
    /// In an array: the number of the item.
    item: u64,
}

/// Looks for numbers at some places.
#[derive(Debug)]
pub(super) struct Scanner {
    places: Vec<Place>,
    levels: Vec<Level>,
    state: State,
    broken: Option<Broken>,
    key: Vec<u8>,
    bare: Vec<u8>,
    /// What the document that is open said, by place, in its order.
    said: Vec<(usize, Found)>,
}

#[derive(Debug)]
struct Place {
    tokens: Vec<String>,
    /// How many tokens the path to where the scanner is has in common with this place, from the root.
    matched: usize,
}

impl Scanner {
    /// Looks for what stands at these places: JSON pointers (RFC 6901), split and unescaped.
    pub(super) fn new(places: impl IntoIterator<Item = Vec<String>>) -> Self {
        Self {
            places: places.into_iter().map(|tokens| Place { tokens, matched: 0 }).collect(),
            levels: Vec::new(),
            state: State::Between,
            broken: None,
            key: Vec::new(),
            bare: Vec::new(),
            said: Vec::new(),
        }
    }

    /// Reads on. `report` hears of each place, by its index, when the document that says it has ended.
    pub(super) fn feed(&mut self, bytes: &[u8], report: &mut impl FnMut(usize, Found)) {
        let mut at = 0;
        while self.broken.is_none()
            && let Some(rest) = bytes.get(at..)
            && !rest.is_empty()
        {
            at += self.step(rest, report);
        }
    }

    /// The text has ended: the document must have too.
    pub(super) fn end(&mut self, report: &mut impl FnMut(usize, Found)) -> Result<(), Broken> {
        if self.state == State::Bare && self.levels.is_empty() {
            self.end_bare(report);
        }
        let ended = match self.broken {
            Some(broken) => Err(broken),
            None if self.state == State::Between => Ok(()),
            None => Err(Broken::Syntax),
        };
        self.reset();
        ended
    }

    /// Forgets what is open: the next byte starts a new document.
    pub(super) fn reset(&mut self) {
        self.levels.clear();
        self.state = State::Between;
        self.broken = None;
        self.said.clear();
        self.bare.clear();
        for place in &mut self.places {
            place.matched = 0;
        }
    }

    /// Takes one byte, or as many as need no look; how many.
    fn step(&mut self, rest: &[u8], report: &mut impl FnMut(usize, Found)) -> usize {
        let Some(&byte) = rest.first() else { return 0 };
        match self.state {
            State::Text { key, escaped } => return self.text(rest, key, escaped, report),
            State::Bare => {
                if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.') {
                    if self.bare.len() <= MAX_NUMBER_BYTES {
                        self.bare.push(byte);
                    }
                    return 1;
                }
                // The byte after it is looked at again.
                self.end_bare(report);
                return 0;
            }
            _ => {}
        }
        if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            return 1;
        }
        match (self.state, byte) {
            (State::FirstItem, b']') | (State::FirstKey, b'}') => self.close(report),
            (State::Between | State::Value | State::FirstItem, _) => self.begin(byte),
            (State::FirstKey | State::Key, b'"') => {
                self.key.clear();
                self.state = State::Text { key: true, escaped: false };
            }
            (State::Colon, b':') => self.state = State::Value,
            (State::After, b',') => self.next(),
            (State::After, b'}') if self.in_object() => self.close(report),
            (State::After, b']') if !self.in_object() => self.close(report),
            _ => self.broken = Some(Broken::Syntax),
        }
        1
    }

    fn in_object(&self) -> bool {
        self.levels.last().is_some_and(|level| level.object)
    }

    /// The first byte of a value.
    fn begin(&mut self, byte: u8) {
        match byte {
            b'{' | b'[' => {
                if self.levels.len() == MAX_DEPTH {
                    self.broken = Some(Broken::Depth);
                    return;
                }
                self.say(Found::Other);
                self.levels.push(Level { object: byte == b'{', item: 0 });
                self.state = if byte == b'{' {
                    State::FirstKey
                } else {
                    self.enter("0");
                    State::FirstItem
                };
            }
            b'"' => {
                self.say(Found::Other);
                self.state = State::Text { key: false, escaped: false };
            }
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {
                self.bare.clear();
                self.bare.push(byte);
                self.state = State::Bare;
            }
            _ => self.broken = Some(Broken::Syntax),
        }
    }

    /// Bytes inside a string, up to its end; how many.
    fn text(&mut self, rest: &[u8], key: bool, escaped: bool, report: &mut impl FnMut(usize, Found)) -> usize {
        let plain = if escaped {
            0
        } else {
            rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..0x20)).unwrap_or(rest.len())
        };
        let taken = rest.get(..=plain).unwrap_or(rest);
        let last = rest.get(plain).copied();
        if key && self.key.len() <= MAX_KEY_BYTES {
            let inside = if last == Some(b'"') && !escaped { rest.get(..plain).unwrap_or_default() } else { taken };
            let room = MAX_KEY_BYTES + 1 - self.key.len();
            self.key.extend_from_slice(inside.get(..room).unwrap_or(inside));
        }
        match last {
            None => {}
            Some(byte) if byte < 0x20 => self.broken = Some(Broken::Syntax),
            Some(_) if escaped => self.state = State::Text { key, escaped: false },
            Some(b'\\') => self.state = State::Text { key, escaped: true },
            Some(_) if key => {
                self.end_key();
                self.state = State::Colon;
            }
            Some(_) => self.end_value(report),
        }
        taken.len()
    }

    fn end_key(&mut self) {
        let key = core::mem::take(&mut self.key);
        if key.len() <= MAX_KEY_BYTES {
            match core::str::from_utf8(&key) {
                Ok(text) if !text.contains('\\') => self.enter(text),
                Ok(text) => match serde_json::from_str::<String>(&format!("\"{text}\"")) {
                    Ok(text) => self.enter(&text),
                    Err(_) => self.broken = Some(Broken::Syntax),
                },
                Err(_) => self.broken = Some(Broken::Syntax),
            }
        }
        self.key = key;
    }

    /// A number or a word has ended.
    fn end_bare(&mut self, report: &mut impl FnMut(usize, Found)) {
        match number(&self.bare) {
            Some(found) => self.say(found),
            None if self.bare == b"true" || self.bare == b"false" => self.say(Found::Other),
            // Nothing is said: some upstreams send `"usage": null` until they know it.
            None if self.bare == b"null" => {}
            None => {
                self.broken = Some(Broken::Syntax);
                return;
            }
        }
        self.end_value(report);
    }

    fn close(&mut self, report: &mut impl FnMut(usize, Found)) {
        self.leave();
        self.levels.pop();
        self.end_value(report);
    }

    fn end_value(&mut self, report: &mut impl FnMut(usize, Found)) {
        self.state = State::After;
        if self.levels.is_empty() {
            self.state = State::Between;
            for (place, found) in self.said.drain(..) {
                report(place, found);
            }
        }
    }

    /// A comma.
    fn next(&mut self) {
        self.leave();
        let Some(level) = self.levels.last_mut() else { return };
        if level.object {
            self.state = State::Key;
            return;
        }
        level.item = level.item.saturating_add(1);
        let item = level.item;
        self.state = State::Value;
        // Most arrays are not on the way to any place.
        if self.places.iter().any(|place| place.matched + 1 == self.levels.len()) {
            self.enter(&item.to_string());
        }
    }

    /// A step down from what is open: to a key or an item.
    fn enter(&mut self, token: &str) {
        let depth = self.levels.len();
        for place in &mut self.places {
            if place.matched + 1 == depth && place.tokens.get(place.matched).is_some_and(|wanted| wanted == token) {
                place.matched = depth;
            }
        }
    }

    /// A step up, before the next key or item or the end.
    fn leave(&mut self) {
        let depth = self.levels.len();
        for place in &mut self.places {
            if place.matched == depth && depth > 0 {
                place.matched = depth - 1;
            }
        }
    }

    /// A value begins where the scanner is: the places that are here.
    fn say(&mut self, found: Found) {
        let depth = self.levels.len();
        for (index, place) in self.places.iter().enumerate() {
            if place.matched == depth && place.tokens.len() == depth {
                // The last one counts; so what is held is bounded by the places.
                self.said.retain(|(said, _)| *said != index);
                self.said.push((index, found));
            }
        }
    }
}

/// What a number is, if it is one (RFC 8259 §6).
pub(super) fn number(text: &[u8]) -> Option<Found> {
    let (negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, text),
    };
    let whole = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = digits.get(whole..)?;
    if whole == 0 || (whole > 1 && digits.first() == Some(&b'0')) {
        return None;
    }
    if text.len() > MAX_NUMBER_BYTES {
        // Cut off: what is missing is not looked into.
        return Some(if rest.is_empty() { Found::TooLarge } else { Found::Fraction });
    }
    if !rest.is_empty() {
        return is_fraction(rest).then_some(Found::Fraction);
    }
    let count = core::str::from_utf8(digits).ok()?.parse::<u64>();
    Some(match count {
        Ok(0) => Found::Count(0),
        _ if negative => Found::Negative,
        Ok(count) => Found::Count(count),
        Err(_) => Found::TooLarge,
    })
}

/// Whether this follows the whole part of a number: `.` with digits, an exponent, or both.
fn is_fraction(rest: &[u8]) -> bool {
    let digits = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let exponent_at = rest.iter().position(|byte| matches!(byte, b'e' | b'E'));
    let (fraction, exponent) = match exponent_at {
        Some(at) => (rest.get(..at).unwrap_or_default(), rest.get(at + 1..)),
        None => (rest, None),
    };
    let fraction_reads = fraction.strip_prefix(b".").map_or(fraction.is_empty(), digits);
    let exponent_reads =
        exponent.is_none_or(|text| digits(text.strip_prefix(b"+").or(text.strip_prefix(b"-")).unwrap_or(text)));
    fraction_reads && exponent_reads
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;

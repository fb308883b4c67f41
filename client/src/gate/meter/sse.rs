//! Server-sent events (WHATWG HTML §9.2) as they pass: the bytes of their `data`, and where an event ends. Nothing is held
//! but where in a line it is.

/// What the reader of the events does with them.
pub(super) trait Events {
    /// More of the event's data. Lines of data are joined by line feeds.
    fn data(&mut self, bytes: &[u8]);
    /// The event has ended.
    fn end(&mut self);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes of a line were `data:`.
    Name(usize),
    /// After `data:`, where one space means nothing.
    Colon,
    Data,
    /// In a line of another field.
    Other,
}

/// Splits a stream into events.
#[derive(Debug)]
pub(super) struct Sse {
    state: State,
    after_carriage_return: bool,
    /// How many bytes of a byte order mark came, at the very start.
    mark: Option<usize>,
    has_data: bool,
}

const DATA: &[u8] = b"data:";
const MARK: &[u8] = b"\xef\xbb\xbf";

impl Sse {
    /// At the start of a stream.
    pub(super) const fn new() -> Self {
        Self { state: State::Name(0), after_carriage_return: false, mark: Some(0), has_data: false }
    }

    /// Reads on.
    pub(super) fn feed(&mut self, bytes: &[u8], events: &mut impl Events) {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            if let Some(seen) = self.mark {
                if MARK.get(seen) == Some(&byte) {
                    self.mark = (seen + 1 < MARK.len()).then_some(seen + 1);
                    rest = after;
                    continue;
                }
                self.mark = None;
            }
            if core::mem::take(&mut self.after_carriage_return) && byte == b'\n' {
                rest = after;
                continue;
            }
            if matches!(byte, b'\r' | b'\n') {
                self.after_carriage_return = byte == b'\r';
                self.line_end(events);
                rest = after;
                continue;
            }
            let line_end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(rest.len());
            let (line, next) = rest.split_at(line_end);
            self.line(line, events);
            rest = next;
        }
    }

    /// Part of a line, without its end; not empty.
    fn line(&mut self, mut part: &[u8], events: &mut impl Events) {
        while let State::Name(seen) = self.state {
            let Some((byte, after)) = part.split_first() else { return };
            part = after;
            self.state = match DATA.get(seen) {
                Some(expected) if expected == byte && seen + 1 == DATA.len() => State::Colon,
                Some(expected) if expected == byte => State::Name(seen + 1),
                _ => State::Other,
            };
        }
        if self.state == State::Colon && !part.is_empty() {
            part = part.strip_prefix(b" ").unwrap_or(part);
            self.begin_data(events);
        }
        if self.state == State::Data && !part.is_empty() {
            events.data(part);
        }
    }

    fn begin_data(&mut self, events: &mut impl Events) {
        if core::mem::replace(&mut self.has_data, true) {
            events.data(b"\n");
        }
        self.state = State::Data;
    }

    fn line_end(&mut self, events: &mut impl Events) {
        match self.state {
            State::Name(0) if core::mem::take(&mut self.has_data) => events.end(),
            State::Colon => self.begin_data(events),
            // `data` without a colon is an empty line of data, which changes nothing for JSON.
            _ => {}
        }
        self.state = State::Name(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Default)]
    struct Kept {
        open: Vec<u8>,
        ended: Vec<String>,
    }

    impl Events for Kept {
        fn data(&mut self, bytes: &[u8]) {
            self.open.extend_from_slice(bytes);
        }
        fn end(&mut self) {
            self.ended.push(String::from_utf8_lossy(&core::mem::take(&mut self.open)).into_owned());
        }
    }

    fn events(text: &[u8], size: usize) -> Vec<String> {
        let mut kept = Kept::default();
        let mut sse = Sse::new();
        for chunk in text.chunks(size) {
            sse.feed(chunk, &mut kept);
        }
        kept.ended
    }

    #[test]
    fn data_of_each_event_is_told_in_any_form_of_lines() {
        for (text, expected) in [
            ("data: a\n\ndata: b\n\n", vec!["a", "b"]),
            ("data:a\r\n\r\ndata:b\r\n\r\n", vec!["a", "b"]),
            ("data: a\r\rdata: b\r\r", vec!["a", "b"]),
            ("event: x\ndata: a\nid: 1\ndata: b\n\n", vec!["a\nb"]),
            (": comment\n\ndata: a\n\n", vec!["a"]),
            ("\u{feff}data: a\n\n", vec!["a"]),
            ("data:  a\n\n", vec![" a"]),
            ("data:\n\n", vec![""]),
            ("datax: a\ndat: b\n data: c\n\n", vec![]),
            ("data: a: b\n\n", vec!["a: b"]),
            ("data: cut off\n", vec![]),
            ("\n\n\n", vec![]),
        ] {
            for size in [1, 2, 3, 1_000] {
                assert_eq!(events(text.as_bytes(), size), expected, "{text:?} by {size}");
            }
        }
    }

    proptest! {
        #[test]
        fn events_do_not_depend_on_how_the_bytes_are_cut(text in "(data|event|: ?|[ab\r\n:]){0,40}", size in 1_usize..10) {
            prop_assert_eq!(events(text.as_bytes(), size), events(text.as_bytes(), 1_000));
        }
    }
}

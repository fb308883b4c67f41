//! One reading of a request's path, so that no spelling of it dodges a price.
//!
//! The gate and the upstream must mean the same resource. What servers agree on is normalised: escapes of characters that
//! need none (`/articles/%31`), upper and lower case in escapes, repeated slashes (`//articles//1`), a slash at the end.
//! What servers read in different ways is refused with 400, since whichever reading the gate took, an upstream could take
//! the dearer one: `.` and `..` as segments, an escaped slash, a backslash, a `;`, an escape that gives another escape
//! (`%2531`), control characters, bytes that are no UTF-8, broken escapes, a fragment.
//!
//! Clients that behave never send these: browsers and curl resolve dots before they ask.

/// The longest path and query that is looked at; hyper takes up to 64 KiB.
pub const MAX_TARGET_BYTES: usize = 16 * 1024;

/// Why a path has no single meaning. The text is for the answer 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// Not a path from the root, such as `*`.
    #[error("the path does not start with `/`")]
    NotRooted,
    /// More than [`MAX_TARGET_BYTES`].
    #[error("the path and query are longer than {MAX_TARGET_BYTES} bytes")]
    TooLong,
    /// `%` without two hex digits.
    #[error("an escape in the path is broken: `%` needs two hex digits")]
    Escape,
    /// `%25` followed by two hex digits.
    #[error("the path is escaped twice")]
    EscapedTwice,
    /// `%2f`, or a backslash in any form.
    #[error("the path holds an escaped slash or a backslash")]
    Slash,
    /// `.` or `..` as a segment, in any form.
    #[error("the path holds `.` or `..` as a segment")]
    Dots,
    /// A `;`, which some servers read as the start of parameters.
    #[error("the path holds a `;`")]
    Parameters,
    /// A control character.
    #[error("the path holds a control character")]
    Control,
    /// Bytes that are no text.
    #[error("the path is not UTF-8")]
    NotText,
    /// A `#`, which is never sent.
    #[error("the path holds a fragment")]
    Fragment,
}

/// A path with one meaning, and the query as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Unescaped; starts with `/`; no empty segments; no slash at the end except as the root.
    pub path: String,
    /// What follows the first `?`, as sent.
    pub query: Option<String>,
}

/// Reads the path and query of a request's target.
pub fn target(path_and_query: &str) -> Result<Target, PathFault> {
    if path_and_query.len() > MAX_TARGET_BYTES {
        return Err(PathFault::TooLong);
    }
    if path_and_query.contains('#') {
        return Err(PathFault::Fragment);
    }
    let (raw, query) = match path_and_query.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (path_and_query, None),
    };
    if !raw.starts_with('/') {
        return Err(PathFault::NotRooted);
    }
    let mut path = String::with_capacity(raw.len());
    for segment in raw.split('/').filter(|segment| !segment.is_empty()) {
        let segment = unescaped(segment)?;
        if segment == "." || segment == ".." {
            return Err(PathFault::Dots);
        }
        path.push('/');
        path.push_str(&segment);
    }
    if path.is_empty() {
        path.push('/');
    }
    Ok(Target { path, query })
}

fn unescaped(segment: &str) -> Result<String, PathFault> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        let byte = if byte == b'%' {
            let high = rest.next().and_then(hex).ok_or(PathFault::Escape)?;
            let low = rest.next().and_then(hex).ok_or(PathFault::Escape)?;
            high << 4 | low
        } else {
            byte
        };
        match byte {
            b'/' | b'\\' => return Err(PathFault::Slash),
            b';' => return Err(PathFault::Parameters),
            byte if byte.is_ascii_control() => return Err(PathFault::Control),
            byte => bytes.push(byte),
        }
    }
    let twice = bytes
        .windows(3)
        .any(|three| matches!(three, [b'%', high, low] if [high, low].iter().all(|digit| hex(**digit).is_some())));
    if twice {
        return Err(PathFault::EscapedTwice);
    }
    String::from_utf8(bytes).map_err(|_| PathFault::NotText)
}

const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// A host as names are compared: lower case, without port and without the dot of the root.
#[must_use]
pub fn host(host: &str) -> String {
    let name = match host.rsplit_once(':') {
        // An IPv6 address holds colons too, but in brackets.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> Result<String, PathFault> {
        target(text).map(|target| target.path)
    }

    #[test]
    fn path_in_another_spelling_is_the_same_path() {
        for spelling in [
            "/articles/1",
            "/articles/%31",
            "//articles/1",
            "/articles//1",
            "/articles/1/",
            "/articles/1//",
            "/%61rticles/1",
            "///articles///%31///",
            "/articles/1?x=%2e%2e;#".trim_end_matches('#'),
        ] {
            assert_eq!(path(spelling).as_deref(), Ok("/articles/1"), "{spelling}");
        }
        assert_eq!(path("/caf%c3%a9"), path("/caf%C3%A9"));
        assert_eq!(path("/caf%c3%a9"), path("/café"));
        assert_eq!(path("/").as_deref(), Ok("/"));
        assert_eq!(path("//").as_deref(), Ok("/"));
        assert_eq!(path("/100%25").as_deref(), Ok("/100%"));
        assert_eq!(path("/a+b/...").as_deref(), Ok("/a+b/..."));
    }

    #[test]
    fn path_that_servers_read_differently_is_refused() {
        for (spelling, fault) in [
            ("", PathFault::NotRooted),
            ("*", PathFault::NotRooted),
            ("articles/1", PathFault::NotRooted),
            ("?x", PathFault::NotRooted),
            ("/./articles/1", PathFault::Dots),
            ("/free/../articles/1", PathFault::Dots),
            ("/free/%2e%2E/articles/1", PathFault::Dots),
            ("/free/.%2e", PathFault::Dots),
            ("/articles/1/.", PathFault::Dots),
            ("/articles%2f1", PathFault::Slash),
            ("/articles%2F1", PathFault::Slash),
            ("/articles\\1", PathFault::Slash),
            ("/articles%5c1", PathFault::Slash),
            ("/articles/%2531", PathFault::EscapedTwice),
            ("/articles/%252e%252e", PathFault::EscapedTwice),
            ("/articles;x=1/1", PathFault::Parameters),
            ("/articles/1%3bx", PathFault::Parameters),
            ("/articles/1%00", PathFault::Control),
            ("/articles/1%0a", PathFault::Control),
            ("/articles/%7f", PathFault::Control),
            ("/articles/%", PathFault::Escape),
            ("/articles/%3", PathFault::Escape),
            ("/articles/%3g", PathFault::Escape),
            ("/articles/%ff", PathFault::NotText),
            ("/articles/%c0%af", PathFault::NotText),
            ("/articles/1#x", PathFault::Fragment),
        ] {
            assert_eq!(path(spelling), Err(fault), "{spelling}");
        }
    }

    #[test]
    fn target_at_its_longest_is_read_and_a_byte_more_is_not() {
        let longest = format!("/{}", "a".repeat(MAX_TARGET_BYTES - 1));
        assert!(target(&longest).is_ok());
        assert_eq!(target(&format!("{longest}a")), Err(PathFault::TooLong));
    }

    #[test]
    fn query_is_kept_as_it_came() {
        assert_eq!(target("/a?b=%31?c").unwrap().query.as_deref(), Some("b=%31?c"));
        assert_eq!(target("/a?").unwrap().query.as_deref(), Some(""));
        assert_eq!(target("/a").unwrap().query, None);
    }

    #[test]
    fn host_is_compared_without_case_port_and_last_dot() {
        for (text, name) in [
            ("News.Example", "news.example"),
            ("news.example:443", "news.example"),
            ("news.example.", "news.example"),
            ("news.example.:80", "news.example"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("", ""),
        ] {
            assert_eq!(host(text), name);
        }
    }

    /// A way to write one character of a path.
    fn spelled(letter: char, how: u8) -> String {
        let mut buffer = [0; 4];
        let bytes = letter.encode_utf8(&mut buffer).bytes();
        match how {
            0 => letter.to_string(),
            1 => bytes.flat_map(|byte| format!("%{byte:02x}").into_bytes()).map(char::from).collect(),
            _ => bytes.flat_map(|byte| format!("%{byte:02X}").into_bytes()).map(char::from).collect(),
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,60}") {
            if let Ok(target) = target(&text) {
                prop_assert!(target.path.starts_with('/'));
                prop_assert!(target.path == "/" || !target.path.ends_with('/'));
                prop_assert!(!target.path.contains("//"));
                prop_assert!(target.path.split('/').all(|segment| segment != "." && segment != ".."));
            }
        }

        #[test]
        fn any_spelling_of_a_path_reads_the_same(
            segments in proptest::collection::vec(proptest::collection::vec(("[a-zA-Z0-9é_~-]", 0_u8..3), 1..6), 1..5),
            slashes in proptest::collection::vec(1_usize..4, 6),
            last in 0_usize..3,
        ) {
            let mut plain = String::new();
            let mut spelling = String::new();
            for (segment, slashes) in segments.iter().zip(&slashes) {
                plain.push('/');
                spelling.push_str(&"/".repeat(*slashes));
                for (letter, how) in segment {
                    let letter = letter.chars().next().unwrap();
                    plain.push(letter);
                    spelling.push_str(&spelled(letter, *how));
                }
            }
            spelling.push_str(&"/".repeat(last));
            prop_assert_eq!(path(&spelling), Ok(plain));
        }
    }
}

#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

use super::*;
use proptest::prelude::*;
use serde_json::Value;

fn place(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~")).collect()
}

/// What is said last about one place, and how the text ended.
fn scan(pointer: &str, chunks: &[&[u8]]) -> (Option<Found>, Result<(), Broken>) {
    let mut scanner = Scanner::new([place(pointer)]);
    let mut last = None;
    for chunk in chunks {
        scanner.feed(chunk, &mut |_, found| last = Some(found));
    }
    let end = scanner.end(&mut |_, found| last = Some(found));
    (last, end)
}

#[test]
fn number_is_found_at_its_place_and_nowhere_else() {
    for (pointer, text, found) in [
        ("/usage/total", r#"{"usage":{"total":7}}"#, Some(Found::Count(7))),
        (
            "/usage/total",
            r#" { "a" : [ { "usage" : { "total" : 1 } } ] , "usage" : { "x" : {"total":2}, "total" : 7 } } "#,
            Some(Found::Count(7)),
        ),
        ("/usage/total", r#"{"usage":[{"total":1}],"total":2,"text":"\"usage\":{\"total\":3}"}"#, None),
        ("/usage/total", r#"{"text":"{\"usage\":{\"total\":3}}","usage":{"total":4}}"#, Some(Found::Count(4))),
        ("/usage/total", r#"{"usage":{"total":1},"usage":{"total":2}}"#, Some(Found::Count(2))),
        ("/usage/total", r#"{"\u0075sage":{"tot\u0061l":9}}"#, Some(Found::Count(9))),
        ("/usage/total", r#"{"usage":null}"#, None),
        ("/usage/total", r#"{"usage":{"total":null}}"#, None),
        ("/usage/total", r#"{"usage":{"total":"5"}}"#, Some(Found::Other)),
        ("/usage/total", r#"{"usage":{"total":{"x":5}}}"#, Some(Found::Other)),
        ("/usage/total", r#"{"usage":{"total":true}}"#, Some(Found::Other)),
        ("/a/1/b", r#"{"a":[{"b":1},{"b":2},{"b":3}]}"#, Some(Found::Count(2))),
        ("/0", "[5,6]", Some(Found::Count(5))),
        ("/1", "[[],6]", Some(Found::Count(6))),
        ("/1", "[[1,2],[3,4]]", Some(Found::Other)),
        ("/1/0", "[[1,2],[3,4]]", Some(Found::Count(3))),
        ("/a~1b/c~0d", r#"{"a/b":{"c~d":1}}"#, Some(Found::Count(1))),
        ("", "12", Some(Found::Count(12))),
        ("/n", "{\"n\":1}\n{\"n\":2}\n{}", Some(Found::Count(2))),
        ("/n", "{}[]{}", None),
    ] {
        assert_eq!(scan(pointer, &[text.as_bytes()]), (found, Ok(())), "{pointer} in {text}");
    }
}

#[test]
fn number_that_is_no_count_is_told_apart() {
    for (text, found) in [
        ("0", Found::Count(0)),
        ("-0", Found::Count(0)),
        ("18446744073709551615", Found::Count(u64::MAX)),
        ("18446744073709551616", Found::TooLarge),
        ("99999999999999999999999999999999999", Found::TooLarge),
        ("-1", Found::Negative),
        ("1.5", Found::Fraction),
        ("1.0", Found::Fraction),
        ("1e3", Found::Fraction),
        ("1E+9999", Found::Fraction),
        ("-1.5e-3", Found::Fraction),
    ] {
        assert_eq!(scan("/n", &[format!("{{\"n\":{text}}}").as_bytes()]), (Some(found), Ok(())), "{text}");
    }
}

#[test]
fn text_that_is_no_json_says_nothing() {
    for text in [
        "{\"n\":1",
        "{\"n\":1,}",
        "{\"n\":01}",
        "{\"n\":1.}",
        "{\"n\":.5}",
        "{\"n\":+1}",
        "{\"n\":1e}",
        "{\"n\" 1}",
        "{n:1}",
        "{\"n\":1]",
        "[1}",
        "{\"n\":1}}",
        "{\"n\":nul}",
        "{\"n\":truefalse}",
        "<html>",
        "{\"n\":1,\"\n\":2}",
        "\"",
        "{\"a\":\"\t\",\"n\":1}",
        "-",
        "{\"n\":--1}",
        "{,\"n\":1}",
        "[,1]",
        "{\"n\":}",
    ] {
        let (found, end) = scan("/n", &[text.as_bytes()]);
        // What stands before the fault in a document of its own was said.
        let said = (text == "{\"n\":1}}").then_some(Found::Count(1));
        assert_eq!((found, end), (said, Err(Broken::Syntax)), "{text}");
    }
}

#[test]
fn nesting_is_followed_to_its_bound() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(scan("/n", &[nested(MAX_DEPTH).as_bytes()]).1, Ok(()));
    assert_eq!(scan("/n", &[nested(MAX_DEPTH + 1).as_bytes()]).1, Err(Broken::Depth));
}

#[test]
fn key_at_its_bound_matches_and_a_longer_one_does_not() {
    for (length, found) in [(MAX_KEY_BYTES, Some(Found::Count(1))), (MAX_KEY_BYTES + 1, None)] {
        let key = "k".repeat(length);
        assert_eq!(scan(&format!("/{key}"), &[format!("{{\"{key}\":1}}").as_bytes()]), (found, Ok(())));
    }
}

#[test]
fn long_strings_are_not_held() {
    let mut scanner = Scanner::new([place("/n")]);
    let mut last = None;
    let mut report = |_, found| last = Some(found);
    scanner.feed(b"{\"picture\":\"", &mut report);
    for _ in 0..1_000 {
        scanner.feed(&[b'A'; 10_000], &mut report);
    }
    scanner.feed(b"\",\"n\":3}", &mut report);
    assert!(scanner.key.capacity() + scanner.bare.capacity() <= 4 * MAX_KEY_BYTES);
    assert_eq!(scanner.end(&mut report), Ok(()));
    assert_eq!(last, Some(Found::Count(3)));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec(("[ab\"\\\\é\n]{0,2}", inner), 0..5)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

fn expected(value: Option<&Value>) -> Option<Found> {
    Some(match value? {
        Value::Null => return None,
        Value::Number(number) if number.is_f64() => Found::Fraction,
        Value::Number(number) => number.as_u64().map_or(Found::Negative, Found::Count),
        _ => Found::Other,
    })
}

/// The pointers of everything in a text.
fn pointers(value: &Value, here: &str, all: &mut Vec<String>) {
    all.push(here.to_owned());
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                pointers(item, &format!("{here}/{index}"), all);
            }
        }
        Value::Object(fields) => {
            for (key, field) in fields {
                pointers(field, &format!("{here}/{}", key.replace('~', "~0").replace('/', "~1")), all);
            }
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn scanner_agrees_with_a_parser_at_every_place(value in any_json(), pretty in any::<bool>(), size in 1_usize..9) {
        let text = if pretty { serde_json::to_string_pretty(&value).unwrap() } else { value.to_string() };
        let chunks: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
        let mut all = Vec::new();
        pointers(&value, "", &mut all);
        all.push("/a/0".to_owned());
        for pointer in all {
            prop_assert_eq!(scan(&pointer, &chunks), (expected(value.pointer(&pointer)), Ok(())), "{} in {}", pointer, text);
        }
    }

    #[test]
    fn scanner_takes_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200), size in 1_usize..20) {
        let whole = scan("/a", &[&bytes]);
        prop_assert_eq!(whole, scan("/a", &bytes.chunks(size).collect::<Vec<_>>()));
    }

    #[test]
    fn scanner_takes_any_text_of_structure(text in "[\\[\\]{}:,\"\\\\a01.eE+\\- \nntrufls]{0,40}", size in 1_usize..5) {
        let (found, end) = scan("/a", &text.as_bytes().chunks(size).collect::<Vec<_>>());
        // One document: what is valid for the parser is valid here, and says the same.
        if let Ok(value) = serde_json::from_str::<Value>(&text) {
            prop_assert_eq!(end, Ok(()));
            prop_assert!(found == expected(value.pointer("/a")) || text.matches("\"a\"").count() > 1 || text.contains('\\') || text.contains("-0"));
        }
    }
}

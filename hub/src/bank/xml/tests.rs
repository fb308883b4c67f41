//! Bounds on both sides, refusals, and bytes that are no XML.
#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

use proptest::prelude::*;

use super::*;

fn wrap(inside: &str) -> String {
    format!("<Document xmlns=\"urn:iso:std:iso:20022:tech:xsd:camt.053.001.08\"><M>{inside}</M></Document>")
}

fn read(bytes: &[u8]) -> Result<Block, ReadError> {
    let (mut reader, _) = XmlReader::open(bytes)?;
    let tag = reader.child()?.ok_or(ReadError::Missing("M"))?;
    let block = reader.block(tag)?;
    reader.finish()?;
    Ok(block)
}

#[test]
fn text_is_joined_over_references_and_cdata() {
    let block = read(wrap("<A Ccy=\"EUR\"> a&amp;b&#x20;<![CDATA[<c>]]><!-- no --> </A>").as_bytes()).unwrap();
    let node = block.root();
    assert_eq!(node.text_at(&["A"]), Some("a&b <c>"));
    assert!(node.at(&["A"]).unwrap().element().tag.currency.unwrap() == "EUR");
}

#[test]
fn prefix_and_declaration_are_tolerated() {
    let text = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<n:Document xmlns:n=\"urn:iso:std:iso:20022:tech:xsd:camt.054.001.14\"><n:M/></n:Document>\n";
    let (_, message) = XmlReader::open(text.as_bytes()).unwrap();
    assert_eq!((message.family.as_str(), message.version), ("camt.054", 14));
    assert!(read(text.as_bytes()).is_ok());
}

#[test]
fn entities_and_document_types_are_refused() {
    let bomb = format!("<!DOCTYPE d [<!ENTITY a \"aaaa\">]>{}", wrap("<A>&a;</A>"));
    assert!(matches!(read(bomb.as_bytes()), Err(ReadError::Forbidden(_))));
    assert!(matches!(read(wrap("<A>&a;</A>").as_bytes()), Err(ReadError::Forbidden(_))));
    let inside = wrap("<!DOCTYPE d><A/>");
    assert!(matches!(read(inside.as_bytes()), Err(ReadError::Forbidden(_))));
}

#[test]
fn truncated_trailing_and_foreign_files_are_refused() {
    let whole = wrap("<A>1</A>");
    for end in 0..whole.len() {
        assert!(read(&whole.as_bytes()[..end]).is_err(), "{end}");
    }
    for text in [
        format!("{whole}x"),
        format!("{whole}<A/>"),
        whole.replace("camt.053.001.08", "camt.53"),
        whole.replace("Document", "Envelope"),
        format!("<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?>{whole}"),
    ] {
        assert!(read(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn bounds_hold_on_both_sides() {
    let nest = |n: usize| wrap(&("<A>".repeat(n) + &"</A>".repeat(n)));
    assert!(read(nest(MAX_DEPTH - 2).as_bytes()).is_ok());
    assert!(matches!(read(nest(MAX_DEPTH - 1).as_bytes()), Err(ReadError::TooLarge("nesting"))));
    let many = |n: usize| wrap(&"<A/>".repeat(n));
    assert!(read(many(MAX_NODE_ELEMENTS - 1).as_bytes()).is_ok());
    assert!(matches!(read(many(MAX_NODE_ELEMENTS).as_bytes()), Err(ReadError::TooLarge("a block"))));
    let long = |n: usize| wrap(&format!("<A>{}</A>", "x".repeat(n)));
    assert!(read(long(MAX_TEXT_BYTES - 16).as_bytes()).is_ok());
    assert!(matches!(read(long(MAX_TEXT_BYTES + 1).as_bytes()), Err(ReadError::TooLarge("a text"))));
    let pieces = |n: usize| wrap(&format!("<A>{}</A>", "x<!-- -->".repeat(n)));
    assert!(read(pieces(MAX_TEXT_BYTES).as_bytes()).is_ok());
    assert!(matches!(read(pieces(MAX_TEXT_BYTES + 1).as_bytes()), Err(ReadError::TooLarge("a text"))));
}

#[test]
fn file_bound_holds_on_both_sides() {
    let text = wrap("<A>1</A>");
    let length = text.len() as u64;
    let read = |bound| {
        let (mut reader, _) = XmlReader::open_bounded(text.as_bytes(), bound)?;
        reader.message("M")?;
        while reader.child()?.is_some() {
            reader.skip()?;
        }
        reader.finish()
    };
    assert!(read(length).is_ok());
    assert!(matches!(read(length - 1), Err(ReadError::FileTooLarge)));
}

#[test]
fn amount_limits_hold_on_both_sides() {
    for (text, value) in [
        ("0", "0"),
        ("1", "1"),
        ("1.", "1"),
        (".5", "0.5"),
        ("0001.50000", "1.5"),
        ("999999999999999.99999", "999999999999999.99999"),
        ("1.500000000000", "1.5"),
    ] {
        assert_eq!(amount(text, "Amt").unwrap().to_string(), value, "{text}");
    }
    for bad in ["", ".", "-1", "+1", "1,5", "1e3", "1.000001", "1000000000000000", "1 000", "١", "NaN", "1.2.3"] {
        assert!(amount(bad, "Amt").is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&bytes);
    }

    #[test]
    fn arbitrary_amount_never_panics(text in ".{0,50}") {
        let _ = amount(&text, "Amt");
        let _ = count(&text, "NbOfTxs");
    }

    #[test]
    fn written_text_reads_back(text in "[^\\p{C}]{0,60}") {
        let mut out = crate::bank::xml_write::XmlWriter::new(Vec::new(), "pain.001.001.09");
        out.open("M").unwrap();
        out.leaf("A", &text).unwrap();
        let block = read(&out.finish().unwrap()).unwrap();
        prop_assert_eq!(block.root().text_at(&["A"]).unwrap_or_default(), text.trim());
    }
}

//! XML out: elements and texts, indented, always the same bytes. It must not know what the elements mean.

use std::io::{self, Write};

use rust_decimal::Decimal;

/// What is collected before it is written.
const BUFFER_BYTES: usize = 64 << 10;

/// Writes elements, indented by two spaces. The caller's nesting is its own: `close` ends what was opened last. What is
/// written is there when [`finish`](Self::finish) has returned.
#[derive(Debug)]
pub(super) struct XmlWriter<W> {
    out: W,
    buffer: String,
    open: Vec<&'static str>,
}

impl<W: Write> XmlWriter<W> {
    /// Starts a document of the message, `pain.001.001.09`.
    pub(super) fn new(out: W, message: &str) -> Self {
        let mut buffer = String::with_capacity(BUFFER_BYTES);
        buffer.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        for part in ["<Document xmlns=\"urn:iso:std:iso:20022:tech:xsd:", message, "\">\n"] {
            buffer.push_str(part);
        }
        Self { out, buffer, open: vec!["Document"] }
    }

    /// Opens an element.
    pub(super) fn open(&mut self, name: &'static str) -> io::Result<()> {
        self.indent();
        self.open.push(name);
        self.line(&["<", name, ">"])
    }

    /// Closes what was opened last.
    pub(super) fn close(&mut self) -> io::Result<()> {
        let name = self.open.pop().unwrap_or_default();
        self.indent();
        self.line(&["</", name, ">"])
    }

    /// An element with text only.
    pub(super) fn leaf(&mut self, name: &'static str, text: &str) -> io::Result<()> {
        self.indent();
        self.line(&["<", name, ">", &quick_xml::escape::escape(text), "</", name, ">"])
    }

    /// `path`, each inside the one before, the last with text.
    pub(super) fn nested(&mut self, path: &[&'static str], text: &str) -> io::Result<()> {
        let Some((last, outer)) = path.split_last() else {
            return Ok(());
        };
        for name in outer {
            self.open(name)?;
        }
        self.leaf(last, text)?;
        for _ in outer {
            self.close()?;
        }
        Ok(())
    }

    /// An amount with its currency, two digits behind the point. The caller has checked that it has no more.
    pub(super) fn money(&mut self, name: &'static str, currency: &str, amount: Decimal) -> io::Result<()> {
        self.indent();
        self.buffer.push('<');
        self.line(&[name, " Ccy=\"", currency, "\">", &cents(amount), "</", name, ">"])
    }

    /// `Strd` with an ISO 11649 reference.
    pub(super) fn structured_reference(&mut self, reference: &str) -> io::Result<()> {
        self.open("Strd")?;
        self.open("CdtrRefInf")?;
        self.open("Tp")?;
        self.nested(&["CdOrPrtry", "Cd"], "SCOR")?;
        self.leaf("Issr", "ISO")?;
        self.close()?;
        self.leaf("Ref", reference)?;
        self.close()?;
        self.close()
    }

    /// Ends everything that is open.
    pub(super) fn finish(mut self) -> io::Result<W> {
        while !self.open.is_empty() {
            self.close()?;
        }
        self.out.write_all(self.buffer.as_bytes())?;
        Ok(self.out)
    }

    fn indent(&mut self) {
        self.buffer.extend(std::iter::repeat_n("  ", self.open.len()));
    }

    fn line(&mut self, parts: &[&str]) -> io::Result<()> {
        self.buffer.extend(parts.iter().copied());
        self.buffer.push('\n');
        if self.buffer.len() >= BUFFER_BYTES {
            self.out.write_all(self.buffer.as_bytes())?;
            self.buffer.clear();
        }
        Ok(())
    }
}

/// An amount with two digits behind the point; faster than to format it, where it has no more.
fn cents(amount: Decimal) -> String {
    let factor = match amount.scale() {
        0 => 100,
        1 => 10,
        2 => 1,
        _ => return format!("{amount:.2}"),
    };
    match u64::try_from(amount.mantissa()).ok().and_then(|mantissa| mantissa.checked_mul(factor)) {
        Some(cents) => format!("{}.{:02}", cents / 100, cents % 100),
        None => format!("{amount:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn amount_is_written_as_it_would_be_formatted(mantissa in any::<i64>(), scale in 0..6_u32) {
            let amount = Decimal::new(mantissa, scale);
            prop_assert_eq!(cents(amount), format!("{amount:.2}"));
            let small = Decimal::new(mantissa % 100_000, scale);
            prop_assert_eq!(cents(small), format!("{small:.2}"));
        }
    }
}

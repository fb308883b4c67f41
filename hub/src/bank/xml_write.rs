//! XML out: elements and texts, indented, always the same bytes. It must not know what the elements mean.

use std::io::{self, Write};

use rust_decimal::Decimal;

/// Writes elements, indented by two spaces. The caller's nesting is its own: `close` ends what was opened last.
#[derive(Debug)]
pub(super) struct XmlWriter<W> {
    out: W,
    open: Vec<&'static str>,
}

impl<W: Write> XmlWriter<W> {
    /// Starts a document of the message, `pain.001.001.09`.
    pub(super) fn new(mut out: W, message: &str) -> io::Result<Self> {
        writeln!(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>")?;
        writeln!(out, "<Document xmlns=\"urn:iso:std:iso:20022:tech:xsd:{message}\">")?;
        Ok(Self { out, open: vec!["Document"] })
    }

    /// Opens an element.
    pub(super) fn open(&mut self, name: &'static str) -> io::Result<()> {
        self.indent()?;
        self.open.push(name);
        writeln!(self.out, "<{name}>")
    }

    /// Closes what was opened last.
    pub(super) fn close(&mut self) -> io::Result<()> {
        let name = self.open.pop().unwrap_or_default();
        self.indent()?;
        writeln!(self.out, "</{name}>")
    }

    /// An element with text only.
    pub(super) fn leaf(&mut self, name: &'static str, text: &str) -> io::Result<()> {
        self.indent()?;
        writeln!(self.out, "<{name}>{}</{name}>", quick_xml::escape::escape(text))
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
        self.indent()?;
        writeln!(self.out, "<{name} Ccy=\"{currency}\">{amount:.2}</{name}>")
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
        Ok(self.out)
    }

    fn indent(&mut self) -> io::Result<()> {
        write!(self.out, "{:width$}", "", width = self.open.len() * 2)
    }
}

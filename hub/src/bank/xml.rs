//! XML in, bounded: what every message of a bank has in common.
//!
//! The reader takes UTF-8 without document type, so without entities beyond the five of XML: nothing in a file can make
//! more of itself. It bounds file, depth, single texts and single blocks, and gives nothing away for granted: a message
//! is read whole, to its end, before a caller sees any of it. It must not know what the elements mean.

use std::io::{self, BufRead, BufReader, Read};

use quick_xml::events::Event;
use rust_decimal::Decimal;
use thiserror::Error;

use crate::details::clip;

/// Largest file that is read: about 250,000 transactions at 2 KB each.
pub const MAX_FILE_BYTES: u64 = 512 << 20;
/// What is asked for of the input at once.
const BUFFER_BYTES: usize = 64 << 10;
/// Largest single tag or text.
const MAX_TEXT_BYTES: usize = 64 << 10;
/// Deepest nesting. The deepest element of the messages read here is at 14.
const MAX_DEPTH: usize = 48;
/// Most elements of one block that is held at once (a header, a transaction).
const MAX_NODE_ELEMENTS: usize = 4096;
/// ISO 20022 amounts have at most 18 digits, 5 of them behind the point. With these bounds no sum over a file of
/// [`MAX_FILE_BYTES`] leaves the range in which `Decimal` is exact.
const MAX_WHOLE_DIGITS: usize = 15;
const MAX_FRACTION_DIGITS: usize = 5;

/// Why a file from the bank was not taken. Nothing of it was. Decode family, except `Io`.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file could not be read.
    #[error("reading failed")]
    Io(#[from] io::Error),
    /// Longer than [`MAX_FILE_BYTES`].
    #[error("file is larger than {MAX_FILE_BYTES} bytes")]
    FileTooLarge,
    /// A text, tag, block or nesting beyond its bound.
    #[error("{0} is too large")]
    TooLarge(&'static str),
    /// Not well-formed.
    #[error("not well-formed XML at byte {at}: {what}")]
    Malformed {
        /// Position in the file.
        at: u64,
        /// The parser's words.
        what: String,
    },
    /// A document type or an entity of its own.
    #[error("{0} is not allowed in a bank file")]
    Forbidden(&'static str),
    /// Declared as anything but UTF-8, which ISO 20022 prescribes.
    #[error("encoding `{0}` is not UTF-8")]
    Encoding(String),
    /// Well-formed, but no message that is read here.
    #[error("`{0}` is not a message that is read here")]
    Unsupported(String),
    /// An element that must be there is not.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// An element's text is not what it must be.
    #[error("`{element}` has the invalid value `{value}`")]
    Invalid {
        /// The element.
        element: &'static str,
        /// Its text, shortened.
        value: String,
    },
    /// A count in the file differs from what is there.
    #[error("`{element}` says {declared}, the file has {found}")]
    Count {
        /// The element that counts.
        element: &'static str,
        /// What it says.
        declared: u64,
        /// What is there.
        found: u64,
    },
    /// A sum in the file differs from its parts: nothing of the file may be posted.
    #[error("`{element}` in `{of}` says {declared}, its parts sum to {found}")]
    Sum {
        /// The element that sums.
        element: &'static str,
        /// Id of the statement, entry or batch.
        of: String,
        /// What it says.
        declared: Decimal,
        /// Sum of the parts.
        found: Decimal,
    },
    /// Well-formed, and not for whom it was read.
    #[error("{0}")]
    Refused(String),
    /// Amounts of different currencies where there can be one only.
    #[error("`{of}` mixes the currencies {expected} and {found}")]
    Currency {
        /// Id of the statement, entry or batch.
        of: String,
        /// The currency of the whole.
        expected: String,
        /// The part's.
        found: String,
    },
}

/// Name and version of an ISO 20022 message, from the namespace of its document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MessageName {
    /// `camt.053`
    pub(super) family: String,
    /// `8` of `camt.053.001.08`
    pub(super) version: u16,
    /// `camt.053.001.08`
    pub(super) full: String,
}

impl MessageName {
    /// From `urn:iso:std:iso:20022:tech:xsd:camt.053.001.08` (other prefixes are in use; variants such as `.003.` too).
    fn from_namespace(namespace: &str) -> Option<Self> {
        let full = namespace.rsplit(':').next()?;
        let mut parts = full.split('.');
        let (area, number, variant, version) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let digits = |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_digit());
        let fits = area.len() == 4
            && area.bytes().all(|b| b.is_ascii_lowercase())
            && digits(number, 3)
            && digits(variant, 3)
            && digits(version, 2)
            && parts.next().is_none();
        if !fits {
            return None;
        }
        Some(Self { family: format!("{area}.{number}"), version: version.parse().ok()?, full: full.to_owned() })
    }
}

/// What comes next in a file. Texts are appended where the caller wants them.
#[derive(Debug)]
enum Step {
    Open(Tag),
    Text,
    Close,
    End,
}

/// A short word of a file, without memory of its own: an element's local name, a currency. The longest name that is read
/// here has 21 characters; a word that does not fit is cut, and so is none that anybody asks for.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Word {
    bytes: [u8; MAX_WORD],
    length: u8,
}

/// Most bytes of a [`Word`].
const MAX_WORD: usize = 31;

impl Word {
    fn new(text: &str) -> Self {
        let mut bytes = [0; MAX_WORD];
        let fits = |length: &usize| text.is_char_boundary(*length);
        let length = (0..=MAX_WORD.min(text.len())).rfind(fits).unwrap_or_default();
        bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
        Self { bytes, length: length as u8 }
    }

    /// The text.
    pub(super) fn as_str(&self) -> &str {
        // Cut at a character's boundary.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl PartialEq<&str> for Word {
    fn eq(&self, other: &&str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl std::fmt::Debug for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An opened element.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tag {
    /// Local name.
    pub(super) name: Word,
    /// Attribute `Ccy`.
    pub(super) currency: Option<Word>,
}

/// Reads one document, element by element.
pub(super) struct XmlReader<R> {
    reader: quick_xml::Reader<Bounded<BufReader<R>>>,
    buffer: Vec<u8>,
    /// Text that nobody asked for.
    loose: String,
    depth: usize,
    stray: bool,
}

impl<R: Read> XmlReader<R> {
    /// Reads up to and into `Document`.
    pub(super) fn open(input: R) -> Result<(Self, MessageName), ReadError> {
        Self::open_bounded(input, MAX_FILE_BYTES)
    }

    fn open_bounded(input: R, file_bytes: u64) -> Result<(Self, MessageName), ReadError> {
        let mut reader = quick_xml::Reader::from_reader(Bounded {
            input: BufReader::with_capacity(BUFFER_BYTES, input),
            file_left: file_bytes,
            text_left: MAX_TEXT_BYTES,
        });
        reader.config_mut().expand_empty_elements = true;
        let mut this = Self { reader, buffer: Vec::new(), loose: String::new(), depth: 0, stray: false };
        let message = this.document()?;
        Ok((this, message))
    }

    fn document(&mut self) -> Result<MessageName, ReadError> {
        loop {
            self.buffer.clear();
            match read_event(&mut self.reader, &mut self.buffer)? {
                Event::Start(start) => {
                    if start.local_name().as_ref() != "Document" {
                        return Err(ReadError::Unsupported(clip(start.local_name().as_ref())));
                    }
                    self.depth = 1;
                    let key = match start.name().prefix() {
                        Some(prefix) => format!("xmlns:{}", prefix.as_ref()),
                        None => "xmlns".to_owned(),
                    };
                    let namespace = attribute(&start, &key)?.unwrap_or_default();
                    return MessageName::from_namespace(&namespace)
                        .ok_or_else(|| ReadError::Unsupported(clip(&namespace)));
                }
                Event::Decl(declaration) => match declaration.encoding() {
                    None => {}
                    Some(Ok(name)) if name.eq_ignore_ascii_case("utf-8") || name.eq_ignore_ascii_case("us-ascii") => {}
                    Some(Ok(name)) => return Err(ReadError::Encoding(clip(&name))),
                    Some(Err(error)) => return Err(malformed(0, &error)),
                },
                Event::Comment(_) | Event::PI(_) => {}
                Event::Text(text) if text.trim().trim_start_matches('\u{feff}').is_empty() => {}
                Event::DocType(_) => return Err(ReadError::Forbidden("a document type")),
                _ => return Err(ReadError::Missing("Document")),
            }
        }
    }

    /// The next step; a text is appended to `into`.
    fn step(&mut self, into: Option<&mut String>) -> Result<Step, ReadError> {
        let into = into.unwrap_or(&mut self.loose);
        loop {
            self.buffer.clear();
            match read_event(&mut self.reader, &mut self.buffer)? {
                Event::Start(start) => {
                    if self.depth == MAX_DEPTH {
                        return Err(ReadError::TooLarge("nesting"));
                    }
                    if self.depth == 0 {
                        return Err(ReadError::Unsupported("a second document".to_owned()));
                    }
                    self.depth += 1;
                    let name = Word::new(start.local_name().as_ref());
                    // Nothing behind the name: most elements.
                    let bare = start.len() == start.name().as_ref().len();
                    let currency = if bare { None } else { attribute(&start, "Ccy")? };
                    return Ok(Step::Open(Tag { name, currency: currency.as_deref().map(Word::new) }));
                }
                Event::End(_) => {
                    // The parser has matched the names; more ends than starts it has refused.
                    self.depth = self.depth.saturating_sub(1);
                    return Ok(Step::Close);
                }
                Event::Text(text) => {
                    into.push_str(&text.xml10_content());
                    return Ok(Step::Text);
                }
                Event::CData(text) => {
                    into.push_str(&text.xml10_content());
                    return Ok(Step::Text);
                }
                Event::GeneralRef(reference) => {
                    match reference.resolve_char_ref().map_err(|e| malformed(0, &e))? {
                        Some(character) => into.push(character),
                        None => into.push_str(
                            quick_xml::escape::resolve_xml_entity(&reference)
                                .ok_or(ReadError::Forbidden("an entity"))?,
                        ),
                    }
                    return Ok(Step::Text);
                }
                Event::Comment(_) | Event::PI(_) => {}
                Event::Decl(_) => return Err(ReadError::Forbidden("a second declaration")),
                Event::DocType(_) => return Err(ReadError::Forbidden("a document type")),
                Event::Eof if self.depth == 0 => return Ok(Step::End),
                Event::Eof | Event::Empty(_) => {
                    return Err(malformed(self.reader.buffer_position(), &"the file ends inside an element"));
                }
            }
        }
    }

    /// The next step where no text is expected.
    fn loose_step(&mut self) -> Result<Step, ReadError> {
        let step = self.step(None)?;
        self.stray |= !is_blank(&self.loose);
        self.loose.clear();
        Ok(step)
    }

    /// The next child of the element that is open, or `None` at its end. Text between children is skipped. The child
    /// must be taken with [`Self::block`], [`Self::add`], [`Self::skip`] or by calling this until it ends.
    pub(super) fn child(&mut self) -> Result<Option<Tag>, ReadError> {
        loop {
            match self.loose_step()? {
                Step::Open(tag) => return Ok(Some(tag)),
                Step::Close => return Ok(None),
                Step::Text => {}
                Step::End => return Err(ReadError::Missing("Document")),
            }
        }
    }

    /// The whole of the element that was just opened.
    pub(super) fn block(&mut self, tag: Tag) -> Result<Block, ReadError> {
        let mut block = Block::default();
        self.fill(&mut block, tag)?;
        Ok(block)
    }

    /// The same into a block that was used before.
    pub(super) fn fill(&mut self, block: &mut Block, tag: Tag) -> Result<(), ReadError> {
        block.reset(tag);
        self.read_into(block, 0)
    }

    /// Adds the element that was just opened to a block, as the last child of what it is.
    pub(super) fn add(&mut self, block: &mut Block, tag: Tag) -> Result<(), ReadError> {
        let at = block.open(0, tag)?;
        self.read_into(block, at)?;
        block.close(0);
        Ok(())
    }

    fn read_into(&mut self, block: &mut Block, top: usize) -> Result<(), ReadError> {
        let mut at = top;
        loop {
            match self.step(Some(&mut block.text))? {
                Step::Open(tag) => {
                    self.stray |= block.clear_text(at);
                    at = block.open(at, tag)?;
                }
                Step::Text => {
                    if block.text.len() - block.text_from(at) > MAX_TEXT_BYTES {
                        return Err(ReadError::TooLarge("a text"));
                    }
                }
                Step::Close => {
                    if block.is_parent(at) {
                        self.stray |= block.clear_text(at);
                    }
                    block.close(at);
                    if at == top {
                        return Ok(());
                    }
                    at = block.parent(at);
                }
                Step::End => return Err(ReadError::Missing("Document")),
            }
        }
    }

    /// Whether there was text beside elements so far: no message of ISO 20022 has any, and none of it is given out.
    pub(super) const fn has_stray_text(&self) -> bool {
        self.stray
    }

    /// Skips the element that was just opened.
    pub(super) fn skip(&mut self) -> Result<(), ReadError> {
        let outside = self.depth - 1;
        while self.depth > outside {
            let step = self.step(None)?;
            self.loose.clear();
            if matches!(step, Step::End) {
                return Err(ReadError::Missing("Document"));
            }
        }
        Ok(())
    }

    /// The message's own element inside `Document`.
    pub(super) fn message(&mut self, name: &'static str) -> Result<(), ReadError> {
        match self.child()? {
            Some(tag) if tag.name == name => Ok(()),
            _ => Err(ReadError::Missing(name)),
        }
    }

    /// After the message's own element has ended: nothing but the end of the document and of the file may follow.
    pub(super) fn finish(&mut self) -> Result<(), ReadError> {
        if let Some(tag) = self.child()? {
            return Err(ReadError::Unsupported(clip(tag.name.as_str())));
        }
        loop {
            self.loose.clear();
            match self.step(None)? {
                Step::End => return Ok(()),
                Step::Text if self.loose.trim().is_empty() => {}
                _ => {
                    return Err(ReadError::Unsupported("text behind the document".to_owned()));
                }
            }
        }
    }
}

fn read_event<'b, R: BufRead>(
    reader: &mut quick_xml::Reader<Bounded<R>>,
    buffer: &'b mut Vec<u8>,
) -> Result<Event<'b>, ReadError> {
    reader.get_mut().text_left = MAX_TEXT_BYTES;
    let at = reader.buffer_position();
    match reader.read_event_into(buffer) {
        Ok(event) => Ok(event),
        Err(quick_xml::Error::Io(error)) => match error.get_ref().and_then(|inner| inner.downcast_ref::<Bound>()) {
            Some(Bound::File) => Err(ReadError::FileTooLarge),
            Some(Bound::Text) => Err(ReadError::TooLarge("a text")),
            None => Err(ReadError::Io(io::Error::new(error.kind(), error.to_string()))),
        },
        Err(error) => Err(malformed(at, &error)),
    }
}

fn attribute(start: &quick_xml::events::BytesStart<'_>, key: &str) -> Result<Option<String>, ReadError> {
    let found = start.try_get_attribute(key).map_err(|e| malformed(0, &e))?;
    found
        .map(|attribute| {
            attribute
                .normalized_value(quick_xml::XmlVersion::Explicit1_0)
                .map(std::borrow::Cow::into_owned)
                .map_err(|e| malformed(0, &e))
        })
        .transpose()
}

fn malformed(at: u64, what: &dyn std::fmt::Display) -> ReadError {
    ReadError::Malformed { at, what: clip(&what.to_string()) }
}

/// Which bound of [`Bounded`] was reached.
#[derive(Debug, Clone, Copy, Error)]
enum Bound {
    #[error("file bound reached")]
    File,
    #[error("text bound reached")]
    Text,
}

/// A reader that fails at the bound of the file, or of what the parser collects for one event.
struct Bounded<R> {
    input: R,
    file_left: u64,
    text_left: usize,
}

impl<R: BufRead> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(buffer.len());
        buffer[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl<R: BufRead> BufRead for Bounded<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let (file_left, text_left) = (self.file_left, self.text_left);
        let available = self.input.fill_buf()?;
        if available.is_empty() {
            return Ok(available);
        }
        if file_left == 0 {
            return Err(io::Error::other(Bound::File));
        }
        if text_left == 0 {
            return Err(io::Error::other(Bound::Text));
        }
        let length = available.len().min(text_left).min(usize::try_from(file_left).unwrap_or(usize::MAX));
        Ok(&available[..length])
    }

    fn consume(&mut self, amount: usize) {
        self.file_left = self.file_left.saturating_sub(amount as u64);
        self.text_left = self.text_left.saturating_sub(amount);
        self.input.consume(amount);
    }
}

/// One block of a file, held whole: its elements in the order of their beginnings, their texts one behind the other. It
/// can be filled again and again without asking for memory.
#[derive(Debug)]
pub(super) struct Block {
    elements: Vec<Element>,
    text: String,
}

#[derive(Debug, Clone, Copy, Default)]
struct Element {
    tag: Tag,
    parent: u32,
    /// The element behind the last one inside.
    end: u32,
    /// Its text, if it has no element inside.
    text: (u32, u32),
}

impl Default for Block {
    /// What [`XmlReader::add`] adds to.
    fn default() -> Self {
        let mut block = Self { elements: Vec::new(), text: String::new() };
        block.reset(Tag::default());
        block
    }
}

// Places fit 32 bits: `MAX_NODE_ELEMENTS` elements, each with at most `MAX_TEXT_BYTES`.
impl Block {
    /// Empties it, for the next one.
    pub(super) fn clear(&mut self) {
        self.reset(Tag::default());
    }

    fn reset(&mut self, tag: Tag) {
        self.elements.clear();
        self.text.clear();
        self.elements.push(Element { tag, end: 1, ..Element::default() });
    }

    /// A new element inside another; its place.
    fn open(&mut self, parent: usize, tag: Tag) -> Result<usize, ReadError> {
        let at = self.elements.len();
        if at == MAX_NODE_ELEMENTS {
            return Err(ReadError::TooLarge("a block"));
        }
        let from = self.text.len() as u32;
        self.elements.push(Element { tag, parent: parent as u32, end: at as u32 + 1, text: (from, from) });
        Ok(at)
    }

    /// An element ends here.
    fn close(&mut self, at: usize) {
        let (end, text) = (self.elements.len() as u32, self.text.len() as u32);
        if let Some(element) = self.elements.get_mut(at) {
            let parent = end > at as u32 + 1;
            element.end = end;
            element.text.1 = if parent { element.text.0 } else { text };
        }
    }

    fn element(&self, at: usize) -> Element {
        self.elements.get(at).copied().unwrap_or_default()
    }

    fn parent(&self, at: usize) -> usize {
        self.element(at).parent as usize
    }

    fn is_parent(&self, at: usize) -> bool {
        self.elements.len() > at + 1
    }

    /// Where the text begins that is read for the open element `at`: behind the texts of the elements inside.
    fn text_from(&self, at: usize) -> usize {
        let inside = self.elements.get(at + 1..).and_then(<[Element]>::last);
        inside.map_or(self.element(at).text.0, |last| last.text.1) as usize
    }

    /// Drops text of the open element `at` that stands beside elements; whether there was any but white space.
    fn clear_text(&mut self, at: usize) -> bool {
        let from = self.text_from(at);
        let stray = self.text.get(from..).is_some_and(|text| !is_blank(text));
        self.text.truncate(from);
        stray
    }

    /// The element that it is, or what was added to it.
    pub(super) fn root(&self) -> Node<'_> {
        Node { block: self, at: 0 }
    }

    /// Every element, each with the name of the one around it.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (Word, Node<'_>)> {
        (0..self.elements.len()).map(|at| (self.element(self.parent(at)).tag.name, Node { block: self, at }))
    }
}

/// One element of a [`Block`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Node<'a> {
    block: &'a Block,
    at: usize,
}

impl<'a> Node<'a> {
    fn element(self) -> Element {
        self.block.element(self.at)
    }

    /// Its local name.
    pub(super) fn name(self) -> Word {
        self.element().tag.name
    }

    fn children(self) -> impl Iterator<Item = Node<'a>> {
        let end = self.element().end as usize;
        let within = move |at: usize| (at < end).then_some(Node { block: self.block, at });
        std::iter::successors(within(self.at + 1), move |node| within(node.element().end as usize))
    }

    /// First descendant along `path`.
    pub(super) fn at(self, path: &[&str]) -> Option<Node<'a>> {
        path.iter().try_fold(self, |node, name| node.children().find(|child| child.name() == *name))
    }

    /// All children called `name`.
    pub(super) fn all(self, name: &str) -> impl Iterator<Item = Node<'a>> {
        self.children().filter(move |child| child.name() == name)
    }

    /// The element's own text, as it stands there.
    pub(super) fn raw(self) -> &'a str {
        let (from, to) = self.element().text;
        self.block.text.get(from as usize..to as usize).unwrap_or_default()
    }

    /// The element's own text, trimmed; `None` if there is none.
    pub(super) fn text(self) -> Option<&'a str> {
        Some(self.raw().trim()).filter(|text| !text.is_empty())
    }

    /// Text of the first descendant along `path`.
    pub(super) fn text_at(self, path: &[&str]) -> Option<&'a str> {
        self.at(path)?.text()
    }

    /// Like [`Self::text_at`], owned.
    pub(super) fn string_at(self, path: &[&str]) -> Option<String> {
        self.text_at(path).map(str::to_owned)
    }

    /// Like [`Self::string_at`], for what must be there.
    pub(super) fn required(self, path: &[&str], element: &'static str) -> Result<String, ReadError> {
        self.string_at(path).ok_or(ReadError::Missing(element))
    }

    /// This element as an amount with its currency.
    pub(super) fn money(self, element: &'static str) -> Result<(Decimal, Word), ReadError> {
        let amount = amount(self.text().unwrap_or_default(), element)?;
        let currency = self.element().tag.currency.ok_or(ReadError::Missing("Ccy"))?;
        Ok((amount, currency))
    }
}

/// Whether there is nothing but what XML takes for white space.
fn is_blank(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t'))
}

/// An amount as ISO 20022 writes it: digits, at most one point, no sign, within the bounds above.
pub(super) fn amount(text: &str, element: &'static str) -> Result<Decimal, ReadError> {
    let invalid = || ReadError::Invalid { element, value: clip(text) };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let whole_digits = whole.trim_start_matches('0').len();
    let fraction_digits = fraction.trim_end_matches('0').len();
    let fits = digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && text.len() <= 40
        && whole_digits <= MAX_WHOLE_DIGITS
        && fraction_digits <= MAX_FRACTION_DIGITS;
    if !fits {
        return Err(invalid());
    }
    // At most 20 digits, and no zero at the end of the fraction: as short as it can be written.
    let fraction = fraction.trim_end_matches('0');
    let digits = whole.bytes().chain(fraction.bytes());
    let mantissa = digits.fold(0_i128, |value, digit| value * 10 + i128::from(digit - b'0'));
    Decimal::try_from_i128_with_scale(mantissa, fraction.len() as u32).map_err(|_| invalid())
}

/// A number of things.
pub(super) fn count(text: &str, element: &'static str) -> Result<u64, ReadError> {
    let invalid = || ReadError::Invalid { element, value: clip(text) };
    if text.is_empty() || text.len() > 15 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(invalid());
    }
    text.parse().map_err(|_| invalid())
}

/// `original` with a few bytes overwritten, removed or doubled: what a damaged or hostile file looks like.
#[cfg(test)]
pub(super) fn mutated(original: &'static str) -> impl proptest::strategy::Strategy<Value = Vec<u8>> {
    use proptest::prelude::*;

    let change = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0_u8..5, any::<u8>());
    prop::collection::vec(change, 1..6).prop_map(move |changes| {
        let mut bytes = original.as_bytes().to_vec();
        for (at, to, kind, byte) in changes {
            if bytes.is_empty() {
                break;
            }
            let (at, to) = (at.index(bytes.len()), to.index(bytes.len()));
            let range = at.min(to)..at.max(to);
            match kind {
                0 => bytes[at] = byte,
                1 => bytes[at] = b'0' + byte % 10,
                2 => bytes.truncate(at),
                3 => drop(bytes.drain(range)),
                _ => {
                    let piece = bytes[range].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
        }
        bytes
    })
}

#[cfg(test)]
mod tests;

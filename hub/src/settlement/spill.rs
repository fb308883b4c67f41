//! What was read of a statement, between its two readings: entries as they were checked, in a file of the hub's own.
//!
//! The first reading writes it, the second gives it out. So the bank's file is taken apart once, and what is posted is what
//! was checked, whatever becomes of the bank's file meanwhile. It means nothing after a restart: then the bank's file is
//! read again.
//!
//! The file: each record a length in 4 bytes and that much postcard; the last one says how many there were.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::bank::{Entry, Statement, StatementKind};

/// Longest record: an entry with as many details as a file can hold.
const MAX_RECORD_BYTES: usize = crate::bank::MAX_FILE_BYTES as usize;
const BUFFER_BYTES: usize = 64 << 10;

/// One thing that stood in a statement.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Record {
    /// The entries that follow are of the statement with this id.
    Begin(StatementKind, String),
    /// The next entry.
    Entry(Entry),
    /// The end of the statement, and how many booked entries it had.
    End(StatementKind, Box<Statement>, u32),
    /// The end of the file, and how many records stand before.
    Finished(u64),
}

/// Writes records.
pub(super) struct Spill {
    out: BufWriter<File>,
    record: Vec<u8>,
    count: u64,
}

impl Spill {
    /// Over what is there.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let out = BufWriter::with_capacity(BUFFER_BYTES, File::create(path)?);
        Ok(Self { out, record: Vec::new(), count: 0 })
    }

    /// One more record.
    pub(super) fn push(&mut self, record: &Record) -> io::Result<()> {
        self.record.clear();
        self.record = postcard::to_extend(record, std::mem::take(&mut self.record)).map_err(io::Error::other)?;
        let length = u32::try_from(self.record.len()).map_err(io::Error::other)?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&self.record)?;
        self.count += 1;
        Ok(())
    }

    /// All of it is there.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.push(&Record::Finished(self.count))?;
        self.out.flush()
    }
}

/// Reads them again.
pub(super) struct Spilled {
    input: BufReader<File>,
    record: Vec<u8>,
    count: u64,
}

impl Spilled {
    /// From the beginning.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let input = BufReader::with_capacity(BUFFER_BYTES, File::open(path)?);
        Ok(Self { input, record: Vec::new(), count: 0 })
    }

    /// The next record; `None` at the end. A file that is not whole is an error.
    pub(super) fn next(&mut self) -> io::Result<Option<Record>> {
        let mut length = [0; 4];
        self.input.read_exact(&mut length)?;
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length > MAX_RECORD_BYTES {
            return Err(io::Error::other("a record is too long"));
        }
        self.record.resize(length, 0);
        self.input.read_exact(&mut self.record)?;
        match postcard::from_bytes(&self.record).map_err(io::Error::other)? {
            Record::Finished(count) if count == self.count => Ok(None),
            Record::Finished(_) => Err(io::Error::other("records are missing")),
            record => {
                self.count += 1;
                Ok(Some(record))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test should say where")]

    use super::*;
    use crate::bank::{BankMessage, EntrySink, ReadError, read_message, scan_message};

    struct Into(Spill);

    impl EntrySink for Into {
        fn entry(&mut self, kind: StatementKind, statement: &Statement, entry: Entry) -> Result<(), ReadError> {
            self.0.push(&Record::Begin(kind, statement.id.clone()))?;
            Ok(self.0.push(&Record::Entry(entry))?)
        }

        fn end(&mut self, kind: StatementKind, statement: Statement, booked: u32) -> Result<(), ReadError> {
            Ok(self.0.push(&Record::End(kind, Box::new(statement), booked))?)
        }
    }

    fn all(path: &Path) -> io::Result<Vec<Record>> {
        let mut spilled = Spilled::open(path)?;
        let mut records = Vec::new();
        while let Some(record) = spilled.next()? {
            records.push(record);
        }
        Ok(records)
    }

    #[test]
    fn what_was_spilled_is_what_was_read() {
        for file in [
            include_bytes!("../bank/testdata/camt.053.xml").as_slice(),
            include_bytes!("../bank/testdata/camt.053-old.xml").as_slice(),
            include_bytes!("../bank/testdata/camt.054.xml").as_slice(),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("reading");
            let mut sink = Into(Spill::create(&path).unwrap());
            scan_message(file, &mut sink).unwrap();
            sink.0.finish().unwrap();
            let BankMessage::Statement(whole) = read_message(file).unwrap() else { unreachable!() };
            let mut found = Vec::new();
            for record in all(&path).unwrap() {
                match record {
                    Record::Begin(kind, _) => assert_eq!(kind, whole.kind),
                    Record::Entry(entry) => found.push(entry),
                    Record::End(_, statement, _) => {
                        let expected = whole.statements.iter().find(|one| one.id == statement.id).unwrap();
                        assert_eq!(found, expected.entries);
                        assert_eq!((statement.opening, statement.closing), (expected.opening.clone(), expected.closing.clone()));
                        found.clear();
                    }
                    Record::Finished(_) => unreachable!(),
                }
            }
        }
    }

    #[test]
    fn spill_that_is_not_whole_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("reading");
        let mut spill = Spill::create(&path).unwrap();
        spill.push(&Record::Begin(StatementKind::Statement, "S1".to_owned())).unwrap();
        spill.finish().unwrap();
        assert_eq!(all(&path).unwrap(), [Record::Begin(StatementKind::Statement, "S1".to_owned())]);
        let bytes = std::fs::read(&path).unwrap();
        for end in 0..bytes.len() {
            std::fs::write(&path, &bytes[..end]).unwrap();
            assert!(all(&path).is_err(), "{end}");
        }
        // The first record is cut out.
        let first = 4 + usize::try_from(u32::from_le_bytes(bytes[..4].try_into().unwrap())).unwrap();
        std::fs::write(&path, &bytes[first..]).unwrap();
        assert!(all(&path).is_err());
    }
}

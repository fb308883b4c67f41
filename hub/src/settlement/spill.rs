//! What was read of a statement, between its two readings: entries as they were checked, in a file of the hub's own.
//!
//! The first reading writes it, the second gives it out. So the bank's file is taken apart once, and what is posted is what
//! was checked, whatever becomes of the bank's file meanwhile. It has no name, so nobody else finds it, and a crash leaves
//! nothing behind: then the bank's file is read again.
//!
//! The file: each record a length in 4 bytes and that much postcard; the last one says how many there were.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::bank::{Entry, Statement, StatementKind};

/// Longest record: an entry with as many details as a file can hold.
const MAX_RECORD_BYTES: usize = crate::bank::MAX_FILE_BYTES as usize;
const BUFFER_BYTES: usize = 64 << 10;
/// Most names that are tried for a file that loses its name at once.
const MAX_NAMES: u32 = 1_000;

/// One thing that stood in a statement.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Record {
    /// The entries that follow are of the statement with this id.
    Begin(StatementKind, String),
    /// The next entry.
    Entry(Box<Entry>),
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
    /// In a directory, without a name.
    pub(super) fn create(directory: &Path) -> io::Result<Self> {
        let out = BufWriter::with_capacity(BUFFER_BYTES, unnamed(directory)?);
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
    pub(super) fn finish(mut self) -> io::Result<Spilled> {
        self.push(&Record::Finished(self.count))?;
        let mut file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        Ok(Spilled::over(file))
    }
}

/// A new file that is gone from its directory at once.
fn unnamed(directory: &Path) -> io::Result<File> {
    for number in 0_u32..MAX_NAMES {
        let path = directory.join(format!(".reading-{number}"));
        match File::options().read(true).write(true).create_new(true).open(&path) {
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
            // Of a reading that goes on, or of a process that died just here.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("too many files that nobody reads any more"))
}

/// Reads them again.
#[derive(Debug)]
pub(super) struct Spilled {
    input: BufReader<File>,
    record: Vec<u8>,
    count: u64,
}

impl Spilled {
    fn over(file: File) -> Self {
        Self { input: BufReader::with_capacity(BUFFER_BYTES, file), record: Vec::new(), count: 0 }
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
            Ok(self.0.push(&Record::Entry(Box::new(entry)))?)
        }

        fn end(&mut self, kind: StatementKind, statement: Statement, booked: u32) -> Result<(), ReadError> {
            Ok(self.0.push(&Record::End(kind, Box::new(statement), booked))?)
        }
    }

    fn all(mut spilled: Spilled) -> io::Result<Vec<Record>> {
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
            let mut sink = Into(Spill::create(directory.path()).unwrap());
            scan_message(file, &mut sink).unwrap();
            let spilled = sink.0.finish().unwrap();
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
            let BankMessage::Statement(whole) = read_message(file).unwrap() else { unreachable!() };
            let mut found = Vec::new();
            for record in all(spilled).unwrap() {
                match record {
                    Record::Begin(kind, _) => assert_eq!(kind, whole.kind),
                    Record::Entry(entry) => found.push(*entry),
                    Record::End(_, statement, _) => {
                        let expected = whole.statements.iter().find(|one| one.id == statement.id).unwrap();
                        assert_eq!(found, expected.entries);
                        let balances = (expected.opening.clone(), expected.closing.clone());
                        assert_eq!((statement.opening, statement.closing), balances);
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
        let mut spill = Spill::create(directory.path()).unwrap();
        spill.push(&Record::Begin(StatementKind::Statement, "S1".to_owned())).unwrap();
        let mut bytes = Vec::new();
        spill.finish().unwrap().input.read_to_end(&mut bytes).unwrap();
        let read = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            file.rewind().unwrap();
            all(Spilled::over(file))
        };
        assert_eq!(read(&bytes).unwrap(), [Record::Begin(StatementKind::Statement, "S1".to_owned())]);
        for end in 0..bytes.len() {
            assert!(read(&bytes[..end]).is_err(), "{end}");
        }
        // The first record is cut out.
        let first = 4 + usize::try_from(u32::from_le_bytes(bytes[..4].try_into().unwrap())).unwrap();
        assert!(read(&bytes[first..]).is_err());
    }

    #[test]
    fn names_that_were_left_behind_are_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(".reading-0"), "x").unwrap();
        let one = Spill::create(directory.path()).unwrap();
        let two = Spill::create(directory.path()).unwrap();
        assert_eq!(all(one.finish().unwrap()).unwrap(), []);
        assert_eq!(all(two.finish().unwrap()).unwrap(), []);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}

//! One entry for whatever lies in the inbox: the file says itself what it is.

use std::io::Read;

use super::statement::{EntrySink, StatementFile};
use super::status::StatusReport;
use super::xml::{ReadError, XmlReader};

/// A message of the bank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BankMessage {
    /// pain.002
    Status(StatusReport),
    /// camt.052, .053, .054
    Statement(StatementFile),
}

/// Reads a message of the bank, whole and checked; any other message is refused.
pub fn read_message(input: impl Read) -> Result<BankMessage, ReadError> {
    let (reader, message) = XmlReader::open(input)?;
    if message.family == "pain.002" {
        StatusReport::read_from(reader, &message).map(BankMessage::Status)
    } else {
        StatementFile::read_from(reader, &message).map(BankMessage::Statement)
    }
}

/// Reads a message of the bank, whole and checked, giving the entries of a statement away one by one; the statement that
/// it returns has none.
pub fn scan_message(input: impl Read, sink: &mut dyn EntrySink) -> Result<BankMessage, ReadError> {
    let (reader, message) = XmlReader::open(input)?;
    if message.family == "pain.002" {
        StatusReport::read_from(reader, &message).map(BankMessage::Status)
    } else {
        StatementFile::scan_from(reader, &message, sink).map(BankMessage::Statement)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test should say where")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn message_is_known_by_its_namespace() {
        let statement = read_message(include_bytes!("testdata/camt.053.xml").as_slice()).unwrap();
        assert!(matches!(statement, BankMessage::Statement(_)));
        let status = read_message(include_bytes!("testdata/pain.002-partial.xml").as_slice()).unwrap();
        assert!(matches!(status, BankMessage::Status(_)));
        let ours = read_message(include_bytes!("testdata/pain.001.xml").as_slice());
        assert!(matches!(ours, Err(ReadError::Unsupported(_))));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            prop_assert!(read_message(bytes.as_slice()).is_err());
        }
    }
}

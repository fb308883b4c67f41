//! The operator's end of the line.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::request::{Answer, Request};
use super::{Fault, SOCKET};

/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// How long an answer is waited for: a snapshot or a settlement of a large hub takes its time.
const PATIENCE: Duration = Duration::from_secs(900);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The socket cannot be used.
    #[error("cannot reach the hub through `{}`", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The hub said no.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The line broke before the answer. `open`: whether what was asked may have been done.
    #[error("the hub went away before it answered")]
    Lost {
        /// Whether it may have been done.
        open: bool,
        /// The cause.
        source: io::Error,
    },
    /// Not an answer of this version.
    #[error("the hub's answer cannot be read")]
    Unreadable {
        /// Whether what was asked may have been done.
        open: bool,
        /// The cause.
        source: serde_json::Error,
    },
}

/// A connection to a running hub.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the hub that runs on a data directory; `None` when none does.
    pub fn connect(data: &Path) -> Result<Option<Self>, AskError> {
        let path = data.join(SOCKET);
        let connected = UnixStream::connect(&path).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(Self { stream: BufReader::new(stream) })
        });
        match connected {
            Ok(client) => Ok(Some(client)),
            // The second is what a killed hub leaves.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Ok(None)
            }
            Err(source) => Err(AskError::Io { path, source }),
        }
    }

    /// Asks, and waits for the answer.
    pub fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, AskError> {
        let open = request.changes();
        let mut line = serde_json::to_vec(request).map_err(|source| AskError::Unreadable { open: false, source })?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).map_err(|source| AskError::Lost { open, source })?;
        let mut answer = Vec::new();
        let read = (&mut self.stream).take(ANSWER_BYTES_MAX).read_until(b'\n', &mut answer);
        let cut_short = || io::Error::from(io::ErrorKind::UnexpectedEof);
        read.and_then(|_| if answer.last() == Some(&b'\n') { Ok(()) } else { Err(cut_short()) })
            .map_err(|source| AskError::Lost { open, source })?;
        match serde_json::from_slice(&answer) {
            Ok(Answer::Done(value)) => {
                serde_json::from_value(value).map_err(|source| AskError::Unreadable { open, source })
            }
            Ok(Answer::Fault(fault)) => Err(fault.into()),
            Err(source) => Err(AskError::Unreadable { open, source }),
        }
    }
}

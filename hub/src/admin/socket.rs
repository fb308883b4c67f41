//! The hub's end of the line: `DATA/admin.sock`.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::desk::Desk;
use super::request::{Answer, REQUEST_BYTES_MAX, Request};
use super::{Fault, SOCKET};

/// Connections at a time; more wait.
pub const CONNECTIONS_MAX: usize = 16;
/// A connection that asks nothing for so long is dropped.
const IDLE: Duration = Duration::from_secs(600);
/// Longest path of a socket that the system takes, in bytes.
const PATH_BYTES_MAX: usize = 107;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The operating system refused.
    #[error("cannot open the socket `{}`", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The data directory's path is too long.
    #[error("the path of the socket `{}` is longer than the {PATH_BYTES_MAX} bytes that the system takes", path.display())]
    PathTooLong {
        /// The socket.
        path: PathBuf,
    },
}

/// The listening socket. Its file goes when it is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl AdminSocket {
    /// Opens the socket of a data directory whose lock the caller holds: a socket that a killed hub left is replaced.
    ///
    /// It is made inside a private directory and then moved, so that there is no instant at which others can open it.
    /// Must be called within a runtime.
    pub fn bind(data: &Path) -> Result<Self, SocketError> {
        let path = data.join(SOCKET);
        let private = data.join(".adm");
        let unfinished = private.join("sock");
        if path.as_os_str().len().max(unfinished.as_os_str().len()) > PATH_BYTES_MAX {
            return Err(SocketError::PathTooLong { path });
        }
        let bound = (|| {
            // Left over when a hub was killed in here.
            let _ = std::fs::remove_dir_all(&private);
            DirBuilder::new().mode(0o700).create(&private)?;
            let listener = UnixListener::bind(&unfinished)?;
            std::fs::set_permissions(&unfinished, Permissions::from_mode(0o600))?;
            std::fs::rename(&unfinished, &path)?;
            std::fs::remove_dir(&private)?;
            Ok(listener)
        })();
        match bound {
            Ok(listener) => Ok(Self { listener, path }),
            Err(source) => Err(SocketError::Io { path, source }),
        }
    }

    /// Answers until it is dropped.
    pub async fn serve(self, desk: Arc<Desk>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let desk = Arc::clone(&desk);
                    connections.spawn(async move {
                        if let Err(error) = converse(stream, &desk).await {
                            tracing::debug!(%error, "an operator's connection broke off");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: they come back.
                    tracing::warn!(%error, "cannot accept an operator's connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        // A file that stays is replaced by the next hub.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn converse(stream: UnixStream, desk: &Desk) -> io::Result<()> {
    let (reading, mut writing) = stream.into_split();
    let mut reading = BufReader::new(reading);
    loop {
        let mut line = Vec::new();
        let bound = REQUEST_BYTES_MAX as u64 + 1;
        let mut bounded = (&mut reading).take(bound);
        let Ok(read) = tokio::time::timeout(IDLE, bounded.read_until(b'\n', &mut line)).await else { return Ok(()) };
        if read? == 0 {
            return Ok(());
        }
        let whole = line.last() == Some(&b'\n');
        let answer = if whole || line.len() <= REQUEST_BYTES_MAX {
            match serde_json::from_slice::<Request>(&line) {
                Ok(request) => match desk.answer(request).await {
                    Ok(value) => Answer::Done(value),
                    Err(fault) => Answer::Fault(fault),
                },
                Err(error) => Answer::Fault(Fault::new("malformed", format!("not a request: {error}"))),
            }
        } else {
            let message = format!("a request has at most {REQUEST_BYTES_MAX} bytes");
            Answer::Fault(Fault::new("malformed", message))
        };
        let mut bytes = serde_json::to_vec(&answer).map_err(io::Error::from)?;
        bytes.push(b'\n');
        writing.write_all(&bytes).await?;
        if !whole {
            return Ok(());
        }
    }
}

//! Makes the next segment file in the background: written full of zeros and synced before it is needed, because only
//! blocks that were written ahead of use make the data sync of an append cheap. Knows nothing of what a segment holds.

use std::{
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::mpsc,
    thread::JoinHandle,
};

use super::segment;
use crate::store::files::sync_directory;

/// Name of the file that waits to become a segment.
const SPARE: &str = "spare";

/// A file of zeros, synced, under a name that recovery ignores.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) file_bytes: u64,
}

/// Creates a file of zeros as `directory/name`, replacing what is there.
pub(super) fn create(directory: &Path, name: &str, file_bytes: u64) -> io::Result<Spare> {
    let path = directory.join(name);
    let made = (|| {
        let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&path)?;
        segment::write_zeros(&file, 0, file_bytes)?;
        file.sync_all()?;
        sync_directory(directory)?;
        Ok(file)
    })();
    match made {
        Ok(file) => Ok(Spare { file, path, file_bytes }),
        Err(error) => {
            // A half-made spare would keep the room that the running segment's neighbours need.
            let _ = std::fs::remove_file(&path);
            Err(error)
        }
    }
}

/// The background thread and the spare that it has made or is making.
#[derive(Debug)]
pub(super) struct Ahead {
    request: Option<mpsc::Sender<()>>,
    ready: mpsc::Receiver<io::Result<Spare>>,
    /// Whether a spare was asked for and not taken.
    pending: bool,
    thread: Option<JoinHandle<()>>,
}

impl Ahead {
    /// Starts the thread; nothing is made until [`Self::request`]. A spare of an earlier process is removed: it may hold
    /// the beginnings of a segment.
    pub(super) fn start(directory: PathBuf, file_bytes: u64) -> io::Result<Self> {
        match std::fs::remove_file(directory.join(SPARE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let (request, requests) = mpsc::channel();
        let (done, ready) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("journal-ahead".to_owned()).spawn(move || {
            while requests.recv().is_ok() {
                let made = create(&directory, SPARE, file_bytes);
                if let Err(error) = &made {
                    tracing::warn!(%error, "cannot write the next journal segment ahead");
                }
                if done.send(made).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { request: Some(request), ready, pending: false, thread: Some(thread) })
    }

    /// Asks for a spare, if none is there or on its way.
    pub(super) fn request(&mut self) {
        if !self.pending
            && let Some(request) = &self.request
        {
            self.pending = request.send(()).is_ok();
        }
    }

    /// Takes the spare; waits while it is being made, and makes it if it was not asked for. After an error the next call
    /// tries again.
    pub(super) fn take(&mut self) -> io::Result<Spare> {
        self.request();
        self.pending = false;
        self.ready.recv().unwrap_or_else(|_| Err(io::Error::other("the thread that writes ahead has ended")))
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.request = None;
        if let Some(thread) = self.thread.take() {
            // The channel holds one result, so the thread is never blocked in `send`.
            let _ = thread.join();
        }
    }
}

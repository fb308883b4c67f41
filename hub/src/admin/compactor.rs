//! Snapshots of a running hub: on a schedule and when asked for, one at a time, away from the hot path.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::report::SnapshotRow;
use crate::pipeline::Handle;
use crate::pipeline::compact::{ReplayError, compact};

/// Writes snapshots. Clones take turns.
#[derive(Debug, Clone)]
pub struct Compactor {
    handle: Handle,
    turn: Arc<Mutex<()>>,
}

/// Writes a snapshot at intervals, on a thread of its own, until it is dropped.
#[derive(Debug)]
pub struct Schedule {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Compactor {
    /// Of a running hub.
    pub fn new(handle: Handle) -> Self {
        Self { handle, turn: Arc::default() }
    }

    /// Writes a snapshot of the newest durable commit, if there is none of it. Blocks: a pass over the journal since the
    /// last one.
    pub fn run(&self) -> Result<SnapshotRow, ReplayError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshots = self.handle.snapshots();
        let written = compact(self.handle.hub(), self.handle.journal(), snapshots)?;
        let commit = snapshots.numbers()?.last().copied();
        if let Some(position) = written {
            tracing::info!(commit = position.number, "snapshot written");
        }
        Ok(SnapshotRow { written: written.is_some(), commit })
    }

    /// From now on, every `interval`.
    pub fn schedule(self, interval: Duration) -> std::io::Result<Schedule> {
        let (stop, stopped) = mpsc::channel();
        let every = move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                // The hub runs on: the journal is the truth, and a snapshot only shortens the next start.
                if let Err(error) = self.run() {
                    tracing::error!(error = &error as &dyn std::error::Error, "no snapshot could be written");
                }
            }
        };
        let thread = std::thread::Builder::new().name("snapshots".into()).spawn(every)?;
        Ok(Schedule { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Schedule {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It logs what goes wrong.
            let _ = thread.join();
        }
    }
}

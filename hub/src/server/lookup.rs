//! Reads of the journal for peers: off the tasks that move bytes, and only so many at a time.

use std::ops::ControlFlow;
use std::sync::Arc;

use weir_protocol::act::Act;
use weir_protocol::commit::ActProof;
use weir_protocol::reject::Reject;
use weir_protocol::wire::Cursor;

use super::Shared;
use crate::engine::record::{ActRecord, Record};
use crate::pipeline::Handle;
use crate::store::index::IndexKey;
use crate::store::{Entry, Position, StoreError};

/// Runs a read of the journal.
pub(super) async fn blocking<T: Send + 'static>(
    shared: &Arc<Shared>,
    read: impl FnOnce(&Shared) -> Result<T, Reject> + Send + 'static,
) -> Result<T, Reject> {
    let permit = Arc::clone(&shared.journal_reads).acquire_owned().await.map_err(|_| Reject::Stopped)?;
    let shared = Arc::clone(shared);
    let done = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        read(&shared)
    });
    done.await.map_err(|_| Reject::Stopped)?
}

/// What a peer is told of a store that cannot be read.
pub(super) fn refused(error: &StoreError) -> Reject {
    if let StoreError::Pruned { .. } = error {
        return Reject::Pruned;
    }
    tracing::error!(%error, "the journal cannot be read for a peer");
    Reject::Stopped
}

/// The content of an entry.
pub(super) fn decode(entry: &Entry) -> Result<Record, Reject> {
    Record::decode(&entry.payload).map_err(|error| {
        tracing::error!(%error, number = entry.position.number, "a commit in the journal cannot be decoded");
        Reject::Stopped
    })
}

/// A place as peers name it.
pub(super) const fn cursor(position: Position) -> Cursor {
    Cursor { chain: position.chain, number: position.number }
}

/// Whether `after` is a place in this hub's commits after which everything is kept. `conflict`: it is of other commits than
/// these, so the peer or this hub has an old copy.
pub(super) fn check_cursor(shared: &Shared, after: Cursor) -> Result<(), Reject> {
    let handle = &shared.handle;
    if after == Cursor::default() {
        return Ok(());
    }
    if after.number == 0 || after.number > shared.newest().number {
        return Err(Reject::Conflict);
    }
    match handle.journal().read(after.number).map_err(|error| refused(&error))? {
        Some(entry) if entry.position.chain == after.chain => Ok(()),
        Some(_) => Err(Reject::Conflict),
        None => {
            let first = handle.journal().first().map_err(|error| refused(&error))?;
            // The commit itself may be gone as long as the next one is there.
            if first.is_some_and(|first| first <= after.number + 1) { Ok(()) } else { Err(Reject::Pruned) }
        }
    }
}

/// Finds an act among the commits that have a key, with its proof.
pub(super) fn find_act(
    handle: &Handle,
    key: IndexKey,
    wanted: &dyn Fn(&ActRecord) -> bool,
) -> Result<Option<(Act, ActProof)>, Reject> {
    let mut found = Ok(None);
    let each = &mut |entry: Entry| {
        found = decode(&entry).map(|record| {
            let index = record.acts().find(|(_, act)| wanted(act)).map(|(index, _)| index)?;
            let commit = record.prove();
            Some((commit.act(index)?.act.clone(), commit.act_proof(index)?))
        });
        if matches!(found, Ok(None)) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    handle.index().commits_of(key, 0, each).map_err(|error| refused(&error))?;
    found
}

//! Snapshots, written from the journal: the last snapshot plus what came since, judged again. Costs a second copy of the
//! state while it runs, and the hot path nothing.

use std::ops::ControlFlow;

use weir_protocol::id::HubId;

use crate::engine::record::Record;
use crate::engine::state::{Broken, Depth, State};
use crate::store::journal::JournalReader;
use crate::store::snapshot::Snapshots;
use crate::store::{Entry, Position, StoreError};

/// The journal cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It can be read, and says something that cannot be.
    #[error("the journal breaks a rule")]
    Broken(#[from] Broken),
    /// A snapshot whose checksum holds and whose content does not.
    #[error("snapshot at commit {0} is of another format or another hub")]
    Snapshot(u64),
}

/// The state at the newest snapshot; the empty state when there is none.
pub fn load(hub: HubId, snapshots: &Snapshots) -> Result<State, ReplayError> {
    let Some(snapshot) = snapshots.load()? else { return Ok(State::new(hub)) };
    let number = snapshot.position.number;
    let state = State::read(snapshot.state).ok().flatten().ok_or(ReplayError::Snapshot(number))?;
    let fits = state.hub() == hub && state.last().is_some_and(|last| last.number == number);
    if fits { Ok(state) } else { Err(ReplayError::Snapshot(number)) }
}

/// Applies the journal's commits after the state's last one. `each` sees every record before it is applied.
pub fn replay(
    state: &mut State,
    depth: Depth,
    scan: impl FnOnce(u64, &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<(), StoreError>,
    each: &mut dyn FnMut(&Record),
) -> Result<(), ReplayError> {
    let from = state.last().map_or(0, |last| last.number) + 1;
    let mut broken = None;
    scan(from, &mut |entry| {
        let number = entry.position.number;
        let applied = match Record::decode(&entry.payload) {
            Ok(record) if record.header().id().0 != entry.position.id => {
                Err(Broken { commit: number, what: "its header is not the one that was journaled".into() })
            }
            Ok(record) => {
                each(&record);
                state.apply(&record, depth)
            }
            Err(error) => Err(Broken { commit: number, what: error.to_string() }),
        };
        match applied {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                broken = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    broken.map_or(Ok(()), |error| Err(error.into()))
}

/// Writes a snapshot at the last durable commit; its position, or `None` when there is nothing newer than the last one.
pub fn compact(hub: HubId, reader: &JournalReader, snapshots: &Snapshots) -> Result<Option<Position>, ReplayError> {
    let mut state = load(hub, snapshots)?;
    let before = state.last().map(|last| last.number);
    replay(&mut state, Depth::Rules, |from, each| reader.scan(from, each), &mut |_| ())?;
    let Some(last) = state.last().copied().filter(|last| Some(last.number) != before) else { return Ok(None) };
    let position = Position { chain: last.chain, number: last.number, id: last.id().0 };
    snapshots.write(position, &mut |file| state.write(file))?;
    Ok(Some(position))
}

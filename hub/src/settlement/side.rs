//! Work on several files of a plan at the same time: each is for itself, and writing, hashing and reading them takes a core.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::SettlementError;

/// Most files that are worked on at the same time: to write one takes about 20 MB meanwhile, mostly to find identifiers that
/// are used twice.
const MAX_WORKERS: usize = 4;

/// Does `one` for each of `0..count`; the results in that order, or an error. After an error no new one is begun.
pub(super) fn side_by_side<T: Send>(
    count: usize,
    one: impl Fn(usize) -> Result<T, SettlementError> + Sync,
) -> Result<Vec<T>, SettlementError> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return Ok(done);
            }
            match one(at) {
                Ok(result) => done.push((at, result)),
                Err(error) => {
                    next.store(count, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
    };
    let workers = thread::available_parallelism().map_or(1, NonZero::get).min(MAX_WORKERS).min(count);
    let mut done = thread::scope(|scope| {
        let others: Vec<_> = (1..workers).map(|_| scope.spawn(work)).collect();
        let mut all: Result<Vec<(usize, T)>, SettlementError> = work();
        for other in others {
            let more = other.join().unwrap_or(Err(SettlementError::Broken));
            all = all.and_then(|mut all| {
                all.extend(more?);
                Ok(all)
            });
        }
        all
    })?;
    done.sort_by_key(|(at, _)| *at);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test should say where")]

    use super::*;

    #[test]
    fn results_come_in_order_and_an_error_ends_it() {
        for count in [0, 1, 2, 9, 100] {
            let expected: Vec<usize> = (0..count).map(|at| at * at).collect();
            assert_eq!(side_by_side(count, |at| Ok(at * at)).unwrap(), expected);
        }
        let failed: Result<Vec<usize>, _> =
            side_by_side(100, |at| if at == 7 { Err(SettlementError::NothingDue(7)) } else { Ok(at) });
        assert!(matches!(failed, Err(SettlementError::NothingDue(7))));
    }
}

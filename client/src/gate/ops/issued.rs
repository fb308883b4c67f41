//! Which demands this gate made: the references of their payments, so that a credit can be told from one that was never
//! meant for the gate.
//!
//! A challenge is stateless, and a reference says nothing of its challenge. A payee's credits may come from anywhere: other
//! gates, invoices, people who pay by hand. Only what answers a demand that this gate remembers is the gate's to give back
//! by itself; whatever is forgotten here is kept, never refunded. So the memory may be bounded, and written behind.
//!
//! # Files
//! `issued.log` and `issued.old`: the first 16 bytes of SHA-256 of each reference, one behind the other. When the first is
//! full it takes the second's place. They are not synced: after a power cut the last ones may be missing.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use foldhash::fast::RandomState;
use weir_protocol::hash::sha256;
use weir_protocol::id::Reference;

/// Bytes that a reference is remembered by.
const NAME_BYTES: usize = 16;
/// Most references of one generation; two are kept, of which the older is forgotten when the younger is full. About 9 MB
/// each.
pub const MAX_GENERATION: usize = 458_752;

const YOUNG: &str = "issued.log";
const OLD: &str = "issued.old";

type Name = [u8; NAME_BYTES];
type Generation = HashSet<Name, RandomState>;

/// The references of demands that were made.
#[derive(Debug)]
pub struct Issued {
    directory: PathBuf,
    most: usize,
    state: Mutex<State>,
    /// Held while files are written, so that two writers keep their order.
    file: Mutex<File>,
}

#[derive(Debug, Default)]
struct State {
    young: Generation,
    old: Generation,
    /// Not written yet.
    pending: Vec<Name>,
    /// Whether the younger generation began since the last write: its file must be new.
    turned: bool,
}

impl Issued {
    /// Reads what an earlier process wrote in this folder.
    pub fn open(directory: &Path) -> io::Result<Self> {
        Self::with_most(directory, MAX_GENERATION)
    }

    fn with_most(directory: &Path, most: usize) -> io::Result<Self> {
        let young = read(&directory.join(YOUNG), most)?;
        let old = read(&directory.join(OLD), most)?;
        let file = Mutex::new(append(&directory.join(YOUNG))?);
        // A torn tail must not shift what follows it.
        let length = young.len() * NAME_BYTES;
        let whole = file.lock().unwrap_or_else(PoisonError::into_inner);
        whole.set_len(length as u64)?;
        drop(whole);
        let young = young.into_iter().collect();
        let state = State { young, old: old.into_iter().collect(), ..State::default() };
        Ok(Self { directory: directory.to_owned(), most, state: Mutex::new(state), file })
    }

    /// Remembers a demand. In memory; [`Self::flush`] writes it.
    pub fn remember(&self, reference: &Reference) {
        let name = name(reference);
        let mut state = self.lock();
        if state.young.len() >= self.most {
            state.old = std::mem::take(&mut state.young);
            // What was not written of the older generation is lost with a crash: nothing is refunded for it then.
            state.pending.clear();
            state.turned = true;
        }
        if state.young.insert(name) {
            state.pending.push(name);
        }
    }

    /// Whether a payment answers a demand that is remembered.
    pub fn contains(&self, reference: &Reference) -> bool {
        let name = name(reference);
        let state = self.lock();
        state.young.contains(&name) || state.old.contains(&name)
    }

    /// Writes what was remembered since. Blocking.
    pub fn flush(&self) -> io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (pending, turned) = {
            let mut state = self.lock();
            (std::mem::take(&mut state.pending), std::mem::take(&mut state.turned))
        };
        if turned {
            std::fs::rename(self.directory.join(YOUNG), self.directory.join(OLD))?;
            *file = append(&self.directory.join(YOUNG))?;
        }
        if pending.is_empty() {
            return Ok(());
        }
        file.write_all(pending.as_flattened())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name(reference: &Reference) -> Name {
    let hash = sha256(reference.as_bytes());
    let mut name = [0; NAME_BYTES];
    name.iter_mut().zip(hash.0).for_each(|(to, from)| *to = from);
    name
}

/// The whole names of a file, at most so many; none where there is no file.
fn read(path: &Path, most: usize) -> io::Result<Vec<Name>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take((most * NAME_BYTES) as u64).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    Ok(bytes.as_chunks::<NAME_BYTES>().0.to_vec())
}

fn append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;

    fn reference(number: u8) -> Reference {
        Reference([number; 32])
    }

    #[test]
    fn demand_is_remembered_across_a_restart_once_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let issued = Issued::open(folder.path()).unwrap();
        issued.remember(&reference(1));
        assert!(issued.contains(&reference(1)) && !issued.contains(&reference(2)));
        issued.flush().unwrap();
        issued.remember(&reference(2));
        drop(issued);
        let issued = Issued::open(folder.path()).unwrap();
        assert!(issued.contains(&reference(1)));
        assert!(!issued.contains(&reference(2)), "it was not written");
        assert!(!issued.contains(&reference(0)));
    }

    #[test]
    fn torn_and_zeroed_ends_of_the_file_change_nothing_before_and_after_them() {
        let folder = tempfile::tempdir().unwrap();
        let issued = Issued::open(folder.path()).unwrap();
        issued.remember(&reference(1));
        issued.flush().unwrap();
        drop(issued);
        let path = folder.path().join(YOUNG);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend([0; NAME_BYTES + 5]);
        std::fs::write(&path, bytes).unwrap();
        let issued = Issued::open(folder.path()).unwrap();
        issued.remember(&reference(2));
        issued.flush().unwrap();
        drop(issued);
        let issued = Issued::open(folder.path()).unwrap();
        assert!(issued.contains(&reference(1)) && issued.contains(&reference(2)));
        assert!(!issued.contains(&reference(0)), "zeros name no reference");
    }

    #[test]
    fn demands_beyond_two_generations_are_forgotten_in_memory_and_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let issued = Issued::with_most(folder.path(), 2).unwrap();
        for number in 1..=6 {
            issued.remember(&reference(number));
            issued.flush().unwrap();
        }
        let known = |issued: &Issued| (1..=7).filter(|number| issued.contains(&reference(*number))).collect::<Vec<_>>();
        assert_eq!(known(&issued), [3, 4, 5, 6]);
        issued.remember(&reference(7));
        issued.flush().unwrap();
        assert_eq!(known(&issued), [5, 6, 7]);
        drop(issued);
        assert_eq!(known(&Issued::with_most(folder.path(), 2).unwrap()), [5, 6, 7]);
    }
}

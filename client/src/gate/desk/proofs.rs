//! Credentials that were proven before: shown again, they cost a hash instead of a signature check.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use foldhash::fast::RandomState;
use weir_protocol::hash::{Hash, sha256};
use weir_protocol::http::Proven;

/// Most credentials of one generation; two are kept. About 250 bytes each.
const GENERATION: usize = 32 * 1024;

/// What a text proved.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) proven: Proven,
    pub(super) challenge_id: String,
    /// The key of the request that the text carries.
    pub(super) key: Option<String>,
}

type Generation = HashMap<Hash, Known, RandomState>;

/// Two generations: what was not asked for while one filled up is forgotten.
#[derive(Debug, Default)]
pub(super) struct Proofs(Mutex<(Generation, Generation)>);

impl Proofs {
    /// What a text proved before. Nothing that fails is kept, and the texts are the same to the last byte.
    pub(super) fn find(&self, name: &Hash) -> Option<Known> {
        let mut both = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (young, old) = &mut *both;
        if let Some(known) = young.get(name) {
            return Some(known.clone());
        }
        let known = old.remove(name)?;
        young.insert(*name, known.clone());
        Some(known)
    }

    pub(super) fn keep(&self, name: Hash, known: Known) {
        let mut both = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if both.0.len() >= GENERATION {
            both.1 = std::mem::take(&mut both.0);
        }
        both.0.insert(name, known);
    }

    /// The name of a text.
    pub(super) fn name(text: &str) -> Hash {
        sha256(text.as_bytes())
    }
}
